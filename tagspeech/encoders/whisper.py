"""Whisper's encoder (arXiv 2212.04356) as the semantic stream: its log-mel features to 50 Hz.

Whisper hears windows of exactly 30 s. A longer group is heard as windows one behind the other, the
last one filled up with silence; of each as many frames are kept as it has audio. So nothing is cut
off, but what is said across a boundary at 30, 60, ... s is heard in two pieces.

Tensor names end in their axes: B batch, T frames, F mel bins, D channels, W windows.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tagspeech.config import Config, SemanticConfig, WhisperEncoderConfig
from tagspeech.encoders.zipformer import Zipformer, load_zipformer
from tagspeech.weights import copy_weights, read_safetensors

WINDOW = 3000  # feature frames, 30 s
_PARTS = ("model.encoder.", "encoder.")  # of a WhisperForConditionalGeneration, a WhisperModel


class WhisperStream(nn.Module):
    """Whisper's log-mel features (100 Hz) to an encoding of 50 frames a second."""

    def __init__(self, config: WhisperEncoderConfig) -> None:
        from transformers import WhisperConfig  # takes seconds to load, for who has a Whisper
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        super().__init__()
        self.config = config
        self.encoder = WhisperEncoder(WhisperConfig(**asdict(config)))

    def forward(self, features_BTF: Tensor, feature_lens_B: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T', D) and how many of them belong to each item, T' = (T + 1) // 2.

        What lies behind an item's length has no effect.
        """
        lens_B = (feature_lens_B + 1) // 2
        items = [
            one_TF[:n] for one_TF, n in zip(features_BTF, feature_lens_B.tolist(), strict=True)
        ]
        windows = [list(one_TF.split(WINDOW)) if len(one_TF) else [] for one_TF in items]
        padded = [_with_silence(one_TF) for pieces in windows for one_TF in pieces]
        if not padded:
            return features_BTF.new_zeros(len(items), 0, self.config.d_model), lens_B
        encoded_WTD = self.encoder(torch.stack(padded).transpose(1, 2)).last_hidden_state
        shares = encoded_WTD.split([len(pieces) for pieces in windows])
        frames = [
            share_WTD.flatten(0, 1)[:length]
            for share_WTD, length in zip(shares, lens_B.tolist(), strict=True)
        ]
        return pad_sequence(frames, batch_first=True), lens_B


def _with_silence(window_TF: Tensor) -> Tensor:
    """A window filled up to 30 s with what its features are in silence.

    The extractor bounds a window's log10 of energy from below at 8 under its maximum, and at -10;
    then it adds 4 and divides by 4.
    """
    silence = max(window_TF.max().item() - 2.0, -1.5)
    missing = WINDOW - len(window_TF)
    return nn.functional.pad(window_TF, (0, 0, 0, missing), value=silence)


def build_semantic_encoder(config: SemanticConfig) -> Zipformer | WhisperStream:
    """The encoder that a configuration means, with random weights."""
    return WhisperStream(config.whisper) if config.whisper else Zipformer(config.encoder)


def split_features(config: Config, features_BTF: Tensor) -> tuple[Tensor, Tensor]:
    """What the semantic and what the voice encoder hears of features.

    They are the same, unless the semantic encoder is a Whisper: its own come last.
    """
    if not config.semantic.whisper:
        return features_BTF, features_BTF
    bins = config.features.num_mel_bins
    return features_BTF[..., bins:], features_BTF[..., :bins]


def load_encoder_weights(encoder: Zipformer | WhisperStream, path: Path) -> None:
    """Copies the weights of an encoder from a file that may hold a decoder beside.

    Raises `InputError` naming file and weight for one that is missing, unexpected or of another
    shape.
    """
    if isinstance(encoder, Zipformer):
        load_zipformer(encoder, path)
        return
    state = read_safetensors(path)
    part = next((one for one in _PARTS if f"{one}conv1.weight" in state), "")
    own = {
        f"encoder.{name.removeprefix(part)}": weight
        for name, weight in state.items()
        if name.startswith(part)
    }
    copy_weights(encoder, own, path, ("encoder.",))
