"""Training batches: groups of similar duration, limited in seconds and positions."""

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
    """Limits the seconds and positions of a batch, including padding."""

    def __init__(self, train: TrainConfig, positions: Callable[[Cut], int]) -> None:
        super().__init__(max_duration=train.max_duration)
        self.max_positions, self.positions, self.longest = train.max_positions, positions, 0

    def add(self, example: Cut) -> None:
        super().add(example)
        self.longest = max(self.longest, self.positions(example))

    def exceeded(self) -> bool:
        return super().exceeded() or self.num_cuts * self.longest > self.max_positions

    def reset(self) -> None:
        super().reset()
        self.longest = 0


def _sampler(
    *groups: CutSet, train: TrainConfig, positions: Callable[[Cut], int], **options: Any
) -> SimpleCutSampler:
    """Returns Lhotse's sampler of one bucket, with our limits."""
    sampler = SimpleCutSampler(*groups, **options)
    if train.max_positions > 0:
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
    """Yields the batches of one epoch; seed and epoch determine the order.

    Args:
        groups: The training data.
        train: Limits, number of buckets and seed.
        epoch: Number of the epoch.
        skip: Number of batches to leave out at the start.
        positions: Length of the LLM's input for a group, for `train.max_positions`.
        rank: This process. Processes get different batches, all the same number.
        world_size: Number of processes.
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
