"""Reads the batches of later steps, in processes of their own, while a step computes.

Random draws for a batch follow from its place in the training, not from a shared generator, so they
do not depend on how far ahead batches are read, nor on a resume.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from lhotse import CutSet
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tagspeech.config import TrainConfig
from tagspeech.errors import InputError
from tagspeech.parallel import device, world_size

STEPS_AHEAD = 2  # of each reading process; batches are small beside a model: some 10 MB
T = TypeVar("T")
Job = Callable[[], T]  # reads one item


class Batch(NamedTuple):
    """Groups after augmentation, and what a task reads for them.

    Attributes:
        groups: The groups.
        tensors: Frames or features, and their lengths.
        ids: Token ids of each target text.
        spoken: Token ids at frames, (B, P, 2).
    """

    groups: CutSet
    tensors: Sequence[Tensor] = ()
    ids: Sequence[list[int]] = ()
    spoken: Tensor | None = None


def batch_rng(train: TrainConfig, epoch: int, number: int, rank: int) -> random.Random:
    """Returns the generator for batch `number` of an epoch in process `rank`."""
    return random.Random(f"{train.seed} {epoch} {number} {rank}")


def spare_processors() -> int:
    """Returns how many CPU cores each process on this machine can use for reading, at most 16."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))  # torchrun has machines
    computing = 1 if device().type == "cuda" else torch.get_num_threads()
    return max(0, min(16, (os.cpu_count() or 1) // processes - computing))


def steps_ahead(train: TrainConfig) -> int:
    """Resolves `train.read_ahead`; -1 is 0 if reading would take a CPU core from computing."""
    if train.read_ahead < -1:
        raise InputError(f"train.read_ahead: must be -1 or more steps, got {train.read_ahead}")
    if train.read_ahead >= 0:
        return train.read_ahead
    on_gpu = device().type == "cuda"
    return STEPS_AHEAD * max(spare_processors(), 1 if on_gpu else 0)


class Prefetcher:
    """Runs reading jobs in other processes (torch's DataLoader), `steps` items ahead.

    Items come in the order of their jobs. An error is raised where its item would have been.
    """

    def __init__(self, steps: int) -> None:
        self.processes = min(steps, max(1, spare_processors()))
        self.each = -(-steps // self.processes) if steps else None
        self.waited, self.since = 0.0, time.monotonic()

    def __call__(self, jobs: Callable[[], Iterator[Job[T]]]) -> Iterator[T]:
        """Yields the items of `jobs()`, which every process calls to find its share."""
        loader: Any = DataLoader(
            _Jobs(jobs),
            batch_size=None,
            num_workers=self.processes,
            prefetch_factor=self.each,
            multiprocessing_context="fork" if self.processes else None,
            generator=torch.Generator(),  # it draws a seed, which must not change those of training
        )
        items = iter(loader)
        while True:
            started = time.monotonic()
            item = next(items, None)
            self.waited += time.monotonic() - started
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            yield item

    def waiting_share(self) -> float:
        """Returns the share of time since the last call that was spent waiting for items."""
        now = time.monotonic()
        share = self.waited / (now - self.since)
        self.waited, self.since = 0.0, now
        return share


class _Jobs(IterableDataset[Any]):
    """The items of jobs, of which each reading process runs its share; an error is an item."""

    def __init__(self, jobs: Callable[[], Iterator[Job[Any]]]) -> None:
        self.jobs = jobs

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        try:
            for job in itertools.islice(self.jobs(), first, None, step):
                yield job()
        except InputError as error:
            yield error
