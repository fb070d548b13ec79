"""Single segments, for a recognizer that was trained without overlapped speech."""

from __future__ import annotations

from dataclasses import replace

from lhotse import CutSet, SupervisionSegment
from lhotse.cut import Cut


def segments_alone(groups: CutSet) -> CutSet:
    """Returns each segment that overlaps no other as a separate group; leaves out all others."""
    return CutSet.from_cuts(
        _piece(cut, number)
        for cut in groups
        for number in range(len(cut.supervisions))
        if _is_alone(cut, number)
    )


def _piece(cut: Cut, number: int) -> Cut:
    """One segment of a group; moves its word times, which Lhotse does not."""
    start = cut.supervisions[number].start

    def moved(segment: SupervisionSegment) -> SupervisionSegment:
        words = {
            name: [item.with_offset(-start) for item in items]
            for name, items in (segment.alignment or {}).items()
        }
        return replace(segment, alignment=words or None)

    duration = cut.supervisions[number].duration
    piece = cut.truncate(offset=start, duration=duration, preserve_id=True)
    return piece.map_supervisions(moved).with_id(f"{cut.id}-{number}")


def _is_alone(cut: Cut, number: int) -> bool:
    segment = cut.supervisions[number]
    return not any(
        other.start < segment.end and segment.start < other.end
        for place, other in enumerate(cut.supervisions)
        if place != number
    )
