"""Model files of other formats to folders of safetensors, as `transformers` and we read them.

GGUF becomes a causal LM with its tokenizer, CTranslate2's Whisper a Whisper, and a state dict
(`.pt`) the same weights. Only weights are read: nothing in a file is run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tagspeech.errors import InputError
from tagspeech.files import read_json
from tagspeech.packages.ctranslate2 import (
    is_whisper,
    read_variables,
    whisper_config,
    whisper_state,
)
from tagspeech.weights import read_pt, tensors_in

_GGUF = b"GGUF"  # the first bytes of such a file
# The `model_type` of a state dict, by a weight that only such a model has.
_STATE_DICTS = {"xvector.block1.tdnnd1.cam_layer.linear1.weight": "campplus"}


def convert(source: Path, folder: Path) -> None:
    """Writes the model in `source` to `folder`.

    Args:
        source: A .gguf file, a CTranslate2 Whisper with its tokenizer.json and config.json beside
            it, or a .pt with a state dict.
        folder: Made if it is missing; gets config.json, model.safetensors and, if the model
            writes text, its tokenizer.

    Raises:
        InputError: `source` is damaged, or of another kind.
    """
    with source.open("rb") as file:
        head = file.read(len(_GGUF))
    if head == _GGUF:
        _convert_gguf(source, folder)
    elif is_whisper(source):
        _convert_whisper(source, folder)
    elif source.suffix in (".pt", ".pth", ".ckpt"):
        _convert_state_dict(source, folder)
    else:
        raise InputError(
            f"{source}: must be GGUF, a Whisper of CTranslate2, or a .pt with a state dict"
        )


def smallest_dtype(state: dict[str, Tensor]) -> torch.dtype:
    """float16 if it holds all values, bfloat16, which has a wider range, otherwise."""
    largest = max((weight.abs().max().item() for weight in state.values()), default=0.0)
    return torch.float16 if largest <= torch.finfo(torch.float16).max else torch.bfloat16


def _convert_gguf(source: Path, folder: Path) -> None:
    """A causal LM, dequantised, and its tokenizer with the chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # takes seconds

    place = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**place)
        read = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{source}: cannot be read as GGUF: {reason}") from error
    config = read.config
    if hasattr(config, "quantization_config"):  # `read` refuses to be saved with it
        del config.quantization_config
    state = read.state_dict()
    with torch.device("meta"):
        model = type(read)(config)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.to(smallest_dtype(state)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _convert_whisper(source: Path, folder: Path) -> None:
    """A WhisperForConditionalGeneration with its tokenizer and settings for generation."""
    # takes seconds
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    variables = read_variables(source)
    try:
        state = whisper_state(variables)
        values = whisper_config(variables, state)
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(f"{source}: has no whole Whisper: {error}") from error
    tokens = _tokens(source.parent / "tokenizer.json")
    special = {
        "bos_token_id": tokens["<|endoftext|>"],
        "eos_token_id": tokens["<|endoftext|>"],
        "pad_token_id": tokens["<|endoftext|>"],
        "decoder_start_token_id": tokens["<|startoftranscript|>"],
    }
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(WhisperConfig(**values, **special))
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    settings = read_json(source.parent / "config.json")
    generation = _whisper_generation(settings, tokens, values)
    model.generation_config = GenerationConfig(**special, **generation)
    model.to(smallest_dtype(state)).save_pretrained(folder)
    _save_whisper_processor(source.parent / "tokenizer.json", folder, values["num_mel_bins"])


def _tokens(path: Path) -> dict[str, int]:
    """The special tokens of a tokenizer.json by name."""
    return {token["content"]: token["id"] for token in read_json(path)["added_tokens"]}


def _whisper_generation(
    settings: dict[str, Any], tokens: dict[str, int], values: dict[str, Any]
) -> dict[str, Any]:
    """The generation config of a Whisper, from CTranslate2's settings beside its weights."""
    # An English Whisper has no token for its language: GPT-2's <|endoftext|> is its first.
    multilingual = tokens["<|endoftext|>"] != 50256
    generation: dict[str, Any] = {
        "alignment_heads": settings["alignment_heads"],
        "suppress_tokens": settings["suppress_ids"],
        "begin_suppress_tokens": settings["suppress_ids_begin"],
        "no_timestamps_token_id": tokens["<|notimestamps|>"],
        "prev_sot_token_id": tokens["<|startofprev|>"],
        "max_length": values["max_target_positions"],
        "max_initial_timestamp_index": 50,  # 1 s
        "return_timestamps": False,
        "is_multilingual": multilingual,
    }
    if multilingual:
        names = {number: name for name, number in tokens.items()}
        generation["lang_to_id"] = {names[number]: number for number in settings["lang_ids"]}
        tasks = ("transcribe", "translate")
        generation["task_to_id"] = {task: tokens[f"<|{task}|>"] for task in tasks}
    else:
        generation["forced_decoder_ids"] = [[1, tokens["<|notimestamps|>"]]]
    return generation


def _save_whisper_processor(tokenizer_file: Path, folder: Path, bins: int) -> None:
    from transformers import WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizer

    tokenizer = WhisperTokenizer.from_pretrained(str(tokenizer_file.parent))
    WhisperProcessor(WhisperFeatureExtractor(feature_size=bins), tokenizer).save_pretrained(folder)


def _convert_state_dict(source: Path, folder: Path) -> None:
    """The same weights, as they are, with a config.json that says whose they are."""
    state = tensors_in(read_pt(source), source, "its content")
    kind = next((kind for name, kind in _STATE_DICTS.items() if name in state), None)
    if kind is None:
        known = ", ".join(sorted(set(_STATE_DICTS.values())))
        raise InputError(f"{source}: is a state dict of no known model; known: {known}")
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": kind}, indent=2) + "\n")
