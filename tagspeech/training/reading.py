"""Which batches the steps of an epoch have, and the jobs that read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from lhotse import CutSet

from tagspeech.data.augment import Augment
from tagspeech.data.buckets import training_batches
from tagspeech.parallel import rank, world_size
from tagspeech.training.prefetch import Batch, Job, batch_rng
from tagspeech.training.steps import Task


def epoch_batches(task: Task, groups: CutSet, epoch: int, used: int) -> list[Iterator[CutSet]]:
    """Unused batches of an epoch: an iterator for each batch that this process reads in a step.

    `accumulate` batches in each of P processes are the batches of `accumulate` * P processes.
    """
    count = task.train.accumulate
    return [
        training_batches(
            *(groups, task.train, epoch, used),
            positions=task.positions,
            rank=number,
            world_size=world_size() * count,
        )
        for number in range(rank() * count, (rank() + 1) * count)
    ]


def reading_jobs(
    task: Task, augment: Augment, groups: CutSet, epoch: int, used: int, step: int
) -> Iterator[Job[list[Batch]]]:
    """Jobs that read the batches of each remaining step of an epoch; the first is `step`."""
    of_steps = zip(*epoch_batches(task, groups, epoch, used), strict=True)

    def read(number: int, of_step: Sequence[CutSet]) -> list[Batch]:
        batches = []
        for rank_of_batch, groups_of_batch in enumerate(of_step, rank() * task.train.accumulate):
            rng = batch_rng(task.train, epoch, used + number, rank_of_batch)
            batches.append(task.read(augment(groups_of_batch, rng), step + number, rng))
        return batches

    for number, of_step in enumerate(of_steps):
        yield partial(read, number, of_step)
