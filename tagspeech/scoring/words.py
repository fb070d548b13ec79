"""Word error rates of one session by meeteval."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
from meeteval.io import SegLST
from meeteval.wer import (
    cp_word_error_rate,
    greedy_time_constrained_orc_wer,
    orc_word_error_rate,
    siso_word_error_rate,
    time_constrained_minimum_permutation_word_error_rate,
    time_constrained_orc_wer,
    time_constrained_siso_word_error_rate,
)
from meeteval.wer.matching.greedy_combination_matching import (
    greedy_combination_matching,
    initialize_assignment,
)
from meeteval.wer.wer.error_rate import ErrorRate
from scipy.optimize import linear_sum_assignment

from tagspeech.scoring.diarization import Stretch
from tagspeech.scoring.normalisers import OWN, normaliser_of
from tagspeech.segments import Segment, by_start
from tagspeech.text import scoring_units

MEETEVAL_SPEAKERS = 20  # the most speakers that meeteval scores
# Above these limits ORC-WER is searched greedily: cells of the exact search (about 10 ms; a product
# over speakers), and speakers, of which meeteval accepts no more.
ORC_CELLS, ORC_SPEAKERS = 10**6, 10

SegLSTRow = dict[str, str | float]


@contextmanager
def quiet_meeteval() -> Iterator[None]:
    """Silences meeteval's warnings about self-overlap, which `score` counts instead."""
    logger = logging.getLogger("preprocess")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def word_error_rates(
    ref: Sequence[Segment],
    hyp: Sequence[Segment],
    *,
    language: str,
    collar: float,
    uem: Sequence[Stretch] | None = None,
    normaliser: str = OWN,
) -> tuple[dict[str, ErrorRate], bool]:
    """The word error rates of one session; either side may be empty.

    wer       speakers are ignored: the segments of each side are joined by start time
    cpwer     the words of each speaker are joined; the best pairing of speakers counts
    tcpwer    as cpwer, but words match only within `collar` seconds; word times are estimated from
              the segment. Self-overlapping segments are ordered by start (meeteval's default).
    orcwer    each reference segment is assigned to the hypothesis speaker with the fewest errors
    tcorcwer  as orcwer, but words match only within `collar` seconds

    With `uem`, tcpwer and tcorcwer use the whole segments that intersect it (meeteval's rule); the
    other rates ignore times and use all segments.

    Returns:
        The rates by name, and whether the ORC rates are exact. If the exact search is too slow
        (`ORC_CELLS`), meeteval's greedy search is used, which can only overestimate.
    """
    ref_units, hyp_units = (unit_rows(side, language, normaliser) for side in (ref, hyp))
    tcp = partial(time_constrained_minimum_permutation_word_error_rate, collar=collar)
    timed = _within(ref_units, uem), _within(hyp_units, uem)
    exact = _is_small(ref_units, hyp_units)
    rates = {
        "wer": siso_word_error_rate(joined(ref_units), joined(hyp_units)),
        "cpwer": _best_pairing(cp_word_error_rate, ref_units, hyp_units),
        "tcpwer": _best_pairing(tcp, *timed),
        "orcwer": _orc(ref_units, hyp_units, exact),
        "tcorcwer": _time_constrained_orc(*timed, exact, collar),
    }
    return rates, exact


def unit_rows(segments: Sequence[Segment], language: str, normaliser: str = OWN) -> list[SegLSTRow]:
    """SegLST rows sorted by start (stable), words normalised and split into units.

    `normaliser` is one of `tagspeech.scoring.normalisers.NORMALISERS`.
    """
    normal = normaliser_of(normaliser, language)
    rows: list[SegLSTRow] = []
    for segment in by_start(list(segments)):
        words = scoring_units(normal(segment.words), language)
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


def _within(rows: list[SegLSTRow], uem: Sequence[Stretch] | None) -> list[SegLSTRow]:
    """The rows that intersect or touch a stretch of `uem`."""
    if uem is None:
        return rows

    def intersects(row: SegLSTRow, stretch: Stretch) -> bool:
        return stretch[0] <= float(row["end_time"]) and float(row["start_time"]) <= stretch[1]

    return [row for row in rows if any(intersects(row, stretch) for stretch in uem)]


def joined(rows: Sequence[SegLSTRow]) -> str:
    """The words of all rows, joined by spaces."""
    return " ".join(str(row["words"]) for row in rows)


def _best_pairing(
    metric: Callable[[SegLST, SegLST], ErrorRate],
    ref: list[SegLSTRow],
    hyp: list[SegLSTRow],
) -> ErrorRate:
    """`metric` of a session with any number of speakers.

    An undertrained model writes more than the 20 speakers that meeteval accepts. Then all pairs of
    speakers are scored and the best pairs added up, which is the definition of the metric.
    """
    refs, hyps = _by_speaker(ref), _by_speaker(hyp)
    if max(len(refs), len(hyps)) <= MEETEVAL_SPEAKERS:
        return metric(SegLST(ref), SegLST(hyp))
    # The cost of an unpaired speaker is computed once: one empty row and one empty column.
    empty = SegLST([])
    rates = [[metric(r, h) for h in [*hyps, empty]] for r in [*refs, empty]]
    rows = [min(n, len(refs)) for n in range(max(len(refs), len(hyps)))]
    columns = [min(n, len(hyps)) for n in range(len(rows))]
    cost = np.array([[rates[row][column].errors for column in columns] for row in rows])
    pairs = zip(*linear_sum_assignment(cost), strict=True)
    return sum(rates[rows[r]][columns[h]] for r, h in pairs)


def _by_speaker(rows: list[SegLSTRow]) -> list[SegLST]:
    return list(SegLST(rows).groupby("speaker").values())


def _is_small(ref: list[SegLSTRow], hyp: list[SegLSTRow]) -> bool:
    """Whether the exact search for ORC-WER is fast: reference words times words of each speaker."""
    streams = [joined(list(stream)).split() for stream in _by_speaker(hyp)]
    cells = math.prod([len(joined(ref).split()), *(len(words) + 1 for words in streams)])
    return len(streams) <= ORC_SPEAKERS and cells <= ORC_CELLS


def _orc(ref: list[SegLSTRow], hyp: list[SegLSTRow], exact: bool) -> ErrorRate:
    if not ref or not hyp:  # meeteval fails on an empty side
        return siso_word_error_rate(joined(ref), joined(hyp))
    if exact:
        return orc_word_error_rate(SegLST(ref), SegLST(hyp))
    streams = _greedy_streams(SegLST(ref), SegLST(hyp))
    return sum(siso_word_error_rate(joined(r), joined(h)) for r, h in streams)


def _time_constrained_orc(
    ref: list[SegLSTRow], hyp: list[SegLSTRow], exact: bool, collar: float
) -> ErrorRate:
    """tcORC-WER; with more speakers than meeteval accepts, segments are assigned as in `_orc`."""
    if not ref or not hyp:
        return siso_word_error_rate(joined(ref), joined(hyp))
    sides = SegLST(ref), SegLST(hyp)
    if exact:
        return time_constrained_orc_wer(*sides, collar=collar)
    if len(_by_speaker(hyp)) <= ORC_SPEAKERS:
        return greedy_time_constrained_orc_wer(*sides, collar=collar)
    return sum(
        time_constrained_siso_word_error_rate(
            SegLST([{**row, "speaker": ""} for row in ref_rows]), SegLST(hyp_rows), collar=collar
        )
        for ref_rows, hyp_rows in _greedy_streams(*sides)
    )


def _greedy_streams(ref: SegLST, hyp: SegLST) -> list[tuple[list[SegLSTRow], list[SegLSTRow]]]:
    """The reference segments assigned to each hypothesis speaker, and the speaker's segments.

    Uses meeteval's greedy search for ORC-WER, starting from the pairing of cpWER.
    """
    numbers: defaultdict[str, int] = defaultdict(lambda: len(numbers))

    def numbered(rows: Sequence[SegLSTRow]) -> list[int]:
        return [numbers[word] for word in joined(rows).split()]

    streams = list(hyp.groupby("speaker").values())
    segments = [{**row, "words": numbered([row]), "segment_index": n} for n, row in enumerate(ref)]
    numbered_hyp = SegLST([{**row, "words": numbered([row])} for row in hyp])
    _, assignment = greedy_combination_matching(
        [segment["words"] for segment in segments],
        [numbered(list(stream)) for stream in streams],
        initialize_assignment(SegLST(segments), numbered_hyp),
    )
    assigned: defaultdict[int, list[SegLSTRow]] = defaultdict(list)
    for row, stream in zip(ref, assignment, strict=True):
        assigned[stream].append(row)
    return [(assigned[n], list(stream)) for n, stream in enumerate(streams)]
