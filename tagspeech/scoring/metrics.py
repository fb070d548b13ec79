"""Adds up scored sessions to rates with confidence intervals."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from meeteval.wer.wer.error_rate import ErrorRate
from numpy.typing import NDArray

from tagspeech.scoring.diarization import DER_KINDS, Diarization

WORD_RATES = (
    *("wer", "cpwer", "cpwer_overlap", "cpwer_nonoverlap", "tcpwer", "orcwer", "tcorcwer"),
)
DURATIONS = (0, 5, 10, 20, 30, 80)  # starts of the ranges of "by_duration", in seconds
CONFIDENCE, RESAMPLES = 0.95, 1000

Parts = dict[str, tuple[float, float]]  # metric: numerator, denominator


@dataclass(frozen=True)
class SessionCounts:
    """The counts of one session. `malformed` is None if unknown."""

    seconds: float
    malformed: bool | None
    empty: bool
    words: dict[str, ErrorRate]
    orc_exact: bool
    diarization: dict[str, Diarization]
    ref_speakers: int
    hyp_speakers: int
    gender_correct: float
    gender_matched: float
    ref_self_overlaps: int
    hyp_self_overlaps: int


def metrics(results: Sequence[SessionCounts], collar: float, intervals: bool) -> dict[str, Any]:
    """The metrics of a set of sessions: errors and lengths are added up, then divided.

    "malformed_rate" is present if it is known for all sessions. With `intervals`, "intervals" has
    the confidence interval of each rate (`interval`).
    """
    count = len(results)
    difference = [abs(result.ref_speakers - result.hyp_speakers) for result in results]
    known = all(result.malformed is not None for result in results)
    matched = sum(result.gender_matched for result in results)
    correct = sum(result.gender_correct for result in results)
    words = {key: _word_rate(sum(result.words[key] for result in results)) for key in WORD_RATES}
    for key in ("tcpwer", "tcorcwer"):
        words[key]["collar"] = collar
    for key in ("orcwer", "tcorcwer"):
        words[key]["greedy_sessions"] = sum(not result.orc_exact for result in results)
    summary = {
        "sessions": count,
        "seconds": round(sum(result.seconds for result in results), 6),
        **({"malformed_rate": sum(bool(r.malformed) for r in results) / count} if known else {}),
        "empty_rate": sum(result.empty for result in results) / count,
        **words,
        **{
            key: {
                **_diarization_rate(reduce(add, (result.diarization[key] for result in results))),
                "collar": der_collar,
            }
            for key, (der_collar, _) in DER_KINDS.items()
        },
        "speaker_count_accuracy": difference.count(0) / count,
        "speaker_count_mean_absolute_error": sum(difference) / count,
        "gender_accuracy": {
            "accuracy": correct / matched if matched else 0.0,
            "matched_seconds": round(matched, 6),
        },
        "self_overlaps": {
            "ref": sum(result.ref_self_overlaps for result in results),
            "hyp": sum(result.hyp_self_overlaps for result in results),
        },
    }
    if intervals:
        rows = [_parts(result) for result in results]
        summary["intervals"] = {
            key: interval([row[key] for row in rows])
            for key in rows[0]
            if key != "malformed_rate" or known
        }
    return summary


def _word_rate(rate: ErrorRate) -> dict[str, Any]:
    keys = ("error_rate", "errors", "length", "insertions", "deletions", "substitutions")
    return {key: getattr(rate, key) for key in keys}


def _diarization_rate(parts: Diarization) -> dict[str, Any]:
    return {
        "error_rate": parts.errors / parts.scored if parts.scored else None,
        **{
            key: round(getattr(parts, key), 6)
            for key in ("missed", "false_alarm", "confusion", "scored")
        },
    }


def _parts(result: SessionCounts) -> Parts:
    difference = abs(result.ref_speakers - result.hyp_speakers)
    return {
        **{key: (rate.errors, rate.length) for key, rate in result.words.items()},
        **{key: (parts.errors, parts.scored) for key, parts in result.diarization.items()},
        "speaker_count_accuracy": (difference == 0, 1),
        "speaker_count_mean_absolute_error": (difference, 1),
        "gender_accuracy": (result.gender_correct, result.gender_matched),
        "empty_rate": (result.empty, 1),
        "malformed_rate": (bool(result.malformed), 1),
    }


def interval(parts: Iterable[tuple[float, float]]) -> list[float] | None:
    """The confidence interval of a rate by percentile bootstrap over sessions.

    The seed is fixed, so all metrics use the same resamples.

    Args:
        parts: Errors and length of each session.

    Returns:
        The lower and upper bound at level `CONFIDENCE`; None for fewer than two sessions, or if a
        resample may have zero length.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap  # slow to import

    errors, lengths = np.array(list(parts), dtype=float).T
    if len(errors) < 2:
        return None
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # the result is None instead
        result = bootstrap(
            (errors, lengths),
            _rate,
            n_resamples=RESAMPLES,
            batch=100,
            vectorized=True,
            paired=True,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(0),
        )
    low, high = (float(end) for end in result.confidence_interval)
    return [round(low, 6), round(high, 6)] if np.isfinite([low, high]).all() else None


def _rate(errors: NDArray[Any], lengths: NDArray[Any], axis: int) -> NDArray[Any]:
    rate: NDArray[Any] = errors.sum(axis=axis) / lengths.sum(axis=axis)
    return rate


def duration_range(seconds: float) -> str:
    """The range of `DURATIONS` that contains `seconds`: "5-10" excludes 10, "80+" is open."""
    place = max(0, sum(seconds >= start for start in DURATIONS) - 1)
    if place + 1 == len(DURATIONS):
        return f"{DURATIONS[place]}+"
    return f"{DURATIONS[place]}-{DURATIONS[place + 1]}"
