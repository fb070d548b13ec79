"""A trained model as a folder: `config.json`, `model.safetensors`, the LLM by name or in `llm/`.

The layout of the published checkpoints (`checkpoints.published`) is read as well; config.json tells
which of the two a folder has.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from tagspeech.checkpoints.published import (
    is_released,
    load_released,
    load_released_encoders,
    released_config,
)
from tagspeech.config import Config, LLMConfig, LoraConfig, PartsConfig
from tagspeech.config_file import from_tree, to_tree
from tagspeech.dependencies import NOT_OF_A_MODEL, copy_keys, of_model
from tagspeech.encoders.whisper import WhisperStream, build_semantic_encoder
from tagspeech.encoders.zipformer import Zipformer
from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_json
from tagspeech.llm.load import load_llm
from tagspeech.llm.lora import add_lora, base_state, load_lora, save_lora
from tagspeech.model.anchors import Anchors
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.weights import copy_weights, read_safetensors

log = logging.getLogger(__name__)

M = TypeVar("M", bound=TagSpeechModel)
OWN_LLM = "./llm"  # the LLM lies in the model's own folder
ADAPTER = "adapter"  # what of the LLM was trained, where that is LoRA


def names_llm(llm: LLMConfig) -> bool:
    """Whether a saved model only names its LLM: a frozen one that is on the Hub."""
    here = llm.name == OWN_LLM or Path(llm.name).is_dir()
    return llm.trainable == "none" and not here


def save_pretrained(
    model: TagSpeechModel, folder: Path, llm_state: dict[str, Tensor] | None = None
) -> None:
    """Writes what `load_pretrained` reads, in one step.

    A frozen LLM from the Hub is named by name and revision; any other lies in `llm/`. Adapters lie
    in `adapter/`, in peft's layout.

    llm_state  weights of the LLM, where this process has only its share of them
    """
    llm = model.config.llm
    named = names_llm(llm)
    config = replace(
        model.config,
        llm=llm if named else replace(llm, name=OWN_LLM, revision=None),
        parts=PartsConfig(),  # they are in the model
    )
    weights = {
        name: weight.contiguous()
        for name, weight in model.state_dict().items()
        if not name.startswith("llm.")
    }
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_file(weights, temporary / "model.safetensors")
        tree = {"model_type": "tagspeech", **to_tree(config)}
        (temporary / "config.json").write_text(json.dumps(tree, indent=2) + "\n")
        (temporary / "README.md").write_text(_card(model))
        base, state = model.llm, llm_state
        if llm.lora.r:
            base, state = model.llm.get_base_model(), base_state(model.llm)
            save_lora(model.llm, config.llm.name, temporary / ADAPTER)
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
    """A `model_class` in eval mode from a folder in our layout or in the released one.

    dtype    of the LLM, which is nearly all of the weights; encoders and projectors are float32
    offline  an LLM that the folder only names is taken from the Hub's cache

    Raises `InputError` naming file and tensor for anything missing, unexpected or of wrong shape.
    """
    tree, config = _read_config(folder)
    if is_released(tree):
        return load_released(model_class, folder, config, tree, dtype)
    path = folder / config.llm.name if config.llm.name == OWN_LLM else config.llm.name
    llm, tokenizer = load_llm(replace(config.llm, name=str(path)), dtype, offline=offline)
    if config.llm.lora.r:
        llm = load_lora(llm, config.llm, folder / ADAPTER)
    model = model_class(config, llm, tokenizer)
    weights = folder / "model.safetensors"
    copy_weights(model, read_safetensors(weights), weights, ("semantic_", "voice_"))
    return model.eval()


def _read_config(folder: Path) -> tuple[dict[str, Any], Config]:
    """What `config.json` says, and the configuration that it means, in either layout."""
    where = folder / "config.json"
    tree = read_json(where)
    if not isinstance(tree, dict) or tree.get("model_type") != "tagspeech":
        raise InputError(f"{where}: model_type is not tagspeech")
    if is_released(tree):
        return tree, released_config(folder, tree)
    own = {key: value for key, value in tree.items() if key != "model_type"}
    return tree, from_tree(Config, own, str(where))


def start_from(config: Config, folder: Path, dtype: torch.dtype = torch.float32) -> TagSpeechModel:
    """A model for training that begins with all weights of the one in `folder`, in any layout.

    What it is comes from `folder`: all that `dependencies.NOT_OF_A_MODEL` does not name, such as
    features, encoders, projectors, anchors, LLM. How it is trained, and what of it, comes from
    `config`, new adapters of the LLM included; `dtype` is that of the LLM. A warning names what
    `config` says otherwise. Raises `InputError` where `folder` has adapters of another kind.
    """
    model = load_pretrained(TagSpeechModel, folder, dtype)
    own = model.config
    name = str(folder / "llm") if own.llm.name == OWN_LLM else own.llm.name
    lora = config.llm.lora
    if own.llm.lora not in (LoraConfig(), lora):
        raise InputError(
            f"llm.lora: {folder} has adapters of r {own.llm.lora.r}, with other settings than the "
            "configuration; take them over, or write them into the LLM: tagspeech export merged"
        )
    if lora.r and not own.llm.lora.r:
        model.llm = add_lora(model.llm, config.llm)
    own = replace(own, llm=replace(own.llm, name=name))
    _warn_of_other_values(config, own, folder)
    merged = copy_keys(NOT_OF_A_MODEL, to_tree(config), to_tree(own))
    model.config = from_tree(Config, merged, str(folder))
    # Anchors in the form of times lie on the grid of the target text, which is learnt anew.
    grid = config.target.time_grid
    model.anchors = Anchors(own.prompt.anchors, model.tokenizer, model.prompt, grid)
    model.freeze()
    return model


def _warn_of_other_values(config: Config, own: Config, folder: Path) -> None:
    """One line for what a configuration says of a model and the model in `folder` has otherwise."""
    said, found = of_model(to_tree(config)), of_model(to_tree(own))
    if not config.llm.name:  # as run.sh has it: the model's own
        for key in ("llm.name", "llm.revision"):
            said[key] = found[key]
    keys = [key for key in {**said, **found} if said.get(key) != found.get(key)]
    if keys:
        log.warning(
            "%s: its own values are used, not those of the configuration: %s",
            folder,
            ", ".join(f"{key} {found.get(key)} (configured: {said.get(key)})" for key in keys),
        )


def load_encoders(folder: Path) -> tuple[Config, Zipformer | WhisperStream, Zipformer]:
    """The configuration of a trained model, its semantic and its voice encoder; not its LLM.

    In eval mode and frozen. Raises `InputError` like `load_pretrained`.
    """
    tree, config = _read_config(folder)
    semantic, voice = build_semantic_encoder(config.semantic), Zipformer(config.voice.encoder)
    if is_released(tree):
        load_released_encoders(folder, semantic, voice)
    else:
        path = folder / "model.safetensors"
        weights = read_safetensors(path)
        for part, encoder in (("semantic_encoder.", semantic), ("voice_encoder.", voice)):
            own = {key[len(part) :]: one for key, one in weights.items() if key.startswith(part)}
            copy_weights(encoder, own, path, ("",))
    for encoder in (semantic, voice):
        encoder.requires_grad_(False).eval()
    return config, semantic, voice


def merge_lora(model: TagSpeechModel) -> None:
    """Writes the adapters of the LLM into its weights, in place."""
    if not model.config.llm.lora.r:
        raise InputError("llm.lora.r: is 0; the model has no adapters to merge")
    model.llm = model.llm.merge_and_unload(safe_merge=True)
    llm = replace(model.config.llm, lora=LoraConfig(), trainable="full")  # no longer as named
    model.config = replace(model.config, llm=llm)


def _card(model: TagSpeechModel) -> str:
    config = model.config
    return (
        "# TagSpeech model\n\nTranscribes conversations: who spoke, when, and what they said "
        "(arXiv 2601.06896). Load it with `TagSpeech.from_pretrained(FOLDER)`.\n\n"
        f"- language: {config.language}\n- LLM: {config.llm.name}, trained: "
        f"{config.llm.trainable}, LoRA: r {config.llm.lora.r}\n- anchor interval: "
        f"{config.semantic.anchor_interval} projected frames\n"
    )
