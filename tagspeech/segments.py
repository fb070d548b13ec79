"""A segment: who spoke what and when. The plain data every other part speaks in."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

GENDERS = ("m", "f", "u")
LEAST = 0.001  # what a confidence counts for at least: files have three decimals


@dataclass(frozen=True)
class Segment:
    """One stretch of speech of one speaker.

    session  scoring unit: an utterance group or a recording
    speaker  any string; like that of the session, its spelling becomes the composed one
    start, end  seconds, 0 <= start <= end; where they are equal, as files of other tools have it,
             the words count and add no time
    words    white space collapsed, no newline; may be empty
    gender   "m", "f" or "u" (unknown)
    word_confidences  of each word, from 0 to 1; None where unknown. Two segments that differ in
                      nothing else are equal
    """

    session: str
    speaker: str
    start: float
    end: float
    words: str
    gender: str = "u"
    word_confidences: tuple[float, ...] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        where = f"segment {self.start}-{self.end} of session {self.session!r}"
        if not 0 <= self.start <= self.end < float("inf"):
            raise ValueError(f"{where}: wants 0 <= start <= end, in seconds")
        object.__setattr__(self, "session", composed(self.session))
        object.__setattr__(self, "speaker", composed(self.speaker))
        if self.words != " ".join(self.words.split()):
            raise ValueError(f"{where}: white space in words is not collapsed: {self.words!r}")
        if self.gender not in GENDERS:
            raise ValueError(f"{where}: gender is {self.gender!r}, wants one of {GENDERS}")
        sure = self.word_confidences
        if sure is None:
            return
        if len(sure) != len(self.words.split()) or not all(0 <= one <= 1 for one in sure):
            raise ValueError(f"{where}: wants a confidence from 0 to 1 of each word: {sure!r}")

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.end - self.start

    def moved(self, seconds: float) -> Segment:
        """So much later, in whole milliseconds."""
        start, end = (round(one + seconds, 3) for one in (self.start, self.end))
        return replace(self, start=start, end=end)

    @property
    def confidence(self) -> float | None:
        """From 0 to 1, the geometric mean of those of its words; None where unknown.

        Each word counts once, into however many tokens it was cut, and times do not count: it says
        how sure the words are. So it holds for any part of the segment's words too.
        """
        if not self.word_confidences:
            return None
        logs = [math.log(max(one, LEAST)) for one in self.word_confidences]
        return round(math.exp(math.fsum(logs) / len(logs)), 3)


def composed(name: str) -> str:
    """The name with composed letters (Unicode NFC), so that both spellings of "ü" are one name.

    macOS decomposes names of files; people type composed ones.
    """
    return unicodedata.normalize("NFC", name)


def word_times(segment: Segment) -> list[tuple[float, float]]:
    """Start and end of each word: estimates, the segment's time spread over its characters."""
    edges = list(accumulate(map(len, segment.words.split()), initial=0))
    each = segment.duration / max(1, edges[-1])
    return [(segment.start + each * a, segment.start + each * b) for a, b in pairwise(edges)]


def by_time(segments: list[Segment]) -> list[Segment]:
    """Sorted by start, then end; equal ranges keep the order they have."""
    return sorted(segments, key=lambda segment: (segment.start, segment.end))


def by_start(segments: list[Segment]) -> list[Segment]:
    """Sorted by start; what starts together keeps its order, as in meeteval."""
    return sorted(segments, key=lambda segment: segment.start)
