"""Checkpoints: the state from which a run resumes exactly, and the average of the last ones.

A run folder holds `checkpoint-STEP.pt` files and `checkpoints.json`, the list of complete ones. A
checkpoint is a dictionary: "model" (trainable weights), "optimizer", "scale" (float16 only),
"step", "epoch", "batch" (batches of the epoch already used), "rng" (of each process), "seconds".
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_json, write_json
from tagspeech.weights import REFUSED

_NAME = re.compile(r"checkpoint-\d+\.pt")
_ENTRIES = {"model", "optimizer", "step", "epoch", "batch", "rng", "seconds"}
_REMEDY = "delete the folder of this training to begin anew"


def seed_everything(seed: int) -> None:
    """Seeds the generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """Returns the state of all random generators, in types that a weights-only load accepts."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state(),
        **({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}),
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restores a state returned by `rng_state`."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Returns the trainable parameters by name; tied ones once."""
    return {
        name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad
    }


def load_trainable_state(model: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Copies trained weights into `model`.

    Raises:
        InputError: If names or shapes differ; begins with `where`.
    """
    weights = trainable_state(model)
    for name in sorted(weights.keys() ^ state.keys()):
        raise InputError(f"{where}: {'missing' if name in weights else 'unexpected'} weight {name}")
    for name, weight in weights.items():
        if weight.shape != state[name].shape:
            shape, expected = tuple(state[name].shape), tuple(weight.shape)
            raise InputError(f"{where}: {name} must have shape {expected}, got {shape}")
        weight.copy_(state[name])


def save(path: Path, state: Any) -> None:
    """Writes a `.pt` file atomically; a full disk raises `InputError` and leaves no file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load(path: Path) -> Any:
    """Reads a `.pt` file; a pickle that would run code raises `InputError`."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, *REFUSED) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: cannot be read as weights: {reason}") from error


@contextmanager
def damaged(folder: Path) -> Iterator[None]:
    """Turns what torch and Python raise for a checkpoint with odd content into an `InputError`."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{folder}: its last checkpoint is damaged: {reason}; {_REMEDY}"
        ) from error


class CheckpointFolder:
    """The last `keep` checkpoints of a run."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.list = folder / "checkpoints.json"

    def names(self) -> list[str]:
        """Returns the names of complete checkpoints, oldest first."""
        names = read_json(self.list) if self.list.exists() else []
        if not isinstance(names, list) or not all(
            isinstance(name, str) and _NAME.fullmatch(name) for name in names
        ):
            raise InputError(f"{self.list}: must be a list of checkpoint-STEP.pt; {_REMEDY}")
        return list(names)

    def latest(self) -> dict[str, Any] | None:
        """Returns the newest checkpoint, or None before the first.

        Raises:
            InputError: It is damaged.
        """
        names = self.names()
        if not names:
            return None
        path = self.folder / names[-1]
        state = load(path)
        lacking = _ENTRIES - state.keys() if isinstance(state, dict) else _ENTRIES
        if lacking:
            raise InputError(f"{path}: is damaged: it has no {min(lacking)}; {_REMEDY}")
        return dict(state)

    def add(self, step: int, state: dict[str, Any]) -> None:
        """Saves and lists a checkpoint, then removes those too old to keep."""
        name = f"checkpoint-{step}.pt"
        save(self.folder / name, state)
        names = [old for old in self.names() if old != name] + [name]
        write_json(self.list, names[-self.keep :])
        for old in names[: -self.keep]:
            (self.folder / old).unlink(missing_ok=True)

    def average(self) -> dict[str, Tensor]:
        """Returns the mean weights of all kept checkpoints (arXiv 2601.06896: the last five)."""
        states = [load(self.folder / name)["model"] for name in self.names()]
        return {
            key: torch.stack([state[key].double() for state in states]).mean(0).to(weight.dtype)
            for key, weight in states[0].items()
        }
