"""Whisper's encoder (arXiv 2212.04356) for the semantic stream: log-mel features to 50 Hz.

Whisper encodes windows of exactly 30 s. A longer group is split into consecutive windows, and only
the frames that have audio are kept. Nothing is cut off, but speech across a boundary at 30, 60, ...
s is encoded in two pieces. Published weights need the last window padded with silence; weights that
are tuned with `padded: false` need as many frames as there is audio.

Tensor names end in their axes: B batch, T frames, F mel bins, D channels, W windows.
"""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tagspeech.config import EncoderConfig, LoraConfig, WhisperEncoderConfig
from tagspeech.config_file import from_tree
from tagspeech.data.transfer import on_its_way
from tagspeech.encoders.stream import StreamEncoder
from tagspeech.errors import InputError
from tagspeech.weights import copy_weights, read_model

WINDOW = 3000  # feature frames, 30 s
_PARTS = ("model.encoder.", "encoder.")  # of a WhisperForConditionalGeneration, a WhisperModel
_OURS = ("padded", "lora")  # fields that no config.json of a Whisper has
_LINEAR = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


class WhisperStream(StreamEncoder):
    """Whisper's log-mel features (100 Hz) to an encoding of 50 frames a second."""

    model_type = "whisper"

    def __init__(self, config: WhisperEncoderConfig) -> None:
        from transformers import WhisperConfig  # takes seconds; only needed with a Whisper
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        super().__init__(config)
        values = {name: value for name, value in asdict(config).items() if name not in _OURS}
        self.encoder = WhisperEncoder(WhisperConfig(**values, attn_implementation="sdpa"))
        if config.lora.r:
            _add_lora(self.encoder, config.lora)

    def forward(self, features_BTF: Tensor, feature_lens_B: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T', D) and the valid ones of each item, T' = (T + 1) // 2."""
        lens_B = (feature_lens_B + 1) // 2
        items = [
            item_TF[:n] for item_TF, n in zip(features_BTF, feature_lens_B.tolist(), strict=True)
        ]
        pieces = [list(item_TF.split(WINDOW)) if len(item_TF) else [] for item_TF in items]
        windows = [window_TF for of_item in pieces for window_TF in of_item]
        if not windows:
            return features_BTF.new_zeros(len(items), 0, self.config.d_model), lens_B
        if self.config.padded:
            padded_WTF = torch.stack([_with_silence(window_TF) for window_TF in windows])
            encoded_WTD = self.encoder(padded_WTF.transpose(1, 2)).last_hidden_state
        else:
            encoded_WTD = self._unpadded(windows)
        frames, first = [], 0
        for of_item in pieces:
            parts = [
                encoded_WTD[first + number, : (len(window_TF) + 1) // 2]
                for number, window_TF in enumerate(of_item)
            ]
            frames.append(
                torch.cat(parts) if parts else encoded_WTD.new_zeros(0, self.config.d_model)
            )
            first += len(of_item)
        return pad_sequence(frames, batch_first=True), lens_B

    def _unpadded(self, windows: list[Tensor]) -> Tensor:
        """Encodes windows (T, F) of up to 30 s; attention sees the frames of a window alone."""
        encoder = self.encoder
        # A window of an odd length gets a frame of zeros, alone and in a batch.
        lens_W = torch.tensor([(len(window_TF) + 1) // 2 for window_TF in windows])
        padded_WTF = windows[0].new_zeros(len(windows), 2 * int(lens_W.max()), windows[0].shape[1])
        for number, window_TF in enumerate(windows):
            padded_WTF[number, : len(window_TF)] = window_TF
        hidden_WDT = nn.functional.gelu(encoder.conv1(padded_WTF.transpose(1, 2)))
        hidden_WTD = nn.functional.gelu(encoder.conv2(hidden_WDT)).transpose(1, 2)
        hidden_WTD = hidden_WTD + encoder.embed_positions.weight[: hidden_WTD.shape[1]]
        valid_WT = torch.arange(hidden_WTD.shape[1]) < lens_W[:, None]
        mask_W11T = on_its_way(valid_WT, hidden_WTD.device)[:, None, None]
        for layer in encoder.layers:
            hidden_WTD = layer(hidden_WTD, mask_W11T)
        normed_WTD: Tensor = encoder.layer_norm(hidden_WTD)
        return normed_WTD

    def load_weights(self, path: Path) -> None:
        """Copies the encoder of a Whisper, or one that was trained here with its adapters.

        See `StreamEncoder.load_weights`. New adapters stay as they are for weights without any.
        """
        state = read_model(path)
        part = next((prefix for prefix in _PARTS if f"{prefix}conv1.weight" in state), "")
        given = {
            f"encoder.{name.removeprefix(part)}": weight
            for name, weight in state.items()
            if name.startswith(part)
        }
        own = self.state_dict()
        if self.config.lora.r and not any(".lora_" in name for name in given):
            plain = {name.replace(".base_layer.", "."): name for name in own}
            given = {plain.get(name, name): weight for name, weight in given.items()}
            given |= {name: weight for name, weight in own.items() if ".lora_" in name}
        copy_weights(self, given, path, parts=("encoder.",))

    def train_only_adapters(self) -> None:
        """Where there are adapters, turns off the gradients of all other weights."""
        if self.config.lora.r:
            for name, weight in self.encoder.named_parameters():
                weight.requires_grad_(".lora_" in name)

    @classmethod
    def config_from(cls, tree: dict[str, Any], where: str, current: EncoderConfig) -> EncoderConfig:
        """The section that a Whisper's config.json stands for."""
        names = [field.name for field in fields(WhisperEncoderConfig) if field.name not in _OURS]
        values = {name: tree[name] for name in names if name in tree}
        config = from_tree(WhisperEncoderConfig, values, where)
        if isinstance(current, WhisperEncoderConfig):
            config = replace(config, padded=current.padded, lora=current.lora)
        return config


def _add_lora(encoder: nn.Module, lora: LoraConfig) -> None:
    """Adds adapters, which change nothing until they are trained, in place."""
    from peft import LoraConfig as PeftConfig  # takes seconds
    from peft import inject_adapter_in_model

    layers = _LINEAR if lora.layers == ("all-linear",) else lora.layers
    options = {"r": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    try:
        inject_adapter_in_model(PeftConfig(target_modules=list(layers), **options), encoder)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"semantic.whisper.lora.layers: {', '.join(layers)}: {reason}") from error


def _with_silence(window_TF: Tensor) -> Tensor:
    """A window padded to 30 s with the features of silence.

    The extractor bounds a window's log10 of energy from below at 8 under its maximum, and at -10;
    then it adds 4 and divides by 4.
    """
    silence = max(window_TF.max().item() - 2.0, -1.5)
    missing = WINDOW - len(window_TF)
    return nn.functional.pad(window_TF, (0, 0, 0, missing), value=silence)
