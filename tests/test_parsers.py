"""Readers of segment files on what is drawn at random: nothing is lost, and nothing but an
`InputError` is raised."""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_formats import NAMES, NASTY, WORDS, complaint, folder, key, segments, there_and_back

from tagspeech.formats import FORMATS, read, render
from tagspeech.formats.prefixes import MODES
from tagspeech.segments import Segment

__all__ = ["folder"]  # the fixture

WITHOUT_TIME = st.tuples(segments(NAMES), st.randoms(use_true_random=False))


@pytest.mark.parametrize("format", ["seglst", "stm", "rttm"])
@given(drawn=WITHOUT_TIME)
def test_segments_of_zero_duration_stay(
    format: str, drawn: tuple[list[Segment], random.Random], folder: Path
) -> None:
    rows = [replace(row, end=drawn[1].choice((row.start, row.end))) for row in drawn[0]]
    if format != "seglst":
        rows = [replace(row, gender="u") for row in rows]
    if format == "rttm":
        rows = [replace(row, words="") for row in rows]
    assert sorted(there_and_back(rows, format, folder), key=key) == sorted(rows, key=key)


@pytest.mark.parametrize("format", FORMATS)
@given(
    rows=segments(st.just("s")),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_any_encoding_reads_the_same(
    format: str, rows: list[Segment], encoding: str, end: str, folder: Path
) -> None:
    text = render(rows, format)
    if "\0" in text:
        return  # no text file has such a character, and without a mark it hides UTF-16
    one, other = folder / "one", folder / "other"
    one.write_bytes(text.encode())
    other.write_bytes(text.replace("\n", end).encode(encoding))
    assert read(one, format, "s") == read(other, format, "s")


LABELS = st.sampled_from(["<o,f0,male>", "<NA>", "<O>", "<,>", "<F0_M>", "<laughs>", "<", ">", ","])


@given(words=st.lists(LABELS | st.sampled_from(NASTY), max_size=4).map(" ".join))
def test_words_like_labels_stay_words(words: str, folder: Path) -> None:
    rows = [Segment("s", "A", 0, 1, words)]
    assert there_and_back(rows, "stm", folder) == rows


PROSE = st.lists(
    st.sampled_from(
        ["note", "Ann", "it", "is", "10:30", ":", "x:", "Kim:", "[x]", "[Kim]:", "(a)"]
    ),
    max_size=6,
).map(" ".join)


def tokens(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("format", ["srt", "vtt"])
@given(lines=st.lists(st.lists(PROSE, max_size=3), min_size=1, max_size=5))
def test_every_word_of_a_subtitle_is_a_word_or_a_name(
    mode: str, format: str, lines: list[list[str]], folder: Path
) -> None:
    cues = (
        f"00:00:0{n}.000 --> 00:00:0{n}.500\n" + "\n\n".join(own) + "\n\n"
        for n, own in enumerate(lines)
    )
    path = folder / f"prose.{format}"
    path.write_text(("WEBVTT\n\n" if format == "vtt" else "") + "".join(cues))
    rows = read(path, subtitle_speakers=mode)
    found = " ".join(f"{'' if row.speaker == '?' else row.speaker} {row.words}" for row in rows)
    assert tokens(found) == tokens(" ".join(word for own in lines for word in own))
    assert len({row.start for row in rows}) == len(lines)
    if mode == "none":
        assert {row.speaker for row in rows} == {"?"}


KEYS = (
    *(("start_time", "Start", "start", "Start time", "start_s"),),
    *(("end_time", "End", "end", "End time", "end_s"),),
    *(("speaker", "Speaker", "Speaker ID", "speaker_id"), ("words", "Content", "text")),
)


@given(
    rows=segments(st.just("s")),
    keys=st.tuples(*map(st.sampled_from, KEYS)),
    wrapped=st.booleans(),
    by_line=st.booleans(),
)
def test_keys_of_other_tools(
    rows: list[Segment], keys: tuple[str, ...], wrapped: bool, by_line: bool, folder: Path
) -> None:
    named = [
        dict(zip(keys, (row.start, row.end, row.speaker, row.words), strict=True)) for row in rows
    ]
    path = folder / ("s.jsonl" if by_line else "s.json")
    if by_line:
        path.write_text("".join(json.dumps(row) + "\n" for row in named))
    else:
        path.write_text(json.dumps({"a": {"segments": named}} if wrapped else named))
    bare = [replace(row, gender="u") for row in rows]
    assert sorted(read(path), key=key) == sorted(bare, key=key)


FIELDS = st.lists(
    st.sampled_from(["SPEAKER", "s", "1", "0", "0.5", "2", "<NA>", "A", "x y", "speaker_0", "-1"]),
    max_size=11,
).map(" ".join)


@pytest.mark.parametrize("format", ["rttm", "stm", "ctm"])
@given(lines=st.lists(FIELDS, max_size=4))
def test_every_line_is_a_segment_or_an_error(format: str, lines: list[str], folder: Path) -> None:
    path = folder / "lines"
    error = complaint(path, format, "\n".join(lines))
    if error is None:
        assert len(read(path, format)) == sum(bool(line) for line in lines)
    else:
        assert error.startswith(f"{path}, line ")


@given(name=st.text(), words=WORDS)
def test_spellings_of_a_name_are_equal(name: str, words: str) -> None:
    one, other = (
        Segment(spelt, spelt, 0, 1, words)
        for spelt in (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    )
    assert one == other
