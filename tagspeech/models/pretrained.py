"""A trained model as a folder: `config.json`, `model.safetensors`, the LLM by name or in `llm/`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from tagspeech.config import Config, LLMConfig, from_tree, to_tree
from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_json
from tagspeech.models.tagspeech import TagSpeechModel

M = TypeVar("M", bound=TagSpeechModel)
OWN_LLM = "./llm"  # the LLM lies in the model's own folder


def load_llm(config: LLMConfig, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """The causal LM and its tokenizer, by Hugging Face name or folder.

    Raises `InputError` when they cannot be had, with what to do.
    """
    try:
        # A folder that declares the plain backend means its tokenizer.json as it is; AutoTokenizer
        # would put the word splitting of the LLM's family in its place.
        declared = get_tokenizer_config(config.name, revision=config.revision)
        plain = declared.get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast")
        tokenizer_class = PreTrainedTokenizerFast if plain else AutoTokenizer
        tokenizer = tokenizer_class.from_pretrained(config.name, revision=config.revision)
        llm, report = AutoModelForCausalLM.from_pretrained(
            config.name,
            revision=config.revision,
            dtype=dtype,
            attn_implementation=config.attention,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"llm.name: {config.name}: {reason}; download it where there is a network and set "
            "llm.name to its folder"
        ) from error
    for name in sorted(report["missing_keys"]):  # transformers would go on with random weights
        raise InputError(f"llm.name: {config.name}: its weights lack {name}")
    return llm, tokenizer


def save_pretrained(model: TagSpeechModel, folder: Path) -> None:
    """Writes what `load_pretrained` reads, in one step.

    A frozen LLM from the Hub is named by name and revision; any other lies in `llm/`.
    """
    llm = model.config.llm
    named = llm.trainable == "none" and not Path(llm.name).is_dir()
    config = replace(model.config, llm=llm if named else replace(llm, name=OWN_LLM))
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


def load_pretrained(model_class: type[M], folder: Path, dtype: torch.dtype = torch.float32) -> M:
    """A `model_class` in eval mode from a folder that `save_pretrained` wrote.

    Raises `InputError` naming file and tensor for anything missing, unexpected or of wrong shape.
    """
    tree = read_json(folder / "config.json")
    if not isinstance(tree, dict) or tree.pop("model_type", None) != "tagspeech":
        raise InputError(f"{folder / 'config.json'}: model_type is not tagspeech")
    config = from_tree(Config, tree, str(folder / "config.json"))
    path = folder / config.llm.name if config.llm.name == OWN_LLM else config.llm.name
    llm, tokenizer = load_llm(replace(config.llm, name=str(path)), dtype)
    model = model_class(config, llm, tokenizer)
    weights_path = folder / "model.safetensors"
    try:
        weights = load_file(weights_path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{weights_path}: cannot be read as weights: {error}") from error
    own = {name for name in model.state_dict() if not name.startswith("llm.")}
    for name in sorted(own ^ weights.keys()):
        raise InputError(f"{weights_path}: {'missing' if name in own else 'unexpected'} {name}")
    try:
        model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise InputError(f"{weights_path}: {' '.join(str(error).split())}") from error
    return model.to(dtype).eval()


def _card(model: TagSpeechModel) -> str:
    config = model.config
    return (
        "# TagSpeech model\n\nWho spoke what and when, as target text "
        "(arXiv 2601.06896). Load it with `TagSpeech.from_pretrained(FOLDER)`.\n\n"
        f"- language: {config.language}\n- LLM: {config.llm.name}, trained: "
        f"{config.llm.trainable}\n- anchor interval: {config.semantic.anchor_interval} projected "
        "frames\n"
    )
