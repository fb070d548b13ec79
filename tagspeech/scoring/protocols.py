"""Scoring protocols: that of the paper, and that of its authors' code."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tagspeech.errors import InputError
from tagspeech.scoring.diarization import diarization_kinds
from tagspeech.scoring.metrics import SessionCounts
from tagspeech.segments import Segment

PROTOCOLS = ("all", "paper", "as-authors")
PROTOCOL = (0.5, 80.0)  # durations in seconds of the groups that the paper scores


def check_protocol(protocol: str, malformed: Collection[str] | None, uem: Any) -> None:
    """Raises `InputError` if `protocol` is unknown, or if it is "as-authors" and `malformed` is
    None or `uem` is given."""
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol: must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if protocol != "as-authors":
        return
    if uem is not None:
        raise InputError("protocol: as-authors scores without a UEM; leave out --uem")
    if malformed is None:
        raise InputError(
            "protocol: as-authors excludes malformed outputs, but it is unknown which they are; "
            "name the decoder's journal with --raw, or score target texts"
        )


def of_the_paper(results: Sequence[SessionCounts]) -> list[SessionCounts]:
    """The sessions of `PROTOCOL` seconds. Raises `InputError` if there are none."""
    shortest, longest = PROTOCOL
    within = [result for result in results if shortest <= result.seconds <= longest]
    if not within:
        raise InputError(
            f"reference: no session lasts {shortest:g}-{longest:g} s, as the paper's protocol "
            "requires; score with --protocol all"
        )
    return within


def as_authors(
    results: Mapping[str, SessionCounts],
    ref: Mapping[str, list[Segment]],
    hyp: Mapping[str, list[Segment]],
) -> list[SessionCounts]:
    """Scores as the code of the paper's authors does, for comparison with the paper.

    Only sessions of `PROTOCOL` seconds with a well-formed, non-empty output count. DER is that of
    md-eval without a UEM: from the first to the last speech of the reference, so false alarms
    before and after it are free. Two bugs are not reproduced: an unknown gender is never correct,
    and segments of equal times do not replace one another.

    Raises:
        InputError: No session is left.
    """
    shortest, longest = PROTOCOL
    within = []
    for name, result in results.items():
        if not shortest <= result.seconds <= longest or result.malformed or result.empty:
            continue
        starts, ends = ([getattr(s, edge) for s in ref[name]] for edge in ("start", "end"))
        extent = [(min(starts), max(ends))] if starts else []
        parts = diarization_kinds(ref[name], hyp[name], extent)
        within.append(replace(result, diarization=parts))
    if not within:
        raise InputError(
            f"hypothesis: no session of {shortest:g}-{longest:g} s has a well-formed output, so "
            "protocol as-authors has nothing to score; score with --protocol all"
        )
    return within


def left_out(
    within: Sequence[SessionCounts], everything: Sequence[SessionCounts]
) -> dict[str, float]:
    """The number of sessions that are not scored, and their seconds of speech."""
    kept, whole = (
        sum(result.diarization["der"].scored for result in results)
        for results in (within, everything)
    )
    return {
        "sessions": len(everything) - len(within),
        "speech_seconds": round(whole - kept, 6),
        "share_of_speech": round(1 - kept / whole, 6) if whole else 0.0,
    }
