"""The batches of a training: groups of similar duration, within limits of seconds and positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import BucketingSampler, SimpleCutSampler
from lhotse.dataset.sampling.base import TimeConstraint

from tagspeech.config import TrainConfig


class _Limits(TimeConstraint):
    """At most so many seconds and so many positions in a batch, padding counted in both."""

    def __init__(self, train: TrainConfig, positions: Callable[[Cut], int]) -> None:
        super().__init__(max_duration=train.max_duration)
        self.max_positions, self.positions, self.most = train.max_positions, positions, 0

    def add(self, example: Cut) -> None:
        super().add(example)
        self.most = max(self.most, self.positions(example))

    def exceeded(self) -> bool:
        return super().exceeded() or self.num_cuts * self.most > self.max_positions

    def reset(self) -> None:
        super().reset()
        self.most = 0


def _sampler(
    *groups: CutSet, train: TrainConfig, positions: Callable[[Cut], int], **options: Any
) -> SimpleCutSampler:
    """Lhotse's sampler of one bucket."""
    sampler = SimpleCutSampler(*groups, **options)
    if train.max_positions:
        sampler.time_constraint = _Limits(train, positions)
    return sampler


def training_batches(
    groups: CutSet,
    train: TrainConfig,
    epoch: int,
    skip: int,
    *,
    positions: Callable[[Cut], int],
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[CutSet]:
    """The batches of one epoch in the order that seed and epoch fix, the first `skip` left out.

    Of `world_size` processes each gets batches of its own, all as many.

    positions  of the sequence that is computed for a group, for `train.max_positions`
    """
    sampler = BucketingSampler(
        groups,
        sampler_type=partial(_sampler, train=train, positions=positions),
        max_duration=train.max_duration,
        num_buckets=min(train.num_buckets, len(groups)),
        shuffle=True,
        seed=train.seed,
        world_size=world_size,
        rank=rank,
    )
    sampler.set_epoch(epoch)
    for number, batch in enumerate(sampler):
        if number >= skip:
            yield batch
