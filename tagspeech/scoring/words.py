"""Word error rates of one session, by meeteval (edit distances by kaldialign inside it)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
from meeteval.io import SegLST
from meeteval.wer import (
    cp_word_error_rate,
    siso_word_error_rate,
    time_constrained_minimum_permutation_word_error_rate,
)
from meeteval.wer.wer.error_rate import ErrorRate
from scipy.optimize import linear_sum_assignment

from tagspeech.segments import Segment, by_time
from tagspeech.text import normalise, scoring_units

MEETEVAL_SPEAKERS = 20  # above this number of speakers meeteval refuses to score a session


@contextmanager
def quiet_meeteval() -> Iterator[None]:
    """Silences its line per session about self-overlap: `score` counts the overlaps instead."""
    logger = logging.getLogger("preprocess")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def word_error_rates(
    ref: Sequence[Segment], hyp: Sequence[Segment], *, language: str, collar: float
) -> dict[str, ErrorRate]:
    """The rates "wer", "cpwer" and "tcpwer" of one session; either side may be empty.

    wer     speakers ignored: the segments of each side are joined by start time
    cpwer   words of each speaker joined, the best pairing of speakers (Hungarian algorithm)
    tcpwer  as cpwer, with words matching only within `collar` seconds; word times are spread over
            a segment by characters. Where a speaker overlaps with himself, the segments keep the
            order of their starts (meeteval's default), so nothing is refused or dropped.
    """
    ref_units, hyp_units = _units(ref, language), _units(hyp, language)
    tcp = partial(time_constrained_minimum_permutation_word_error_rate, collar=collar)
    return {
        "wer": siso_word_error_rate(_joined(ref_units), _joined(hyp_units)),
        "cpwer": _best_pairing(cp_word_error_rate, ref_units, hyp_units),
        "tcpwer": _best_pairing(tcp, ref_units, hyp_units),
    }


def _units(segments: Sequence[Segment], language: str) -> list[dict[str, str | float]]:
    """SegLST rows in order of time, words normalised and separated into units by blanks."""
    rows: list[dict[str, str | float]] = []
    for segment in by_time(list(segments)):
        words = scoring_units(normalise(segment.words, language), language)
        if words:
            rows.append(
                {
                    "session_id": segment.session,
                    "speaker": segment.speaker,
                    "start_time": segment.start,
                    "end_time": segment.end,
                    "words": words,
                }
            )
    return rows


def _joined(rows: list[dict[str, str | float]]) -> str:
    return " ".join(str(row["words"]) for row in rows)


def _best_pairing(
    metric: Callable[[SegLST, SegLST], ErrorRate],
    ref: list[dict[str, str | float]],
    hyp: list[dict[str, str | float]],
) -> ErrorRate:
    """`metric` over a session of any number of speakers.

    meeteval refuses more than 20 speakers, which an undertrained model does write. Then every pair
    of speakers is scored by itself and the pairs of least errors are added up: the definition.
    """
    refs, hyps = _by_speaker(ref), _by_speaker(hyp)
    if max(len(refs), len(hyps)) <= MEETEVAL_SPEAKERS:
        return metric(SegLST(ref), SegLST(hyp))
    # A speaker paired with nobody costs the same whoever nobody is: one empty row or column each.
    nobody = SegLST([])
    rates = [[metric(r, h) for h in [*hyps, nobody]] for r in [*refs, nobody]]
    rows = [min(n, len(refs)) for n in range(max(len(refs), len(hyps)))]
    columns = [min(n, len(hyps)) for n in range(len(rows))]
    cost = np.array([[rates[row][column].errors for column in columns] for row in rows])
    pairs = zip(*linear_sum_assignment(cost), strict=True)
    return sum(rates[rows[r]][columns[h]] for r, h in pairs)


def _by_speaker(rows: list[dict[str, str | float]]) -> list[SegLST]:
    return list(SegLST(rows).groupby("speaker").values())
