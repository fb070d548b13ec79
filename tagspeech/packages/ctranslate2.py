"""Whisper in CTranslate2's format to the names of `transformers`.

The file, in little-endian order: a version (uint32), the name of the specification, its revision
and the number of variables (uint32 each); for each variable its name, its rank (uint8), its
dimensions (uint32), its type (uint8), the size of its data (uint32) and the data; then aliases, a
number (uint32) and pairs of names. A string is its length with the closing zero (uint16), then its
bytes.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from tagspeech.errors import InputError

VERSION = 6
SPECIFICATION = "WhisperSpec"
_TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
_HEAD = struct.pack("<IH", VERSION, len(SPECIFICATION) + 1) + SPECIFICATION.encode() + b"\0"


def is_whisper(path: Path) -> bool:
    """Whether the file is a Whisper of CTranslate2, by its first bytes."""
    with path.open("rb") as file:
        return file.read(len(_HEAD)) == _HEAD


def read_variables(path: Path) -> dict[str, Tensor]:
    """The variables of a file by name. Raises `InputError` if it is cut off or of another kind."""
    try:
        with path.open("rb") as file:
            if _read_exactly(file, len(_HEAD)) != _HEAD:
                raise InputError(f"{path}: must be a {SPECIFICATION} of version {VERSION}")
            _revision, count = _unpack(file, "<II")
            return dict(_read_variable(file) for _ in range(count))
    except (struct.error, EOFError, KeyError, ValueError) as error:
        raise InputError(f"{path}: is damaged or has quantised weights; get it again") from error


def _read_variable(file: BinaryIO) -> tuple[str, Tensor]:
    (length,) = _unpack(file, "<H")
    name = _read_exactly(file, length).rstrip(b"\0").decode()
    (rank,) = _unpack(file, "<B")
    shape = _unpack(file, f"<{rank}I")
    kind, size = _unpack(file, "<BI")
    values = np.frombuffer(_read_exactly(file, size), _TYPES[kind])
    return name, torch.from_numpy(values.reshape(shape).copy())


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, _read_exactly(file, struct.calcsize(layout)))


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise EOFError
    return data


def whisper_state(variables: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a WhisperForConditionalGeneration by their names in `transformers`."""
    state: dict[str, Tensor] = {}
    for name, weight in variables.items():
        side, _, rest = name.partition("/")
        if weight.dim() == 0:  # a setting
            continue
        layer, _, within = rest.partition("/")
        if layer.startswith("layer_") and layer != "layer_norm":
            prefix = f"model.{side}.layers.{layer.removeprefix('layer_')}."
            state.update(_layer_weights(prefix, side, within, weight))
        else:
            state[f"model.{side}.{_OUTSIDE[rest]}"] = weight
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    return state


_OUTSIDE = {
    "conv1/weight": "conv1.weight",
    "conv1/bias": "conv1.bias",
    "conv2/weight": "conv2.weight",
    "conv2/bias": "conv2.bias",
    "embeddings/weight": "embed_tokens.weight",
    "position_encodings/encodings": "embed_positions.weight",
    "layer_norm/gamma": "layer_norm.weight",
    "layer_norm/beta": "layer_norm.bias",
}
_LINEAR = {
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
}
_NORMS = {
    "ffn/layer_norm": "final_layer_norm",
    "self_attention/layer_norm": "self_attn_layer_norm",
    "attention/layer_norm": "encoder_attn_layer_norm",
}
_NORM_VALUES = {"gamma": "weight", "beta": "bias"}


def _layer_weights(prefix: str, side: str, name: str, weight: Tensor) -> dict[str, Tensor]:
    """The weights that a variable of a layer stands for: its projections lie in one matrix."""
    module, _, kind = name.rpartition("/")
    if module in _NORMS:
        return {f"{prefix}{_NORMS[module]}.{_NORM_VALUES[kind]}": weight}
    parts = _LINEAR[module]
    return {
        f"{prefix}{part}.{kind}": piece.contiguous()
        for part, piece in zip(parts, weight.chunk(len(parts)), strict=True)
        if not (kind == "bias" and part.endswith("k_proj"))  # Whisper's keys have no bias
    }


def whisper_config(variables: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Any]:
    """The values of a WhisperConfig that the weights and settings of a file say."""

    def layers(side: str) -> int:
        return len(
            {name.split(".")[3] for name in state if name.startswith(f"model.{side}.layers.")}
        )

    vocabulary, d_model = state["model.decoder.embed_tokens.weight"].shape
    return {
        "vocab_size": vocabulary,
        "d_model": d_model,
        "num_mel_bins": state["model.encoder.conv1.weight"].shape[1],
        "max_source_positions": len(state["model.encoder.embed_positions.weight"]),
        "max_target_positions": len(state["model.decoder.embed_positions.weight"]),
        "encoder_layers": layers("encoder"),
        "decoder_layers": layers("decoder"),
        "encoder_attention_heads": int(variables["encoder/num_heads"]),
        "decoder_attention_heads": int(variables["decoder/num_heads"]),
        "encoder_ffn_dim": len(state["model.encoder.layers.0.fc1.weight"]),
        "decoder_ffn_dim": len(state["model.decoder.layers.0.fc1.weight"]),
    }
