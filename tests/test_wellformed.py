"""Unfinished outputs: a target text goes on from every prefix, and there is no dead end."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagspeech.segments import Segment
from tagspeech.serialize import parse_target, to_target
from tagspeech.wellformed import goes_on, is_whole

TARGET = """<text>
0.00-1.21>uh no that's okay > sorry
0.96-12.13>
0.96-12.13>okay um </text>
</text>
<speaker>
<spk id="1" g="f" t="0.00-1.21,0.96-12.13"/>
<spk id="2" g="u" t="0.96-12.13"/>
</speaker>"""

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
)


def test_every_prefix_of_an_example() -> None:
    for length in range(len(TARGET) + 1):
        assert goes_on(TARGET[:length]), TARGET[:length]
        assert is_whole(TARGET[:length]) is (length == len(TARGET))
    assert not goes_on(TARGET + "\n")


@given(segments)
def test_every_prefix_of_every_target(said: list[Segment]) -> None:
    target = to_target(said)
    for length in range(len(target) + 1):
        assert goes_on(target[:length]), target[:length]
    assert is_whole(target)


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "<text>\n0.00-0.00",
        "<text>\n0.5-",
        "<text>\n01",
        "<text>\n5.00-4.",
        "<text>\n5.00-4.9",
        "<text>\n5.00-6.00>so\n4.9",
        "<text>\n5.00-6.00\n",
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
    assert not goes_on(text)


@given(st.randoms(use_true_random=False), st.integers(0, 4), st.data())
def test_random_walks_end_in_a_target(random: object, lines: int, data: st.DataObject) -> None:
    """One character after the other, each allowed: never stuck, and what comes out parses whole."""
    text = ""
    alphabet = string.digits + '.->,\n<>/="abefgikmprstuxd '
    while not is_whole(text):
        allowed = [one for one in alphabet if goes_on(text + one)]
        assert allowed, text
        in_words = (
            text.rpartition("\n")[2].count(">") == 1 and text.rpartition("\n")[2][:1].isdigit()
        )
        if in_words:
            allowed = ["\n"]
        elif "<" in allowed and text.endswith("\n") and text.count(">") > lines:
            allowed = ["<"]
        text += data.draw(st.sampled_from(allowed))
    parsed = parse_target(text, "one")
    assert not parsed.problems, (text, parsed.problems)
