"""Praat's TextGrid (long text format): one interval tier a speaker of one session, no gender.

A segment without words has the label " ", since to Praat an empty label is silence. Segments of
one speaker that overlap go to further tiers, `speaker (2)`, `speaker (3)`; where a speaker's own
name ends so, its parenthesis is written %28. Read are the long and the short text format.
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
    """The grid. Raises `InputError` for several sessions."""
    one_session(segments, "textgrid")
    return render_tiers(_tiers(segments))


def render_tiers(tiers: Mapping[str, Sequence[Interval]]) -> str:
    """The grid of named tiers, the labelled intervals of each in order of time."""
    # Praat wants a grid that lasts: an empty one lasts a second.
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
    """The labelled intervals of all interval tiers; point tiers are skipped with a warning."""
    tokens = _Tokens(text, file)
    if [tokens.text(), tokens.text()] != ["ooTextFile", "TextGrid"]:
        raise InputError(f"{file}, line 1: wants the text format of Praat's TextGrid")
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
            logging.warning("%s: tier %r has points, not intervals: skipped", file, name)
    return [
        segment(where, session, _speaker(name, names), start, end, label)
        for where, name, start, end, label in found
    ]


def _tiers(segments: list[Segment]) -> dict[str, list[Interval]]:
    """Tiers by name, in order of the speakers' first appearance; no tier overlaps itself."""
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
    """The tier with its gaps filled by intervals without label, from 0 to `last`."""
    filled, now = [], 0
    for start, end, label in [*tier, (last, last, "")]:
        if now < start:
            filled.append((now, start, ""))
        if start < end:
            filled.append((start, end, label))
        now = end
    return filled


def _speaker(name: str, names: set[str]) -> str:
    """Whose tier it is: a further tier counts as one only where the first one is there."""
    match = _FURTHER_TIER.fullmatch(name)
    return decode_name(match[1] if match and match[1] in names else name, _UNSAFE)


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


class _Tokens:
    """The texts and numbers of a TextGrid in order.

    As for Praat itself, everything else (`xmin =`, `item [1]:`, <exists>) is decoration, which
    is why one reader serves the long and the short format.
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
        """Where the last token stands."""
        return f"{self._file}, line {self._line}"

    def _next(self, wanted: str) -> re.Match[str]:
        match = next(self._matches, None)
        if match is None:
            raise InputError(f"{self._file}: ends where {wanted} should follow; is it cut off?")
        self._line += self._text.count("\n", self._place, match.start())
        self._place = match.start()
        return match

    def text(self) -> str:
        """The next token, which must be a text in quotes."""
        match = self._next("a text")
        if match[1] is None:
            raise InputError(f"{self.where}: wants a text in quotes, not {match[2]}")
        return match[1].replace('""', '"')

    def number(self) -> float:
        """The next token, which must be a number."""
        match = self._next("a number")
        try:
            return float(match[2] or "")
        except ValueError as error:
            raise InputError(f"{self.where}: wants a number, not {match[0]}") from error

    def count(self) -> int:
        """The next token, which must be a whole number."""
        number = self.number()
        if not number.is_integer():
            raise InputError(f"{self.where}: wants a whole number, not {number}")
        return int(number)

    def skip_times(self) -> None:
        """Leaves out xmin and xmax of a grid or a tier: the intervals have their own."""
        self.number()
        self.number()
