"""One step of the optimiser: what a task gives to it, its learning rate, its gradients."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch import Tensor, nn

from tagspeech.config import TrainConfig
from tagspeech.errors import InputError, is_out_of_memory
from tagspeech.training.checkpoint import rng_state, set_rng_state
from tagspeech.training.memory import Activations, gigabytes, held_memory
from tagspeech.training.parallel import gather, share_gradients, sum_over_processes
from tagspeech.training.precision import Arithmetic
from tagspeech.training.prefetch import Batch

log = logging.getLogger(__name__)


class Task(Protocol):
    """What is trained: a model, its groups, the loss of a batch, figures on held-out groups."""

    @property
    def model(self) -> nn.Module: ...
    @property
    def train(self) -> TrainConfig: ...
    @property
    def groups(self) -> CutSet: ...
    @property
    def stage(self) -> int:
        """The stage of a recipe that it is: what it depends on (`dependencies.of_stage`)."""

    def positions(self, group: Cut) -> int:
        """How long the sequence is that is computed for a group."""

    def read(self, groups: CutSet, step: int, rng: random.Random) -> Batch:
        """The groups of a training batch as they are heard, and what of them is read.

        Runs beside the computing of other steps: all that it draws comes from `rng`.
        """

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, int, dict[str, float]]:
        """Mean loss of a batch, over how many tokens or segments, and figures to log.

        step  batches used for training before this one
        """

    def validate(self) -> dict[str, float]:
        """Figures on the dev groups, the model being in eval mode.

        The less the first of them is, the better the model.
        """


def learning_rate(train: TrainConfig, step: int) -> float:
    """The rate of a step, counted from 0.

    eden (docs/paper.md; icefall's): lr * ((s^2 + E^2) / E^2)^-1/4, E = `eden_steps`, times a
    warm-up from one half to one. cosine: a warm-up from nothing, then half a cosine down to nothing
    at `max_steps`.
    """
    warm = min(1.0, (step + 1) / max(1, train.warmup_steps))
    if train.schedule == "eden":
        return train.lr * (1 + (step / train.eden_steps) ** 2) ** -0.25 * (0.5 + 0.5 * warm)
    if train.schedule == "cosine":
        return train.lr * warm * 0.5 * (1 + math.cos(math.pi * step / train.max_steps))
    raise InputError(f"train.schedule: wants eden or cosine, found {train.schedule!r}")


def gradients(
    task: Task,
    batches: Sequence[Batch],
    step: int,
    weights: Sequence[nn.Parameter],
    arithmetic: Arithmetic,
    output: Path,
) -> tuple[float, dict[str, float]]:
    """Gradients of the mean over the tokens of all batches of all processes, put into `weights`.

    They are multiplied by the scale of `arithmetic`. Gives loss and figures of the last batch of
    this process. Raises `InputError` that names the groups of a loss that is not finite, whichever
    process has them.
    """
    unit = total = 0.0
    for batch in batches:
        with _memory_told(batch.groups), arithmetic.products():
            loss, count, figures = task.loss(batch, step)
        counts, failures = sum_over_processes([count, not torch.isfinite(loss)])
        if failures:
            ids = ", ".join(cut.id for cut in batch.groups)
            faulty = None if torch.isfinite(loss) else f"loss {loss.item()} at step {step}: {ids}"
            raise InputError(f"{output}: {next(filter(None, gather(faulty)))}")
        unit = unit or max(1.0, counts)  # the total is known only behind the last batch
        with _memory_told(batch.groups):
            arithmetic.scaler.scale(loss * (count / unit)).backward()
        total += counts
    share_gradients(weights)
    if total > unit:
        for weight in weights:
            if weight.grad is not None:
                weight.grad *= unit / total
    return loss.item(), figures


def try_largest(
    task: Task,
    batches: Iterable[CutSet],
    weights: Sequence[nn.Parameter],
    arithmetic: Arithmetic,
    output: Path,
) -> None:
    """Computes the gradients of the largest of `batches` and forgets them; logs memory and time.

    What does not fit into memory is found before hours of training, not after them. Random
    generators are as before.
    """
    activations = Activations()
    before = rng_state()

    def positions(batch: CutSet) -> int:
        return len(batch) * max(map(task.positions, batch))

    largest = max(batches, key=positions)
    batch = task.read(largest, task.train.max_steps, random.Random(0))
    started = time.monotonic()
    with activations.counted():
        gradients(task, [batch], task.train.max_steps, weights, arithmetic, output)
    seconds = time.monotonic() - started
    log.info(
        "the largest batch, %d groups of up to %.1f s, %d positions: activations %s, %s in all; "
        "%.1f s, %d such steps would take %.2f h",
        *(len(largest), _longest(largest), positions(largest), gigabytes(activations.bytes)),
        gigabytes(sum(held_memory(task.model).values()) + activations.bytes),
        *(seconds, task.train.max_steps),
        seconds * task.train.accumulate * task.train.max_steps / 3600,
    )
    for weight in weights:
        weight.grad = None
    set_rng_state(before)


def _longest(batch: CutSet) -> float:
    return max(cut.duration for cut in batch)


@contextmanager
def _memory_told(batch: CutSet) -> Iterator[None]:
    """Want of memory becomes an `InputError` that names the batch and the option to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"out of memory at a batch of {len(batch)} groups of up to {_longest(batch):.1f} s, "
            f"{next(iter(batch)).id} and others; lower max_duration or max_positions of its "
            "section train, and set accumulate higher; longest bounds a single group"
        ) from error


def by_rate(model: nn.Module, rates: Mapping[str, float]) -> dict[float, list[nn.Parameter]]:
    """The weights that learn, by the peak learning rate of the part of the model that they are of.

    rates  by the beginning of names, the longest that fits
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            part = max(filter(name.startswith, rates), key=len)
            groups.setdefault(rates[part], []).append(weight)
    return groups
