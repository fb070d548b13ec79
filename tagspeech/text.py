"""Text normalisation for training and scoring, and the units that error rates count.

`normalise` applies these rules in order:
1. Compatibility forms become plain ones (Unicode NFKC): full-width letters and digits, ligatures.
2. Text becomes lower case.
3. Curly apostrophes become straight and stay between two letters or digits ("don't").
4. `#` and the digits after it are removed, as in the released system.
5. Punctuation, symbols and control characters become a space ("twenty-one" is two words);
   invisible format characters (soft hyphen, zero-width space) are removed. Letters of every
   script, their combining marks, and digits stay.
6. White space is collapsed. Chinese and Japanese have no space between two characters of the
   script, and a space between such a character and anything else. Korean keeps the spaces between
   words; scoring ignores them.

Numbers are not spelt out. Kana, kanji and hanja are different characters even if they sound alike.

The released TagSpeech does the same, but turns combining marks into spaces and puts no space after
a Han character in Chinese.
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
# Hiragana, katakana with the long vowel mark, phonetic extensions, historic kana. NFKC has already
# replaced half-width kana.
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\U0001aff0-\U0001b16f"
_HANGUL = "\uac00-\ud7a3"  # syllables, to which NFKC composes letters

UNSPACED = ("zh", "ja")  # languages written without spaces

# Characters that each count as a unit. All other text is counted in words.
_CHARACTERS = {"zh": _HAN, "ja": _HAN + _KANA, "ko": _HAN + _HANGUL}
_CHARACTER = {language: re.compile(f"([{chars}])") for language, chars in _CHARACTERS.items()}
_APOSTROPHE_BESIDE = {
    language: re.compile(f"(?<=[{chars}])'|'(?=[{chars}])")
    for language, chars in _CHARACTERS.items()
}
_SPACE_BETWEEN = {
    language: re.compile(f"(?<=[{chars}]) (?=[{chars}])")
    for language, chars in _CHARACTERS.items()
    if language in UNSPACED
}
LANGUAGES = ("en", *_CHARACTERS)

_APOSTROPHES = re.compile("[\u2018\u2019\u02bc\uff07\u00b4`]")
AS_IS = "none"  # instead of a language: words are not normalised, as in meeteval
_NUMBER_SIGN = re.compile(r"#\d*")
_OUTER_APOSTROPHE = re.compile(r"(?<![^\W_])'|'(?![^\W_])")


def normalise(text: str, language: str) -> str:
    """Normalises `text` by the rules above; the result is a fixed point.

    With `AS_IS` only white space is collapsed.

    Raises:
        InputError: `language` is neither `AS_IS` nor one of `LANGUAGES`.
    """
    _check(language)
    if language == AS_IS:
        return " ".join(text.split())
    text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    text = _APOSTROPHES.sub("'", text)
    # Lower-casing can undo NFKC (a capital dotted I becomes two characters), so NFKC runs twice.
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    text = text.replace("\u02bc", "'")  # from NFKC of U+0149, an n after an apostrophe
    text = _NUMBER_SIGN.sub(" ", text)
    text = "".join(char if _is_spoken(char) else " " for char in text)
    if language in _CHARACTERS:
        text = _APOSTROPHE_BESIDE[language].sub(" ", text)
    text = _OUTER_APOSTROPHE.sub(" ", text)
    if language in _SPACE_BETWEEN:
        return _SPACE_BETWEEN[language].sub("", scoring_units(text, language))
    return " ".join(text.split())


def scoring_units(text: str, language: str) -> str:
    """Splits normalised `text` into the units of an error rate, joined by spaces.

    en  words
    zh  Han characters, and words of any other script ("好的 okay" is three units)
    ja  the same, plus each kana ("データ" is three units)
    ko  the same as zh, plus each Hangul syllable; spaces do not count ("할 수" is two units)

    Raises:
        InputError: `language` is neither `AS_IS` nor one of `LANGUAGES`.
    """
    _check(language)
    if language in _CHARACTERS:
        text = _CHARACTER[language].sub(r" \1 ", text)
    return " ".join(text.split())


def fold_chinese(text: str) -> str:
    """Converts traditional Chinese characters to simplified ones (OpenCC t2s)."""
    return str(_to_simplified().convert(text))


@cache
def _to_simplified() -> Any:
    from opencc import OpenCC  # optional for other languages

    return OpenCC("t2s")


def _is_spoken(char: str) -> bool:
    return char == "'" or unicodedata.category(char)[0] in "LMN"


def _check(language: str) -> None:
    if language not in (*LANGUAGES, AS_IS):
        raise InputError(f"language: must be one of {', '.join(LANGUAGES)}, got {language!r}")
