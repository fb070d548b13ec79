#!/usr/bin/env python3
"""Removes marks from the manifests of stage 1, and lists the segments that they lack, and why.

Usage: left_out_alimeeting.py CORPUS MANIFESTS OUTPUT

A mark in a label, such as <sil> or <%>, is not a word. A label with only <sil> is silence, not a
segment; one with only other marks is a segment without words. Lhotse leaves out a whole meeting if
a tier of its TextGrid overlaps itself, and segments after the end of the audio.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lhotse import SupervisionSet

from tagspeech.corpus.manifests import read_manifest, write_manifest
from tagspeech.corpus.rejections import AnnotatedSpeech, write_left_out
from tagspeech.errors import InputError
from tagspeech.formats import read

PARTS = {"train": "Train", "dev": "Eval", "test": "Test"}
MARK = re.compile("<[^<>]*>")
SILENCE = "<sil>"


def without_marks(label: str) -> str:
    """The words of a label."""
    return " ".join(MARK.sub(" ", label).split())


def remove_marks(path: Path) -> None:
    """Rewrites a manifest of supervisions without marks and silence."""
    write_manifest(
        path,
        SupervisionSet.from_segments(
            replace(segment, text=without_marks(segment.text))
            for segment in read_manifest(path)
            if SILENCE not in segment.text or segment.text.replace(SILENCE, "").strip()
        ),
    )


def read_spoken(corpus: Path) -> Iterator[AnnotatedSpeech]:
    """All labelled intervals of the far-field part; a row without times for a broken TextGrid."""
    for split, part in PARTS.items():
        grids = f"{part}_Ali_far/textgrid_dir/*.TextGrid"
        for path in sorted([*corpus.glob(grids), *corpus.glob(f"{part}_Ali/{grids}")]):
            try:
                segments = read(path, "textgrid", path.stem)
            except InputError:
                yield AnnotatedSpeech(split, path.stem, "", path.stem, None, "")
                continue
            for number, segment in enumerate(segments):
                speaker = segment.speaker.split("_")[-1].removeprefix("SPK")
                name, times = f"{path.stem}-{speaker}-{number}", (segment.start, segment.end)
                words = without_marks(segment.words)
                yield AnnotatedSpeech(split, path.stem, speaker, name, times, words)


if __name__ == "__main__":
    try:
        for split in PARTS:
            remove_marks(Path(sys.argv[2]) / f"{split}_supervisions.jsonl.gz")
        write_left_out(
            read_spoken(Path(sys.argv[1])),
            Path(sys.argv[2]),
            Path(sys.argv[3]),
            missing="its TextGrid is invalid to Lhotse",
        )
    except InputError as error:
        sys.exit(f"left_out_alimeeting.py: {error}")
