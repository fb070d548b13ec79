"""Which sessions a protocol scores, and how: the paper's, and that of its authors' code."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tagspeech.errors import InputError
from tagspeech.scoring.diarization import diarization_kinds
from tagspeech.scoring.metrics import SessionCounts
from tagspeech.segments import Segment

PROTOCOLS = ("all", "paper", "as-authors")
PROTOCOL = (0.5, 80.0)  # seconds of the utterance groups that the paper scores (docs/paper.md)


def check_protocol(protocol: str, malformed: Collection[str] | None, uem: Any) -> None:
    """Raises `InputError` for an unknown protocol, and for "as-authors" where nobody knows what is
    `malformed` or a `uem` is given."""
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol: {protocol!r} is unknown; wants one of {', '.join(PROTOCOLS)}")
    if protocol != "as-authors":
        return
    if uem is not None:
        raise InputError("protocol: as-authors scores without a UEM; leave out --uem")
    if malformed is None:
        raise InputError(
            "protocol: as-authors leaves out malformed outputs, and nothing says which they are; "
            "name the decoder's journal with --raw, or score target texts"
        )


def of_the_paper(results: Sequence[SessionCounts]) -> list[SessionCounts]:
    """Those of `PROTOCOL` seconds. Raises `InputError` where there is none."""
    shortest, longest = PROTOCOL
    within = [result for result in results if shortest <= result.seconds <= longest]
    if not within:
        raise InputError(
            f"reference: no session lasts {shortest:g}-{longest:g} s, as the paper's protocol "
            "wants; score with --protocol all"
        )
    return within


def as_authors(
    results: Mapping[str, SessionCounts],
    ref: Mapping[str, list[Segment]],
    hyp: Mapping[str, list[Segment]],
) -> list[SessionCounts]:
    """As the authors of the paper score, to compare with their figures.

    These are the sessions of `PROTOCOL` seconds whose output parses whole and has a segment. DER is
    that of md-eval without a UEM: from the first to the last speech of the reference, so speech
    that is heard before and after costs nothing. Two faults of theirs are not repeated: an unknown
    gender is never right, and segments of equal times do not replace one another.

    Raises `InputError` where no session is left.
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
            f"hypothesis: no session of {shortest:g}-{longest:g} s has an output that parses, so "
            "protocol as-authors has nothing to score; score with --protocol all"
        )
    return within


def left_out(
    within: Sequence[SessionCounts], everything: Sequence[SessionCounts]
) -> dict[str, float]:
    """How much is not scored: sessions, and speech in seconds, once per speaker talking."""
    kept, whole = (
        sum(result.diarization["der"].scored for result in some) for some in (within, everything)
    )
    return {
        "sessions": len(everything) - len(within),
        "speech_seconds": round(whole - kept, 6),
        "share_of_speech": round(1 - kept / whole, 6) if whole else 0.0,
    }
