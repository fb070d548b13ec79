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


@pytest.mark.parametrize(
    ("text", "expected", "units"),
    [
        ("今日は、いい天気ですね。", "今日はいい天気ですね", "今 日 は い い 天 気 で す ね"),
        ("今日は いい 天気", "今日はいい天気", "今 日 は い い 天 気"),
        ("ﾃﾞｰﾀ・センターのAPI", "データセンターの api", "デ ー タ セ ン タ ー の api"),
        ("か\u3099くせい", "がくせい", "が く せ い"),
        ("佐々木さん 3時", "佐々木さん 3 時", "佐 々 木 さ ん 3 時"),
        ("「Don't」と", "don't と", "don't と"),
    ],
)
def test_japanese(text: str, expected: str, units: str) -> None:
    assert normalise(text, "ja") == expected
    assert scoring_units(expected, "ja") == units


@pytest.mark.parametrize(
    ("text", "expected", "units"),
    [
        ("안녕하세요, 반갑습니다!", "안녕하세요 반갑습니다", "안 녕 하 세 요 반 갑 습 니 다"),
        # Spaces stay in the text, where they tell words apart; an error rate does not see them
        ("할 수 있다", "할 수 있다", "할 수 있 다"),
        ("할수있다", "할수있다", "할 수 있 다"),
        ("API를 3개", "api를 3개", "api 를 3 개"),
        ("\u1112\u1161\u11ab\u1100\u116e\u11a8", "한국", "한 국"),
        ("'한국'의 大韓民國 don't", "한국 의 大韓民國 don't", "한 국 의 大 韓 民 國 don't"),
        ("한'국", "한 국", "한 국"),
    ],
)
def test_korean(text: str, expected: str, units: str) -> None:
    assert normalise(text, "ko") == expected
    assert scoring_units(expected, "ko") == units


@pytest.mark.parametrize("language", ["ja", "ko", "zh"])
def test_units_of_text_that_was_not_normalised(language: str) -> None:
    """`scoring_units` splits what training writes, whatever it is."""
    text = "今ガ한 ok"
    units = {"ja": "今 ガ 한 ok", "ko": "今 ガ 한 ok", "zh": "今 ガ한 ok"}
    assert scoring_units(text, language) == units[language]


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


HARD = "aĀŉ'’\u0301\u0345\u200d ー好，İßかガ゛\u3099ﾞ한\u1100\u1161\u11a8ㅋ"


@given(st.text(alphabet=HARD, max_size=12), st.sampled_from(LANGUAGES))
def test_twice_is_once_for_difficult_characters(text: str, language: str) -> None:
    once = normalise(text, language)
    assert normalise(once, language) == once
    units = scoring_units(once, language)
    assert scoring_units(units, language) == units


def test_unknown_language_is_named() -> None:
    for function in (normalise, scoring_units):
        with pytest.raises(InputError, match="must be one of en, zh, ja, ko, got 'de'"):
            function("x", "de")
