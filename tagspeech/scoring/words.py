"""Word error rates of one session, by meeteval (edit distances by kaldialign inside it)."""

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
from tagspeech.segments import Segment, by_start
from tagspeech.text import normalise, scoring_units

MEETEVAL_SPEAKERS = 20  # above this number of speakers meeteval refuses to score a session
# Above these ORC-WER is searched greedily: cells of the exact search (some 10 ms; it grows by a
# factor of the words of each speaker), and speakers, of which meeteval refuses more.
ORC_CELLS, ORC_SPEAKERS = 10**6, 10

SegLSTRow = dict[str, str | float]  # of SegLST


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
    ref: Sequence[Segment],
    hyp: Sequence[Segment],
    *,
    language: str,
    collar: float,
    uem: Sequence[Stretch] | None = None,
) -> tuple[dict[str, ErrorRate], bool]:
    """The rates "wer", "cpwer", "tcpwer", "orcwer", "tcorcwer" of one session; a side may be empty.

    wer     speakers ignored: the segments of each side are joined by start time
    cpwer   words of each speaker joined, the best pairing of speakers (Hungarian algorithm)
    tcpwer  as cpwer, with words matching only within `collar` seconds; word times are spread over
            a segment by characters. Where a speaker overlaps with himself, the segments keep the
            order of their starts (meeteval's default), so nothing is refused or dropped.
    orcwer  each reference segment is given to the hypothesis speaker where it costs least: words
            of a segment stay together, who spoke them does not count
    tcorcwer  as orcwer, with words matching only within `collar` seconds, as in tcpwer

    With `uem`, "tcpwer" and "tcorcwer" are of the segments that reach into one of its stretches,
    whole (meeteval's rule); the others need no times and are of all segments.

    Also, whether the ORC rates are exact. Where that search would take too long (`ORC_CELLS`) it is
    meeteval's greedy one, which can only be too high.
    """
    ref_units, hyp_units = unit_rows(ref, language), unit_rows(hyp, language)
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


def unit_rows(segments: Sequence[Segment], language: str) -> list[SegLSTRow]:
    """SegLST rows in order of their starts, words normalised and separated into units by blanks.

    What starts together keeps its order, as in meeteval.
    """
    rows: list[SegLSTRow] = []
    for segment in by_start(list(segments)):
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


def _within(rows: list[SegLSTRow], uem: Sequence[Stretch] | None) -> list[SegLSTRow]:
    """The rows that reach into one of the stretches of `uem`, or touch it."""
    if uem is None:
        return rows

    def reaches(row: SegLSTRow, stretch: Stretch) -> bool:
        start, end = float(row["start_time"]), float(row["end_time"])
        return stretch[0] <= end and start <= stretch[1]

    return [row for row in rows if any(reaches(row, stretch) for stretch in uem)]


def joined(rows: Sequence[SegLSTRow]) -> str:
    """All words of the rows."""
    return " ".join(str(row["words"]) for row in rows)


def _best_pairing(
    metric: Callable[[SegLST, SegLST], ErrorRate],
    ref: list[SegLSTRow],
    hyp: list[SegLSTRow],
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


def _by_speaker(rows: list[SegLSTRow]) -> list[SegLST]:
    return list(SegLST(rows).groupby("speaker").values())


def _is_small(ref: list[SegLSTRow], hyp: list[SegLSTRow]) -> bool:
    """Whether the exact ORC-WER is quick: reference words times words of each speaker."""
    streams = [joined(list(stream)).split() for stream in _by_speaker(hyp)]
    cells = math.prod([len(joined(ref).split()), *(len(words) + 1 for words in streams)])
    return len(streams) <= ORC_SPEAKERS and cells <= ORC_CELLS


def _orc(ref: list[SegLSTRow], hyp: list[SegLSTRow], exact: bool) -> ErrorRate:
    if not ref or not hyp:  # meeteval fails there, and there is nothing to choose
        return siso_word_error_rate(joined(ref), joined(hyp))
    if exact:
        return orc_word_error_rate(SegLST(ref), SegLST(hyp))
    streams = _greedy_streams(SegLST(ref), SegLST(hyp))
    return sum(siso_word_error_rate(joined(spoken), joined(heard)) for spoken, heard in streams)


def _time_constrained_orc(
    ref: list[SegLSTRow], hyp: list[SegLSTRow], exact: bool, collar: float
) -> ErrorRate:
    """Of more speakers than meeteval accepts, with the segments given to speakers as by `_orc`."""
    if not ref or not hyp:
        return siso_word_error_rate(joined(ref), joined(hyp))
    sides = SegLST(ref), SegLST(hyp)
    if exact:
        return time_constrained_orc_wer(*sides, collar=collar)
    if len(_by_speaker(hyp)) <= ORC_SPEAKERS:
        return greedy_time_constrained_orc_wer(*sides, collar=collar)
    return sum(
        time_constrained_siso_word_error_rate(
            SegLST([{**row, "speaker": ""} for row in spoken]), SegLST(heard), collar=collar
        )
        for spoken, heard in _greedy_streams(*sides)
    )


def _greedy_streams(ref: SegLST, hyp: SegLST) -> list[tuple[list[SegLSTRow], list[SegLSTRow]]]:
    """The reference segments given to each hypothesis speaker, and that speaker's segments.

    By meeteval's greedy search for ORC-WER, from cpWER's pairing on, for any number of speakers.
    """
    numbers: defaultdict[str, int] = defaultdict(lambda: len(numbers))

    def numbered(rows: Sequence[SegLSTRow]) -> list[int]:
        return [numbers[word] for word in joined(rows).split()]

    streams = list(hyp.groupby("speaker").values())
    segments = [{**row, "words": numbered([row]), "segment_index": n} for n, row in enumerate(ref)]
    heard = SegLST([{**row, "words": numbered([row])} for row in hyp])
    _, assignment = greedy_combination_matching(
        [segment["words"] for segment in segments],
        [numbered(list(stream)) for stream in streams],
        initialize_assignment(SegLST(segments), heard),
    )
    spoken: defaultdict[int, list[SegLSTRow]] = defaultdict(list)
    for row, stream in zip(ref, assignment, strict=True):
        spoken[stream].append(row)
    return [(spoken[n], list(stream)) for n, stream in enumerate(streams)]
