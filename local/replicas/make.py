#!/usr/bin/env python3
"""Makes a replica: a small corpus of simulated speech in exactly the layout of a published one.

    local/replicas/make.py --layout ami --output replica --minutes 2

Lhotse's preparer reads a replica as it reads the published corpus, so a recipe can be tested
without the corpus. Some training meetings of a replica have one of the faults that are known from
published corpora (see `Plan`).
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import alimeeting
import ami
from meeting import REVISION
from tqdm import tqdm

from tagspeech.errors import InputError
from tagspeech.files import read_json, write_json

log = logging.getLogger(__name__)

REPLICAS = {"ami": ami, "alimeeting": alimeeting}
PARAMETERS = "replica.json"  # the parameters of the replica; written last


def make_replica(layout: str, output: Path, *, minutes: float = 2.0, seed: int = 1) -> None:
    """Writes the replica `layout` to `output`. The same seed gives the same bytes.

    A complete replica with the same parameters is kept; one with other parameters is replaced file
    by file.

    Args:
        layout: "ami" or "alimeeting".
        output: Folder of the corpus.
        minutes: Minimum duration of each meeting.
        seed: Seed of everything that is drawn.

    Raises:
        InputError: A parameter is out of range, or `output` cannot be written.
    """
    if not 0 < minutes < float("inf"):
        raise InputError(f"minutes must be more than 0, got {minutes}")
    if seed < 0:
        raise InputError(f"seed must be 0 or more, got {seed}")
    made_with = {"revision": REVISION, "layout": layout, "minutes": minutes, "seed": seed}
    parameters = output / PARAMETERS
    if parameters.exists() and read_json(parameters) == made_with:
        log.info("%s: already complete", output)
        return
    parameters.unlink(missing_ok=True)
    replica = REPLICAS[layout]
    replica.write_corpus(output, tqdm(replica.MEETINGS, layout, unit="meeting"), minutes, seed)
    write_json(parameters, made_with)


def main() -> int:
    """Returns 0, or 2 after an error that the user can mend."""
    parser = argparse.ArgumentParser(prog="local/replicas/make.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--layout", choices=REPLICAS, required=True, help="of a published corpus")
    parser.add_argument("--output", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--minutes", type=float, default=2.0, help="of each meeting (default: 2)")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        make_replica(args.layout, args.output, minutes=args.minutes, seed=args.seed)
    except InputError as error:
        print(f"make.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
