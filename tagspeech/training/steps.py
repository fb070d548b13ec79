"""What the training loop needs of a task, and the parts of a step."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch import Tensor, nn

from tagspeech.config import TrainConfig
from tagspeech.errors import InputError
from tagspeech.parallel import gather, sum_over_processes
from tagspeech.training.prefetch import Batch


class Task(Protocol):
    """A model, its training groups, its loss and its validation."""

    train: TrainConfig

    @property
    def model(self) -> nn.Module: ...
    @property
    def groups(self) -> CutSet: ...
    @property
    def stage(self) -> int:
        """The stage of a recipe that it is: what it depends on (`dependencies.of_stage`)."""

    def positions(self, group: Cut) -> int:
        """Sequence length of a group, for `train.max_positions`."""

    def read(self, groups: CutSet, step: int, rng: random.Random) -> Batch:
        """Reads a training batch.

        Runs in another process while earlier steps compute, so every random draw is from `rng`.
        """

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, int, dict[str, Tensor]]:
        """Computes the mean loss of a batch, the number of targets in it, and figures to log.

        Targets are tokens or segments; the loop weights batches by their number. `step` counts from
        0. Figures stay on the device and are read only when they are logged.
        """

    def validate(self) -> dict[str, float]:
        """Computes figures on the dev groups in eval mode; the first is better when lower."""


def learning_rate(train: TrainConfig, step: int) -> float:
    """Returns the learning rate of a step, counted from 0.

    eden (arXiv 2601.06896, training; from icefall): lr * ((s^2 + E^2) / E^2)^-1/4 with
    E = `eden_steps`, times a linear warm-up from 0.5 to 1; `eden_exponent` takes the place of -1/4.
    cosine: a linear warm-up from 0, times half a cosine that reaches 0 at `max_steps`.
    """
    warm = min(1.0, (step + 1) / max(1, train.warmup_steps))
    if train.schedule == "eden":
        return (
            train.lr
            * (1 + (step / train.eden_steps) ** 2) ** train.eden_exponent
            * (0.5 + 0.5 * warm)
        )
    if train.schedule == "cosine":
        return train.lr * warm * 0.5 * (1 + math.cos(math.pi * step / train.max_steps))
    raise InputError(f"train.schedule: must be eden or cosine, got {train.schedule!r}")


def weights_by_rate(
    model: nn.Module, rates: Mapping[str, float]
) -> dict[float, list[nn.Parameter]]:
    """Groups the trainable parameters by peak learning rate.

    Args:
        rates: Rates by prefix of parameter name; the longest matching prefix counts.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            prefix = max(filter(name.startswith, rates), key=len)
            groups.setdefault(rates[prefix], []).append(weight)
    return groups


class LossCheck:
    """Counts targets and refuses losses that are not finite.

    A loss is looked at when the next one has been started, so that no step waits for the device;
    `finish` looks at the last one. Every process calls both methods alike.

    Args:
        output: The run folder, for the error message.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self._read: Callable[[], float] = float
        self._where = ""

    def count(self, batch: Batch, loss: Tensor, count: int, step: int) -> float:
        """Sums `count` over all processes.

        Raises:
            InputError: If an earlier loss of any process is not finite; names the groups of its
                batch.
        """
        value = self._read()
        total, failures = sum_over_processes([count, not math.isfinite(value)])
        if failures:
            reason = None if math.isfinite(value) else f"loss {value} {self._where}"
            raise InputError(f"{self.output}: {next(filter(None, gather(reason)))}")
        self._read = read_later(loss.detach())
        self._where = f"at step {step}: {', '.join(cut.id for cut in batch.groups)}"
        return total

    def finish(self) -> None:
        """Raises `InputError` as `count` does, for the last loss."""
        self.count(Batch(CutSet()), torch.zeros(()), 0, 0)


def read_later(value: Tensor) -> Callable[[], float]:
    """Starts to copy a number from the device, and returns a function that gives it."""
    copy = value.to("cpu", non_blocking=True)
    if value.device.type != "cuda":
        return copy.item
    copied = torch.cuda.Event()
    copied.record()

    def read() -> float:
        copied.synchronize()
        return copy.item()

    return read


def read_figures(**figures: Tensor) -> dict[str, float]:
    """The values of tensors of one number, by a single wait for the device."""
    values = torch.stack([figure.detach().double() for figure in figures.values()])
    return dict(zip(figures, values.tolist(), strict=True))
