"""Encoders that a saved model only names: most of their weights are those of a pretrained part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from tagspeech.checkpoints.starting_points import Entry, find_file
from tagspeech.config import Config, PartConfig, PartsConfig
from tagspeech.config_file import from_tree
from tagspeech.encoders.build import build_encoder
from tagspeech.errors import InputError
from tagspeech.weights import read_safetensors

STREAMS = ("semantic", "voice")
WEIGHTS = "model.safetensors"  # of a saved model, without its LLM


def part_weights(
    config: Config, stream: str, part: PartConfig, offline: bool
) -> tuple[dict[str, Tensor], Entry]:
    """The weights of a model's encoder as its pretrained part has them, without adapters.

    Args:
        config: Of the model.
        stream: "semantic" or "voice".
        part: The part that the encoder was trained from.
        offline: Whether to use only what this machine has.

    Returns:
        The weights by their names in the model, and what `find_file` says of the part.

    Raises:
        InputError: The part cannot be had, or is no encoder of this shape.
    """
    path, entry = find_file(f"{stream}_encoder", part, {}, offline)
    encoder = build_encoder(config, stream)
    encoder.load_weights(path)
    state = encoder.state_dict().items()
    weights = {f"{stream}_encoder.{name}": weight for name, weight in state}
    return {name: weight for name, weight in weights.items() if ".lora_" not in name}, entry


def read_weights(
    folder: Path, tree: dict[str, Any], config: Config, offline: bool
) -> dict[str, Tensor]:
    """All weights of a saved model but its LLM's; those of parts that it names come from there.

    Args:
        folder: The model's folder.
        tree: The content of its config.json.
        config: What it stands for.
        offline: Whether to use only what this machine has.

    Raises:
        InputError: A file or part cannot be had, or does not fit.
    """
    where = folder / "config.json"
    parts = from_tree(PartsConfig, tree.get("parts", {}), str(where))
    weights = read_safetensors(folder / WEIGHTS)
    for stream in STREAMS:
        part: PartConfig = getattr(parts, f"{stream}_encoder")
        if part.name:
            try:
                known, _ = part_weights(config, stream, part, offline)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
            weights = {**known, **weights}
    return weights
