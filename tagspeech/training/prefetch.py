"""Reads the batches of later steps while a step computes.

Random draws for a batch follow from its place in the training, not from a shared generator, so they
do not depend on how far ahead batches are read, nor on a resume.
"""

from __future__ import annotations

import os
import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import torch
from lhotse import CutSet
from torch import Tensor

from tagspeech.config import TrainConfig
from tagspeech.errors import InputError
from tagspeech.training.parallel import device, world_size

STEPS_AHEAD = 2  # batches are small beside a model: some 10 MB
T = TypeVar("T")


class Batch(NamedTuple):
    """Groups after augmentation, and the tensors that a task reads for them."""

    groups: CutSet
    tensors: Sequence[Tensor] = ()


def batch_rng(train: TrainConfig, epoch: int, number: int, rank: int) -> random.Random:
    """Returns the generator for batch `number` of an epoch in process `rank`."""
    return random.Random(f"{train.seed} {epoch} {number} {rank}")


def spare_processors() -> int:
    """Returns how many CPU cores each process on this machine can use for reading, at most 8."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))  # torchrun has machines
    computing = 1 if device().type == "cuda" else torch.get_num_threads()
    return max(0, min(8, (os.cpu_count() or 1) // processes - computing))


def steps_ahead(train: TrainConfig) -> int:
    """Resolves `train.read_ahead`; -1 is 0 if reading would take a CPU core from computing."""
    if train.read_ahead < -1:
        raise InputError(f"train.read_ahead: must be -1 or more steps, got {train.read_ahead}")
    if train.read_ahead >= 0:
        return train.read_ahead
    return STEPS_AHEAD if spare_processors() or device().type == "cuda" else 0


class Prefetcher:
    """Runs iterators in a thread, up to `steps` items ahead of the consumer.

    An error is raised where its item would have been.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.thread = ThreadPoolExecutor(1, "reader")
        self.waited, self.since = 0.0, time.monotonic()

    def __call__(self, items: Iterator[T]) -> Iterator[T]:
        pending: deque[Future[T | None]] = deque()
        while True:
            while len(pending) <= self.steps:
                pending.append(self.thread.submit(next, items, None))
            started = time.monotonic()
            item = pending.popleft().result()
            self.waited += time.monotonic() - started
            if item is None:
                return
            yield item

    def waiting_share(self) -> float:
        """Returns the share of time since the last call that was spent waiting for items."""
        now = time.monotonic()
        share = self.waited / (now - self.since)
        self.waited, self.since = 0.0, now
        return share
