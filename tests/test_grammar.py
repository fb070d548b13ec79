"""What a decoder may write: every target text, no other, and never a dead end."""

from __future__ import annotations

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tagspeech.grammar import begin, is_target
from tagspeech.segments import Segment
from tagspeech.serialize import parse_target, to_target

TARGET = """<text>
0.00-1.21>uh no that's okay > sorry
0.96-12.12>
0.96-12.13>okay um </text>
</text>
<speaker>
<spk id="1" g="f" t="0.00-1.21,0.96-12.13"/>
<spk id="2" g="u" t="0.96-12.12"/>
</speaker>"""
SECONDS = 13.0

words = st.text(alphabet=string.ascii_lowercase + ' <>&"/=.-0123é字', max_size=12)
segments = st.lists(
    st.builds(
        lambda speaker, start, length, said, gender: Segment(
            "one", speaker, start / 100, (start + length) / 100, " ".join(said.split()), gender
        ),
        st.sampled_from("abc"),
        st.integers(0, 3000),
        st.integers(1, 900),
        words,
        st.sampled_from("mfu"),
    ),
    max_size=6,
    unique_by=lambda one: (one.start, one.end),
)


def test_every_prefix_of_an_example() -> None:
    for length in range(len(TARGET) + 1):
        state = begin(SECONDS).after(TARGET[:length])
        assert state is not None, TARGET[:length]
        assert state.whole is (length == len(TARGET))
    assert begin(SECONDS).after(TARGET + "\n") is None


@given(segments, st.integers(1, 9))
def test_every_target_in_pieces_of_any_size(said: list[Segment], size: int) -> None:
    target = to_target(said)
    state = begin(40)
    for place in range(0, len(target), size):
        ahead = state.after(target[place : place + size])
        assert ahead is not None, target[: place + size]
        assert ahead == begin(40).after(target[: place + size])
        state = ahead
    assert state.whole


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "<text>\n0.00-0.00",
        "<text>\n0.5-",
        "<text>\n01",
        "<text>\n13.0",  # nothing begins where the audio ends
        "<text>\n5.00-13.01",
        "<text>\n5.00-14",
        "<text>\n5.00-4.",
        "<text>\n5.00-4.9",
        "<text>\n5.00-6.00>so\n4.9",
        "<text>\n5.00-6.00>so\n5.00-6.00",
        "<text>\n5.00-13.00>so\n5.00",
        "<text>\n5.00-6.00\n",
        "<text>\n5.00-6.00>" + 61 * "o",
        "<text>\n0.00-1.00>so\n<speaker>",
        "<text>\n0.00-1.00>so\n</text>\n<speaker>\n</speaker>",
        '<text>\n0.00-1.00>so\n</text>\n<speaker>\n<spk id="2',
        '<text>\n0.00-1.00>so\n</text>\n<speaker>\n<spk id="1" g="x',
        '<text>\n0.00-1.00>so\n</text>\n<speaker>\n<spk id="1" g="m" t="0.00-1.10',
        '<text>\n0.00-1.00>a\n0.50-2.00>b\n</text>\n<speaker>\n<spk id="1" g="m" t="0.50',
        '<text>\n0.00-1.00>a\n</text>\n<speaker>\n<spk id="1" g="m" t="0.00-1.00,',
        '<text>\n0.00-1.00>\n0.50-2.00>\n</text>\n<speaker>\n<spk id="1" g="m" t="0.00-1.00"/>\n</',
    ],
)
def test_what_cannot_become_a_target(text: str) -> None:
    assert begin(SECONDS).after(text) is None


def test_what_follows_in_any_case() -> None:
    def forced(text: str) -> str:
        state = begin(SECONDS).after(text)
        assert state is not None
        return state.forced()

    text = "<text>\n0.00-1.21>so\n0.96-2.12>no\n"
    block = f'{text}</text>\n<speaker>\n<spk id="1" g="'
    assert forced("") == "<text>\n"
    assert forced(text) == ""
    assert forced(f"{text}<") == '/text>\n<speaker>\n<spk id="1" g="'
    assert forced(f"{block}f") == '" t="0.00-1.21'
    assert forced(f'{block}f" t="0.00-1.21,') == '0.96-2.12"/>\n</speaker>'
    assert forced(f'{block}f" t="0.00-1.21"') == '/>\n<spk id="2" g="'


def test_the_last_time_is_the_end_of_the_audio_on_the_grid() -> None:
    assert begin(3.89, 0.1).after("<text>\n0.00-3.90") is not None
    assert begin(3.89, 0.1).after("<text>\n0.00-3.91") is None
    assert begin(3.89).after("<text>\n0.00-3.90") is None
    assert begin(0.0).after("<text>\n0.00-0.01>") is not None


@given(st.integers(1, 9000), st.integers(0, 4), st.data())
def test_random_walks_end_in_a_target(length: int, lines: int, data: st.DataObject) -> None:
    """One character after the other, each allowed: never stuck, and what comes out parses whole."""
    state, text = begin(length / 100), ""
    while not state.whole:
        following = state.following()
        assert following, text
        if state.in_words and state.room > 0:
            following += "a> "
        if "<" in following and text.endswith("\n") and text.count(">") > lines:
            following = "<"
        character = data.draw(st.sampled_from(following))
        ahead = state.after(character)
        assert ahead is not None, (text, character)
        state, text = ahead, text + character
    parsed = parse_target(text, "one")
    assert not parsed.problems, (text, parsed.problems)
    assert is_target(text, length / 100)
    assert all(one.end <= length / 100 + 1e-9 for one in parsed.segments)


@given(segments, st.integers(0, 99))
def test_from_anywhere_there_is_a_short_way_to_the_end(said: list[Segment], percent: int) -> None:
    target = to_target(said)
    state = begin(40).after(target[: len(target) * percent // 100])
    assert state is not None
    assume(not state.whole)
    ending = state.shortest()
    ended = state.after(ending)
    assert ended is not None
    assert ended.whole
    assert len(ending) <= 100 + 20 * len(said)
