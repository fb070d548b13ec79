"""All metrics of a test set: every session is scored, then the sessions are added up."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from typing import Any

from tqdm import tqdm

from tagspeech.errors import InputError
from tagspeech.scoring.diarization import Stretch, diarization_kinds, matched_gender, turns
from tagspeech.scoring.metrics import DURATIONS, SessionCounts, duration_range, metrics
from tagspeech.scoring.protocols import as_authors, check_protocol, left_out, of_the_paper
from tagspeech.scoring.words import quiet_meeteval, word_error_rates
from tagspeech.segments import Segment, composed


def score(
    ref: Sequence[Segment],
    hyp: Sequence[Segment],
    *,
    sessions: Sequence[str] | None = None,
    malformed: Collection[str] | None = None,
    seconds: Mapping[str, float] | None = None,
    protocol: str = "all",
    language: str = "en",
    collar: float = 5.0,
    uem: Mapping[str, Sequence[Stretch]] | None = None,
    intervals: bool = False,
) -> dict[str, Any]:
    """Scores `hyp` against `ref`.

    sessions   those that count, beside those of `ref`; their reference may be empty
    malformed  sessions whose output did not parse whole; they are scored on the segments given.
               None: nobody knows, and "malformed_rate" is absent
    seconds    how long a session is; without it, to the end of its last reference segment
    protocol   "paper": "overall" has sessions of `PROTOCOL` seconds and says in "left_out" what
               the others hold; "all" (beside "overall", where some are left out) has everything.
               "as-authors": "overall" is scored as the authors of the paper do
               (`protocols.as_authors`); "all" beside it and "sessions" have everything, as we do
    collar     of tcpWER and tcORC-WER, in seconds
    uem        stretches (start, end) of a session, in seconds, that the DER is of and that segments
               of time-constrained word rates must reach into; a session that is not in it is
               scored as without it. "uem" in "overall" has how many sessions and seconds it is of
    intervals  confidence intervals of the rates, in "intervals"

    Returns "overall", perhaps "all", then "by_duration" (`DURATIONS`) and "by_speakers" (of the
    reference) over the sessions of "overall", and "sessions": each by itself. All rates are
    fractions; a rate without any reference to divide by is None, a gender accuracy without any
    matched speech 0. A session without a hypothesis counts as deletions and missed speech.

    Raises `InputError` when `protocol` is none of `PROTOCOLS` or does not fit `malformed` or `uem`,
    `collar` is negative or not finite, there is no session (of the protocol), or `hyp` or
    `malformed` name one that is neither in `ref` nor in `sessions`.
    """
    check_protocol(protocol, malformed, uem)
    names = list(dict.fromkeys([*map(composed, sessions or ()), *(s.session for s in ref)]))
    malformed = None if malformed is None else {composed(name) for name in malformed}
    _check(collar, names, {*(s.session for s in hyp), *(malformed or ())})
    ref_by, hyp_by = _by_session(ref), _by_session(hyp)
    lasts = {name: max((s.end for s in ref_by[name]), default=0.0) for name in names}
    known = {composed(name): own for name, own in (seconds or {}).items()}
    lasts.update({name: own for name, own in known.items() if name in lasts})
    with quiet_meeteval():
        results = {
            name: _score_session(
                *(ref_by[name], hyp_by[name], lasts[name]),
                malformed=None if malformed is None else name in malformed,
                language=language,
                collar=collar,
                uem=(uem or {}).get(name),
            )
            for name in tqdm(names, desc="score", unit="session", disable=None)
        }

    def summary(some: Sequence[SessionCounts]) -> dict[str, Any]:
        return {"language": language, **metrics(some, collar, intervals)}

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
    lengths = [duration_range(start) for start in DURATIONS]
    numbers = [str(number) for number in sorted({one.ref_speakers for one in within})]
    return {
        **scores,
        "by_duration": _split(within, lambda one: duration_range(one.seconds), lengths, summary),
        "by_speakers": _split(within, lambda one: str(one.ref_speakers), numbers, summary),
        "sessions": {name: metrics([one], collar, False) for name, one in results.items()},
    }


def _check(collar: float, names: Sequence[str], given: Set[str]) -> None:
    """Raises `InputError` for an impossible collar, where there is no session, and where one is
    `given` that is not among `names`."""
    if not 0 <= collar < math.inf:
        raise InputError(f"collar: must be a finite number of seconds from 0, got {collar:g}")
    if not names:
        raise InputError("reference: has no session, so there is nothing to score")
    strangers = sorted(given - set(names))
    if strangers:
        raise InputError(
            f"hypothesis: session {strangers[0]!r} ({len(strangers)} such) is not in the "
            "reference; score it against the reference of the same test set"
        )


def _extent(uem: Mapping[str, Sequence[Stretch]] | None) -> dict[str, float] | None:
    """How many sessions and seconds a UEM is of."""
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
    """The metrics of the sessions of each key, in `order`."""
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
    collar: float,
    uem: Sequence[Stretch] | None,
) -> SessionCounts:
    parts = diarization_kinds(ref, hyp, uem)
    correct, matched = matched_gender(ref, hyp, parts["der"].mapping)
    words, orc_exact = word_error_rates(ref, hyp, language=language, collar=collar, uem=uem)
    return SessionCounts(
        seconds=seconds,
        malformed=malformed,
        empty=not hyp,
        words=words,
        orc_exact=orc_exact,
        diarization=parts,
        ref_speakers=len({segment.speaker for segment in ref}),
        hyp_speakers=len({segment.speaker for segment in hyp}),
        gender_correct=correct,
        gender_matched=matched,
        ref_self_overlaps=turns(ref)[1],
        hyp_self_overlaps=turns(hyp)[1],
    )
