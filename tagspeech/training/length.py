"""How long a training is, and what its steps hold."""

from __future__ import annotations

import logging
from dataclasses import replace

from tagspeech.config import TrainConfig
from tagspeech.errors import InputError
from tagspeech.parallel import world_size
from tagspeech.training.checkpoint import rng_state, set_rng_state
from tagspeech.training.reading import epoch_batches
from tagspeech.training.steps import Task

log = logging.getLogger(__name__)


def with_length(task: Task) -> TrainConfig:
    """The options of a training with `max_steps` resolved; logs what a step and the training hold.

    `max_epochs` and `max_hours` take the place of `max_steps`: more processes, whose steps hold
    more audio, then take fewer steps. An epoch has about as many steps as the first one.

    Raises:
        InputError: Both are set, or `max_steps` is 0 beside one of them.
    """
    train = task.train
    if train.max_epochs and train.max_hours:
        raise InputError("train.max_epochs and train.max_hours: only one of them can be set")
    if (train.max_epochs or train.max_hours) and not train.max_steps:
        raise InputError(
            "train.max_steps: 0 trains nothing; set it to 1 or more beside max_epochs or max_hours"
        )
    steps = _steps_of_an_epoch(task)
    hours = sum(cut.duration for cut in task.groups) / 3600
    if train.max_epochs:
        train = replace(train, max_steps=train.max_epochs * steps)
    elif train.max_hours:
        train = replace(train, max_steps=max(1, round(train.max_hours / hours * steps)))
    epochs = train.max_steps / steps
    log.info(
        "a step: %.0f s of audio on average, of at most %g s x %d processes x accumulate %d; "
        "%d steps an epoch of %.2f h; %d steps: %.1f epochs, %.1f h",
        *(hours * 3600 / steps, train.max_duration, world_size(), train.accumulate),
        *(steps, hours, train.max_steps, epochs, epochs * hours),
    )
    return train


def _steps_of_an_epoch(task: Task) -> int:
    """The number of steps of the first epoch; random generators stay as they are."""
    before = rng_state()
    steps = sum(1 for _ in epoch_batches(task, task.groups, 0, 0)[0])
    set_rng_state(before)
    return max(1, steps)
