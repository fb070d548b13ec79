"""A segment: who spoke what and when. The plain data every other part speaks in."""

from __future__ import annotations

from dataclasses import dataclass

GENDERS = ("m", "f", "u")


@dataclass(frozen=True)
class Segment:
    """One stretch of speech of one speaker.

    session  scoring unit: an utterance group or a recording
    speaker  any string
    start, end  seconds, 0 <= start < end
    words    white space collapsed, no newline; may be empty
    gender   "m", "f" or "u" (unknown)
    """

    session: str
    speaker: str
    start: float
    end: float
    words: str
    gender: str = "u"

    def __post_init__(self) -> None:
        where = f"segment {self.start}-{self.end} of session {self.session!r}"
        if not 0 <= self.start < self.end < float("inf"):
            raise ValueError(f"{where}: wants 0 <= start < end, in seconds")
        if self.words != " ".join(self.words.split()):
            raise ValueError(f"{where}: white space in words is not collapsed: {self.words!r}")
        if self.gender not in GENDERS:
            raise ValueError(f"{where}: gender is {self.gender!r}, wants one of {GENDERS}")

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.end - self.start


def by_time(segments: list[Segment]) -> list[Segment]:
    """Sorted by start, then end; equal ranges keep the order they have."""
    return sorted(segments, key=lambda segment: (segment.start, segment.end))
