"""Checkpoints: what a run needs to go on exactly, and the average of the last ones.

A run folder holds `checkpoint-STEP.pt` and `checkpoints.json`, the list of those that are whole.
Each is a dictionary: "model" (trainable weights), "optimizer", "step", "epoch", "batch" (batches of
the epoch already used), "rng".
"""

from __future__ import annotations

import io
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_json, write_json


def seed_everything(seed: int) -> None:
    """Seeds the generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The state of all generators, in types that a weights-only load accepts."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state(),
        **({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}),
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Back to what `rng_state` gave."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that learn, by name; tied ones once."""
    return {name: one.detach() for name, one in model.named_parameters() if one.requires_grad}


def load_trainable_state(model: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Copies trained weights into `model`; other names or shapes are an `InputError`."""
    own = trainable_state(model)
    for name in sorted(own.keys() ^ state.keys()):
        raise InputError(f"{where}: {'missing' if name in own else 'unexpected'} weight {name}")
    for name, weight in own.items():
        if weight.shape != state[name].shape:
            found, wanted = tuple(state[name].shape), tuple(weight.shape)
            raise InputError(f"{where}: {name} has shape {found}, the model wants {wanted}")
        weight.copy_(state[name])


def save(path: Path, state: Any) -> None:
    """`torch.save` in one step; a full disk is an `InputError` and leaves nothing behind."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load(path: Path) -> Any:
    """Reads a `.pt` file, weights only: a pickle that would run code is refused."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: cannot be read as weights: {error}") from error


class CheckpointFolder:
    """The checkpoints of one run, the last `keep` of them."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.list = folder / "checkpoints.json"

    def names(self) -> list[str]:
        """Names of the whole checkpoints, oldest first."""
        return read_json(self.list) if self.list.exists() else []

    def latest(self) -> dict[str, Any] | None:
        """The newest checkpoint, or None before the first."""
        names = self.names()
        return load(self.folder / names[-1]) if names else None

    def add(self, step: int, state: dict[str, Any]) -> None:
        """Saves a checkpoint, lists it, then removes those too old to keep."""
        name = f"checkpoint-{step}.pt"
        save(self.folder / name, state)
        names = [old for old in self.names() if old != name] + [name]
        write_json(self.list, names[-self.keep :])
        for old in names[: -self.keep]:
            (self.folder / old).unlink(missing_ok=True)

    def average(self) -> dict[str, Tensor]:
        """Mean of the weights of all kept checkpoints (in the paper the last five)."""
        states = [load(self.folder / name)["model"] for name in self.names()]
        return {
            key: torch.stack([state[key].double() for state in states]).mean(0).to(weight.dtype)
            for key, weight in states[0].items()
        }
