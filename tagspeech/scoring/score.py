"""All metrics of a test set: every session is scored, then the sessions are added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from typing import Any

from tqdm import tqdm

from tagspeech.errors import InputError
from tagspeech.scoring.diarization import diarization, matched_gender, turns
from tagspeech.scoring.metrics import DER_KINDS, DURATIONS, Session, duration_range, metrics
from tagspeech.scoring.words import quiet_meeteval, word_error_rates
from tagspeech.segments import Segment

PROTOCOLS = ("all", "paper")
PROTOCOL = (0.5, 80.0)  # seconds of the utterance groups that the paper scores (docs/paper.md)


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
    intervals: bool = False,
) -> dict[str, Any]:
    """Scores `hyp` against `ref`.

    sessions   those that count, beside those of `ref`; their reference may be empty
    malformed  sessions whose output did not parse whole; they are scored on the segments given.
               None: nobody knows, and "malformed_rate" is absent
    seconds    how long a session is; without it, to the end of its last reference segment
    protocol   "paper": "overall" has sessions of `PROTOCOL` seconds and says in "left_out" what
               the others hold; "all" (beside "overall", where some are left out) has everything
    collar     of tcpWER, in seconds
    intervals  confidence intervals of the rates, in "intervals"

    Returns "overall", perhaps "all", then "by_duration" (`DURATIONS`) and "by_speakers" (of the
    reference) over the sessions of "overall", and "sessions": each by itself. All rates are
    fractions; a rate without any reference to divide by is None, a gender accuracy without any
    matched speech 0. A session without a hypothesis counts as deletions and missed speech.

    Raises `InputError` when `protocol` is none of `PROTOCOLS`, when there is no session (of the
    protocol), or when `hyp` or `malformed` name one that is neither in `ref` nor in `sessions`.
    """
    names = list(dict.fromkeys([*(sessions or ()), *(s.session for s in ref)]))
    _check(protocol, names, {*(s.session for s in hyp), *(malformed or ())})
    ref_by, hyp_by = _by_session(ref), _by_session(hyp)
    lasts = {name: max((s.end for s in ref_by[name]), default=0.0) for name in names}
    lasts.update({name: own for name, own in (seconds or {}).items() if name in lasts})
    with quiet_meeteval():
        results = {
            name: _score_session(
                *(ref_by[name], hyp_by[name], lasts[name]),
                malformed=None if malformed is None else name in malformed,
                language=language,
                collar=collar,
            )
            for name in tqdm(names, desc="score", unit="session", disable=None)
        }

    def summary(some: Sequence[Session]) -> dict[str, Any]:
        return {"language": language, **metrics(some, collar, intervals)}

    everything = list(results.values())
    within = _of_the_paper(everything) if protocol == "paper" else everything
    scores = {"overall": {"protocol": protocol, **summary(within)}}
    if protocol == "paper":
        scores["overall"]["left_out"] = _left_out(within, everything)
    if len(within) < len(everything):
        scores["all"] = {"protocol": "all", **summary(everything)}
    lengths = [duration_range(start) for start in DURATIONS]
    numbers = [str(number) for number in sorted({one.ref_speakers for one in within})]
    return {
        **scores,
        "by_duration": _split(within, lambda one: duration_range(one.seconds), lengths, summary),
        "by_speakers": _split(within, lambda one: str(one.ref_speakers), numbers, summary),
        "sessions": {name: metrics([one], collar, False) for name, one in results.items()},
    }


def _check(protocol: str, names: Sequence[str], given: Set[str]) -> None:
    """Raises `InputError` for an unknown protocol, where there is no session, and where one is
    `given` that is not among `names`."""
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol: {protocol!r} is unknown; wants one of {', '.join(PROTOCOLS)}")
    if not names:
        raise InputError("reference: has no session, so there is nothing to score")
    strangers = sorted(given - set(names))
    if strangers:
        raise InputError(
            f"hypothesis: session {strangers[0]!r} ({len(strangers)} such) is not in the "
            "reference; score it against the reference of the same test set"
        )


def _of_the_paper(results: Sequence[Session]) -> list[Session]:
    """Those of `PROTOCOL` seconds. Raises `InputError` where there is none."""
    shortest, longest = PROTOCOL
    within = [result for result in results if shortest <= result.seconds <= longest]
    if not within:
        raise InputError(
            f"reference: no session lasts {shortest:g}-{longest:g} s, as the paper's protocol "
            "wants; score with --protocol all"
        )
    return within


def _left_out(within: Sequence[Session], everything: Sequence[Session]) -> dict[str, float]:
    """How much is not scored: sessions, and speech in seconds, once per speaker talking."""
    kept, whole = (
        sum(result.diarization["der"].scored for result in some) for some in (within, everything)
    )
    return {
        "sessions": len(everything) - len(within),
        "speech_seconds": round(whole - kept, 6),
        "share_of_speech": round(1 - kept / whole, 6) if whole else 0.0,
    }


def _split(
    results: Sequence[Session],
    key: Callable[[Session], str],
    order: Sequence[str],
    summary: Callable[[Sequence[Session]], dict[str, Any]],
) -> dict[str, Any]:
    """The metrics of the sessions of each key, in `order`."""
    parts: defaultdict[str, list[Session]] = defaultdict(list)
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
) -> Session:
    ref_turns, ref_overlaps = turns(ref)
    hyp_turns, hyp_overlaps = turns(hyp)
    parts = {key: diarization(ref_turns, hyp_turns, *kind) for key, kind in DER_KINDS.items()}
    correct, matched = matched_gender(ref, hyp, parts["der"].mapping)
    words, orc_exact = word_error_rates(ref, hyp, language=language, collar=collar)
    return Session(
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
        ref_self_overlaps=ref_overlaps,
        hyp_self_overlaps=hyp_overlaps,
    )
