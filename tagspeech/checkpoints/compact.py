"""The compact form of a trained model: what training changed, in half precision.

Weights of an encoder that are still those of the part that it comes from are left out: config.json
names the part, and loading takes them from there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tagspeech.checkpoints.named_parts import STREAMS, WEIGHTS, part_weights
from tagspeech.checkpoints.native import ADAPTER, names_llm, save_pretrained
from tagspeech.config import LLMConfig, PartConfig, PartsConfig
from tagspeech.config_file import to_tree
from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_json, write_checksums
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.packages.fetch import is_package, package_folder, source_sha256
from tagspeech.weights import read_safetensors

log = logging.getLogger(__name__)


def save_compact(
    model: TagSpeechModel, folder: Path, parts: Mapping[str, str], *, offline: bool = False
) -> None:
    """Writes a model to a folder that `load_pretrained` reads, as small as it can be.

    Args:
        model: The model.
        folder: The folder to write; gets SHA256SUMS.
        parts: For "semantic" and "voice", the part that the encoder comes from: a path, a name on
            the Hub, or a file in a package. An encoder that is not named is written whole.
        offline: Whether to use only what this machine has.

    Raises:
        InputError: A part cannot be had, or shares no weight with its encoder.
    """
    with atomic_path(folder) as temporary:
        save_pretrained(model, temporary)
        path = temporary / WEIGHTS
        state = read_safetensors(path)
        named: dict[str, PartConfig] = {}
        for stream in STREAMS:
            if parts.get(stream):
                named[f"{stream}_encoder"] = _leave_out(
                    model, stream, parts[stream], state, offline
                )
        save_file({name: _half(weight) for name, weight in state.items()}, path)
        for inner in (ADAPTER, "llm"):
            for weights in (temporary / inner).glob("*.safetensors"):
                held = {name: _half(weight) for name, weight in read_safetensors(weights).items()}
                save_file(held, weights, metadata={"format": "pt"})
        llm = _pinned(model.config.llm, offline)
        config = {**read_json(temporary / "config.json"), "parts": to_tree(PartsConfig(**named))}
        config["llm"]["sha256"] = llm.sha256
        (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        with (temporary / "README.md").open("a", encoding="utf-8") as card:
            card.write(_card(named, llm))
        write_checksums(temporary)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    log.info("%s: %.1f MB", folder, size / 1e6)


def _leave_out(
    model: TagSpeechModel, stream: str, name: str, state: dict[str, Tensor], offline: bool
) -> PartConfig:
    """Removes the weights that a part has from `state`; returns how config.json names the part."""
    if Path(name).exists():
        name = str(Path(name).resolve())
    part = PartConfig(name=name)
    known, entry = part_weights(model.config, stream, part, offline)
    same = [key for key, weight in known.items() if torch.equal(weight, state[key])]
    if not same:
        raise InputError(
            f"--{stream}-encoder {name}: none of its weights is in the model; name the part that "
            "its encoder was trained from, or leave the option out"
        )
    for key in same:
        del state[key]
    log.info("%s: %d of %d weights are not stored", name, len(same), len(known))
    (weights,) = (row for key, row in entry["files"].items() if key != "config.json")
    digest = entry["source_sha256"] if is_package(name) else weights["sha256"]
    return replace(part, revision=entry["commit"], sha256=digest)


def _half(weight: Tensor) -> Tensor:
    """A weight as float16, or as it is where float16 cannot hold it."""
    if not weight.is_floating_point():
        return weight.contiguous()
    half = weight.to(torch.float16)
    return (half if half.isfinite().all() else weight).contiguous()


def _pinned(llm: LLMConfig, offline: bool) -> LLMConfig:
    """The section of an LLM, with the sum of its file if the model only names a package."""
    folder = package_folder("llm", llm, offline) if names_llm(llm) else None
    return replace(llm, sha256=source_sha256(folder) if folder else None)


def _card(named: Mapping[str, PartConfig], llm: LLMConfig) -> str:
    """What the README.md of a compact model says beside that of every model."""
    lines = ["\nThis is the compact form: the weights that training changed, in float16.\n"]
    parts = [(name.replace("_", " "), part.name, part.sha256) for name, part in named.items()]
    if names_llm(llm):
        parts.append(("LLM", llm.name, llm.sha256))
    for what, name, digest in parts:
        pinned = f" (SHA-256 `{digest}`)" if digest else ""
        lines.append(f"- {what}: `{name}`{pinned}: is not in this folder; loading fetches it\n")
    return "".join(lines)
