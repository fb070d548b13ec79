"""From recordings to segments with a trained model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from lhotse import Recording
from lhotse.audio import AudioLoadingError, DurationMismatchError
from numpy.typing import NDArray

from tagspeech.data.batches import FeatureReader
from tagspeech.decoding.greedy import generate_texts
from tagspeech.decoding.speakers import cluster_voices, with_speakers
from tagspeech.errors import InputError
from tagspeech.models.tagspeech import TagSpeechModel
from tagspeech.segments import Segment
from tagspeech.serialize import parse_target

log = logging.getLogger(__name__)

LONGEST = 80.0  # seconds; the paper's longest utterance group
SHORTEST = 0.25  # seconds; under 21 feature frames nothing reaches the LLM (REFERENCE, faults)


def read_audio(path: Path, sampling_rate: int, channel: int = 0) -> NDArray[np.float32]:
    """One channel of a file, (T,), at `sampling_rate`.

    Raises `InputError` when the file cannot be read, lacks the channel or lasts over 80 s.
    """
    if not path.exists():
        raise InputError(f"{path}: does not exist")
    try:
        recording = Recording.from_file(path)
    except (AudioLoadingError, RuntimeError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read as audio: {str(error).split(chr(10))[0]}"
        ) from error
    if recording.duration > LONGEST:
        raise InputError(
            f"{path}: lasts {recording.duration:.1f} s; only utterance groups of at most "
            f"{LONGEST:.0f} s can be transcribed; cut the recording at its pauses"
        )
    if channel not in recording.channel_ids:
        raise InputError(f"{path}: has no channel {channel}; it has {recording.channel_ids}")
    if recording.num_samples == 0:
        return np.zeros(0, dtype=np.float32)
    try:
        audio = recording.resample(sampling_rate).load_audio(channels=channel)
    except (AudioLoadingError, DurationMismatchError) as error:
        raise InputError(
            f"{path}: cannot be read as audio: {str(error).split(chr(10))[0]}"
        ) from error
    return np.asarray(audio[0], dtype=np.float32)


def transcribe(
    model: TagSpeechModel,
    audio: Sequence[NDArray[np.float32]],
    sessions: Sequence[str],
    speakers: str = "llm",
) -> Iterator[list[Segment]]:
    """Segments of each recording, an array (T,) at the model's sampling rate, in order.

    Audio shorter than the encoders need is padded with silence; a recording without any sample has
    no segments. What of an output does not parse is warned about, the rest is kept. Speakers are
    those that the LLM wrote ("llm"), or by voice ("voice").
    """
    if speakers not in ("llm", "voice"):
        raise InputError(f"speakers: wants llm or voice, found {speakers!r}")
    reader = FeatureReader(model.config.features)
    for samples, session in zip(audio, sessions, strict=True):
        if not len(samples):
            yield []
            continue
        missing = max(0, round(SHORTEST * reader.sampling_rate) - len(samples))
        features_BTF, lens_B = reader.of_samples([np.pad(samples, (0, missing))])
        with torch.inference_mode():
            frames = model.encode(features_BTF, lens_B)
        decode = model.config.decode
        (text,) = generate_texts(
            model, frames, decode.max_new_tokens, well_formed=decode.well_formed
        )
        parsed = parse_target(text, session)
        for problem in parsed.problems:
            log.warning("%s: %s", session, problem)
        if speakers == "llm":
            yield parsed.segments
        else:
            voice_TD = frames.voice[0, : frames.voice_lens[0]]
            names = cluster_voices(parsed.segments, voice_TD, decode.speaker_threshold)
            yield with_speakers(parsed.segments, names)
