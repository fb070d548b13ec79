"""Assigns whole recordings to the splits train, dev and test."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from pathlib import Path

from tagspeech.corpus.layouts import RecordingSource, refuse
from tagspeech.errors import InputError
from tagspeech.files import read_text
from tagspeech.segments import composed

log = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")


def by_folder(audio: Mapping[str, RecordingSource]) -> dict[str, str]:
    """The split of a recording is its folder. Raises `InputError` for other folders."""
    refuse(
        f"recordings are in none of the folders {', '.join(SPLITS)}",
        [source.source for source in audio.values() if source.folder not in SPLITS],
        "move them, or split by lists or shares",
    )
    return {name: source.folder for name, source in audio.items()}


def by_lists(audio: Mapping[str, RecordingSource], folder: Path) -> dict[str, str]:
    """`train.txt`, `dev.txt` and `test.txt` in `folder` name recordings, one per line.

    Recordings in no list are left out.

    Raises:
        InputError: A name has no recording or is in two lists.
    """
    splits: dict[str, str] = {}
    for split in SPLITS:
        path = folder / f"{split}.txt"
        names = [composed(line.strip()) for line in read_text(path).split("\n") if line.strip()]
        refuse(
            f"names in {path} are not names of recordings",
            [name for name in names if name not in audio],
            "the name of a recording is that of its file without folder and extension",
        )
        refuse(
            f"names in {path} are in another list too",
            [name for name in names if name in splits],
            "leave each in one",
        )
        splits.update(dict.fromkeys(names, split))
    if len(splits) < len(audio):
        log.warning("%d recordings are in no list and left out", len(audio) - len(splits))
    return splits


def by_shares(
    audio: Mapping[str, RecordingSource], shares: tuple[float, ...], seed: int
) -> dict[str, str]:
    """Draws shares of the number of recordings with `seed`, at least one recording per split.

    Raises:
        InputError: `shares` are not three that add up to 1, or there are too few recordings.
    """
    is_usable = all(share > 0 for share in shares) and abs(sum(shares) - 1) <= 1e-6
    if len(shares) != len(SPLITS) or not is_usable:  # nan too
        raise InputError(f"shares must be three above 0 that add up to 1, got {shares}")
    if len(audio) < len(SPLITS):
        raise InputError(f"{len(audio)} recordings are too few for {', '.join(SPLITS)}")
    names = sorted(audio)
    random.Random(seed).shuffle(names)
    dev, test = (max(1, round(share * len(names))) for share in shares[1:])
    train = max(1, len(names) - dev - test)
    dev = min(dev, len(names) - train - 1)
    parts = ("train",) * train + ("dev",) * dev + ("test",) * (len(names) - train - dev)
    return dict(zip(names, parts, strict=True))
