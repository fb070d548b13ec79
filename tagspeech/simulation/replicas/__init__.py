"""Replicas: small corpora of simulated speech in exactly the layout of published ones.

A recipe for a published corpus is proven on its replica: Lhotse's preparer reads both alike. A
replica has the known faults of such corpora too, one in each of some training meetings (`Plan`).

    tagspeech simulate --layout ami --output DIR
"""

from __future__ import annotations

import logging
from pathlib import Path

from tqdm import tqdm

from tagspeech.errors import InputError
from tagspeech.files import read_json, write_json
from tagspeech.simulation.replicas import alimeeting, ami
from tagspeech.simulation.replicas.meeting import REVISION

log = logging.getLogger(__name__)

REPLICAS = {"ami": ami, "alimeeting": alimeeting}
PARAMETERS = "replica.json"  # written last: what the replica beside it was made with


def simulate_replica(
    layout: str, output: str | Path, *, minutes: float = 2.0, seed: int = 1
) -> None:
    """Writes the replica `layout` to `output`, meetings of `minutes` or a little more.

    The same seed gives the same bytes. What is there already is not made again; a replica with
    other parameters is replaced file by file. Raises `InputError` for wrong parameters, or where
    `output` cannot be written.
    """
    if layout not in REPLICAS:
        raise InputError(f"simulate: layout is {layout}, wants one of {', '.join(REPLICAS)}")
    if not 0 < minutes < float("inf"):
        raise InputError(f"simulate: minutes is {minutes}, wants more than 0")
    if seed < 0:
        raise InputError(f"simulate: seed is {seed}, wants 0 or more")
    output = Path(output)
    made_with = {"revision": REVISION, "layout": layout, "minutes": minutes, "seed": seed}
    parameters = output / PARAMETERS
    if parameters.exists() and read_json(parameters) == made_with:
        log.info("%s: is there already", output)
        return
    parameters.unlink(missing_ok=True)
    REPLICAS[layout].write_corpus(
        output, tqdm(REPLICAS[layout].MEETINGS, desc=layout, unit="meeting"), minutes, seed
    )
    write_json(parameters, made_with)
