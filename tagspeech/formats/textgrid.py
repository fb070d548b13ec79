"""Praat's TextGrid: an interval tier for each speaker of one session, without gender.

A segment without words has the label " ", since an empty label is silence in Praat. Overlapping
segments of one speaker are written to further tiers, `speaker (2)`, `speaker (3)`; the parenthesis
of a speaker's name that ends this way is escaped as %28. Writes the long text format; reads the
long and the short one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence

from tagspeech.errors import InputError
from tagspeech.formats.common import (
    decode_name,
    encode_name,
    milliseconds,
    one_session,
    seconds,
    segment,
)
from tagspeech.segments import Segment, by_start

_UNSAFE = r"[^\S ]|\((?=[0-9]+\)$)"
_FURTHER_TIER = re.compile(r"(.*) \([0-9]+\)")
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|!.*|([^\s"]+)')
_NUMBER = re.compile(r"-?[0-9.]+(?:[eE][-+]?[0-9]+)?")

Interval = tuple[int, int, str]  # start and end in milliseconds, label


def render(segments: list[Segment]) -> str:
    """The grid of the segments. Raises `InputError` for several sessions."""
    one_session(segments, "textgrid")
    return render_tiers(_tiers(segments))


def render_tiers(tiers: Mapping[str, Sequence[Interval]]) -> str:
    """The grid of named tiers, whose labelled intervals are in order of time."""
    # Praat needs a grid of positive duration: an empty grid lasts a second.
    last = max((tier[-1][1] for tier in tiers.values()), default=1000)
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {seconds(last)}",
        "tiers? <exists>",
        f"size = {len(tiers)}",
        "item []:",
    ]
    for number, (name, tier) in enumerate(tiers.items(), 1):
        intervals = _with_silence(tier, last)
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f"        name = {_quote(name)}",
            "        xmin = 0",
            f"        xmax = {seconds(last)}",
            f"        intervals: size = {len(intervals)}",
        ]
        for index, (start, end, label) in enumerate(intervals, 1):
            lines += [
                f"        intervals [{index}]:",
                f"            xmin = {seconds(start)}",
                f"            xmax = {seconds(end)}",
                f"            text = {_quote(label)}",
            ]
    return "\n".join(lines) + "\n"


def parse(text: str, file: str, session: str) -> list[Segment]:
    """Reads the labelled intervals of all interval tiers; skips point tiers with a warning."""
    tokens = _Tokens(text, file)
    if [tokens.text(), tokens.text()] != ["ooTextFile", "TextGrid"]:
        raise InputError(f"{file}, line 1: must be in the text format of Praat's TextGrid")
    tokens.skip_times()
    found: list[tuple[str, str, float, float, str]] = []
    names: set[str] = set()
    for _ in range(tokens.count()):
        kind, name = tokens.text(), tokens.text()
        tokens.skip_times()
        names.add(name)
        for _ in range(tokens.count()):
            start = tokens.number()
            end = tokens.number() if kind == "IntervalTier" else start
            label, where = tokens.text(), tokens.where
            if label and kind == "IntervalTier":
                found.append((where, name, start, end, label))
        if kind != "IntervalTier":
            logging.warning("%s: skipped tier %r, which has points, not intervals", file, name)
    tokens.end()
    return [
        segment(where, session, _speaker(name, names), start, end, label)
        for where, name, start, end, label in found
    ]


def _tiers(segments: list[Segment]) -> dict[str, list[Interval]]:
    """Tiers without overlaps by name, in order of the speakers' first appearance."""
    speakers: dict[str, list[list[Interval]]] = {}
    for item in by_start(segments):
        start, end = milliseconds(item)
        tiers = speakers.setdefault(item.speaker, [])
        tier = next((tier for tier in tiers if tier[-1][1] <= start), None)
        if tier is None:
            tiers.append(tier := [])
        tier.append((start, end, item.words or " "))
    return {
        encode_name(speaker, _UNSAFE) + (f" ({number})" if number > 1 else ""): tier
        for speaker, tiers in speakers.items()
        for number, tier in enumerate(tiers, 1)
    }


def _with_silence(tier: Sequence[Interval], last: int) -> list[Interval]:
    """The tier from 0 to `last`, with gaps filled by intervals without a label."""
    filled, now = [], 0
    for start, end, label in [*tier, (last, last, "")]:
        if now < start:
            filled.append((now, start, ""))
        if start < end:
            filled.append((start, end, label))
        now = end
    return filled


def _speaker(name: str, names: set[str]) -> str:
    """The speaker of a tier. `name (2)` is a further tier only if the tier `name` exists."""
    match = _FURTHER_TIER.fullmatch(name)
    return decode_name(match[1] if match and match[1] in names else name, _UNSAFE)


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


class _Tokens:
    """The texts and numbers of a TextGrid in order.

    Everything else (`xmin =`, `item [1]:`, <exists>) is ignored, as in Praat, so this reads both
    the long and the short format.
    """

    def __init__(self, text: str, file: str) -> None:
        self._text, self._file = text, file
        self._matches: Iterator[re.Match[str]] = (
            match
            for match in _TOKEN.finditer(text)
            if match[1] is not None or (match[2] and _NUMBER.fullmatch(match[2]))
        )
        self._line, self._place = 1, 0

    @property
    def where(self) -> str:
        """The file and line of the last token."""
        return f"{self._file}, line {self._line}"

    def _next(self, expected: str) -> re.Match[str]:
        match = next(self._matches, None)
        if match is None:
            raise InputError(f"{self._file}: ends where {expected} must follow; is it cut off?")
        self._line += self._text.count("\n", self._place, match.start())
        self._place = match.start()
        return match

    def text(self) -> str:
        """The next token, which must be a text in quotes."""
        match = self._next("a text")
        if match[1] is None:
            raise InputError(f"{self.where}: must be a text in quotes, got {match[2]}")
        return match[1].replace('""', '"')

    def number(self) -> float:
        """The next token, which must be a number."""
        match = self._next("a number")
        try:
            return float(match[2] or "")
        except ValueError as error:
            raise InputError(f"{self.where}: must be a number, got {match[0]}") from error

    def count(self) -> int:
        """The next token, which must be a whole number."""
        number = self.number()
        if not number.is_integer():
            raise InputError(f"{self.where}: must be a whole number, got {number}")
        return int(number)

    def end(self) -> None:
        """Raises `InputError` if there is another token: a size is smaller than its list."""
        if next(self._matches, None) is not None:
            raise InputError(
                f"{self.where}: more tiers or intervals follow than `size` says; correct it, or "
                "save the file again with Praat"
            )

    def skip_times(self) -> None:
        """Skips xmin and xmax of a grid or a tier, which the intervals make redundant."""
        self.number()
        self.number()
