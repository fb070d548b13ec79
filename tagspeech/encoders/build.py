"""The encoders that each stream can have, by the class of their section in the configuration."""

from __future__ import annotations

from torch import Tensor

from tagspeech.config import (
    CampPlusConfig,
    Config,
    EncoderConfig,
    StreamConfig,
    WhisperEncoderConfig,
    ZipformerConfig,
)
from tagspeech.encoders.campplus import CampPlusStream
from tagspeech.encoders.stream import StreamEncoder
from tagspeech.encoders.whisper import WhisperStream
from tagspeech.encoders.zipformer import Zipformer
from tagspeech.errors import InputError

SEMANTIC_ENCODERS: dict[type[EncoderConfig], type[StreamEncoder]] = {
    ZipformerConfig: Zipformer,
    WhisperEncoderConfig: WhisperStream,
}
VOICE_ENCODERS: dict[type[EncoderConfig], type[StreamEncoder]] = {
    ZipformerConfig: Zipformer,
    CampPlusConfig: CampPlusStream,
}
ENCODERS = {"semantic": SEMANTIC_ENCODERS, "voice": VOICE_ENCODERS}


def build_encoder(config: Config, stream: str) -> StreamEncoder:
    """The encoder of a stream, "semantic" or "voice", with random weights.

    Raises:
        InputError: The encoder's shape is not valid, or it is for audio of another sampling rate.
    """
    streams: StreamConfig = getattr(config, stream)
    section = streams.encoder_config
    if section.sampling_rate not in (None, config.features.sampling_rate):
        raise InputError(
            f"features.sampling_rate: must be {section.sampling_rate} for "
            f"{stream}.{streams.encoder_section}, got {config.features.sampling_rate}"
        )
    return ENCODERS[stream][type(section)](section)


def split_features(config: Config, features_BTF: Tensor) -> tuple[Tensor, Tensor]:
    """The features of the semantic and of the voice encoder, (B, T, F) each.

    The filter bank comes first, then `config.extra_features` in their order.
    """
    bins = config.features.num_mel_bins
    blocks = {"fbank": features_BTF[..., :bins]}
    for kind, width in config.extra_features:
        blocks[f"{kind}-{width}"] = features_BTF[..., bins : bins + width]
        bins += width
    streams = []
    for section in (config.semantic.encoder_config, config.voice.encoder_config):
        kind = section.feature_kind
        streams.append(blocks["fbank" if kind == "fbank" else f"{kind}-{section.feature_dim}"])
    return streams[0], streams[1]
