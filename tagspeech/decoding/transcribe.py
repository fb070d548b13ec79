"""From recordings to segments with a trained model."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from lhotse import Recording
from lhotse.audio import AudioLoadingError, DurationMismatchError
from numpy.typing import NDArray
from torch import Tensor

from tagspeech.data.batches import FeatureReader
from tagspeech.decoding.confidence import parse_output
from tagspeech.decoding.greedy import generate
from tagspeech.decoding.speakers import cluster_voices, with_speakers
from tagspeech.errors import InputError
from tagspeech.models.tagspeech import TagSpeechModel
from tagspeech.segments import Segment

log = logging.getLogger(__name__)

LONGEST = 80.0  # seconds; the paper's longest utterance group
SHORTEST = 0.25  # seconds; under 21 frames nothing reaches the LLM (docs/released-format.md)
SILENCE = 2.0**-15  # no sample above it: nothing but the last bit of 16


def open_audio(path: Path, channel: int = 0, longest: float = math.inf) -> Recording:
    """A recording that can be transcribed, its samples not read yet.

    Raises `InputError` when the file cannot be read, lacks the channel or lasts over `longest`
    seconds.
    """
    if not path.exists():
        raise InputError(f"{path}: does not exist")
    try:
        recording = Recording.from_file(path)
    except (AudioLoadingError, RuntimeError, OSError) as error:
        raise _unreadable(path, error) from error
    _check_duration(recording.duration, str(path), longest)
    if channel not in recording.channel_ids:
        raise InputError(f"{path}: has no channel {channel}; it has {recording.channel_ids}")
    return recording


def read_audio(path: Path, sampling_rate: int, channel: int = 0) -> NDArray[np.float32]:
    """One channel of a file of at most 80 s, (T,), at `sampling_rate`. Raises `InputError` as
    `open_audio` does."""
    recording = open_audio(path, channel, LONGEST)
    if recording.num_samples == 0:
        return np.zeros(0, dtype=np.float32)
    try:
        audio = recording.resample(sampling_rate).load_audio(channels=channel)
    except (AudioLoadingError, DurationMismatchError) as error:
        raise _unreadable(path, error) from error
    return np.asarray(audio[0], dtype=np.float32)


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = str(error).partition("\n")[0]
    return InputError(f"{path}: cannot be read as audio: {reason}")


def _check_duration(seconds: float, name: str, longest: float = LONGEST) -> None:
    if seconds > longest:
        raise InputError(
            f"{name}: lasts {seconds:.1f} s; at most {longest:.0f} s are heard at once; "
            "transcribe_meeting takes a file of any length"
        )


def transcribe(
    model: TagSpeechModel,
    audio: Iterable[NDArray[np.float32]],
    sessions: Sequence[str],
    speakers: str = "llm",
    batch_size: int = 1,
    grammar: bool | None = None,
) -> Iterator[list[Segment]]:
    """Segments of each recording, an array (T,) at the model's sampling rate, in order.

    Audio shorter than the encoders need is padded with silence; a recording of silence, or without
    any sample, has no segments. What of an output does not parse is warned about, the rest is kept.
    Speakers are those that the LLM wrote ("llm"), or by voice ("voice"). It can write target texts
    alone, or anything (`grammar`; None: `decode.grammar` of the model decides).

    Recordings of one batch do not hear each other. In float32 a batch changes nothing beyond the
    last bits of sums; in half precision these can turn a close decision of the LLM.
    """
    if speakers not in ("llm", "voice"):
        raise InputError(f"speakers: wants llm or voice, found {speakers!r}")
    if batch_size < 1:
        raise InputError(f"batch_size: wants 1 or more, found {batch_size}")
    reader = FeatureReader(model.config.features, model.config.semantic.whisper_bins)
    pairs = zip(audio, sessions, strict=True)
    while batch := list(islice(pairs, batch_size)):
        for samples, session in batch:
            _check_samples(samples, session, reader.sampling_rate)
        heard = [place for place, (samples, _) in enumerate(batch) if sounds(samples)]
        audible = [batch[place] for place in heard]
        told = _transcribe_batch(model, reader, audible, speakers, grammar)
        segments = dict(zip(heard, told, strict=True))
        yield from (segments.get(place, []) for place in range(len(batch)))


def _check_samples(samples: NDArray[np.float32], session: str, sampling_rate: int) -> None:
    if samples.ndim != 1:
        raise InputError(f"{session}: wants samples of one channel (T,), found {samples.shape}")
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(f"{session}: wants float samples from -1 to 1, found {samples.dtype}")
    _check_duration(len(samples) / sampling_rate, session)
    if not np.isfinite(samples).all():
        raise InputError(f"{session}: has samples that are no numbers; write the audio again")


def sounds(samples: NDArray[np.float32]) -> bool:
    """Whether there is more than silence."""
    return len(samples) > 0 and float(np.abs(samples).max()) > SILENCE


def _transcribe_batch(
    model: TagSpeechModel,
    reader: FeatureReader,
    batch: Sequence[tuple[NDArray[np.float32], str]],
    speakers: str,
    grammar: bool | None,
) -> list[list[Segment]]:
    if not batch:
        return []
    return [
        with_speakers_of(model, segments, voice_TD, speakers)
        for segments, voice_TD in hear(model, reader, batch, grammar)
    ]


def with_speakers_of(
    model: TagSpeechModel, segments: list[Segment], voice_TD: Tensor, speakers: str
) -> list[Segment]:
    """The segments with the speakers that the LLM wrote ("llm"), or by voice ("voice")."""
    if speakers == "llm":
        return segments
    names = cluster_voices(segments, voice_TD, model.config.decode.speaker_threshold)
    return with_speakers(segments, names)


def hear(
    model: TagSpeechModel,
    reader: FeatureReader,
    batch: Sequence[tuple[NDArray[np.float32], str]],
    grammar: bool | None,
) -> list[tuple[list[Segment], Tensor]]:
    """Segments of each recording, an array (T,) and its session, and its voice frames (T', D)."""
    shortest = round(SHORTEST * reader.sampling_rate)
    padded = [np.pad(samples, (0, max(0, shortest - len(samples)))) for samples, _ in batch]
    with torch.inference_mode():
        frames = model.encode(*reader.of_samples(padded))
    decode = model.config.decode
    durations = [len(samples) / reader.sampling_rate for samples, _ in batch]
    held = decode.grammar if grammar is None else grammar
    outputs = generate(model, frames, decode.max_new_tokens, durations if held else None)
    heard = []
    for item, (output, (_, session)) in enumerate(zip(outputs, batch, strict=True)):
        _, parsed = parse_output(model, output, session)
        for problem in parsed.problems:
            log.warning("%s: %s", session, problem)
        heard.append((parsed.segments, frames.voice[item, : frames.voice_lens[item]]))
    return heard
