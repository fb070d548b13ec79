"""Weights from files into modules: strictly, and without running code that a file contains."""

from __future__ import annotations

import pathlib
import pickle
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tagspeech.errors import InputError

# Checkpoints of other trainers hold paths as well as weights; Python 3.13 renamed their class.
_PATHS: list[Any] = [
    (pathlib.PosixPath, name) for name in ("pathlib.PosixPath", "pathlib._local.PosixPath")
]
# What torch's unpickler raises for damaged files and for objects that it does not allow.
REFUSED = (
    *(pickle.UnpicklingError, EOFError, struct.error, LookupError, ValueError, TypeError),
    *(AttributeError, AssertionError),
)


def read_pt(path: Path) -> Any:
    """The content of a `.pt` file: tensors, numbers, strings and paths in plain containers.

    Raises:
        InputError: The file is damaged, or holds other objects, which would need to run code.
    """
    try:
        with torch.serialization.safe_globals(_PATHS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except REFUSED as error:
        raise InputError(
            f"{path}: is refused: it is damaged, or holds more than weights and would run code "
            "when read; download it again"
        ) from error
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: cannot be read as weights: {reason}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises `InputError` if it cannot be read."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors: {error}") from error


def tensors_in(value: Any, path: Path, what: str) -> dict[str, Tensor]:
    """`value` as tensors by name. Raises `InputError` for anything else."""
    if not isinstance(value, dict) or not all(map(torch.is_tensor, value.values())):
        raise InputError(f"{path}: {what} is not a dictionary of tensors")
    return value


def read_model(path: Path) -> dict[str, Tensor]:
    """The weights of a Zipformer and of the parts trained with it, under icefall's names.

    In models of Auden the encoder is a part: `encoder.encoder_embed...` is icefall's
    `encoder_embed...`. `model_batch_count`, the step of a published training, is left out.

    Args:
        path: A .safetensors, an icefall epoch-N.pt or pretrained.pt, whose entry "model" has the
            weights, or a .pt of weights alone.

    Raises:
        InputError: The file holds anything else.
    """
    if path.suffix == ".safetensors":
        state = read_safetensors(path)
    else:
        held = read_pt(path)
        entry = "model" if isinstance(held, dict) and "model" in held else None
        state = (
            tensors_in(held[entry], path, f"its entry {entry!r}")
            if entry
            else tensors_in(held, path, "without an entry 'model', its content")
        )
    for part in ("encoder.", "speech_encoder.", "audio_encoder."):
        if any(name.startswith(f"{part}encoder_embed.") for name in state):
            state = {name.removeprefix(part): weight for name, weight in state.items()}
    state.pop("model_batch_count", None)
    return state


def copy_weights(
    model: nn.Module,
    state: dict[str, Tensor],
    path: Path,
    parts: tuple[str, ...] = ("",),
    without: tuple[str, ...] = (),
) -> None:
    """Copies weights into a module, strictly; weights that are not named stay as they are.

    Args:
        model: The module.
        state: Weights by name.
        path: Where they come from, for error messages.
        parts: Prefixes of the weights of `model` that `state` must have.
        without: Prefixes of weights among these that it must not have.

    Raises:
        InputError: A weight is missing, unexpected or of another shape.
    """
    expected = {
        name: weight
        for name, weight in model.state_dict().items()
        if name.startswith(parts) and not name.startswith(without)
    }
    check_weights(expected, state, path)
    model.load_state_dict(state, strict=False)


def check_weights(expected: dict[str, Tensor], state: dict[str, Tensor], path: Path) -> None:
    """Raises `InputError` if `state`, read from `path`, has other names or shapes."""
    for name in sorted(expected.keys() ^ state.keys()):
        verb = "lacks" if name in expected else "has unexpected"
        raise InputError(f"{path}: {verb} weight {name}")
    for name, weight in expected.items():
        if weight.shape != state[name].shape:
            found, shape = tuple(state[name].shape), tuple(weight.shape)
            raise InputError(f"{path}: {name} has shape {found}, the configuration has {shape}")
