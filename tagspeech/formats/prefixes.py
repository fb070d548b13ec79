"""Speakers written into the text: `[SPEAKER_00]: words`, `Name: words`, `[S01] words`.

Used for subtitles and for transcripts in JSON. A single text does not show whether `a thing: words`
begins with a name, but the whole file does: a prefix is a speaker if more than half of all texts
have a prefix of the same form and it looks like a name.
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

# The pattern (name, words) of each form. Of two equally frequent forms the first is chosen.
_FORMS = {
    "[Name]: words": re.compile(r"\[([^\[\]]*)\]\s*[:：]\s*(.*)"),
    "Name: words": re.compile(r"(?:(?:>>+|[-–—])\s*)?([^:：\[\]]+?)\s*(?::(?=\s|$)|：)\s*(.*)"),
    "[Name] words": re.compile(r"\[([^\[\]]+)\]\s*(?![\s:：])(.+)"),
    "(Name) words": re.compile(r"\(([^()]+)\)\s*(?![\s:：])(.+)"),
}
PLAIN = "Name: words"


class Spoken(NamedTuple):
    """The words of one speaker in a text; the speaker is None if the text names none."""

    speaker: str | None
    words: str


def check_mode(mode: str) -> None:
    """Raises `InputError` when `mode` is not one of `MODES`."""
    if mode not in MODES:
        raise InputError(f"subtitle speakers: must be one of {', '.join(MODES)}, got {mode!r}")


def split_speakers(
    texts: Sequence[str], file: str, mode: str = "auto", remedy: str = ""
) -> list[list[Spoken]]:
    """Splits each text of a file by speaker.

    Args:
        texts: Subtitles or entries in order, without markup. A later line of a text begins another
            speaker's words if its prefix is a name that also begins a text.
        file: The path, for messages.
        mode: "auto" applies the rule above, "prefix" reads every prefix as a speaker, "none" none.
        remedy: Advice against a wrong guess, for messages.

    Returns:
        The parts of each text, at least one.
    """
    check_mode(mode)
    found = [_prefixes(text, any_name=mode == "prefix") for text in texts]
    if mode == "prefix":
        chosen = list(_FORMS)
    else:
        chosen = _chosen(texts, found, file, remedy) if mode == "auto" else []
    used = [next((form for form in chosen if form in forms), None) for forms in found]
    names = {forms[form].speaker for forms, form in zip(found, used, strict=True) if form}
    return [
        _lines(text, form, names) if form else [Spoken(None, text)]
        for text, form in zip(texts, used, strict=True)
    ]


def reads_back(name: str) -> bool:
    """Whether `name: words` is read back as words of `name` in a file of such texts."""
    match = _FORMS[PLAIN].fullmatch(f"{name}: x")
    return match is not None and match[1] == name and _looks_like_a_name(name)


def _prefixes(text: str, any_name: bool = False) -> dict[str, Spoken]:
    """The prefix and words of the first line, by matching form."""
    first = text.partition("\n")[0]
    matches = {form: pattern.fullmatch(first) for form, pattern in _FORMS.items()}
    return {
        form: Spoken(match[1], match[2])
        for form, match in matches.items()
        if match and (form != PLAIN or any_name or _looks_like_a_name(match[1]))
    }


def _looks_like_a_name(text: str) -> bool:
    """Whether `text` has one or two words, or up to five with the first and last not lower case."""
    words = text.split()
    if not words or len(words) > 5 or len(text) > LONGEST_NAME or re.search('[,;!?"]', text):
        return False
    return len(words) <= 2 or not (words[0][0].islower() or words[-1][0].islower())


def _chosen(
    texts: Sequence[str], found: Sequence[dict[str, Spoken]], file: str, remedy: str
) -> list[str]:
    """The form in which the file names its speakers, as a list; [] if it names none."""
    whole = sum(bool(text.strip()) for text in texts)
    counts = Counter(form for forms in found for form in forms)
    if not counts:
        return []
    form = max(_FORMS, key=counts.__getitem__)
    count = counts[form]
    names = [forms[form].speaker for forms in found if form in forms]
    if 2 * count <= whole:
        log.warning(
            "%s: %d of %d texts begin with a prefix such as %r, too few to be speakers; prefixes "
            "are read as words%s",
            *(file, count, whole, names[0], remedy),
        )
        return []
    shown = ", ".join(repr(name) for name in list(dict.fromkeys(names))[:3])
    if count < whole:
        log.warning(
            "%s: speakers are read from '%s' (%s, ...); %d of %d texts have no such prefix, and so "
            "no speaker%s",
            *(file, form, shown, whole - count, whole, remedy),
        )
    elif form == PLAIN and len(set(names)) == len(names):  # the colon is the only evidence
        log.warning("%s: text before a colon is read as a speaker (%s)%s", file, shown, remedy)
    return [form]


def _lines(text: str, form: str, names: set[str | None]) -> list[Spoken]:
    """Splits a text whose first line has a prefix; other lines may have one with a known name."""
    parts: list[Spoken] = []
    for line in text.split("\n"):
        match = _FORMS[form].fullmatch(line)
        if match and (not parts or match[1] in names):
            parts.append(Spoken(match[1], match[2]))
        else:
            parts[-1] = parts[-1]._replace(words=f"{parts[-1].words}\n{line}")
    return parts
