"""What a step computes with is read while the steps before it compute.

What is drawn for a batch follows from its place in the training, not from generators of which
others draw too: it is the same however far ahead a batch is read, and after a stop.
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

STEPS_AHEAD = 2  # their batches are small beside a model: some 10 MB
T = TypeVar("T")


class Batch(NamedTuple):
    """Groups as a task hears them, and what it has read of them."""

    groups: CutSet
    tensors: Sequence[Tensor] = ()


def draws(train: TrainConfig, epoch: int, number: int, rank: int) -> random.Random:
    """The generator for what is drawn for a batch: the `number`th of an epoch, of one process."""
    return random.Random(f"{train.seed} {epoch} {number} {rank}")


def spare_processors() -> int:
    """Of those of this machine, how many each process has for reading, at most 8."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))  # torchrun has machines
    computing = 1 if device().type == "cuda" else torch.get_num_threads()
    return max(0, min(8, (os.cpu_count() or 1) // processes - computing))


def steps_ahead(train: TrainConfig) -> int:
    """What `train.read_ahead` says, or -1 stands for: none where reading would take a processor
    from computing."""
    if train.read_ahead < -1:
        raise InputError(f"train.read_ahead: wants steps, or -1, found {train.read_ahead}")
    if train.read_ahead >= 0:
        return train.read_ahead
    return STEPS_AHEAD if spare_processors() or device().type == "cuda" else 0


class ReadAhead:
    """Runs iterators in a thread of its own, up to `steps` items ahead of what is asked for.

    An error comes where its item would have come.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.thread = ThreadPoolExecutor(1, "reader")
        self.waited, self.asked = 0.0, time.monotonic()

    def __call__(self, items: Iterator[T]) -> Iterator[T]:
        begun: deque[Future[T | None]] = deque()
        while True:
            while len(begun) <= self.steps:
                begun.append(self.thread.submit(next, items, None))
            since = time.monotonic()
            item = begun.popleft().result()
            self.waited += time.monotonic() - since
            if item is None:
                return
            yield item

    def waiting_share(self) -> float:
        """The share of the time since the last question that was spent waiting for items."""
        now = time.monotonic()
        share = self.waited / (now - self.asked)
        self.waited, self.asked = 0.0, now
        return share
