"""The training loop, read from top to bottom; a task says what a batch and a loss are."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from lhotse import CutSet
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from tagspeech.config import Config
from tagspeech.config_file import load_config, to_tree, to_yaml
from tagspeech.data.augment import Augment
from tagspeech.data.buckets import training_batches
from tagspeech.dependencies import of_stage
from tagspeech.errors import InputError
from tagspeech.files import read_journal, write_text
from tagspeech.llm.sharding import is_sharded
from tagspeech.training.checkpoint import (
    CheckpointFolder,
    load,
    load_trainable_state,
    rng_state,
    save,
    set_rng_state,
    trainable_state,
)
from tagspeech.training.memory import tell_memory
from tagspeech.training.parallel import device, gather, rank, share_weights, world_size
from tagspeech.training.precision import Arithmetic, product_type
from tagspeech.training.prefetch import Batch, ReadAhead, draws, steps_ahead
from tagspeech.training.steps import (
    Task,
    by_rate,
    gradients,
    learning_rate,
    try_largest,
)

log = logging.getLogger(__name__)

BEST = "best.pt"  # weights of the validation with the least figure, the first of them


def fit(task: Task, config: Config, output: Path, rates: Mapping[str, float] | None = None) -> None:
    """Trains `task.model` for `train.max_steps` steps and leaves the `train.final` weights in it.

    rates  peak learning rates of parts of the model, by name, that are not `train.lr`

    Where several processes train together (`parallel.launch`), each has batches of its own and the
    final weights end up in the first.

    Long on purpose: all of training, from the first batch to the last, reads from top to bottom.

    Resumes from `output` exactly where it stopped: same batches, same losses, same bits on a CPU.
    Raises `InputError` when `output` holds a run of another configuration or a loss is not finite.
    """
    train, model = task.train, task.model
    if train.final not in ("average", "best"):
        raise InputError(f"train.final: wants average or best, found {train.final!r}")
    if train.accumulate < 1:
        raise InputError(f"train.accumulate: wants 1 or more batches, found {train.accumulate}")
    first = rank() == 0
    if first:
        _claim_folder(output, config, task.stage)
    checkpoints = CheckpointFolder(output, train.average)
    weights = [one for one in model.parameters() if one.requires_grad]
    here = device()
    tell_memory(model, here)
    arithmetic = Arithmetic(product_type(train.precision, here), here)
    log.info("on %s; products in %s", here, str(arithmetic.dtype).removeprefix("torch."))
    model.to(here)
    groups_of_rates = by_rate(model, {"": train.lr, **(rates or {})})
    optimizer = torch.optim.AdamW(
        [{"params": one} for one in groups_of_rates.values()],
        lr=train.lr,
        betas=(0.9, 0.98),
        weight_decay=train.weight_decay,
        fused=True,
    )

    step, epoch, used = 0, 0, 0
    share_weights(model)
    torch.manual_seed(train.seed + rank())  # dropout and SpecAugment differ between processes
    random.seed(train.seed + rank())
    state = checkpoints.latest()
    if state:
        if len(state["rng"]) != world_size():
            raise InputError(f"{output}: was trained by {len(state['rng'])} processes; use as many")
        load_trainable_state(model, state["model"], str(output))
        optimizer.load_state_dict(state["optimizer"])
        arithmetic.scaler.load_state_dict(state.get("scale", {}))
        step, epoch, used = state["step"], state["epoch"], state["batch"]
        set_rng_state(state["rng"][rank()])
        log.info("goes on after step %d", step)

    together = is_sharded(model)
    model.train()
    if train.try_largest and not state:
        try_largest(task, _batches(task, task.groups, 0, 0)[0], weights, arithmetic, output)
    board = SummaryWriter(str(output / "tensorboard"), purge_step=step) if first else None
    started = time.monotonic() - (state["seconds"] if state else 0.0)
    progress = tqdm(
        total=train.max_steps, initial=step, desc=output.name, unit=" batches", disable=not first
    )
    augment = Augment(train.augment, config.features.sampling_rate)
    reader = ReadAhead(steps_ahead(train))
    simple = task.groups.filter(lambda cut: len(cut.supervisions) == 1).to_eager()
    while step < train.max_steps:
        groups = simple if step < train.simple_steps and len(simple) else task.groups
        for batches in reader(_read_steps(task, augment, groups, epoch, used, step)):
            rate = learning_rate(train, step)
            for group, peak in zip(optimizer.param_groups, groups_of_rates, strict=True):
                group["lr"] = learning_rate(replace(train, lr=peak), step)
            optimizer.zero_grad(set_to_none=True)
            loss, figures = gradients(task, batches, step, weights, arithmetic, output)
            norm = arithmetic.step(optimizer, weights, train.clip_norm)
            step, used = step + 1, used + 1
            phase_ends = step in (train.simple_steps, train.max_steps)
            if phase_ends:
                epoch, used = epoch + 1, 0

            progress.update()
            if board and step % train.log_every == 0:
                share = reader.waiting_share()
                figures = {"loss": loss, "gradient_norm": norm.item(), "lr": rate, **figures}
                figures["waiting_share"] = share
                progress.set_postfix(loss=f"{loss:.3f}", waiting=f"{share:.0%}")
                for name, value in figures.items():
                    board.add_scalar(f"train/{name}", value, step)
            if step % train.valid_every == 0 or step == train.max_steps:
                figures = _validate(task, together)
                if board:
                    _write_figures(task, output, step, time.monotonic() - started, figures)
                    for name, value in figures.items():
                        board.add_scalar(f"valid/{name}", value, step)
            if step % train.checkpoint_every == 0 or step == train.max_steps:
                state = {
                    "model": trainable_state(model),
                    "optimizer": optimizer.state_dict(),
                    "scale": arithmetic.scaler.state_dict(),
                    **{"step": step, "epoch": epoch, "batch": used, "rng": gather(rng_state())},
                    "seconds": time.monotonic() - started,
                }
                if first:
                    checkpoints.add(step, state)
            if phase_ends:
                break
        else:
            epoch, used = epoch + 1, 0
            if first and train.keep_epochs:
                save(output / f"epoch-{epoch}.pt", {"model": trainable_state(model), "step": step})
    progress.close()
    if board:
        board.close()
        final = load(output / BEST)["model"] if train.final == "best" else checkpoints.average()
        load_trainable_state(model, final, str(output))
    model.eval()


def _batches(task: Task, groups: CutSet, epoch: int, used: int) -> list[Iterator[CutSet]]:
    """The batches of an epoch that this process has still to use: an iterator for each that it
    computes in a step. They are those that as many more processes would have."""
    count = task.train.accumulate
    return [
        training_batches(
            *(groups, task.train, epoch, used),
            positions=task.positions,
            rank=one,
            world_size=world_size() * count,
        )
        for one in range(rank() * count, (rank() + 1) * count)
    ]


def _read_steps(
    task: Task, augment: Augment, groups: CutSet, epoch: int, used: int, step: int
) -> Iterator[list[Batch]]:
    """The batches of each step of an epoch, beginning with `step`, of which `used` are used."""
    of_steps = zip(*_batches(task, groups, epoch, used), strict=True)
    for number, of_step in enumerate(of_steps):
        batches = []
        for rank_of_batch, groups_of_batch in enumerate(of_step, rank() * task.train.accumulate):
            rng = draws(task.train, epoch, used + number, rank_of_batch)
            heard = augment(groups_of_batch, rng)
            batches.append(task.read(heard, step + number, rng))
        yield batches


def _claim_folder(output: Path, config: Config, stage: int) -> None:
    """Writes `config.yaml`, or checks that the run already there has the same configuration, as far
    as this stage depends on it."""
    path = output / "config.yaml"
    if path.exists() and (output / "checkpoints.json").exists():
        old, new = (of_stage(stage, to_tree(one)) for one in (load_config(path), config))
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                section = key.partition(".")[0]
                raise InputError(
                    f"{path}: is of a run with another section {section}: {key} is "
                    f"{new.get(key)!r} now and was {old.get(key)!r}; remove {output} to start anew"
                )
    write_text(path, to_yaml(config))


def _validate(task: Task, together: bool) -> dict[str, float]:
    """Figures on the dev groups; of the first process, or of every one that runs `together`."""
    if rank() and not together:
        return {}
    task.model.eval()
    with torch.inference_mode():
        figures = task.validate()
    task.model.train()
    return figures


def _write_figures(
    task: Task, output: Path, step: int, seconds: float, figures: dict[str, float]
) -> None:
    """Logs the figures of a validation, adds them to `output/curve.jsonl`, keeps the best weights.

    seconds  of training so far, earlier starts of a resumed run included
    """
    log.info("step %d: %s", step, ", ".join(f"{k} {v:.4f}" for k, v in figures.items()))
    # A run that was killed behind its last checkpoint comes to some steps again.
    rows = [row for row in read_journal(output / "curve.jsonl") if row["step"] < step]
    name = next(iter(figures))
    if all(figures[name] < row[name] for row in rows):
        save(output / BEST, {"model": trainable_state(task.model), "step": step})
    rows.append({"step": step, "seconds": round(seconds, 1), **figures})
    write_text(output / "curve.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
