"""Assignment of recordings to train, dev and test."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpora import noise, take
from hypothesis import given, settings
from hypothesis import strategies as st

from tagspeech.corpus.layouts import RecordingSource
from tagspeech.corpus.splits import SPLITS, by_shares
from tagspeech.errors import InputError


@settings(max_examples=60)
@given(st.integers(3, 200), st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 9))
def test_shares_keep_recordings_whole(count: int, parts: tuple[int, int], seed: int) -> None:
    dev, test = (part / 20 for part in parts)
    shares = (1 - dev - test, dev, test)
    audio = {f"meeting{number}": RecordingSource("") for number in range(count)}
    splits = by_shares(audio, shares, seed)
    assert splits.keys() == audio.keys()
    backwards = dict(reversed(list(audio.items())))
    assert by_shares(backwards, shares, seed) == splits
    for split, share in zip(SPLITS, shares, strict=True):
        number = list(splits.values()).count(split)
        assert number >= 1
        assert abs(number - share * count) <= 2


def test_seed_changes_the_split() -> None:
    audio = {str(number): RecordingSource("") for number in range(50)}
    assert by_shares(audio, (0.8, 0.1, 0.1), 1) != by_shares(audio, (0.8, 0.1, 0.1), 2)


def test_lists_choose_and_leave_out(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    noise(small / "audio/d.wav")  # in no list, so it needs no segments
    for split, name in (("train", "c"), ("dev", "a"), ("test", "b")):
        (small / f"{split}.txt").write_text(f"{name}\n\n")
    found = take(small, split_by="lists", lists=small)
    assert [found[split][0].recording_id for split in SPLITS] == ["c", "a", "b"]
    assert "1 recordings are in no list and left out" in caplog.text
    (small / "dev.txt").write_text("a\nb\nnobody\nnothing\n")
    with pytest.raises(InputError, match=r"2 names in .*dev\.txt are not names of recordings"):
        take(small, split_by="lists", lists=small)
    (small / "dev.txt").write_text("a\nb\nc\n")
    with pytest.raises(InputError, match=r"1 names in .*dev\.txt are in another list too .*: c\)"):
        take(small, split_by="lists", lists=small)
