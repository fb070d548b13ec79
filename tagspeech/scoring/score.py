"""Computes all metrics of a test set: scores each session, then adds them up."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from typing import Any

from tqdm import tqdm

from tagspeech.errors import InputError
from tagspeech.scoring.diarization import Stretch, diarization_kinds, matched_gender, turns
from tagspeech.scoring.metrics import DURATIONS, SessionCounts, duration_range, metrics
from tagspeech.scoring.normalisers import OWN, described_normaliser
from tagspeech.scoring.overlap import errors_by_overlap
from tagspeech.scoring.protocols import as_authors, check_protocol, left_out, of_the_paper
from tagspeech.scoring.words import quiet_meeteval, word_error_rates
from tagspeech.segments import Segment, composed

log = logging.getLogger(__name__)


def score(
    ref: Sequence[Segment],
    hyp: Sequence[Segment],
    *,
    sessions: Sequence[str] | None = None,
    malformed: Collection[str] | None = None,
    seconds: Mapping[str, float] | None = None,
    protocol: str = "all",
    language: str = "en",
    normaliser: str = OWN,
    collar: float = 5.0,
    uem: Mapping[str, Sequence[Stretch]] | None = None,
    intervals: bool = False,
) -> dict[str, Any]:
    """Scores `hyp` against `ref`. A session without a hypothesis is deletions and missed speech.

    Args:
        ref: Reference segments of all sessions.
        hyp: Hypothesis segments of all sessions.
        sessions: Further sessions to score, whose reference may be empty.
        malformed: Sessions whose output is malformed; their segments are scored all the same.
            None: unknown, and "malformed_rate" is absent.
        seconds: Durations of sessions; by default the end of the last reference segment.
        protocol: One of `PROTOCOLS`. With "paper", "overall" has the sessions of `PROTOCOL`
            seconds; with "as-authors" it is scored by `protocols.as_authors`. Both add "left_out"
            to "overall", and "all" with the metrics of all sessions if these differ. "paper" also
            adds "as_authors", where `malformed` is known and there is no `uem`.
        language: For `normalise` and `scoring_units`.
        normaliser: One of `tagspeech.scoring.normalisers.NORMALISERS`, named in the scores.
        collar: Of tcpWER and tcORC-WER, in seconds.
        uem: Stretches (start, end), in seconds, by session. DER is computed within them;
            time-constrained word rates use the segments that intersect them. Sessions that are not
            in it are scored whole.
        intervals: Adds confidence intervals of the rates as "intervals".

    Returns:
        "overall"; "all" if needed; "by_duration" (`DURATIONS`) and "by_speakers" (of the
        reference) over the sessions of "overall"; and "sessions" with each session. Rates are
        fractions; None if the reference is empty (gender accuracy: 0 without matched speech).

    Raises:
        InputError: `protocol` is unknown or does not fit `malformed` or `uem`, `collar` is negative
            or not finite, there is no session to score, or `hyp` or `malformed` has a session that
            is neither in `ref` nor in `sessions`.
    """
    check_protocol(protocol, malformed, uem)
    described = described_normaliser(normaliser, language)
    names = list(dict.fromkeys([*map(composed, sessions or ()), *(s.session for s in ref)]))
    malformed = None if malformed is None else {composed(name) for name in malformed}
    _check(collar, names, {*(s.session for s in hyp), *(malformed or ())})
    ref_by, hyp_by = _by_session(ref), _by_session(hyp)
    lasts = {name: max((s.end for s in ref_by[name]), default=0.0) for name in names}
    known = {composed(name): duration for name, duration in (seconds or {}).items()}
    lasts.update({name: duration for name, duration in known.items() if name in lasts})
    with quiet_meeteval():
        results = {
            name: _score_session(
                *(ref_by[name], hyp_by[name], lasts[name]),
                malformed=None if malformed is None else name in malformed,
                language=language,
                normaliser=normaliser,
                collar=collar,
                uem=(uem or {}).get(name),
            )
            for name in tqdm(names, desc="score", unit="session", disable=None)
        }

    def summary(subset: Sequence[SessionCounts]) -> dict[str, Any]:
        return {"language": language, "normaliser": described, **metrics(subset, collar, intervals)}

    everything = list(results.values())
    within = everything
    if protocol == "paper":
        within = of_the_paper(everything)
    elif protocol == "as-authors":
        within = as_authors(results, ref_by, hyp_by)
    scores = {"overall": {"protocol": protocol, "uem": _extent(uem), **summary(within)}}
    if protocol != "all":
        scores["overall"]["left_out"] = left_out(within, everything)
    if protocol == "as-authors" or len(within) < len(everything):
        scores["all"] = {"protocol": "all", **summary(everything)}
    if protocol == "paper" and malformed is not None and uem is None:
        scores |= _as_authors_too(results, ref_by, hyp_by, summary)
    lengths = [duration_range(start) for start in DURATIONS]
    numbers = [str(number) for number in sorted({result.ref_speakers for result in within})]
    return {
        **scores,
        "by_duration": _split(within, lambda r: duration_range(r.seconds), lengths, summary),
        "by_speakers": _split(within, lambda r: str(r.ref_speakers), numbers, summary),
        "sessions": {name: metrics([result], collar, False) for name, result in results.items()},
    }


def _as_authors_too(
    results: Mapping[str, SessionCounts],
    ref: Mapping[str, list[Segment]],
    hyp: Mapping[str, list[Segment]],
    summary: Callable[[Sequence[SessionCounts]], dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """The third set of scores of the protocol "paper"; none, with a warning, without an output."""
    try:
        within = as_authors(results, ref, hyp)
    except InputError as error:
        log.warning("not scored as the authors score: %s", error)
        return {}
    left = left_out(within, list(results.values()))
    scores = {"protocol": "as-authors", "uem": None, **summary(within), "left_out": left}
    return {"as_authors": scores}


def _check(collar: float, names: Sequence[str], given: Set[str]) -> None:
    """Raises `InputError` for an invalid collar, without any session, and for `given` sessions that
    are not in `names`."""
    if not 0 <= collar < math.inf:
        raise InputError(f"collar: must be a finite number of seconds from 0, got {collar:g}")
    if not names:
        raise InputError("reference: has no session, so there is nothing to score")
    unknown = sorted(given - set(names))
    if unknown:
        raise InputError(
            f"hypothesis: session {unknown[0]!r} ({len(unknown)} such) is not in the "
            "reference; score it against the reference of the same test set"
        )


def _extent(uem: Mapping[str, Sequence[Stretch]] | None) -> dict[str, float] | None:
    """The number of sessions and seconds in a UEM."""
    if uem is None:
        return None
    seconds = sum(end - start for stretches in uem.values() for start, end in stretches)
    return {"sessions": len(uem), "seconds": round(seconds, 6)}


def _split(
    results: Sequence[SessionCounts],
    key: Callable[[SessionCounts], str],
    order: Sequence[str],
    summary: Callable[[Sequence[SessionCounts]], dict[str, Any]],
) -> dict[str, Any]:
    """The metrics of the sessions with each key, in `order`."""
    parts: defaultdict[str, list[SessionCounts]] = defaultdict(list)
    for result in results:
        parts[key(result)].append(result)
    return {name: summary(parts[name]) for name in order if name in parts}


def _by_session(segments: Sequence[Segment]) -> defaultdict[str, list[Segment]]:
    grouped: defaultdict[str, list[Segment]] = defaultdict(list)
    for segment in segments:
        grouped[segment.session].append(segment)
    return grouped


def _score_session(
    ref: list[Segment],
    hyp: list[Segment],
    seconds: float,
    *,
    malformed: bool | None,
    language: str,
    normaliser: str,
    collar: float,
    uem: Sequence[Stretch] | None,
) -> SessionCounts:
    parts = diarization_kinds(ref, hyp, uem)
    correct, matched = matched_gender(ref, hyp, parts["der"].mapping)
    how: Any = {"language": language, "normaliser": normaliser}
    words, orc_exact = word_error_rates(ref, hyp, **how, collar=collar, uem=uem)
    return SessionCounts(
        seconds=seconds,
        malformed=malformed,
        empty=not hyp,
        words={**words, **errors_by_overlap(ref, hyp, words["cpwer"], **how)},
        orc_exact=orc_exact,
        diarization=parts,
        ref_speakers=len({segment.speaker for segment in ref}),
        hyp_speakers=len({segment.speaker for segment in hyp}),
        gender_correct=correct,
        gender_matched=matched,
        ref_self_overlaps=turns(ref)[1],
        hyp_self_overlaps=turns(hyp)[1],
    )
