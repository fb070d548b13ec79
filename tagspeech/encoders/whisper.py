"""Whisper's encoder (arXiv 2212.04356) for the semantic stream: log-mel features to 50 Hz.

Whisper encodes windows of exactly 30 s. A longer group is split into consecutive windows, the last
one padded with silence, and only the frames that have audio are kept. Nothing is cut off, but
speech across a boundary at 30, 60, ... s is encoded in two pieces.

Tensor names end in their axes: B batch, T frames, F mel bins, D channels, W windows.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tagspeech.config import EncoderConfig, WhisperEncoderConfig
from tagspeech.config_file import from_tree
from tagspeech.encoders.stream import StreamEncoder
from tagspeech.weights import copy_weights, read_safetensors

WINDOW = 3000  # feature frames, 30 s
_PARTS = ("model.encoder.", "encoder.")  # of a WhisperForConditionalGeneration, a WhisperModel


class WhisperStream(StreamEncoder):
    """Whisper's log-mel features (100 Hz) to an encoding of 50 frames a second."""

    model_type = "whisper"

    def __init__(self, config: WhisperEncoderConfig) -> None:
        from transformers import WhisperConfig  # takes seconds; only needed with a Whisper
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        super().__init__(config)
        self.encoder = WhisperEncoder(WhisperConfig(**asdict(config)))

    def forward(self, features_BTF: Tensor, feature_lens_B: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T', D) and the valid ones of each item, T' = (T + 1) // 2."""
        lens_B = (feature_lens_B + 1) // 2
        items = [
            item_TF[:n] for item_TF, n in zip(features_BTF, feature_lens_B.tolist(), strict=True)
        ]
        windows = [list(item_TF.split(WINDOW)) if len(item_TF) else [] for item_TF in items]
        padded = [_with_silence(window_TF) for pieces in windows for window_TF in pieces]
        if not padded:
            return features_BTF.new_zeros(len(items), 0, self.config.d_model), lens_B
        encoded_WTD = self.encoder(torch.stack(padded).transpose(1, 2)).last_hidden_state
        shares = encoded_WTD.split([len(pieces) for pieces in windows])
        frames = [
            share_WTD.flatten(0, 1)[:length]
            for share_WTD, length in zip(shares, lens_B.tolist(), strict=True)
        ]
        return pad_sequence(frames, batch_first=True), lens_B

    def load_weights(self, path: Path) -> None:
        """Copies the encoder of a Whisper; see `StreamEncoder.load_weights`."""
        state = read_safetensors(path)
        part = next((prefix for prefix in _PARTS if f"{prefix}conv1.weight" in state), "")
        encoder = {
            f"encoder.{name.removeprefix(part)}": weight
            for name, weight in state.items()
            if name.startswith(part)
        }
        copy_weights(self, encoder, path)

    @classmethod
    def config_from(cls, tree: dict[str, Any], where: str, current: EncoderConfig) -> EncoderConfig:
        """The section that a Whisper's config.json stands for."""
        names = [field.name for field in fields(WhisperEncoderConfig)]
        values = {name: tree[name] for name in names if name in tree}
        return from_tree(WhisperEncoderConfig, values, where)


def _with_silence(window_TF: Tensor) -> Tensor:
    """A window padded to 30 s with the features of silence.

    The extractor bounds a window's log10 of energy from below at 8 under its maximum, and at -10;
    then it adds 4 and divides by 4.
    """
    silence = max(window_TF.max().item() - 2.0, -1.5)
    missing = WINDOW - len(window_TF)
    return nn.functional.pad(window_TF, (0, 0, 0, missing), value=silence)
