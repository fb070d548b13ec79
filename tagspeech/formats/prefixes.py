"""Speakers written into the text: `[SPEAKER_00]: words`, `Name: words`, `[S01] words`.

One rule for subtitles of either format and for transcripts in JSON. A text of its own cannot show
whether `one thing: words` begins with a name, but the file as a whole can: a prefix is a speaker
where more than half of all texts have one of the same form, and never where its text does not look
like a name.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tagspeech.errors import InputError

log = logging.getLogger(__name__)

MODES = ("auto", "prefix", "none")
LONGEST_NAME = 40  # characters

# Of each form the pattern of its first line: name, words. The earlier wins where two are as common.
_FORMS = {
    "[Name]: words": re.compile(r"\[([^\[\]]*)\]\s*[:：]\s*(.*)"),
    "Name: words": re.compile(r"(?:(?:>>+|[-–—])\s*)?([^:：\[\]]+?)\s*(?::(?=\s|$)|：)\s*(.*)"),
    "[Name] words": re.compile(r"\[([^\[\]]+)\]\s*(?![\s:：])(.+)"),
    "(Name) words": re.compile(r"\(([^()]+)\)\s*(?![\s:：])(.+)"),
}
PLAIN = "Name: words"


class Spoken(NamedTuple):
    """What one speaker says in a text; None: the text does not say who."""

    speaker: str | None
    words: str


def check_mode(mode: str) -> None:
    """Raises `InputError` when `mode` is not one of `MODES`."""
    if mode not in MODES:
        raise InputError(f"subtitle speakers: {mode!r} is unknown; wants one of {', '.join(MODES)}")


def split_speakers(
    texts: Sequence[str], file: str, mode: str = "auto", remedy: str = ""
) -> list[list[Spoken]]:
    """Who says what in each text of a file.

    Args:
        texts: Of subtitles or entries, in order, without markup. Lines after the first begin
            another speaker's words where they have a prefix with a name that begins a text too.
        file: Its path, for messages.
        mode: "auto" is the rule above; "prefix" takes every prefix for a speaker, "none" no prefix.
        remedy: What messages say that one can do against a wrong guess.

    Returns:
        For each text its parts; a text without any words has one part.
    """
    check_mode(mode)
    found = [_prefixes(text, any_name=mode == "prefix") for text in texts]
    if mode == "prefix":
        chosen = list(_FORMS)
    else:
        chosen = _chosen(texts, found, file, remedy) if mode == "auto" else []
    own = [next((form for form in chosen if form in forms), None) for forms in found]
    names = {forms[form].speaker for forms, form in zip(found, own, strict=True) if form}
    return [
        _lines(text, form, names) if form else [Spoken(None, text)]
        for text, form in zip(texts, own, strict=True)
    ]


def reads_back(name: str) -> bool:
    """Whether `name: words` is read as the words of `name`, where a whole file is written so."""
    match = _FORMS[PLAIN].fullmatch(f"{name}: x")
    return match is not None and match[1] == name and _looks_like_a_name(name)


def _prefixes(text: str, any_name: bool = False) -> dict[str, Spoken]:
    """By form, the prefix of the first line and the words after it."""
    first = text.partition("\n")[0]
    matches = {form: pattern.fullmatch(first) for form, pattern in _FORMS.items()}
    return {
        form: Spoken(match[1], match[2])
        for form, match in matches.items()
        if match and (form != PLAIN or any_name or _looks_like_a_name(match[1]))
    }


def _looks_like_a_name(text: str) -> bool:
    """One or two words, or up to five of which the first and the last are no lower case."""
    words = text.split()
    if not words or len(words) > 5 or len(text) > LONGEST_NAME or re.search('[,;!?"]', text):
        return False
    return len(words) <= 2 or not (words[0][0].islower() or words[-1][0].islower())


def _chosen(
    texts: Sequence[str], found: Sequence[dict[str, Spoken]], file: str, remedy: str
) -> list[str]:
    """The form in which the file names its speakers, as a list of one; [] where it names none."""
    whole = sum(bool(text.strip()) for text in texts)
    counts = Counter(form for forms in found for form in forms)
    if not counts:
        return []
    form = max(_FORMS, key=counts.__getitem__)
    count = counts[form]
    names = [forms[form].speaker for forms in found if form in forms]
    if 2 * count <= whole:
        log.warning(
            "%s: %d of %d texts begin with a prefix such as %r and too few for it to be the "
            "speaker: they are read as words%s",
            *(file, count, whole, names[0], remedy),
        )
        return []
    shown = ", ".join(repr(name) for name in list(dict.fromkeys(names))[:3])
    if count < whole:
        log.warning(
            "%s: speakers are read from '%s' (%s, ...); %d of %d texts have no such prefix and no "
            "speaker%s",
            *(file, form, shown, whole - count, whole, remedy),
        )
    elif form == PLAIN and len(set(names)) == len(names):  # nothing but the colon tells so
        log.warning(
            "%s: what stands before a colon is read as a speaker (%s)%s", file, shown, remedy
        )
    return [form]


def _lines(text: str, form: str, names: set[str | None]) -> list[Spoken]:
    """The text by speakers: its first line has a prefix, others may have that of a known name."""
    parts: list[Spoken] = []
    for line in text.split("\n"):
        match = _FORMS[form].fullmatch(line)
        if match and (not parts or match[1] in names):
            parts.append(Spoken(match[1], match[2]))
        else:
            parts[-1] = parts[-1]._replace(words=f"{parts[-1].words}\n{line}")
    return parts
