"""Weights from files into modules: nothing that could run code is read, nothing is left out."""

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

# Training of others keeps its folders as paths beside the weights; Python 3.13 renamed their class.
_PATHS: list[Any] = [
    (pathlib.PosixPath, name) for name in ("pathlib.PosixPath", "pathlib._local.PosixPath")
]
# What torch's reader of pickles raises at bytes that make no sense, or ask for what is not allowed.
_REFUSED = (
    *(pickle.UnpicklingError, EOFError, struct.error, LookupError, ValueError, TypeError),
    *(AttributeError, AssertionError),
)


def read_pt(path: Path) -> Any:
    """What a `.pt` file holds: tensors, numbers, strings and paths in plain containers.

    Raises `InputError` for a file that is damaged or holds other objects: to build those, reading
    would have to run code that the file names.
    """
    try:
        with torch.serialization.safe_globals(_PATHS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _REFUSED as error:
        raise InputError(
            f"{path}: is refused: it is damaged, or holds more than weights and would run code "
            "when read; get it again from who made it"
        ) from error
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: cannot be read as weights: {reason}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises `InputError` where it is none."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors: {error}") from error


def tensors_in(value: Any, path: Path, what: str) -> dict[str, Tensor]:
    """`value` as tensors by name. Raises `InputError` where it is something else."""
    if not isinstance(value, dict) or not all(torch.is_tensor(one) for one in value.values()):
        raise InputError(f"{path}: {what} is not a dictionary of tensors")
    return value


def read_model(path: Path) -> dict[str, Tensor]:
    """The weights of a Zipformer, and of what is built on it, under icefall's names.

    `path` is a .safetensors, an icefall epoch-N.pt or pretrained.pt, whose entry "model" they are,
    or a .pt of weights alone. Models of Auden have the encoder as a part: their
    `encoder.encoder_embed...` is icefall's `encoder_embed...`. `model_batch_count`, the step of a
    published training, is left out. Raises `InputError` where `path` holds anything else.
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
    model: nn.Module, state: dict[str, Tensor], path: Path, parts: tuple[str, ...]
) -> None:
    """Copies `state` into those weights of `model` whose names begin with one of `parts`.

    The other weights stay as they are. Raises `InputError` naming file and weight for one that is
    missing, unexpected or of another shape.
    """
    own = {name: one for name, one in model.state_dict().items() if name.startswith(parts)}
    check_weights(own, state, path)
    model.load_state_dict(state, strict=False)


def check_weights(own: dict[str, Tensor], state: dict[str, Tensor], path: Path) -> None:
    """Raises `InputError` where `state`, read from `path`, has other names or shapes than `own`."""
    for name in sorted(own.keys() ^ state.keys()):
        raise InputError(f"{path}: {'lacks' if name in own else 'has unexpected'} weight {name}")
    for name, weight in own.items():
        if weight.shape != state[name].shape:
            found, wanted = tuple(state[name].shape), tuple(weight.shape)
            raise InputError(f"{path}: {name} has shape {found}, the configuration wants {wanted}")
