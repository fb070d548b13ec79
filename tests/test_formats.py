"""Segments to files of other tools and back: property tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagspeech.errors import InputError
from tagspeech.files import read_text
from tagspeech.formats import EXTENSIONS, FORMATS, read, render, write
from tagspeech.segments import GENDERS, Segment
from tagspeech.serialize import UNKNOWN_SPEAKER

TWO = [
    Segment("talk", "2", 2.9, 5.205, 'r & d costs < 5 > 3 "x"', "f"),
    Segment("talk", "1", 0.35, 3.14, "我们 okay", "m"),
    Segment("talk", "1", 3661.5, 3662.0, "", "m"),
]

NASTY = [
    *("<v 1>", "&amp;", "<b>", "-->", ":", "a: b", '"', '""', "%20", "50%", "%", ";;", ";", "!"),
    *("(2)", "A (2)", "00:00:00,000", "NOTE", "xmin", "item [1]:", "\u200b", "\x07", "好的", "{}"),
]
WORDS = st.one_of(
    st.lists(st.sampled_from(NASTY), max_size=4).map(" ".join),
    st.text(max_size=10).map(lambda text: " ".join(text.split())),
)
# Any string at all, white space of every kind at its edges, and names that clash as tiers.
NAMES = st.one_of(
    st.sampled_from(
        ["A", "A (2)", "A (2) (2)", "A (words)", " ", "a  b", " a ", "John Smith", ";x", "\n", "\r"]
    ),
    st.sampled_from(NASTY),
    st.text(min_size=1, max_size=6),
)


def segments(sessions: st.SearchStrategy[str]) -> st.SearchStrategy[list[Segment]]:
    """Lists of segments with times in whole milliseconds, often overlapping."""

    @st.composite
    def one(draw: st.DrawFn) -> Segment:
        start, long = (
            draw(st.integers(0, 9) | st.integers(0, 9_000_000)),
            draw(st.integers(1, 5000)),
        )
        return Segment(
            draw(sessions),
            draw(NAMES),
            start / 1000,
            (start + long) / 1000,
            draw(WORDS),
            draw(st.sampled_from(GENDERS)),
        )

    return st.lists(one(), max_size=6)


def key(segment: Segment) -> tuple[float, float, str, str, str, str]:
    """A total order: formats by session or tier may swap segments of equal range."""
    return (
        *(segment.start, segment.end, segment.session, segment.speaker, segment.words),
        segment.gender,
    )


def there_and_back(rows: list[Segment], format: str, folder: Path) -> list[Segment]:
    path = folder / f"s.{EXTENSIONS[format]}"
    write(rows, path)
    assert read_text(path) == render(rows, format)
    return read(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats")


@given(rows=segments(NAMES))
def test_seglst_keeps_everything(rows: list[Segment], folder: Path) -> None:
    assert sorted(there_and_back(rows, "seglst", folder), key=key) == sorted(rows, key=key)


@given(rows=segments(NAMES))
def test_rttm_keeps_all_but_words_and_gender(rows: list[Segment], folder: Path) -> None:
    bare = [replace(row, words="", gender="u") for row in rows]
    assert sorted(there_and_back(rows, "rttm", folder), key=key) == sorted(bare, key=key)


@given(rows=segments(NAMES))
def test_stm_keeps_all_but_gender(rows: list[Segment], folder: Path) -> None:
    bare = [replace(row, gender="u") for row in rows]
    assert sorted(there_and_back(rows, "stm", folder), key=key) == sorted(bare, key=key)


@given(rows=segments(NAMES))
def test_ctm_keeps_words_within_their_segments(rows: list[Segment], folder: Path) -> None:
    words = there_and_back(rows, "ctm", folder)
    spoken = sorted(word for row in rows for word in row.words.split())
    assert sorted(word.words for word in words) == spoken
    for word in words:
        assert word.speaker == UNKNOWN_SPEAKER
        assert any(
            row.session == word.session
            and word.words in row.words
            and row.start <= word.start
            and word.end <= row.end + 0.002  # a word lasts a millisecond at least
            for row in rows
        )


@pytest.mark.parametrize("format", ["srt", "vtt", "textgrid"])
@given(rows=segments(st.just("s")))
def test_formats_of_one_session(format: str, rows: list[Segment], folder: Path) -> None:
    bare = [replace(row, gender="u") for row in rows]
    assert sorted(there_and_back(rows, format, folder), key=key) == sorted(bare, key=key)


@pytest.mark.parametrize("format", FORMATS)
@given(rows=segments(st.just("s")))
def test_what_was_read_is_written_the_same(format: str, rows: list[Segment], folder: Path) -> None:
    if format != "ctm":  # read back, words are segments, and begin at their own times
        back = there_and_back(rows, format, folder)
        assert there_and_back(back, format, folder) == back


def complaint(path: Path, format: str, text: str) -> str | None:
    """The error that reading `text` raises; whatever is no `InputError` fails the test."""
    path.write_bytes(text.encode())
    try:
        read(path, format)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("format", FORMATS)
@given(text=st.text() | st.sampled_from(NASTY).map(lambda text: f"1\n{text}\n"))
def test_a_strange_file_is_read_or_refused(format: str, text: str, folder: Path) -> None:
    path = folder / "strange"
    error = complaint(path, format, text)
    assert error is None or (error.startswith(str(path)) and "\n" not in error)


@pytest.mark.parametrize("format", FORMATS)
def test_mutated_files_are_read_or_refused(format: str, tmp_path: Path) -> None:
    whole = render(TWO, format)
    path = tmp_path / "mutated"
    for place in range(0, len(whole), 5):
        for new in ("", "x", "\n", '"', "-", "9" * 5000):
            error = complaint(path, format, whole[:place] + new + whole[place + 1 :])
            assert error is None or error.startswith(str(path))


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_list(format: str, tmp_path: Path) -> None:
    assert there_and_back([], format, tmp_path) == []
