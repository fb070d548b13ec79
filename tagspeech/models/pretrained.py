"""A trained model as a folder: `config.json`, `model.safetensors`, the LLM by name or in `llm/`.

The layout of the published checkpoints (`models.released`) is read as well; config.json tells which
of the two a folder has.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file

from tagspeech.config import Config, PartsConfig
from tagspeech.config_file import from_tree, to_tree
from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_json
from tagspeech.models.llm import load_llm
from tagspeech.models.released import is_released, load_released
from tagspeech.models.tagspeech import TagSpeechModel
from tagspeech.models.weights import copy_weights, read_safetensors

M = TypeVar("M", bound=TagSpeechModel)
OWN_LLM = "./llm"  # the LLM lies in the model's own folder


def save_pretrained(model: TagSpeechModel, folder: Path) -> None:
    """Writes what `load_pretrained` reads, in one step.

    A frozen LLM from the Hub is named by name and revision; any other lies in `llm/`.
    """
    llm = model.config.llm
    named = llm.trainable == "none" and not Path(llm.name).is_dir()
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
        if not named:
            model.llm.save_pretrained(temporary / "llm")
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
    where = folder / "config.json"
    tree = read_json(where)
    if not isinstance(tree, dict) or tree.get("model_type") != "tagspeech":
        raise InputError(f"{where}: model_type is not tagspeech")
    if is_released(tree):
        return load_released(model_class, folder, tree, dtype)
    del tree["model_type"]
    config = from_tree(Config, tree, str(where))
    path = folder / config.llm.name if config.llm.name == OWN_LLM else config.llm.name
    llm, tokenizer = load_llm(replace(config.llm, name=str(path)), dtype, offline=offline)
    model = model_class(config, llm, tokenizer)
    weights = folder / "model.safetensors"
    copy_weights(model, read_safetensors(weights), weights, ("semantic_", "voice_"))
    return model.eval()


def _card(model: TagSpeechModel) -> str:
    config = model.config
    return (
        "# TagSpeech model\n\nWho spoke what and when, as target text "
        "(arXiv 2601.06896). Load it with `TagSpeech.from_pretrained(FOLDER)`.\n\n"
        f"- language: {config.language}\n- LLM: {config.llm.name}, trained: "
        f"{config.llm.trainable}\n- anchor interval: {config.semantic.anchor_interval} projected "
        "frames\n"
    )
