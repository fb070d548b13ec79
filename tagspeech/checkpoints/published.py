"""The layout of the published checkpoints (docs/released-format.md): read and written.

    config.json           both encoders' configurations, stacking, anchor intervals
    tokenizer files       with the placeholder of a stream, <|AUDIO|>, as a special token
    audio_encoder/        the semantic encoder: config.json, model.safetensors
    voice_encoder/        likewise
    llm/                  a Hugging Face causal LM, in half precision
    projectors.pt         {semantic,voice}_projector.{linear1,linear2}.{weight,bias}
    digit_embeddings.pt   optional: the LLM's embeddings of the ten digits

Language, time grid and decoding have no place in it.
"""

from __future__ import annotations

import copy
import dataclasses
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from tagspeech.checkpoints.export_checks import check_meaning, check_names
from tagspeech.checkpoints.transformers4 import older_llm_config, older_tokenizer_config
from tagspeech.config import (
    Config,
    DecodeConfig,
    LLMConfig,
    SemanticConfig,
    StreamConfig,
    VoiceConfig,
    ZipformerConfig,
)
from tagspeech.config_file import from_tree
from tagspeech.encoders.stream import StreamEncoder
from tagspeech.encoders.zipformer import zipformer_config_from_released
from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_json, write_json
from tagspeech.llm.load import load_llm
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.weights import copy_weights, read_pt, tensors_in

M = TypeVar("M", bound=TagSpeechModel)

AUDIO_TOKEN = "<|AUDIO|>"
PROJECTORS = ("semantic_projector.", "voice_projector.")
_ENCODERS = {"semantic_encoder": "audio_encoder", "voice_encoder": "voice_encoder"}
# A group of 80 s needs about 2,400 tokens; the layout itself has no limit.
_DECODE = DecodeConfig(max_new_tokens=3000)
# Fields of a stream that the layout holds, or that have no effect on a trained model
_STREAM_FIELDS = ("encoder", "stack", "anchor_interval", *StreamConfig.TRAINING)


@dataclasses.dataclass(frozen=True)
class ReleasedConfig:
    """The keys of a released config.json that have an effect."""

    audio_encoder_config: dict
    voice_encoder_config: dict
    semantic_projector_ds_rate: int
    voice_projector_ds_rate: int
    semantic_anchor_interval: int
    voice_anchor_interval: int
    audio_token: str = AUDIO_TOKEN
    insert_anchors_at_ends: bool = True
    tag_audio_boundary: bool = False


# Keys that repeat llm/config.json, that only the authors' training reads, or of transformers.
_WITHOUT_EFFECT = {
    *("model_type", "llm_config", "max_length", "use_flash_attn", "exclude_from_checkpoint"),
    *("audio_encoder_projector_ds_rate", "architectures", "dtype", "torch_dtype"),
    "transformers_version",
}


def is_released(tree: dict[str, Any]) -> bool:
    """Whether a config.json is of the released layout, not of ours."""
    return "audio_encoder_config" in tree


def load_released(
    model_class: type[M], folder: Path, config: Config, tree: dict[str, Any], dtype: torch.dtype
) -> M:
    """A model in eval mode from a folder in the released layout, strictly.

    `tree` is the content of config.json, `config` what `released_config` makes of it; `dtype` is
    that of the LLM, encoders and projectors are float32.
    """
    if not (folder / "llm").is_dir():
        raise InputError(f"{folder / 'llm'}: is missing; it has the LLM; download the whole model")
    llm, tokenizer = load_llm(config.llm, dtype, tokenizer_folder=str(folder))
    placeholder = tree.get("audio_token", AUDIO_TOKEN)
    if placeholder not in tokenizer.get_added_vocab():
        raise InputError(f"{folder}: its tokenizer lacks {placeholder}; it may be of another model")
    model = model_class(config, llm, tokenizer)
    load_released_encoders(folder, model.semantic_encoder, model.voice_encoder)
    load_projectors(model, folder / "projectors.pt")
    digits = folder / "digit_embeddings.pt"
    if digits.exists():
        _check_digits(model, digits)
    return model.eval()


def load_released_encoders(folder: Path, semantic: StreamEncoder, voice: StreamEncoder) -> None:
    """Copies the encoders of a folder in the released layout into two Zipformers."""
    for encoder, name in zip((semantic, voice), _ENCODERS.values(), strict=True):
        encoder.load_weights(folder / name / "model.safetensors")


def load_projectors(model: TagSpeechModel, path: Path) -> None:
    """Copies the projectors of a projectors.pt, or of a released trainer checkpoint, into `model`.

    A trainer checkpoint has them as "model", next to the state of the optimizer, and as
    "model_avg", their mean over the training, which is not used.

    Raises:
        InputError: A weight is missing, unexpected or of another shape, or the file would run code.
    """
    state = read_pt(path)
    if isinstance(state, dict) and "model" in state:
        state = state["model"]
    copy_weights(model, tensors_in(state, path, "its content"), path, PROJECTORS)


def released_config(folder: Path, tree: dict[str, Any]) -> Config:
    """The configuration that a config.json of the released layout stands for."""
    where = folder / "config.json"
    known = {key: value for key, value in tree.items() if key not in _WITHOUT_EFFECT}
    for field in dataclasses.fields(ReleasedConfig):
        if field.name not in known and field.default is dataclasses.MISSING:
            raise InputError(f"{where}: has no {field.name}")
    released = from_tree(ReleasedConfig, known, str(where))
    for key, only in (("insert_anchors_at_ends", True), ("tag_audio_boundary", False)):
        if getattr(released, key) is not only:
            raise InputError(f"{where}: {key} is {not only}, only {only} is supported")
    encoders = []
    for name in ("audio_encoder", "voice_encoder"):
        tree = getattr(released, f"{name}_config")
        encoders.append(zipformer_config_from_released(tree, f"{where}: {name}_config"))
        path = folder / name / "config.json"
        if zipformer_config_from_released(read_json(path), str(path)) != encoders[-1]:
            raise InputError(f"{path}: differs from {name}_config in {where}")
    semantic = (released.semantic_projector_ds_rate, released.semantic_anchor_interval)
    voice = (released.voice_projector_ds_rate, released.voice_anchor_interval)
    return Config(
        semantic=SemanticConfig(encoders[0], *semantic),
        voice=VoiceConfig(encoders[1], *voice),
        llm=LLMConfig(name=str(folder / "llm")),
        decode=_DECODE,
    )


def _digits_of(model: TagSpeechModel) -> dict[str, Any]:
    """The content of digit_embeddings.pt."""
    return {
        "tokens": list("0123456789"),
        "token_ids": model.prompt.digits,
        "embeddings": model.embed(model.prompt.digits).detach().cpu(),
    }


def _check_digits(model: TagSpeechModel, path: Path) -> None:
    """Raises `InputError` unless a digit_embeddings.pt has the LLM's rows."""
    found, expected = read_pt(path), _digits_of(model)
    if not isinstance(found, dict) or not torch.is_tensor(found.get("embeddings")):
        raise InputError(f"{path}: has no tensor 'embeddings'")
    for key in ("tokens", "token_ids"):
        if found.get(key) != expected[key]:
            raise InputError(f"{path}: {key} is not that of the tokenizer, {expected[key]}")
    rows_10H: Tensor = expected["embeddings"]
    if not torch.equal(found["embeddings"].to(rows_10H), rows_10H):
        raise InputError(f"{path}: embeddings are not the rows of the LLM in {path.parent / 'llm'}")


def save_released(model: TagSpeechModel, folder: Path) -> None:
    """Writes `model` in the released layout, in one step; the LLM becomes float16.

    What was written is loaded before it takes its place. Raises `InputError` for what the layout
    cannot hold: another front end of the encoders, other features, other anchors, other
    projectors, adapters of the LLM, a weight of the LLM beyond float16.
    """
    config = model.config
    if config.llm.lora.r:
        raise InputError("llm.lora: the released layout has no adapters; first: export merged")
    for name, section in (
        ("semantic", config.semantic.encoder_section),
        ("voice", config.voice.encoder_section),
    ):
        if section != "encoder":
            raise InputError(f"{name}.{section}: the released layout knows only Zipformers")
    encoders = {
        name: _encoder_tree(getattr(config, stream).encoder, stream)
        for stream, name in (("semantic", "audio_encoder"), ("voice", "voice_encoder"))
    }
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name, tree in encoders.items():
            (temporary / name).mkdir()
            write_json(temporary / name / "config.json", tree)
        meant = released_config(temporary, _config_tree(config, encoders, {}))
        check_meaning(config, meant)
        check_names(model)
        llm, tokenizer = _with_audio_token(model)
        halved = _halved(llm)
        tokenizer.save_pretrained(temporary)
        llm.save_pretrained(temporary / "llm", state_dict=halved)
        del halved  # loading takes as much memory again
        written = temporary / "tokenizer_config.json"
        write_json(written, older_tokenizer_config(read_json(written)))
        written = temporary / "llm" / "config.json"
        llm_tree = older_llm_config({**read_json(written), "dtype": "float16"})
        write_json(written, llm_tree)
        tree = _config_tree(config, encoders, llm_tree)
        write_json(temporary / "config.json", tree)
        for part, name in _ENCODERS.items():
            save_file(getattr(model, part).state_dict(), temporary / name / "model.safetensors")
        weights = model.state_dict().items()
        projectors = {name: weight.cpu() for name, weight in weights if name.startswith(PROJECTORS)}
        torch.save(projectors, temporary / "projectors.pt")
        digits = _digits_of(model)
        digits["embeddings"] = digits["embeddings"].half()
        torch.save(digits, temporary / "digit_embeddings.pt")
        try:
            load_released(TagSpeechModel, temporary, meant, tree, torch.float16)
        except InputError as error:
            reason = str(error).replace(str(temporary), str(folder))
            raise InputError(f"{folder}: is not written: {reason}") from error


def _halved(llm: Any) -> dict[str, Tensor]:
    """The LLM's weights in float16, tied ones once. Raises `InputError` if one overflows."""
    once = {name for name, _ in chain(llm.named_parameters(), llm.named_buffers())}
    halved = {name: weight.half() for name, weight in llm.state_dict().items() if name in once}
    for name, weight in halved.items():
        if not weight.isfinite().all():
            raise InputError(f"LLM: {name} has values beyond float16, which the layout uses")
    return halved


def _encoder_tree(config: ZipformerConfig, stream: str) -> dict[str, Any]:
    """The config.json of an encoder."""
    if config.embed_channels != ZipformerConfig.embed_channels:
        channels = ", ".join(map(str, ZipformerConfig.embed_channels))
        raise InputError(
            f"{stream}.encoder.embed_channels: the released layout has only {channels}"
        )
    tree = dataclasses.asdict(config)
    del tree["embed_channels"]
    # The other keys are those that the authors' code needs for a non-causal encoder.
    return {
        **tree,
        "model_type": "zipformer",
        "dropout": None,
        "warmup_batches": 4000.0,
        "encoder_unmasked_dim": config.encoder_dim,
        "causal": False,
        "chunk_size": [-1],
        "left_context_frames": [-1],
    }


def _config_tree(
    config: Config, encoders: dict[str, dict[str, Any]], llm: dict[str, Any]
) -> dict[str, Any]:
    """The config.json of a model."""
    released = ReleasedConfig(
        audio_encoder_config=encoders["audio_encoder"],
        voice_encoder_config=encoders["voice_encoder"],
        semantic_projector_ds_rate=config.semantic.stack,
        voice_projector_ds_rate=config.voice.stack,
        semantic_anchor_interval=config.semantic.anchor_interval,
        voice_anchor_interval=config.voice.anchor_interval,
    )
    return {
        "model_type": "tagspeech",
        **dataclasses.asdict(released),
        "llm_config": llm,
        "max_length": 4096,  # the authors' training cuts targets there
    }


def _with_audio_token(model: TagSpeechModel) -> tuple[Any, Any]:
    """LLM and tokenizer, copied if `AUDIO_TOKEN` must be added to them.

    The new row of the LLM is that of the first turn marker, which the LLM never writes, so greedy
    output stays the same.
    """
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.add_tokens([AUDIO_TOKEN], special_tokens=True)
    llm, rows = model.llm, model.llm.get_input_embeddings().num_embeddings
    if rows < len(tokenizer):
        llm = copy.deepcopy(llm)
        llm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            for table in {llm.get_input_embeddings().weight, llm.get_output_embeddings().weight}:
                table[rows:] = table[model.prompt.before[0]]
    return llm, tokenizer
