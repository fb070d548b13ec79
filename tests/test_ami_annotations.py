"""Stages 0 to 2 of the recipe ami on the real annotations, over silent audio of the right length.

Takes all meetings of the test set and a few others; with TAGSPEECH_ALL_MEETINGS=1 all 171.
"""

from __future__ import annotations

import json
import os
import re
import struct
import tarfile
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from lhotse.recipes.ami import PARTITIONS
from test_recipes import drive

from tagspeech.data.batches import read_groups

RATE = 16000
ALL = os.environ.get("TAGSPEECH_ALL_MEETINGS") == "1"
SPLITS = {split: set(names) for split, names in PARTITIONS["full-corpus-asr"].items()}
STEREO = "ES2010d"  # so it is in the published corpus
# A word that ends before it starts; words without duration; words without times; a stereo file.
SOME = {"EN2006a", "TS3006d", "ES2008a", STEREO}
MEETINGS = set.union(*SPLITS.values()) if ALL else {*SOME, "ES2011a", *SPLITS["test"]}

# Groups, their hours; and those of 0.5-30 s in train, of 0.5-80 s elsewhere, as the paper has them.
ALL_FIGURES = {
    "train": (27325, 66.04, 22335, 44.44),
    "dev": (3887, 7.59, 3395, 7.38),
    "test": (3065, 7.29, 2607, 6.92),
}
SOME_FIGURES = {"train": (1269, 1.76, 1110, 1.6), "dev": (94, 0.23, 86, 0.23)}
FIGURES = ALL_FIGURES if ALL else {**ALL_FIGURES, **SOME_FIGURES}
ALL_REJECTED = {
    "it has no words": 9747,
    "it has zero duration": 7,
    "it has no times": 2,
    "it ends before it starts": 1,
}
SOME_REJECTED = {
    "it has no words": 1086,
    "it has zero duration": 2,
    "it has no times": 1,
    "it ends before it starts": 1,
}


def write_silence(path: Path, seconds: float, channels: int) -> None:
    """A sparse WAV file of 16 bit: a header and a hole."""
    size = int(seconds * RATE) * 2 * channels
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE"))
        rates = (RATE, RATE * 2 * channels, 2 * channels, 16)
        file.write(struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, *rates))
        file.write(struct.pack("<4sI", b"data", size))
        file.truncate(44 + size)


def write_corpus(corpus: Path, archive: Path) -> None:
    """The annotations of `MEETINGS`, and silence until a second after the last word or segment."""
    ends: defaultdict[str, float] = defaultdict(float)
    with tarfile.open(archive) as tar:
        for member in tar:
            meeting = Path(member.name).name.split(".")[0]
            if not member.isfile() or meeting not in {*MEETINGS, "meetings"}:
                continue
            tar.extract(member, corpus, filter="data")
            text = (corpus / member.name).read_text(encoding="latin1")
            times = re.findall(r'(?:endtime|transcriber_end)="([0-9.]+)"', text)
            ends[meeting] = max(ends[meeting], *map(float, times or "0"))
    for meeting in MEETINGS:
        path = corpus / f"wav_db/{meeting}/audio/{meeting}.Array1-01.wav"
        write_silence(path, ends[meeting] + 1, channels=1 + (meeting == STEREO))


def test_groups_of_real_meetings(root: Path, tmp_path: Path, shared: Path) -> None:
    archive = shared / "data/ami_annotations.tar.xz"
    if not archive.exists():
        pytest.skip(f"{archive} is absent: no real annotations of AMI")
    write_corpus(tmp_path / "ami", archive)
    said = drive(root, "ami", tmp_path, "--corpus-dir", tmp_path / "ami")
    assert f"{STEREO}.Array1-01.wav: has 2 channels: the first of them is taken" in said
    for split, figures in FIGURES.items():
        groups = list(read_groups(tmp_path / f"data/groups/{split}.jsonl.gz"))
        longest = 30.0 if split == "train" else 80.0
        within = [cut.duration for cut in groups if 0.5 <= cut.duration <= longest]
        hours = [round(sum(each) / 3600, 2) for each in ([c.duration for c in groups], within)]
        assert (len(groups), hours[0], len(within), hours[1]) == figures, split
        assert {cut.recording_id for cut in groups} == MEETINGS & SPLITS[split]
    longest_test = max(cut.duration for cut in groups)
    assert longest_test == pytest.approx(190.44)
    lines = (tmp_path / "data/rejected.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert Counter(row["reason"] for row in rows) == (ALL_REJECTED if ALL else SOME_REJECTED)
    assert {row["seconds"] for row in rows} == {0.0}  # nothing that was said at some time is lost
