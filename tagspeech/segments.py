"""The segment, the plain data type that all parts of the package exchange."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

GENDERS = ("m", "f", "u")
LEAST_CONFIDENCE = 0.001  # lower confidences count as this; files have three decimals


@dataclass(frozen=True)
class Segment:
    """A stretch of speech of one speaker.

    Attributes:
        session: The scoring unit, an utterance group or a recording. Normalised by `composed`.
        speaker: Any string, normalised by `composed`.
        start: Seconds, at least 0.
        end: Seconds, at least `start`. With zero duration the words count but add no time.
        words: White space collapsed, no newline; may be empty.
        gender: "m", "f" or "u" (unknown).
        word_confidences: One per word, from 0 to 1; None if unknown. Ignored by ==.
        word_spans: Measured (start, end) of each word in seconds, in order and within the segment;
            None if they were not measured (`word_times` then estimates them). Ignored by ==.
    """

    session: str
    speaker: str
    start: float
    end: float
    words: str
    gender: str = "u"
    word_confidences: tuple[float, ...] | None = field(default=None, compare=False)
    word_spans: tuple[tuple[float, float], ...] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        where = f"segment {self.start}-{self.end} of session {self.session!r}"
        if not 0 <= self.start <= self.end < float("inf"):
            raise ValueError(f"{where}: must have 0 <= start <= end, in seconds")
        object.__setattr__(self, "session", composed(self.session))
        object.__setattr__(self, "speaker", composed(self.speaker))
        if self.words != " ".join(self.words.split()):
            raise ValueError(f"{where}: white space in words is not collapsed: {self.words!r}")
        if self.gender not in GENDERS:
            raise ValueError(f"{where}: gender must be one of {GENDERS}, got {self.gender!r}")
        values, spans = self.word_confidences, self.word_spans
        count = len(self.words.split())
        if values is not None and not (len(values) == count and all(0 <= v <= 1 for v in values)):
            raise ValueError(
                f"{where}: must have a confidence from 0 to 1 for each word, got {values!r}"
            )
        if spans is not None:
            edges = [self.start, *(edge for span in spans for edge in span), self.end]
            if len(spans) != count or any(a > b for a, b in pairwise(edges)):
                raise ValueError(
                    f"{where}: must have a start and an end for each word, in order and within the "
                    f"segment, got {spans!r}"
                )

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.end - self.start

    def moved(self, seconds: float) -> Segment:
        """The segment shifted by `seconds`, times rounded to milliseconds."""
        start, end = round(self.start + seconds, 3), round(self.end + seconds, 3)
        spans = self.word_spans
        if spans is not None:
            spans = tuple((round(a + seconds, 3), round(b + seconds, 3)) for a, b in spans)
        return replace(self, start=start, end=end, word_spans=spans)

    @property
    def confidence(self) -> float | None:
        """Geometric mean of the word confidences, from 0 to 1; None if unknown.

        Each word has the same weight, however many tokens it has and however long it lasts.
        """
        if not self.word_confidences:
            return None
        logs = [math.log(max(value, LEAST_CONFIDENCE)) for value in self.word_confidences]
        return round(math.exp(math.fsum(logs) / len(logs)), 3)


def composed(name: str) -> str:
    """`name` in Unicode NFC: macOS decomposes the "ü" in file names, keyboards do not."""
    return unicodedata.normalize("NFC", name)


def renamed(segments: Sequence[Segment], names: Mapping[str, str]) -> list[Segment]:
    """The segments with new names of speakers; two speakers with the same new name become one."""
    return [replace(item, speaker=names.get(item.speaker, item.speaker)) for item in segments]


def unused_names(segments: Sequence[Segment], names: Mapping[str, str]) -> list[str]:
    """The speakers in `names` that no segment has."""
    found = {item.speaker for item in segments}
    return [name for name in names if name not in found]


def word_times(segment: Segment) -> list[tuple[float, float]]:
    """(start, end) of each word: measured, or the segment's time spread over its characters."""
    if segment.word_spans is not None:
        return list(segment.word_spans)
    edges = list(accumulate(map(len, segment.words.split()), initial=0))
    each = segment.duration / max(1, edges[-1])
    return [(segment.start + each * a, segment.start + each * b) for a, b in pairwise(edges)]


def with_word_lists(
    segment: Segment,
    confidences: Sequence[float] | None,
    spans: Sequence[Sequence[float]] | None,
) -> Segment:
    """The segment with what a JSON list says of its words; None: it says nothing."""
    pairs = None if spans is None else tuple((start, end) for start, end in spans)
    sure = None if confidences is None else tuple(confidences)
    return replace(segment, word_confidences=sure, word_spans=pairs)


def clipped(
    spans: Sequence[tuple[float, float]], start: float, end: float
) -> tuple[tuple[float, float], ...]:
    """Word spans that do not reach beyond `start` and `end`."""
    return tuple((min(max(a, start), end), min(max(b, start), end)) for a, b in spans)


def by_time(segments: list[Segment]) -> list[Segment]:
    """Sorted by start, then end; the sort is stable."""
    return sorted(segments, key=lambda segment: (segment.start, segment.end))


def by_start(segments: list[Segment]) -> list[Segment]:
    """Sorted by start; the sort is stable, as in meeteval."""
    return sorted(segments, key=lambda segment: segment.start)
