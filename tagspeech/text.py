"""Text as it is trained on and scored: lower case, without symbols; and the units of a score.

The rules, in order (`normalise`):
1. Compatibility forms become plain ones (Unicode NFKC): full-width letters and digits, ligatures.
2. Lower case.
3. An apostrophe between two letters or digits stays ("don't"); curly ones become straight.
4. `#` vanishes with the digits behind it, as in the released system.
5. Punctuation, symbols and control characters become a space ("twenty-one" is two words);
   invisible format characters (soft hyphen, zero-width space) vanish. Letters of every script,
   their combining marks, and digits stay.
6. White space is collapsed. In Chinese and Japanese no space stands between two characters of
   their script, and one between such a character and anything else. Korean keeps its spaces: they
   separate words, and the scored units ignore them.

Apart from that no language is special: numbers are not spelt out, and kana, kanji and hanja are
different characters however they are read.

The released TagSpeech does the same except that it turns combining marks into spaces, and in
Chinese puts no space after a Han character.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

from tagspeech.errors import InputError

# Radicals, iteration mark and zero, extension A, unified, compatibility, supplementary planes.
_HAN = (
    "\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
# Hiragana, katakana with the long vowel mark, phonetic extensions, historic kana; NFKC has already
# made full-width letters of half-width ones.
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\U0001aff0-\U0001b16f"
_HANGUL = "\uac00-\ud7a3"  # syllables; NFKC composes letters to them

# Which characters are units of their own; the other languages count words.
_CHARACTERS = {"zh": _HAN, "ja": _HAN + _KANA, "ko": _HAN + _HANGUL}
_CHARACTER = {language: re.compile(f"([{own}])") for language, own in _CHARACTERS.items()}
_APOSTROPHE_BESIDE = {
    language: re.compile(f"(?<=[{own}])'|'(?=[{own}])") for language, own in _CHARACTERS.items()
}
_SPACE_BETWEEN = {  # of languages that are written without spaces
    language: re.compile(f"(?<=[{own}]) (?=[{own}])")
    for language, own in _CHARACTERS.items()
    if language != "ko"
}
LANGUAGES = ("en", *_CHARACTERS)

_APOSTROPHES = re.compile("[\u2018\u2019\u02bc\uff07\u00b4`]")
AS_IS = "none"  # in place of a language: words as they stand, as meeteval counts them
_NUMBER_SIGN = re.compile(r"#\d*")
_OUTER_APOSTROPHE = re.compile(r"(?<![^\W_])'|'(?![^\W_])")


def normalise(text: str, language: str) -> str:
    """`text` by the rules above; doing it twice changes nothing.

    Of `AS_IS` only white space is collapsed. Raises `InputError` when `language` is neither that
    nor one of `LANGUAGES`.
    """
    _check(language)
    if language == AS_IS:
        return " ".join(text.split())
    text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    text = _APOSTROPHES.sub("'", text)
    # Lower case can undo NFKC (a capital dotted I becomes two characters), so it comes between.
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    text = text.replace("\u02bc", "'")  # NFKC makes it of U+0149, an n after an apostrophe
    text = _NUMBER_SIGN.sub(" ", text)
    text = "".join(char if _is_spoken(char) else " " for char in text)
    if language in _CHARACTERS:
        text = _APOSTROPHE_BESIDE[language].sub(" ", text)
    text = _OUTER_APOSTROPHE.sub(" ", text)
    if language in _SPACE_BETWEEN:
        return _SPACE_BETWEEN[language].sub("", scoring_units(text, language))
    return " ".join(text.split())


def scoring_units(text: str, language: str) -> str:
    """The units an error rate counts, joined by spaces; only splits, does not normalise.

    en  words
    zh  every Han character on its own, everything else by words ("好的 okay" is three units)
    ja  the same, with every kana on its own too ("データ" is three units)
    ko  the same, with every Hangul syllable on its own too: spaces do not count ("할 수" is two)

    Raises `InputError` when `language` is not one of `LANGUAGES`.
    """
    _check(language)
    if language in _CHARACTERS:
        text = _CHARACTER[language].sub(r" \1 ", text)
    return " ".join(text.split())


def fold_chinese(text: str) -> str:
    """Traditional Chinese characters as simplified ones, by OpenCC's tables of characters and
    phrases (t2s); everything else stays."""
    return str(_to_simplified().convert(text))


@cache
def _to_simplified() -> Any:
    from opencc import OpenCC  # only for who asks for it

    return OpenCC("t2s")


def _is_spoken(char: str) -> bool:
    return char == "'" or unicodedata.category(char)[0] in "LMN"


def _check(language: str) -> None:
    if language not in (*LANGUAGES, AS_IS):
        raise InputError(f"language: {language!r} is unknown; wants one of {', '.join(LANGUAGES)}")
