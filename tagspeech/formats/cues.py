"""The cues of SRT and WebVTT: times and lines. `subtitles` interprets the lines."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field, replace

from tagspeech.errors import InputError

log = logging.getLogger(__name__)

_TIME = r"(?:([0-9]{1,4}):)?([0-9]{1,2}):([0-9]{1,2})[.,]([0-9]{3})"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_LIKE_TIMES = re.compile(r"\s*[0-9]+:[0-9]\S*\s*-->")
_NO_CUE = re.compile(r"(?:WEBVTT|NOTE|STYLE|REGION)(?:\s|$)")
_WORD_TIME = re.compile(r"<[0-9]+:[0-9:.]+>")
_TAG = re.compile(r"<[^>]*>")
TOUCHING = 0.05  # longest pause in seconds between cues that roll into each other
_EXAMPLE = "00:00:01.000 --> 00:00:02.000"


@dataclass(frozen=True)
class Cue:
    """A subtitle.

    Attributes:
        where: "FILE, line N" of its times.
        start: Seconds.
        end: Seconds.
        lines: Its non-empty lines.
    """

    where: str
    start: float
    end: float
    lines: list[str] = field(default_factory=list)


def read_cues(text: str, file: str, is_vtt: bool) -> list[Cue]:
    """Reads the cues in order.

    A cue lasts until the next one, so it may contain empty lines. Its number (WebVTT: any name) may
    precede its times. Headers, notes, styles and regions of WebVTT are skipped.

    Raises:
        InputError: Times cannot be parsed, or text is in no cue.
    """
    lines = text.split("\n")
    times = [_times(line, f"{file}, line {number}") for number, line in enumerate(lines, 1)]
    cues: list[Cue] = []
    is_open = skipping = False
    after_blank = True
    for place, line in enumerate(lines):
        where = f"{file}, line {place + 1}"
        if (time := times[place]) is not None:
            cues.append(Cue(where, *time))
            is_open, skipping = True, False
        elif not line.strip():
            skipping = False
        elif is_vtt and after_blank and _NO_CUE.match(line):
            is_open, skipping = False, True
        elif skipping or _is_name(lines, times, place, is_vtt and after_blank):
            pass
        elif is_open:
            cues[-1].lines.append(line.strip())
        else:
            raise InputError(f"{where}: {line!r} is in no cue; must follow times as {_EXAMPLE}")
        after_blank = not line.strip()
    return cues


def without_repeats(cues: list[Cue], file: str) -> list[Cue]:
    """Removes lines that are repeated by rolling captions.

    Rolling captions, such as YouTube's, have a time at each word and repeat the previous line, also
    in a separate cue. Files without word times are unchanged.
    """
    if not any(_WORD_TIME.search(line) for cue in cues for line in cue.lines):
        return cues
    kept: list[Cue] = []
    shown: list[str] = []
    end, repeated = 0.0, 0
    for cue in cues:
        plain = [" ".join(_TAG.sub("", line).split()) for line in cue.lines]
        same = 0
        if cue.start <= end + TOUCHING:
            ends = range(min(len(plain), len(shown)), 0, -1)
            same = next((count for count in ends if plain[:count] == shown[-count:]), 0)
        shown, end = plain or shown, cue.end
        repeated += same
        if same < len(plain) or not plain:
            kept.append(replace(cue, lines=cue.lines[same:]))
    if repeated:
        log.warning("%s: rolling captions; dropped %d repeated lines", file, repeated)
    return kept


def _is_name(
    lines: list[str], times: list[tuple[float, float] | None], place: int, is_free: bool
) -> bool:
    """Whether a line is the number (with `is_free`, any name) of the cue in the next line."""
    is_before_times = place + 1 < len(lines) and times[place + 1] is not None
    return is_before_times and (is_free or lines[place].strip().isdecimal())


def _times(line: str, where: str) -> tuple[float, float] | None:
    """Start and end in seconds; None if the line has no times."""
    match = _TIMES.fullmatch(line)
    if match:
        return _seconds(match.groups()[:4]), _seconds(match.groups()[4:])
    if _LIKE_TIMES.match(line):
        raise InputError(f"{where}: {line!r} must have the form {_EXAMPLE}")
    return None


def _seconds(fields: tuple[str | None, ...]) -> float:
    hours, minutes, whole, thousandths = (int(field or 0) for field in fields)
    return (hours * 3_600_000 + minutes * 60_000 + whole * 1000 + thousandths) / 1000
