"""Additional overlapped speech in training: one group mixed with another."""

from __future__ import annotations

import bisect
import random

from lhotse import CutSet
from lhotse.cut import Cut


class Overlay:
    """Mixes a share of the groups of a batch with a group of one other speaker.

    The other group is not longer, starts at a random time inside and keeps its level.
    """

    def __init__(self, groups: CutSet, share: float) -> None:
        self.share = share
        single = (cut for cut in groups if share and len(_speakers(cut)) == 1)
        self.others = sorted(single, key=lambda cut: cut.duration)

    def __call__(self, groups: CutSet, rng: random.Random) -> CutSet:
        if not self.others:
            return groups
        return CutSet.from_cuts(
            self._mixed(cut, rng) if rng.random() < self.share else cut for cut in groups
        )

    def _mixed(self, cut: Cut, rng: random.Random) -> Cut:
        shorter = bisect.bisect_right(self.others, cut.duration, key=lambda other: other.duration)
        if not shorter:
            return cut
        other = self.others[rng.randrange(shorter)]
        if _speakers(other) & _speakers(cut):
            return cut
        offset = rng.uniform(0, cut.duration - other.duration)
        return cut.mix(other, offset_other_by=offset, preserve_id="left")


def _speakers(cut: Cut) -> set[str]:
    return {segment.speaker for segment in cut.supervisions}
