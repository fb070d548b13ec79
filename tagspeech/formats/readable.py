"""Subtitles that people can read: cues of at most two short lines, shown long enough.

The limits are those of Netflix's Timed Text Style Guide, general requirements and English template
(`LINE`, `LINES`, `SHORTEST`, `LONGEST`, `SPEED`), and, for how long a cue may outlast its speech,
of the BBC's subtitle guidelines (`LINGER`).
"""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tagspeech.segments import Segment, by_start, clipped, word_times

log = logging.getLogger(__name__)

LINE, LINES = 42, 2  # columns of a line; lines of a cue
SHORTEST, LONGEST = 5 / 6, 7.0  # seconds of a cue
SPEED = 17.0  # characters per second
LINGER = 1.5  # seconds after the end of the speech
_MARGIN = 1e-6  # for rounded times
_PAUSE = re.compile(r"[.,;:!?。，；：！？、…]\s*$")


@dataclass(frozen=True)
class ReadableCue:
    """A cue: the part of a segment that it shows, as `segment`, and its lines."""

    segment: Segment
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Unit:
    """A word, or a part of a word that is longer than a line.

    Attributes:
        text: With a space at its end if a word ends here.
        start: Seconds.
        end: Seconds.
        place: Number of the word in its segment.
    """

    text: str
    start: float
    end: float
    place: int


def columns(text: str) -> int:
    """The width of `text`: wide characters, such as Han and kana, count as two columns."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    marks = sum(unicodedata.category(char) == "Mn" for char in text)
    return len(text) + wide - marks


def readable_cues(segments: Sequence[Segment], indent: dict[str, int]) -> list[ReadableCue]:
    """Splits segments at words into cues that people can read, and shows these long enough.

    No word is left out: where people speak faster than `SPEED`, the cue is read faster, and one
    warning counts these cues.

    Args:
        segments: Of one session.
        indent: Columns of what precedes the words of each speaker in the first line of a cue.
    """
    parts: list[tuple[Segment, list[_Unit], int]] = []
    for segment in by_start(list(segments)):
        room = min(indent[segment.speaker], LINE // 2)
        units = _units(segment)
        parts += [(segment, part, room) for part in _split(units, room)] or [(segment, [], room)]
    cues = []
    next_start: dict[str, float] = {}  # of each speaker, seen from the end
    for segment, part, room in reversed(parts):
        text = _text(part)
        start, end = (part[0].start, part[-1].end) if part else (segment.start, segment.end)
        needed = min(max(SHORTEST, columns(text) / SPEED), end - start + LINGER) if text else 0.0
        limit = max(end, next_start.get(segment.speaker, math.inf))
        shown = min(max(end, start + needed), limit)
        next_start[segment.speaker] = start
        lines = _lines(part, room) or (text,)
        cues.append(ReadableCue(_piece(segment, part, start, shown), lines))
    cues.reverse()
    cues.sort(key=lambda cue: cue.segment.start)  # stable
    _warn_of_speed(cues)
    return cues


def _warn_of_speed(cues: Sequence[ReadableCue]) -> None:
    fast = [
        cue for cue in cues if columns(cue.segment.words) > SPEED * cue.segment.duration + _MARGIN
    ]
    if fast:
        log.warning(
            "subtitles: %d of %d have more than %g characters per second, as the speech is fast "
            "(the first at %.2f s); no word is left out",
            *(len(fast), len(cues), SPEED, fast[0].segment.start),
        )


def _units(segment: Segment) -> list[_Unit]:
    """The words with their times; words that are wider than a line as their characters."""
    units = []
    words = segment.words.split()
    for place, (word, (start, end)) in enumerate(zip(words, word_times(segment), strict=True)):
        pieces = [word] if columns(word) <= LINE // 2 else list(word)
        each = (end - start) / len(pieces)
        for number, piece in enumerate(pieces):
            is_last = number + 1 == len(pieces)
            times = (start + number * each, end if is_last else start + (number + 1) * each)
            units.append(_Unit(piece + " " * is_last, *times, place))
    return units


def _text(units: Sequence[_Unit]) -> str:
    return "".join(unit.text for unit in units).strip()


def _split(units: list[_Unit], room: int) -> list[list[_Unit]]:
    """Halves units until each part fits; it prefers to end a part at a pause in the text."""
    if not units:
        return []
    fits = _lines(units, room) and units[-1].end - units[0].start <= LONGEST + _MARGIN
    if fits or len(units) == 1:
        return [units]
    whole = columns(_text(units))

    def badness(cut: int) -> float:
        head = _text(units[:cut])
        off = abs(columns(head) - whole / 2) / whole
        return off - (0.2 if _PAUSE.search(head) else 0.0)

    cut = min(range(1, len(units)), key=badness)
    return [*_split(units[:cut], room), *_split(units[cut:], room)]


def _lines(units: Sequence[_Unit], room: int) -> tuple[str, ...]:
    """One line, or the two lines of the most even lengths; () if the units do not fit."""
    text = _text(units)
    if not text or columns(text) + room <= LINE:
        return (text,)
    cuts = [(_text(units[:cut]), _text(units[cut:])) for cut in range(1, len(units))]
    fitting = [
        pair for pair in cuts if columns(pair[0]) + room <= LINE and columns(pair[1]) <= LINE
    ]

    def badness(lines: tuple[str, ...]) -> float:
        uneven = abs(columns(lines[0]) + room - columns(lines[1]))
        return uneven - (LINE / 4 if _PAUSE.search(lines[0]) else 0)

    return min(fitting, key=badness) if fitting else ()


def _piece(segment: Segment, units: Sequence[_Unit], start: float, end: float) -> Segment:
    """The part of a segment that a cue shows; a word in two cues has its confidence in both."""
    confidences, spans = segment.word_confidences, segment.word_spans
    text = _text(units)
    places = dict.fromkeys(unit.place for unit in units)
    begin = round(start, 3)
    if confidences is not None:
        confidences = tuple(confidences[place] for place in places)
    if spans is not None:
        spans = clipped([spans[place] for place in places], begin, max(begin, round(end, 3)))
    return replace(
        segment,
        words=text,
        word_confidences=confidences,
        word_spans=spans,
        start=begin,
        end=max(begin, round(end, 3)),
    )
