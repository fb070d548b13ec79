"""Where a model computes and in which type; `auto` is resolved here."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tagspeech.config import LLMConfig
from tagspeech.errors import InputError
from tagspeech.files import read_json, write_json
from tagspeech.llm.load import DTYPES, usable_device
from tagspeech.llm.size import llm_shape, llm_weights

log = logging.getLogger(__name__)

LARGEST_ON_CPU = 3_000_000_000  # weights of an LLM; more take weeks there


@dataclass(frozen=True)
class Place:
    """A device and the type of an LLM's weights on it.

    Attributes:
        device: Where the model runs.
        dtype: Of the LLM's weights.
        is_asked_for: Whether the user named the device; otherwise it was found.
    """

    device: torch.device
    dtype: torch.dtype
    is_asked_for: bool = False

    def __str__(self) -> str:
        name = str(self.device)
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        return f"{name} in {str(self.dtype).removeprefix('torch.')}"

    def log(self) -> None:
        """Says in the log where a model is going to compute."""
        log.info("computing on %s%s", self, "" if self.is_asked_for else " (found: --device auto)")

    def check_size(self, llm: LLMConfig, offline: bool = False) -> None:
        """Raises `InputError` for a large LLM on a CPU that nobody asked for."""
        if self.device.type != "cpu" or self.is_asked_for:
            return
        shape = llm_shape(llm, offline)
        weights = shape and llm_weights(shape)
        if weights and weights > LARGEST_ON_CPU:
            raise InputError(
                f"llm.name: {llm.name}: has {weights / 1e9:.1f} billion weights, and torch finds "
                "no GPU here, on whose CPU it would take weeks; use a machine with a GPU "
                "(utils/install.sh --cuda true installs torch for it), or ask for the CPU: "
                "--device cpu"
            )


def find_device(name: str | torch.device) -> torch.device:
    """The device of this name; auto and cuda: see `find_place`."""
    name = str(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return usable_device(name)


def find_place(device: str | torch.device = "auto", dtype: str = "auto") -> Place:
    """The place that the options --device and --dtype name.

    Args:
        device: As torch names it. auto: the GPU where there is one, else the CPU. Under torchrun,
            auto and cuda are the GPU of the process.
        dtype: A name of `DTYPES`. auto: bfloat16 on a GPU that computes in it, else float32.

    Raises:
        InputError: The device cannot be used.
    """
    found = find_device(device)
    is_found = str(device) == "auto"
    if dtype == "auto":
        dtype = "float32"
        if found.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
            dtype = "bfloat16"
    return Place(found, DTYPES[dtype], not is_found)


def note_place(path: Path, place: Place) -> list[str]:
    """`note_places` of one place."""
    return note_places(path, [str(place)])


def note_places(path: Path, names: Sequence[str]) -> list[str]:
    """Adds the names of places to the list in a JSON file, and returns the list.

    A run that goes on elsewhere than it began gets a warning: the last bits of sums differ.
    """
    before = read_places(path)
    new = [name for name in dict.fromkeys(names) if name not in before]
    if not new:
        return before
    if before:
        log.warning(
            "%s: began on %s, continues on %s", path, " and ".join(before), " and ".join(new)
        )
    write_json(path, [*before, *new])
    return [*before, *new]


def read_places(path: Path) -> list[str]:
    """The list that `note_places` wrote; [] where there is none."""
    return list(read_json(path)) if path.exists() else []
