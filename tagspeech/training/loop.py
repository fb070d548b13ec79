"""The training loop, read from top to bottom; a task says what a batch and a loss are."""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from lhotse import CutSet
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from tagspeech.config import Config, TrainConfig
from tagspeech.config_file import load_config, to_tree, to_yaml
from tagspeech.data.batches import training_batches
from tagspeech.errors import InputError
from tagspeech.files import read_journal, write_text
from tagspeech.training.checkpoint import (
    CheckpointFolder,
    load_trainable_state,
    rng_state,
    set_rng_state,
    trainable_state,
)
from tagspeech.training.parallel import (
    gather,
    rank,
    share_gradients,
    share_weights,
    sum_over_processes,
    world_size,
)

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
    def sections(self) -> tuple[str, ...]:
        """The sections of the configuration that this training depends on."""

    def loss(self, batch: CutSet, step: int) -> tuple[Tensor, int, dict[str, float]]:
        """Mean loss of a batch, over how many tokens or segments, and figures to log.

        step  batches used for training before this one
        """

    def validate(self) -> dict[str, float]:
        """Figures on the dev groups, the model being in eval mode."""


def learning_rate(train: TrainConfig, step: int) -> float:
    """The rate of a step, counted from 0.

    eden (PAPER, training; icefall): lr * ((s^2 + E^2) / E^2)^-1/4, E = `eden_steps`, times a
    warm-up from one half to one. cosine: a warm-up from nothing, then half a cosine down to nothing
    at `max_steps`.
    """
    warm = min(1.0, (step + 1) / max(1, train.warmup_steps))
    if train.schedule == "eden":
        return train.lr * (1 + (step / train.eden_steps) ** 2) ** -0.25 * (0.5 + 0.5 * warm)
    if train.schedule == "cosine":
        return train.lr * warm * 0.5 * (1 + math.cos(math.pi * step / train.max_steps))
    raise InputError(f"train.schedule: wants eden or cosine, found {train.schedule!r}")


def uses_bfloat16(precision: str) -> bool:
    """Whether products are computed in bfloat16; weights and sums stay in float32."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise InputError(f"train.precision: wants auto, float32 or bfloat16, found {precision!r}")
    return precision == "bfloat16" or (
        precision == "auto" and torch.cpu._is_avx512_bf16_supported()
    )


def fit(task: Task, config: Config, output: Path) -> None:
    """Trains `task.model` for `train.max_steps` batches and leaves the averaged weights in it.

    Where several processes train together (`parallel.launch`), each has batches of its own and the
    averaged weights end up in the first.

    Long on purpose: all of training, from the first batch to the last, reads from top to bottom.

    Resumes from `output` exactly where it stopped: same batches, same losses, same bits on a CPU.
    Raises `InputError` when `output` holds a run of another configuration or a loss is not finite.
    """
    train, model = task.train, task.model
    first = rank() == 0
    if first:
        _claim_folder(output, config, task.sections)
    checkpoints = CheckpointFolder(output, train.average)
    weights = [one for one in model.parameters() if one.requires_grad]
    frozen = sum(one.numel() for one in model.parameters() if not one.requires_grad)
    log.info("%.2f M weights learn, %.2f M are frozen", _millions(weights), frozen / 1e6)
    optimizer = torch.optim.AdamW(
        weights, lr=train.lr, betas=(0.9, 0.98), weight_decay=train.weight_decay, fused=True
    )

    step, epoch, used = 0, 0, 0
    share_weights(model)
    torch.manual_seed(train.seed + rank())  # dropout and augmentation differ between processes
    random.seed(train.seed + rank())
    state = checkpoints.latest()
    if state:
        if len(state["rng"]) != world_size():
            raise InputError(f"{output}: was trained by {len(state['rng'])} processes; use as many")
        load_trainable_state(model, state["model"], str(output))
        optimizer.load_state_dict(state["optimizer"])
        step, epoch, used = state["step"], state["epoch"], state["batch"]
        set_rng_state(state["rng"][rank()])
        log.info("goes on after step %d", step)

    low_precision = uses_bfloat16(train.precision)
    log.info("arithmetic in %s", "bfloat16 where it is safe" if low_precision else "float32")
    board = SummaryWriter(str(output / "tensorboard"), purge_step=step) if first else None
    started = time.monotonic() - (state["seconds"] if state else 0.0)
    progress = tqdm(
        total=train.max_steps, initial=step, desc=output.name, unit=" batches", disable=not first
    )
    model.train()
    simple = task.groups.filter(lambda cut: len(cut.supervisions) == 1).to_eager()
    here = {"rank": rank(), "world_size": world_size()}
    while step < train.max_steps:
        groups = simple if step < train.simple_steps and len(simple) else task.groups
        for batch in training_batches(groups, train, epoch, skip=used, **here):
            rate = learning_rate(train, step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
                loss, count, figures = task.loss(batch, step)
            counts, failures = sum_over_processes([count, not torch.isfinite(loss)])
            if failures:
                ids = ", ".join(cut.id for cut in batch)
                raise InputError(f"{output}: loss {loss.item()} at step {step}; its groups: {ids}")
            optimizer.zero_grad(set_to_none=True)
            (loss * (count / max(1.0, counts))).backward()  # the mean over all processes
            share_gradients(weights)
            norm = nn.utils.clip_grad_norm_(weights, train.clip_norm)
            optimizer.step()
            step, used = step + 1, used + 1
            phase_ends = step in (train.simple_steps, train.max_steps)
            if phase_ends:
                epoch, used = epoch + 1, 0

            progress.update()
            if board and step % train.log_every == 0:
                figures = {"loss": loss.item(), "gradient_norm": norm.item(), "lr": rate, **figures}
                progress.set_postfix(loss=f"{loss.item():.3f}")
                for name, value in figures.items():
                    board.add_scalar(f"train/{name}", value, step)
            if board and (step % train.valid_every == 0 or step == train.max_steps):
                figures = _validate(task, output, step, time.monotonic() - started)
                for name, value in figures.items():
                    board.add_scalar(f"valid/{name}", value, step)
            if step % train.checkpoint_every == 0 or step == train.max_steps:
                state = {
                    "model": trainable_state(model),
                    "optimizer": optimizer.state_dict(),
                    **{"step": step, "epoch": epoch, "batch": used, "rng": gather(rng_state())},
                    "seconds": time.monotonic() - started,
                }
                if first:
                    checkpoints.add(step, state)
            if phase_ends:
                break
        else:
            epoch, used = epoch + 1, 0
    progress.close()
    if board:
        board.close()
        load_trainable_state(model, checkpoints.average(), str(output))
    model.eval()


def _millions(weights: list[nn.Parameter]) -> float:
    return sum(one.numel() for one in weights) / 1e6


def _claim_folder(output: Path, config: Config, sections: Sequence[str]) -> None:
    """Writes `config.yaml`, or checks that the run already there has the same sections."""
    path = output / "config.yaml"
    if path.exists() and (output / "checkpoints.json").exists():
        old, new = to_tree(load_config(path)), to_tree(config)
        for section in sections:
            if old[section] != new[section]:
                raise InputError(
                    f"{path}: is of a run with another section {section}; "
                    f"remove {output} to start anew"
                )
    write_text(path, to_yaml(config))


def _validate(task: Task, output: Path, step: int, seconds: float) -> dict[str, float]:
    """Figures on the dev groups, logged and added to `output/curve.jsonl`.

    seconds  of training so far, earlier starts of a resumed run included
    """
    task.model.eval()
    with torch.inference_mode():
        figures = task.validate()
    task.model.train()
    log.info("step %d: %s", step, ", ".join(f"{k} {v:.4f}" for k, v in figures.items()))
    # A run that was killed behind its last checkpoint comes to some steps again.
    rows = [row for row in read_journal(output / "curve.jsonl") if row["step"] < step]
    rows.append({"step": step, "seconds": round(seconds, 1), **figures})
    write_text(output / "curve.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return figures
