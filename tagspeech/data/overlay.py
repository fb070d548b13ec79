"""More overlapped speech in training than a corpus has: one group laid over another."""

from __future__ import annotations

import bisect
import random

from lhotse import CutSet
from lhotse.cut import Cut


class Overlay:
    """Lays groups of one speaker over a share of the groups of a batch.

    A group of another speaker that is not longer starts somewhere inside, at its own level.
    """

    def __init__(self, groups: CutSet, share: float) -> None:
        self.share = share
        alone = (cut for cut in groups if share and len(_speakers(cut)) == 1)
        self.others = sorted(alone, key=lambda cut: cut.duration)

    def __call__(self, groups: CutSet, rng: random.Random) -> CutSet:
        if not self.others:
            return groups
        return CutSet.from_cuts(
            self._under_another(cut, rng) if rng.random() < self.share else cut for cut in groups
        )

    def _under_another(self, cut: Cut, rng: random.Random) -> Cut:
        shorter = bisect.bisect_right(self.others, cut.duration, key=lambda one: one.duration)
        if not shorter:
            return cut
        other = self.others[rng.randrange(shorter)]
        if _speakers(other) & _speakers(cut):
            return cut
        offset = rng.uniform(0, cut.duration - other.duration)
        return cut.mix(other, offset_other_by=offset, preserve_id="left")


def _speakers(cut: Cut) -> set[str]:
    return {one.speaker for one in cut.supervisions}
