"""Praat's TextGrid: an interval tier for each speaker of one session, without gender.

Where word times were measured, a tier `speaker (words)` follows with an interval for each word.
When read, its intervals become the word times of the segments in the tier `speaker`.

A segment without words has the label " ", since an empty label is silence in Praat. Overlapping
segments of one speaker are written to further tiers, `speaker (2)`, `speaker (3)`; the parenthesis
of a speaker's name that ends like the name of such a tier is escaped as %28. Writes the long text
format; reads the long and the short one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

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

log = logging.getLogger(__name__)

_UNSAFE = r"[^\S ]|\((?=(?:[0-9]+|words)\)$)"
_WORDS = " (words)"  # ends the name of a tier of words
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
    found: list[_Found] = []
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
                found.append(_Found(where, name, start, end, label))
        if kind != "IntervalTier":
            log.warning("%s: skipped tier %r, which has points, not intervals", file, name)
    tokens.end()
    of_words: dict[str, list[_Found]] = {
        name + _WORDS: [] for name in names if name + _WORDS in names
    }
    for item in found:
        if item.tier in of_words:
            of_words[item.tier].append(item)
    segments = []
    for item in found:
        if item.tier not in of_words:
            speaker = _speaker(item.tier, names)
            made = segment(item.where, session, speaker, item.start, item.end, item.label)
            segments.append(_with_spans(made, of_words.get(item.tier + _WORDS, [])))
    return segments


class _Found(NamedTuple):
    """A labelled interval: "FILE, line N", the name of its tier, seconds and label."""

    where: str
    tier: str
    start: float
    end: float
    label: str


def _with_spans(item: Segment, words: Sequence[_Found]) -> Segment:
    """The segment with the times of the words that lie within it, if they are its own."""
    inside = [word for word in words if item.start <= word.start and word.end <= item.end]
    if not inside or " ".join(word.label for word in inside) != item.words:
        return item
    return replace(item, word_spans=tuple((word.start, word.end) for word in inside))


def _tiers(segments: list[Segment]) -> dict[str, list[Interval]]:
    """Tiers without overlaps by name, in order of the speakers' first appearance."""
    speakers: dict[str, list[tuple[list[Interval], list[Interval]]]] = {}
    for item in by_start(segments):
        start, end = milliseconds(item)
        tiers = speakers.setdefault(item.speaker, [])
        pair = next((pair for pair in tiers if pair[0][-1][1] <= start), None)
        if pair is None:
            tiers.append(pair := ([], []))
        pair[0].append((start, end, item.words or " "))
        pair[1].extend(_word_intervals(item, start, end))
    named = {}
    for speaker, tiers in speakers.items():
        for number, (tier, words) in enumerate(tiers, 1):
            name = encode_name(speaker, _UNSAFE) + (f" ({number})" if number > 1 else "")
            named[name] = tier
            if words:
                named[name + _WORDS] = words
    return named


def _word_intervals(item: Segment, start: int, end: int) -> list[Interval]:
    """The measured words of a segment from `start` to `end`, each at least a millisecond long."""
    if item.word_spans is None:
        return []
    intervals, now = [], start
    for word, span in zip(item.words.split(), item.word_spans, strict=True):
        left = max(now, round(1000 * span[0]))
        now = max(left + 1, round(1000 * span[1]))
        intervals.append((left, min(now, end), word))
    if any(left >= right for left, right, _ in intervals):
        log.warning(
            "textgrid: the segment at %.2f s has no time left for some of its %d words; its words "
            "have no intervals of their own",
            *(item.start, len(intervals)),
        )
        return []
    return intervals


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
