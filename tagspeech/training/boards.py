"""Curves of a training in Weights & Biases, beside TensorBoard."""

from __future__ import annotations

import os
from pathlib import Path

from tagspeech.errors import InputError


def mirror_to_wandb(project: str, output: Path) -> None:
    """Sends what the training writes for TensorBoard to a project of Weights & Biases too.

    Only the first process does; it must be called before the training opens its board.

    Args:
        project: The name of the project. Account and server are wandb's own settings.
        output: The run folder, whose name the run has.

    Raises:
        InputError: The package wandb is not installed.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    try:
        import wandb
    except ImportError as error:
        raise InputError(
            f"--wandb {project}: needs the package wandb: .venv/bin/python -m pip install wandb"
        ) from error
    output.mkdir(parents=True, exist_ok=True)
    wandb.init(project=project, name=output.name, dir=str(output), sync_tensorboard=True)
