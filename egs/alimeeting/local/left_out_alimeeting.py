#!/usr/bin/env python3
"""Which segments of AliMeeting's annotation are not in the manifests of stage 1, and why.

Usage: left_out_alimeeting.py CORPUS MANIFESTS OUTPUT

Lhotse leaves out a whole meeting if a tier of its TextGrid overlaps itself, and what lies behind
the end of the audio.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from tagspeech.corpus.rejections import AnnotatedSpeech, write_left_out
from tagspeech.errors import InputError
from tagspeech.files import read_text
from tagspeech.formats.textgrid import parse

PARTS = {"train": "Train", "dev": "Eval", "test": "Test"}


def read_spoken(corpus: Path) -> Iterator[AnnotatedSpeech]:
    """All labelled intervals of the far-field part; one without times for a broken TextGrid."""
    for split, part in PARTS.items():
        grids = f"{part}_Ali_far/textgrid_dir/*.TextGrid"
        for path in sorted([*corpus.glob(grids), *corpus.glob(f"{part}_Ali/{grids}")]):
            try:
                segments = parse(read_text(path), str(path), path.stem)
            except InputError:
                yield AnnotatedSpeech(split, path.stem, "", path.stem, None, "")
                continue
            for number, one in enumerate(segments):
                speaker = one.speaker.split("_")[-1].removeprefix("SPK")
                name, times = f"{path.stem}-{speaker}-{number}", (one.start, one.end)
                yield AnnotatedSpeech(split, path.stem, speaker, name, times, one.words)


if __name__ == "__main__":
    try:
        write_left_out(
            read_spoken(Path(sys.argv[1])),
            Path(sys.argv[2]),
            Path(sys.argv[3]),
            missing="its TextGrid is invalid to Lhotse",
        )
    except InputError as error:
        sys.exit(f"left_out_alimeeting.py: {error}")
