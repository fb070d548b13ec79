"""A trained model as a folder: `config.json`, `model.safetensors`, the LLM by name or in `llm/`.

The layout of the published checkpoints (`checkpoints.published`) is read as well; config.json says
which of the two a folder has.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from tagspeech.checkpoints.named_parts import WEIGHTS, read_weights
from tagspeech.checkpoints.published import (
    is_released,
    load_released,
    load_released_encoders,
    released_config,
)
from tagspeech.config import Config, LLMConfig, LoraConfig, PartsConfig
from tagspeech.config_file import from_tree, to_tree
from tagspeech.dependencies import NOT_OF_A_MODEL, copy_keys, of_model
from tagspeech.encoders.aligner import WordAligner
from tagspeech.encoders.build import build_encoder
from tagspeech.encoders.stream import StreamEncoder
from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_json
from tagspeech.llm.load import load_llm
from tagspeech.llm.lora import add_lora, base_state, load_lora, save_lora
from tagspeech.llm.place import Place
from tagspeech.model.tagspeech import LLM_PREFIX, TagSpeechModel
from tagspeech.weights import copy_weights

log = logging.getLogger(__name__)

M = TypeVar("M", bound=TagSpeechModel)
OWN_LLM = "./llm"  # name of an LLM that lies in the model's folder
ADAPTER = "adapter"  # folder of the LLM's LoRA adapters
SAMPLES = 256  # values of each tensor of the LLM in a fingerprint


def names_llm(llm: LLMConfig) -> bool:
    """Whether a saved model only names its LLM: a frozen one from the Hub or from a package."""
    local = llm.name == OWN_LLM or Path(llm.name).is_dir()
    return llm.trainable == "none" and not local


def save_pretrained(
    model: TagSpeechModel, folder: Path, llm_state: dict[str, Tensor] | None = None
) -> None:
    """Writes what `load_pretrained` reads, in one step.

    What places words in time goes to aligner.safetensors and units.model, if the model has it.
    A frozen LLM from the Hub or from a package is only named; any other is written to `llm/`.
    Adapters are written to `adapter/`, in peft's layout.

    Args:
        model: All its weights but the LLM's are written to model.safetensors.
        folder: The folder to write.
        llm_state: Weights of the LLM, if this process has only its share of them.
    """
    llm = model.config.llm
    named = names_llm(llm)
    config = replace(
        model.config,
        llm=llm if named else replace(llm, name=OWN_LLM, revision=None, sha256=None),
        parts=PartsConfig(),  # they are in the model
    )
    weights = {name: weight.contiguous() for name, weight in model.state_without_llm().items()}
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_file(weights, temporary / WEIGHTS)
        tree = {"model_type": "tagspeech", **to_tree(config)}
        (temporary / "config.json").write_text(json.dumps(tree, indent=2) + "\n")
        (temporary / "README.md").write_text(_card(model))
        base, state = model.llm, llm_state
        if llm.lora.r:
            base, state = model.llm.get_base_model(), base_state(model.llm)
            save_lora(model.llm, config.llm.name, temporary / ADAPTER)
        if model.aligner is not None:
            model.aligner.save(temporary)
        if not named:
            base.save_pretrained(temporary / "llm", state_dict=state)
            model.tokenizer.save_pretrained(temporary / "llm")


def load_pretrained(
    model_class: type[M],
    folder: Path,
    dtype: torch.dtype = torch.float32,
    *,
    offline: bool = False,
) -> M:
    """A model in eval mode from a folder in our layout or in the released one.

    Args:
        model_class: `TagSpeechModel` or a subclass.
        folder: The model's folder.
        dtype: Of the LLM, which has nearly all of the weights; everything else is float32.
        offline: Whether what the folder only names must be on this machine.

    Raises:
        InputError: A weight is missing, unexpected or of another shape.
    """
    tree, config = _read_config(folder)
    return _load(model_class, folder, tree, config, dtype, offline)


def load_on(model_class: type[M], folder: Path, place: Place, *, offline: bool = False) -> M:
    """`load_pretrained` on a device.

    Raises:
        InputError: As `load_pretrained`; and, before anything is loaded, for a large LLM on a CPU
            that nobody asked for.
    """
    _, config = _read_config(folder)
    place.check_size(_with_path(config.llm, folder), offline)
    place.log()
    model: M = load_pretrained(model_class, folder, place.dtype, offline=offline).to(place.device)
    return model


def check_size(folder: Path, place: Place) -> None:
    """Raises `InputError` if the LLM of a trained model is too large for `place`."""
    place.check_size(_with_path(_read_config(folder)[1].llm, folder))


def _load(
    model_class: type[M],
    folder: Path,
    tree: dict[str, Any],
    config: Config,
    dtype: torch.dtype,
    offline: bool = False,
) -> M:
    """The model in `folder`, whose config.json is `tree`, with configuration `config`."""
    if is_released(tree):
        return load_released(model_class, folder, config, tree, dtype)
    llm, tokenizer = load_llm(_with_path(config.llm, folder), dtype, offline=offline)
    if config.llm.lora.r:
        llm = load_lora(llm, config.llm, folder / ADAPTER)
    model = model_class(config, llm, tokenizer)
    weights = read_weights(folder, tree, config, offline)
    copy_weights(model, weights, folder / WEIGHTS, without=(LLM_PREFIX,))
    model.aligner = WordAligner.load(folder, config.semantic.frames_per_second)
    return model.eval()


def _with_path(llm: LLMConfig, folder: Path) -> LLMConfig:
    """The section of an LLM with its path if it lies in the model's folder."""
    return replace(llm, name=str(folder / "llm")) if llm.name == OWN_LLM else llm


def read_config(folder: Path) -> Config:
    """The configuration of a trained model, in either layout."""
    return _read_config(folder)[1]


def _read_config(folder: Path) -> tuple[dict[str, Any], Config]:
    """The content of `config.json` and the configuration that it stands for, in either layout."""
    path = folder / "config.json"
    tree = read_json(path)
    if not isinstance(tree, dict) or tree.get("model_type") != "tagspeech":
        raise InputError(f"{path}: model_type is not tagspeech")
    if is_released(tree):
        return tree, released_config(folder, tree)
    sections = {key: value for key, value in tree.items() if key != "model_type"}
    config = from_tree(Config, sections, str(path))
    return tree, replace(config, parts=PartsConfig())  # `read_weights` puts them into the model


def start_from(config: Config, folder: Path, dtype: torch.dtype = torch.float32) -> TagSpeechModel:
    """A model for training that starts with all weights of the one in `folder`, in any layout.

    What it is comes from `folder`: all that `dependencies.NOT_OF_A_MODEL` does not name, such as
    features, encoders, projectors, anchors, LLM. How it is trained, and what of it, comes from
    `config`, new adapters of the LLM included. A warning names the values of `config` that differ.

    Args:
        config: The configuration of the training.
        folder: A trained model.
        dtype: Of the LLM.

    Raises:
        InputError: `folder` has adapters of another kind than `config`.
    """
    tree, trained = _read_config(folder)
    lora = config.llm.lora
    if trained.llm.lora not in (LoraConfig(), lora):
        raise InputError(
            f"llm.lora: {folder} has adapters of r {trained.llm.lora.r}, with other settings than "
            "the configuration; use its settings, or merge them: tagspeech export merged"
        )
    trained = replace(trained, llm=_with_path(trained.llm, folder))
    _warn_of_other_values(config, trained, folder)
    merged = copy_keys(NOT_OF_A_MODEL, to_tree(config), to_tree(trained))
    config = from_tree(Config, merged, str(folder))
    known_adapters = replace(config.llm, lora=trained.llm.lora)
    model = _load(TagSpeechModel, folder, tree, replace(config, llm=known_adapters), dtype)
    if lora.r and not trained.llm.lora.r:
        model.llm = add_lora(model.llm, config.llm)
    model.config = config
    model.freeze()
    return model


def _warn_of_other_values(config: Config, own: Config, folder: Path) -> None:
    """One line for what a configuration says of a model and the model in `folder` has otherwise."""
    said, found = of_model(to_tree(config)), of_model(to_tree(own))
    if not config.llm.name:  # as run.sh has it: the model's own
        for key in ("llm.name", "llm.revision", "llm.sha256"):
            said[key] = found[key]
    keys = [key for key in {**said, **found} if said.get(key) != found.get(key)]
    if keys:
        log.warning(
            "%s: its own values are used, not those of the configuration: %s",
            folder,
            ", ".join(f"{key} {found.get(key)} (configured: {said.get(key)})" for key in keys),
        )


def load_encoders(folder: Path) -> tuple[Config, StreamEncoder, StreamEncoder]:
    """The configuration of a trained model, its semantic and its voice encoder; not its LLM.

    The encoders are frozen and in eval mode. Raises `InputError` as `load_pretrained` does.
    """
    tree, config = _read_config(folder)
    semantic, voice = build_encoder(config, "semantic"), build_encoder(config, "voice")
    if is_released(tree):
        load_released_encoders(folder, semantic, voice)
    else:
        weights = read_weights(folder, tree, config, offline=False)
        for part, encoder in (("semantic_encoder.", semantic), ("voice_encoder.", voice)):
            state = {
                name.removeprefix(part): weight
                for name, weight in weights.items()
                if name.startswith(part)
            }
            copy_weights(encoder, state, folder / WEIGHTS)
    for encoder in (semantic, voice):
        encoder.requires_grad_(False).eval()
    return config, semantic, voice


def fingerprint(model: TagSpeechModel) -> str:
    """SHA-256 of what decides a model's output: its shape and its weights.

    Of each tensor of the LLM itself, which may have billions of values, `SAMPLES` evenly spaced
    values enter: training changes nearly all of them. Adapters and all other parts enter whole.
    """
    config = model.config
    shape = {k: v for k, v in of_model(to_tree(config)).items() if not k.startswith("llm.")}
    digest = hashlib.sha256(json.dumps([shape, to_tree(config.target)], sort_keys=True).encode())
    for name, weight in model.state_dict().items():
        values = weight.detach().flatten()
        if name.startswith(LLM_PREFIX) and ".lora_" not in name:
            values = values[:: max(1, len(values) // SAMPLES)]
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(values.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def merge_lora(model: TagSpeechModel) -> None:
    """Adds the adapters of the LLM to its weights, in place."""
    if not model.config.llm.lora.r:
        raise InputError("llm.lora.r: is 0; the model has no adapters to merge")
    model.llm = model.llm.merge_and_unload(safe_merge=True)
    llm = replace(model.config.llm, lora=LoraConfig(), trainable="full")  # not as on the Hub
    model.config = replace(model.config, llm=llm)


def _card(model: TagSpeechModel) -> str:
    """The README.md of a saved model."""
    config = model.config
    return (
        "# TagSpeech model\n\nTranscribes conversations: who spoke, when, and what they said "
        "(arXiv 2601.06896). Load it with `TagSpeech.from_pretrained(FOLDER)`.\n\n"
        f"- language: {config.language}\n- LLM: {config.llm.name}, trained: "
        f"{config.llm.trainable}, LoRA: r {config.llm.lora.r}\n- anchor interval: "
        f"{config.semantic.anchor_interval} projected frames\n"
    )
