"""Removes the words that two overlapping windows both contain.

    window 1   ... the report was not |ready on friday
    window 2             report wasn't|ready on friday and who ...
                                      seam

The words of both windows are aligned in the overlap. The seam lies before the pair of equal words
nearest to the middle, or at the middle if no words are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from typing import NamedTuple

import kaldialign
import numpy as np

from tagspeech.inference.recognizer import WindowResult
from tagspeech.segments import Segment, clipped, word_times

GAP = ""  # the partner of a word without a partner


class _Word(NamedTuple):
    time: float  # of the middle of the word
    start: float
    text: str


def join(results: Sequence[WindowResult]) -> list[WindowResult]:
    """The results of a recording's windows, in order, without the words that two of them share.

    A word belongs to the side of a seam on which its middle is (`word_times`). A segment across a
    seam is cut there; its parts meet at the same time, so that `mend` can join them.
    """
    joined: list[WindowResult] = []
    for window in results:
        if joined and joined[-1].end > window.start:
            before = joined[-1]
            at = _seam(before, window)
            joined[-1] = _part(before, before.start, at)
            window = _part(window, at, window.end)
        joined.append(window)
    return joined


def mend(segments: Sequence[Segment]) -> list[Segment]:
    """Joins segments of one speaker where one starts at the time at which the other ends."""
    mended: list[Segment] = []
    open_ended: dict[tuple[str, float], int] = {}  # speaker and end, place in `mended`
    for segment in segments:
        place = open_ended.pop((segment.speaker, segment.start), None)
        if place is None:
            place = len(mended)
            mended.append(segment)
        else:
            mended[place] = _joined(mended[place], segment)
        open_ended[segment.speaker, segment.end] = place
    return mended


def _joined(first: Segment, second: Segment) -> Segment:
    """Two segments as one."""
    confidences = None
    if first.word_confidences is not None and second.word_confidences is not None:
        confidences = first.word_confidences + second.word_confidences
    spans = None
    if first.word_spans is not None and second.word_spans is not None:
        spans = first.word_spans + second.word_spans
    words = f"{first.words} {second.words}".strip()
    return replace(
        first, end=second.end, words=words, word_confidences=confidences, word_spans=spans
    )


def _seam(before: WindowResult, after: WindowResult) -> float:
    middle = (after.start + before.end) / 2
    left, right = (
        [word for word in _words(window.segments) if after.start <= word.time <= before.end]
        for window in (before, after)
    )
    pairs = kaldialign.align([word.text for word in left], [word.text for word in right], GAP)
    times: list[float] = []
    places = [0, 0]
    for first, second in pairs:
        if first == second:
            starts = left[places[0]].start, right[places[1]].start
            times.append(sum(starts) / 2)
        places[0] += first != GAP
        places[1] += second != GAP
    nearest: float = min(times, key=lambda time: abs(time - middle), default=middle)
    return round(nearest, 3)


def _words(segments: Sequence[Segment]) -> list[_Word]:
    found = [word for segment in segments for word in _words_of(segment)]
    return sorted(found, key=lambda word: word.time)


def _words_of(segment: Segment) -> list[_Word]:
    return [
        _Word((start + end) / 2, start, word)
        for (start, end), word in zip(word_times(segment), segment.words.split(), strict=True)
    ]


def _part(window: WindowResult, start: float, end: float) -> WindowResult:
    """The part of a window between two times: segments are cut, words belong by their middle."""
    segments, kept = [], []
    for number, segment in enumerate(window.segments):
        inside = [start <= word.time < end for word in _words_of(segment)]
        begins, ends = max(segment.start, start), min(segment.end, end)
        if not any(inside) or begins >= ends:
            continue
        words = " ".join(compress(segment.words.split(), inside))
        confidences = segment.word_confidences
        if confidences is not None:
            confidences = tuple(compress(confidences, inside))
        spans = segment.word_spans
        if spans is not None:
            spans = clipped(tuple(compress(spans, inside)), begins, ends)
        segments.append(
            replace(
                segment,
                start=begins,
                end=ends,
                words=words,
                word_confidences=confidences,
                word_spans=spans,
            )
        )
        kept.append(number)
    vectors_ND = window.vectors[np.array(kept, dtype=int)]
    return WindowResult(start, end, tuple(segments), vectors_ND)
