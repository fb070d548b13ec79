"""The normalisers of words that `tagspeech score --normaliser` offers.

    own      the rules of `tagspeech.text`, for each language
    basic    Whisper's for any language: lower case, no symbols, nothing in brackets
    whisper  Whisper's for English: also no fillers, contractions written out, numbers as digits,
             American spelling

The last two are those of the package whisper-normalizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import metadata
from typing import Any

from tagspeech.errors import InputError
from tagspeech.text import AS_IS, normalise

OWN = "own"
NORMALISERS = (OWN, "basic", "whisper")
_PACKAGE = "whisper-normalizer"


def check_normaliser(name: str, language: str) -> None:
    """Raises `InputError` if `name` is unknown, or is not made for `language`."""
    if name not in NORMALISERS:
        raise InputError(f"normaliser: must be one of {', '.join(NORMALISERS)}, got {name!r}")
    if name != OWN and language == AS_IS:
        raise InputError(f"normaliser: {name} has no effect with --language none; leave it out")
    if name == "whisper" and language != "en":
        raise InputError(
            f"normaliser: whisper is made for English, got --language {language}; choose basic"
        )


@cache
def normaliser_of(name: str, language: str) -> Callable[[str], str]:
    """The function that normalises words.

    Raises:
        InputError: As `check_normaliser`, or the package is not installed.
    """
    check_normaliser(name, language)
    if name == OWN:
        return partial(normalise, language=language)
    try:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ModuleNotFoundError as error:
        raise InputError(
            f"normaliser: {name} needs the package {_PACKAGE}: run utils/install.sh, or "
            f"pip install {_PACKAGE}"
        ) from error
    function = EnglishTextNormalizer() if name == "whisper" else BasicTextNormalizer()

    def normal(text: str) -> str:
        return " ".join(function(text).split())

    return normal


def described_normaliser(name: str, language: str) -> dict[str, str]:
    """What scores say about the normaliser. Raises as `normaliser_of`."""
    normaliser_of(name, language)
    package = {} if name == OWN else {"package": f"{_PACKAGE} {metadata.version(_PACKAGE)}"}
    return {"name": name, **package}


def normaliser_name(overall: Mapping[str, Any]) -> str:
    """The normaliser of scores; older files were all scored with `OWN`."""
    name: str = overall.get("normaliser", {}).get("name", OWN)
    return name
