"""Segments to target text and back."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagspeech.segments import GENDERS, Segment, by_time
from tagspeech.serialize import END, UNKNOWN_SPEAKER, parse_target, to_target

NASTY = [
    *("<text>", "</text>", "<speaker>", "</speaker>", "<spk", "<|im_start|>", "<|AUDIO|>"),
    *("1.00-2.00>", "0.00-1.00>a", 't="0.00-1.00"/>', "/>", ">", "<", "&", "&amp;", "-", "-1"),
    *('"', "'", ",", "5", "\u200b", "\x07", "好的", "don't"),
]


def _collapsed(words: str) -> str:
    return " ".join(words.split())


WORDS = st.one_of(
    st.lists(st.sampled_from(NASTY), max_size=4).map(" ".join),
    st.text(max_size=12).map(_collapsed),
)


@st.composite
def segment(draw: st.DrawFn) -> Segment:
    """Times of two decimals, from so few that ranges are often equal or nearly so."""
    start = draw(st.integers(0, 5) | st.integers(0, 100_000))
    long = draw(st.integers(1, 4) | st.integers(1, 10_000))
    speaker = draw(st.sampled_from(["A", "B", "spk 3", "?", '"/>']) | st.text(max_size=4))
    gender = draw(st.sampled_from(GENDERS))
    return Segment("s", speaker, start / 100, (start + long) / 100, draw(WORDS), gender)


SEGMENTS = st.lists(segment(), max_size=8)


def expected(segments: list[Segment]) -> list[Segment]:
    """Sorted, numbered by first appearance, with each speaker's first known gender."""
    rows = by_time(segments)
    numbers: dict[str, int] = {}
    genders: dict[str, str] = {}
    for row in rows:
        numbers.setdefault(row.speaker, len(numbers) + 1)
    rows.sort(key=lambda row: (row.start, row.end, numbers[row.speaker]))
    for row in rows:
        if genders.get(row.speaker, "u") == "u":
            genders[row.speaker] = row.gender
    return [
        replace(row, speaker=str(numbers[row.speaker]), gender=genders[row.speaker]) for row in rows
    ]


@given(SEGMENTS)
def test_round_trip(segments: list[Segment]) -> None:
    parsed = parse_target(to_target(segments), "s")
    assert parsed.segments == expected(segments)
    assert parsed.problems == []
    assert not parsed.malformed


@given(SEGMENTS, st.data())
def test_a_cut_keeps_what_was_whole(segments: list[Segment], data: st.DataObject) -> None:
    target = to_target(segments)
    cut = target[: data.draw(st.integers(0, len(target) - 1), "cut")]
    parsed = parse_target(cut, "s")
    assert parsed.malformed
    text, *speakers = cut.split("</text>\n<speaker>\n")[0], *cut.split("\n</text>\n<speaker>\n")[1:]
    whole = expected(segments)[: len(text.split("\n")[1:-1])]
    got = {(row.start, row.end, row.words) for row in parsed.segments}
    assert {(row.start, row.end, row.words) for row in whole} <= got
    if speakers:
        last = len(speakers[-1].split("\n")) - 1
        owned = {row for row in expected(segments) if int(row.speaker) <= last}
        assert owned <= set(parsed.segments)


@given(st.text())
def test_no_string_makes_it_raise(text: str) -> None:
    parse_target(text, "s")


@given(SEGMENTS, st.data())
def test_no_mutation_makes_it_raise(segments: list[Segment], data: st.DataObject) -> None:
    text = to_target(segments)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 6)))
        new = data.draw(st.sampled_from([*NASTY, "\n", "", ".", "-", text]) | st.text(max_size=3))
        text = text[:start] + new + text[end:]
    parsed = parse_target(text, "s")
    assert parsed.segments == by_time(parsed.segments)


def target(text: list[str], speakers: list[str]) -> str:
    return "\n".join(["<text>", *text, "</text>", "<speaker>", *speakers, "</speaker>"])


def spk(number: int, gender: str, *ranges: str) -> str:
    return f'<spk id="{number}" g="{gender}" t="{",".join(ranges)}"/>'


def rows(parsed: Any) -> list[tuple[str, float, float, str]]:
    return [(row.speaker, row.start, row.end, row.words) for row in parsed.segments]


def test_the_target_text() -> None:
    segments = [
        Segment("s", "B", 2.9, 5.205, "words"),
        Segment("s", "A", 0.345, 3.14, "r & d", "u"),
        Segment("s", "A", 5.3, 8.949, "", "m"),
        Segment("s", "B", 9.0, 9.001, "x", "f"),
    ]
    assert to_target(segments) == target(
        ["0.35-3.14>r & d", "2.90-5.21>words", "5.30-8.95>", "9.00-9.01>x"],
        [spk(1, "m", "0.35-3.14", "5.30-8.95"), spk(2, "f", "2.90-5.21", "9.00-9.01")],
    )
    assert to_target([]) == "<text>\n</text>\n<speaker>\n</speaker>"


def test_a_coarser_grid() -> None:
    segments = [Segment("s", "A", 0.07, 0.11, "a"), Segment("s", "B", 0.09, 1.0, "b")]
    assert "\n0.08-0.16>a\n0.08-1.04>b\n" in to_target(segments, time_grid=0.08)
    for grid in (0.0, -0.01, 0.005, 0.015):
        with pytest.raises(ValueError, match="positive multiple"):
            to_target(segments, grid)


def test_one_session_at_a_time() -> None:
    with pytest.raises(ValueError, match="one session"):
        to_target([Segment("s", "A", 0, 1, ""), Segment("t", "A", 0, 1, "")])


def test_equal_ranges_pair_in_order_whatever_the_order_of_the_list() -> None:
    segments = [
        Segment("s", "A", 1, 2, "a", "f"),
        Segment("s", "B", 1, 2, "b", "m"),
        Segment("s", "B", 0, 0.5, "first", "m"),
    ]
    parsed = parse_target(to_target(segments), "s")
    assert rows(parsed) == [("1", 0, 0.5, "first"), ("1", 1, 2, "b"), ("2", 1, 2, "a")]


def test_a_bad_number_loses_one_line() -> None:
    text = target(
        ["0.00-1.00>a", "1.00-x.00>bad", "-2.00-3.00>neg", "4.00-4.00>zero", "5.00-6.00>b"],
        [spk(1, "m", "0.00-1.00", "1..0-2.00", "5.00-6.00")],
    )
    parsed = parse_target(text, "s")
    assert rows(parsed) == [("1", 0, 1, "a"), ("1", 5, 6, "b")]
    assert len(parsed.problems) == 4
    for quoted in ("1.00-x.00>bad", "-2.00-3.00>neg", "4.00-4.00>zero", "1..0-2.00"):
        assert any(quoted in problem for problem in parsed.problems)


def test_blocks_that_disagree() -> None:
    text = target(
        ["0.00-1.00>a", "2.00-3.00>b", "7.00-8.00>nobody's"],
        [spk(1, "m", "0.00-1.01", "5.00-6.00"), spk(2, "f", "2.04-2.98")],
    )
    parsed = parse_target(text, "s")
    assert rows(parsed) == [
        ("1", 0, 1.01, "a"),
        ("2", 2.04, 2.98, "b"),
        ("1", 5, 6, ""),
        (UNKNOWN_SPEAKER, 7, 8, "nobody's"),
    ]
    assert parsed.problems == [
        "0.00-1.00 in the text block is 0.00-1.01 in the speaker block",
        "2.00-3.00 in the text block is 2.04-2.98 in the speaker block",
        "7.00-8.00 has no speaker",
        "5.00-6.00 of speaker 1 has no line of text",
    ]


def test_an_exact_range_comes_before_a_near_one() -> None:
    text = target(
        ["0.00-1.00>near", "0.00-1.01>exact"],
        [spk(1, "m", "0.00-1.01"), spk(2, "f", "0.00-1.02")],
    )
    assert rows(parse_target(text, "s")) == [("1", 0, 1.01, "exact"), ("2", 0, 1.02, "near")]


def test_repetitions() -> None:
    text = target(["0.00-1.00>a"] * 3, [spk(1, "m", "0.00-1.00"), spk(2, "f", "0.00-1.00")])
    parsed = parse_target(text, "s")
    assert rows(parsed) == [("1", 0, 1, "a"), ("2", 0, 1, "a")]
    assert parsed.problems == ["0.00-1.00 is repeated: 'a'"]
    looped = parse_target("<text>\n" + "0.00-1.00>a\n" * 50, "s")
    assert rows(looped) == [(UNKNOWN_SPEAKER, 0, 1, "a")]
    assert len(looped.problems) == 49 + 2
    ranges = parse_target(target(["0.00-1.00>a"], [spk(1, "m", *["0.00-1.00"] * 3)]), "s")
    assert rows(ranges) == [("1", 0, 1, "a")]
    assert len(ranges.problems) == 2


def test_a_range_cut_off_in_its_number_is_not_believed() -> None:
    head = '<text>\n0.00-1.00>a\n5.00-16.14>b\n</text>\n<speaker>\n<spk id="1" g="m" t="0.00-1.00,'
    cut = parse_target(head + "5.00-16.1", "s")
    assert rows(cut) == [("1", 0, 1, "a"), (UNKNOWN_SPEAKER, 5, 16.14, "b")]
    assert rows(parse_target(head + "5.00-16.14", "s"))[1] == ("1", 5, 16.14, "b")


@pytest.mark.parametrize("count", [1500, 4000])
def test_thousands_of_lines_take_seconds(count: int) -> None:
    """All ranges overlap and none are equal; beyond a limit, the problem says so."""
    lines = [f"{i / 100:.2f}-{60 + i / 100:.2f}>word{i}" for i in range(count)]
    ranges = [f"{i / 100:.2f}-{60.5 + i / 100:.2f}" for i in range(count)]
    speakers = [f'<spk id="{i}" g="m" t="{times}"/>' for i, times in enumerate(ranges)]
    text = "\n".join(["<text>", *lines, "</text>", "<speaker>", *speakers, END])
    begun = time.process_time()
    parsed = parse_target(text, "s")
    assert time.process_time() - begun < 20
    assert {word for one in parsed.segments for word in one.words.split()} == {
        line.partition(">")[2] for line in lines
    }
    if count == 4000:
        said = "4000 lines and 4000 ranges are too many to pair by similar times"
        assert said in parsed.problems
    else:
        assert len(parsed.segments) == count
