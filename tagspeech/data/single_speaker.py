"""Segments one by one, for a recogniser that has never heard two speakers at once."""

from __future__ import annotations

from dataclasses import replace

from lhotse import CutSet, SupervisionSegment
from lhotse.cut import Cut


def segments_alone(groups: CutSet) -> CutSet:
    """Each segment that overlaps no other of its group as a group of its own; no others."""
    return CutSet.from_cuts(
        _piece(cut, number)
        for cut in groups
        for number in range(len(cut.supervisions))
        if _is_alone(cut, number)
    )


def _piece(cut: Cut, number: int) -> Cut:
    """One segment of a group, with its word times, which Lhotse leaves where they were."""
    start = cut.supervisions[number].start

    def moved(own: SupervisionSegment) -> SupervisionSegment:
        words = {
            name: [item.with_offset(-start) for item in items]
            for name, items in (own.alignment or {}).items()
        }
        return replace(own, alignment=words or None)

    duration = cut.supervisions[number].duration
    piece = cut.truncate(offset=start, duration=duration, preserve_id=True)
    return piece.map_supervisions(moved).with_id(f"{cut.id}-{number}")


def _is_alone(cut: Cut, number: int) -> bool:
    own = cut.supervisions[number]
    return not any(
        other.start < own.end and own.start < other.end
        for place, other in enumerate(cut.supervisions)
        if place != number
    )
