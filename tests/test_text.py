"""Normalisation and scoring units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagspeech.errors import InputError
from tagspeech.text import LANGUAGES, normalise, scoring_units


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("UH NO THAT'S OKAY, SORRY!", "uh no that's okay sorry"),
        ("'Cause the dogs' — “it’s” fine", "cause the dogs it's fine"),
        ("twenty-one 3.5% $4", "twenty one 3 5 4"),
        ("r & d <unk> [laughs] snake_case", "r d unk laughs snake case"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ ﬁne", "full width fine"),
        ("CAFE\u0301 naïve İstanbul", "café naïve i\u0307stanbul"),
        ("soft\u00adhyphen\u200b zero\ufeff", "softhyphen zero"),
        (" \t\n", ""),
        ("我们 今天", "我们 今天"),
    ],
)
def test_english(text: str, expected: str) -> None:
    assert normalise(text, "en") == expected


@pytest.mark.parametrize(
    ("text", "expected", "units"),
    [
        ("嗯，好的。", "嗯好的", "嗯 好 的"),
        ("我们今天 讨论一下 这个OKAY吧", "我们今天讨论一下这个 okay 吧", None),
        ("don't 说 3 遍", "don't 说 3 遍", "don't 说 3 遍"),
        ("ＡＢＣ\U00020000々〇", "abc \U00020000々〇", "abc \U00020000 々 〇"),
    ],
)
def test_chinese(text: str, expected: str, units: str | None) -> None:
    assert normalise(text, "zh") == expected
    if units is not None:
        assert scoring_units(expected, "zh") == units


def test_units_of_english_are_words() -> None:
    assert scoring_units(" 我们  okay ", "en") == "我们 okay"


@given(st.text(), st.sampled_from(LANGUAGES))
def test_twice_is_once(text: str, language: str) -> None:
    once = normalise(text, language)
    assert normalise(once, language) == once
    assert once == " ".join(once.split())
    units = scoring_units(once, language)
    assert scoring_units(units, language) == units
    assert units.replace(" ", "") == once.replace(" ", "")


@given(st.text(alphabet="aĀ'’\u0301\u0345\u200d ー好，İß", max_size=12), st.sampled_from(LANGUAGES))
def test_twice_is_once_for_difficult_characters(text: str, language: str) -> None:
    once = normalise(text, language)
    assert normalise(once, language) == once


def test_unknown_language_is_named() -> None:
    for function in (normalise, scoring_units):
        with pytest.raises(InputError, match="'de' is unknown; wants one of en, zh"):
            function("x", "de")
