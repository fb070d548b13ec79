"""The training loop. A `Task` supplies the model, the batches and the loss."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from tagspeech.config import Config, TrainConfig
from tagspeech.config_file import load_config, to_tree, to_yaml
from tagspeech.data.augment import Augment
from tagspeech.dependencies import of_stage
from tagspeech.errors import InputError
from tagspeech.files import read_journal, write_text
from tagspeech.llm.sharding import is_sharded
from tagspeech.parallel import (
    broadcast_weights,
    device,
    gather,
    rank,
    sum_gradients,
    world_size,
)
from tagspeech.training.checkpoint import (
    CheckpointFolder,
    damaged,
    load,
    load_trainable_state,
    rng_state,
    save,
    set_rng_state,
    trainable_state,
)
from tagspeech.training.length import with_length
from tagspeech.training.memory import check_memory, explain_out_of_memory, try_largest
from tagspeech.training.precision import MixedPrecision, product_type
from tagspeech.training.prefetch import Prefetcher, steps_ahead
from tagspeech.training.reading import epoch_batches, reading_jobs
from tagspeech.training.steps import LossCheck, Task, learning_rate, read_figures, weights_by_rate

log = logging.getLogger(__name__)

BEST = "best.pt"  # weights of the validation with the lowest first figure


def fit(task: Task, config: Config, output: Path, rates: Mapping[str, float] | None = None) -> None:
    """Trains `task.model` for as long as `train` says and loads the final weights into it.

    All processes of a training (`parallel.launch`) call this function. Each reads its own batches;
    only the first loads the final weights. Training resumes from the last checkpoint in `output`
    with the same batches and losses, bit for bit on a CPU.

    The function is long so that a training reads from top to bottom.

    Args:
        task: Model, data, loss and validation.
        config: Saved as `output/config.yaml`.
        output: Run folder.
        rates: Peak learning rates by prefix of parameter name; the default is `train.lr`.

    Raises:
        InputError: If an option is invalid, `output` holds a run with another configuration, memory
            does not suffice, or a loss is not finite.
    """
    _check_options(task.train)
    train = task.train = with_length(task)
    model = task.model

    # 1. Run folder, device, seeds
    is_first = rank() == 0
    if is_first:
        _claim_folder(output, config, task.stage)
    checkpoints = CheckpointFolder(output, train.average)
    here = device()
    precision = MixedPrecision(product_type(train.precision, here), here)
    log.info("training on %s in %s", here, str(precision.dtype).removeprefix("torch."))
    torch.manual_seed(train.seed + rank())  # dropout and SpecAugment differ between processes
    random.seed(train.seed + rank())

    # 2. Model
    check_memory(model, here)
    model.to(here)
    broadcast_weights(model)
    weights = [weight for weight in model.parameters() if weight.requires_grad]

    # 3. Data
    augment = Augment(train.augment, config.features.sampling_rate)
    single_segment = task.groups.filter(lambda cut: len(cut.supervisions) == 1).to_eager()
    prefetcher = Prefetcher(steps_ahead(train))

    # 4. Optimizer; a learning rate is a function of its peak and the step
    weights_of_rates = weights_by_rate(model, {"": train.lr, **(rates or {})})
    optimizer = torch.optim.AdamW(
        [{"params": group} for group in weights_of_rates.values()],
        lr=train.lr,
        betas=train.betas,
        weight_decay=train.weight_decay,
        fused=True,
    )

    # 5. Resume from the last checkpoint
    step, epoch, used, seconds_before = 0, 0, 0, 0.0  # used: batches of this epoch so far
    state = checkpoints.latest()
    if state:
        if len(state["rng"]) != world_size():
            raise InputError(f"{output}: was trained by {len(state['rng'])} processes; use as many")
        with damaged(output):
            load_trainable_state(model, state["model"], str(output))
            optimizer.load_state_dict(state["optimizer"])
            precision.scaler.load_state_dict(state.get("scale", {}))
            step, epoch, used = state["step"], state["epoch"], state["batch"]
            seconds_before = state["seconds"]
            set_rng_state(state["rng"][rank()])
        log.info("resuming after step %d", step)

    # 6. Steps
    model.train()
    if train.try_largest and not state:
        try_largest(task, epoch_batches(task, task.groups, 0, 0)[0], weights, precision)
    losses = LossCheck(output)
    board = SummaryWriter(str(output / "tensorboard"), purge_step=step) if is_first else None
    started = time.monotonic() - seconds_before
    progress = tqdm(
        total=train.max_steps, initial=step, desc=output.name, unit=" batches", disable=not is_first
    )
    while step < train.max_steps:
        is_simple = step < train.simple_steps and len(single_segment) > 0
        groups = single_segment if is_simple else task.groups
        jobs = partial(reading_jobs, task, augment, groups, epoch, used, step)
        for batches in prefetcher(jobs):
            # 6a. Learning rates
            rate = learning_rate(train, step)
            for group, peak in zip(optimizer.param_groups, weights_of_rates, strict=True):
                group["lr"] = learning_rate(replace(train, lr=peak), step)

            # 6b. Forward and backward: the gradient of the mean loss over the targets of all
            # batches of all processes. Their number is known only after the last batch; until then
            # the number in the first batches stands for it.
            optimizer.zero_grad(set_to_none=True)
            divisor = targets = 0.0
            for batch in batches:
                with explain_out_of_memory(batch.groups), precision.autocast():
                    loss, count, figures = task.loss(batch, step)
                counted = losses.count(batch, loss, count, step)
                divisor = divisor or max(1.0, counted)
                targets += counted
                with explain_out_of_memory(batch.groups):
                    precision.scaler.scale(loss * (count / divisor)).backward()
                loss = loss.detach()  # frees the graph before the next forward pass
            sum_gradients(weights)
            if targets > divisor:
                for weight in weights:
                    if weight.grad is not None:
                        weight.grad *= divisor / targets

            # 6c. Clip and update
            gradient_norm = precision.step(optimizer, weights, train.clip_norm)
            step, used = step + 1, used + 1
            phase_ends = step in (train.simple_steps, train.max_steps)
            if phase_ends:
                epoch, used = epoch + 1, 0

            # 6d. Log
            progress.update()
            is_valid = step % train.valid_every == 0 or step == train.max_steps
            is_saved = step % train.checkpoint_every == 0 or step == train.max_steps
            if is_valid or is_saved:
                losses.finish()
            if board and step % train.log_every == 0:
                scalars = read_figures(loss=loss, gradient_norm=gradient_norm, **figures)
                scalars["lr"] = rate
                scalars["waiting_share"] = prefetcher.waiting_share()
                progress.set_postfix(
                    loss=f"{scalars['loss']:.3f}", waiting=f"{scalars['waiting_share']:.0%}"
                )
                _write_scalars(board, "train", scalars, step)

            # 6e. Validate; with a sharded LLM every process takes part
            if is_valid:
                scores = _validate(task) if is_first or is_sharded(model) else {}
                if board:
                    _write_figures(task, output, step, time.monotonic() - started, scores)
                    _write_scalars(board, "valid", scores, step)

            # 6f. Checkpoint
            if is_saved:
                state = {
                    "model": trainable_state(model),
                    "optimizer": optimizer.state_dict(),
                    "scale": precision.scaler.state_dict(),
                    **{"step": step, "epoch": epoch, "batch": used, "rng": gather(rng_state())},
                    "seconds": time.monotonic() - started,
                }
                if is_first:
                    checkpoints.add(step, state)
            if phase_ends:
                break
        else:
            epoch, used = epoch + 1, 0
            if train.keep_epochs:
                losses.finish()
            if is_first and train.keep_epochs:
                save(output / f"epoch-{epoch}.pt", {"model": trainable_state(model), "step": step})
    progress.close()

    # 7. Final weights
    if board:
        board.close()
        final = load(output / BEST)["model"] if train.final == "best" else checkpoints.average()
        load_trainable_state(model, final, str(output))
    model.eval()


def _check_options(train: TrainConfig) -> None:
    if train.final not in ("average", "best"):
        raise InputError(f"train.final: must be average or best, got {train.final!r}")
    if train.accumulate < 1:
        raise InputError(f"train.accumulate: must be 1 or more batches, got {train.accumulate}")


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


def _validate(task: Task) -> dict[str, float]:
    task.model.eval()
    with torch.inference_mode():
        figures = task.validate()
    task.model.train()
    return figures


def _write_scalars(
    board: SummaryWriter, prefix: str, scalars: Mapping[str, float], step: int
) -> None:
    for name, value in scalars.items():
        board.add_scalar(f"{prefix}/{name}", value, step)


def _write_figures(
    task: Task, output: Path, step: int, seconds: float, figures: dict[str, float]
) -> None:
    """Logs a validation, adds it to `output/curve.jsonl` and saves the best weights so far.

    Args:
        seconds: Training time so far, including the time before a resume.
    """
    log.info("step %d: %s", step, ", ".join(f"{k} {v:.4f}" for k, v in figures.items()))
    # A run killed after its last checkpoint repeats some steps.
    rows = [row for row in read_journal(output / "curve.jsonl") if row["step"] < step]
    name = next(iter(figures))
    if all(figures[name] < row[name] for row in rows):
        save(output / BEST, {"model": trainable_state(task.model), "step": step})
    rows.append({"step": step, "seconds": round(seconds, 1), **figures})
    write_text(output / "curve.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
