"""The Zipformer encoder (arXiv 2310.11230), non-causal: log-mel features at 100 Hz to 25 Hz.

Reads the state dicts of icefall and of the released TagSpeech. Tensor names end in their axes:
    B batch   T frames   F mel bins   D channels   L frames of one group
"""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagspeech.config import EncoderConfig, ZipformerConfig
from tagspeech.config_file import from_tree
from tagspeech.data.transfer import on_its_way
from tagspeech.encoders.stream import StreamEncoder
from tagspeech.encoders.zipformer_attention import relative_positions
from tagspeech.encoders.zipformer_layers import Bypass, FrontEnd, ZipformerLayer
from tagspeech.errors import InputError
from tagspeech.weights import copy_weights, read_model

Lens = TypeVar("Lens", int, Tensor)

# Keys of a released config.json without effect on a non-causal forward pass.
_WITHOUT_EFFECT = {
    *("encoder_unmasked_dim", "warmup_batches", "chunk_size", "left_context_frames"),
    *("use_flash_attn", "audio_encoder_projector_ds_rate"),
    *("architectures", "dtype", "torch_dtype", "transformers_version"),  # of transformers
}
# Keys under which the config.json of a model of Auden describes its encoder.
_ENCODER_CONFIGS = ("encoder_config", "speech_encoder_config", "audio_encoder_config")
_ENCODER = ("encoder_embed.", "encoder.")  # prefixes of a Zipformer's weights
# Prefixes of the outputs that are trained with a Zipformer here, by icefall and by Auden.
_DECODERS = ("ctc_output.", "alignment_output.", "decoder.", "joiner.", "simple_")
_LAYER = re.compile(r"encoder\.encoders\.\d+\.(encoder\.)?layers\.\d+\.")
_NEW_LAYER_SCALE = 0.1  # share of a new layer's output when it is added to trained ones
_ONLY = {"model_type": "zipformer", "causal": False, "tag_audio_boundary": False}


def embedded_lens(feature_lens: Lens) -> Lens:
    """Frames after the front end (50 Hz) for `feature_lens` frames (100 Hz), at least 0."""
    half = (feature_lens - 7) // 2
    return half.clamp(min=0) if isinstance(half, Tensor) else max(half, 0)


def encoded_lens(feature_lens: Lens) -> Lens:
    """Frames of the encoder (25 Hz) for `feature_lens` frames of features (100 Hz)."""
    return (embedded_lens(feature_lens) + 1) // 2


def frame_mask(lens_B: Tensor, num_frames: int) -> Tensor:
    """True for the valid frames of each item, (B, num_frames)."""
    return torch.arange(num_frames, device=lens_B.device) < lens_B[:, None]


class Downsample(nn.Module):
    """A learned weighted mean of every `factor` frames."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(factor))

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, D) to (B, T / factor, D); T is a multiple of the factor.

        If an item ends within a group, its last frame takes the weights of the missing ones.
        """
        factor = len(self.bias)
        valid_BTL = valid_BT.unflatten(1, (-1, factor))
        is_last_BTL = valid_BTL & ~F.pad(valid_BTL[..., 1:], (0, 1))
        weight_L = self.bias.softmax(dim=0)
        missing_BT1 = (weight_L * ~valid_BTL).sum(dim=-1, keepdim=True)
        weight_BTL = weight_L * valid_BTL + is_last_BTL * missing_BT1
        return (x_BTD.unflatten(1, (-1, factor)) * weight_BTL[..., None]).sum(dim=2)


class LayerStack(nn.Module):
    """Layers of one width at one frame rate."""

    def __init__(self, layers: list[ZipformerLayer], pos_dim: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.pos_dim, self.dropout = pos_dim, dropout

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        positions_RD = relative_positions(x_BTD.shape[1], self.pos_dim, x_BTD)
        positions_RD = F.dropout(positions_RD, self.dropout, self.training)
        for layer in self.layers:
            x_BTD = layer(x_BTD, positions_RD, valid_BT)
        return x_BTD


class DownsampledStack(nn.Module):
    """A stack at a lower frame rate, whose output is repeated and mixed into its input."""

    def __init__(self, stack: LayerStack, dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.downsample = Downsample(factor)
        self.encoder = stack
        self.out_combiner = Bypass(dim)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        slow_BTD = self.encoder(self.downsample(x_BTD, valid_BT), valid_BT[:, :: self.factor])
        return self.out_combiner(x_BTD, slow_BTD.repeat_interleave(self.factor, dim=1))


class ZipformerStacks(nn.Module):
    """All stacks at 50 Hz in and out, and the last halving to 25 Hz."""

    def __init__(self, config: ZipformerConfig) -> None:
        super().__init__()
        self.dims = _per_stack(config, "encoder_dim")
        self.encoders = nn.ModuleList(
            _build_stack(config, index) for index in range(len(self.dims))
        )
        self.downsample_output = Downsample(config.output_downsampling_factor)
        # Padded once to a multiple of every factor, so that no stack pads or cuts.
        self.multiple = math.lcm(config.output_downsampling_factor, *config.downsampling_factor)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        missing = -x_BTD.shape[1] % self.multiple
        x_BTD = F.pad(x_BTD, (0, 0, 0, missing))
        valid_BT = F.pad(valid_BT, (0, missing))
        outputs = []
        for dim, stack in zip(self.dims, self.encoders, strict=True):
            x_BTD = stack(_resize(x_BTD, dim), valid_BT)
            outputs.append(x_BTD)
        return self.downsample_output(_newest_channels(outputs), valid_BT)


class Zipformer(StreamEncoder):
    """Log-mel features to an encoding of 25 frames a second.

    Raises:
        InputError: A field has neither 1 value nor one for each stack, a kernel is even, or the
            output is not at 25 Hz.
    """

    model_type = "zipformer"

    def __init__(self, config: ZipformerConfig) -> None:
        super().__init__(config)
        if config.output_downsampling_factor != 2:
            raise InputError("encoder.output_downsampling_factor: only 2 (25 Hz) is supported")
        if any(kernel % 2 == 0 for kernel in config.cnn_module_kernel):
            raise InputError("encoder.cnn_module_kernel: has an even value; give odd ones")
        dim = _per_stack(config, "encoder_dim")[0]
        self.encoder_embed = FrontEnd(
            config.feature_dim, config.embed_channels, dim, config.dropout
        )
        self.encoder = ZipformerStacks(config)

    def forward(self, features_BTF: Tensor, feature_lens_B: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, F) with their lengths in frames to (B, T', max(encoder_dim)), lengths.

        T' is the longest item's `encoded_lens`. A valid frame depends on its own item only. An
        item too short for a frame has length 0.
        """
        lens_B = encoded_lens(feature_lens_B)
        num_features = int(feature_lens_B.max())
        num_frames = embedded_lens(num_features)
        if num_frames == 0:
            shape = (len(features_BTF), 0, self.config.output_dim)
            return features_BTF.new_zeros(shape), lens_B
        valid_BT = on_its_way(
            frame_mask(embedded_lens(feature_lens_B), num_frames), features_BTF.device
        )
        x_BTD = self.encoder_embed(features_BTF[:, :num_features], valid_BT)
        return self.encoder(x_BTD, valid_BT)[:, : encoded_lens(num_features)], lens_B

    def load_weights(self, path: Path) -> None:
        """Copies the encoder in a file; see `load_zipformer`."""
        load_zipformer(self, path)

    @classmethod
    def config_from(cls, tree: dict[str, Any], where: str, current: EncoderConfig) -> EncoderConfig:
        """The section that the config.json of a Zipformer, or of a model with one, stands for."""
        for key in _ENCODER_CONFIGS:
            tree = tree.get(key, tree)
        found = zipformer_config_from_released(tree, where)
        dropout = getattr(current, "dropout", found.dropout)
        return dataclasses.replace(found, dropout=dropout)


def _per_stack(config: ZipformerConfig, field: str) -> tuple[int, ...]:
    values = tuple(getattr(config, field))
    count = len(config.downsampling_factor)
    if len(values) not in (1, count):
        raise InputError(
            f"encoder.{field}: has {len(values)} values for {count} stacks; give 1 or {count}"
        )
    return values * count if len(values) == 1 else values


def _build_stack(config: ZipformerConfig, index: int) -> nn.Module:
    def of_stack(field: str) -> int:
        return _per_stack(config, field)[index]

    dim, factor = of_stack("encoder_dim"), config.downsampling_factor[index]
    layers = [
        ZipformerLayer(
            dim,
            feedforward_dim=of_stack("feedforward_dim"),
            num_heads=of_stack("num_heads"),
            query_head_dim=of_stack("query_head_dim"),
            value_head_dim=of_stack("value_head_dim"),
            pos_head_dim=of_stack("pos_head_dim"),
            pos_dim=config.pos_dim,
            kernel=of_stack("cnn_module_kernel"),
            dropout=config.dropout,
        )
        for _ in range(of_stack("num_encoder_layers"))
    ]
    stack = LayerStack(layers, config.pos_dim, config.dropout)
    return stack if factor == 1 else DownsampledStack(stack, dim, factor)


def _resize(x_BTD: Tensor, dim: int) -> Tensor:
    """The first `dim` channels, or all channels followed by zeros."""
    return x_BTD if x_BTD.shape[-1] == dim else F.pad(x_BTD, (0, dim - x_BTD.shape[-1]))


def _newest_channels(outputs: list[Tensor]) -> Tensor:
    """The channels of the widest output, each from the last output that has it."""
    pieces = [outputs[-1]]
    width = outputs[-1].shape[-1]
    for output in reversed(outputs[:-1]):
        if output.shape[-1] > width:
            pieces.append(output[..., width:])
            width = output.shape[-1]
    return torch.cat(pieces, dim=-1)


def read_zipformer_state(path: str | Path) -> dict[str, Tensor]:
    """The weights of a `Zipformer` in a file that `read_model` reads, without decoders.

    Raises:
        InputError: The file has no weights, or is a .safetensors with weights of other kinds.
    """
    path = Path(path)
    state = read_model(path)
    other = [key for key in state if not key.startswith((*_ENCODER, *_DECODERS))]
    if other and path.suffix == ".safetensors":
        raise InputError(f"{path}: holds {other[0]!r}, which no Zipformer has")
    return {key: state[key] for key in state if key.startswith(_ENCODER)}


def load_zipformer(model: Zipformer, path: str | Path, *, grow: bool = False) -> None:
    """Copies the encoder weights in a file (see `read_zipformer_state`) into `model`.

    Args:
        model: A Zipformer; its other parts stay as they are.
        path: The file.
        grow: Whether stacks of `model` may have more layers than those in the file. The new layers
            stay random, and hardly change their input at first.

    Raises:
        InputError: A weight is missing, unexpected or of another shape.
    """
    state = read_zipformer_state(path)
    if grow:
        known = {match[0] for match in map(_LAYER.match, state) if match}
        for name, weight in model.state_dict().items():
            layer = _LAYER.match(name)
            if layer and layer[0] not in known:
                new = name == f"{layer[0]}bypass.bypass_scale"
                state[name] = torch.full_like(weight, _NEW_LAYER_SCALE) if new else weight
    copy_weights(model, state, Path(path), _ENCODER)


def zipformer_config_from_released(
    released: dict[str, Any], where: str = "config.json of the encoder"
) -> ZipformerConfig:
    """The configuration in a released encoder's config.json.

    Args:
        released: The content of config.json.
        where: The start of every error message.

    Raises:
        InputError: A key is missing or unknown, or the encoder is causal.
    """
    for key, only in _ONLY.items():
        if released.get(key, only) != only:
            raise InputError(f"{where}: {key} is {released[key]!r}, only {only!r} is supported")
    tree = {
        key: value
        for key, value in released.items()
        if key not in _WITHOUT_EFFECT and key not in _ONLY
    }
    if tree.get("dropout", 0.0) is None:  # a schedule of icefall
        del tree["dropout"]
    for field in dataclasses.fields(ZipformerConfig):
        if field.name not in tree and field.name not in ("embed_channels", "dropout"):
            raise InputError(f"{where}: has no {field.name}")
    return from_tree(ZipformerConfig, tree, where)
