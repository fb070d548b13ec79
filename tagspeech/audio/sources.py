"""The audio that is transcribed: files of any length and number of channels, or arrays in memory.

Audio is read in pieces, so that memory does not grow with the length of a recording.

Shape suffixes: T samples, C channels.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lhotse import Recording
from lhotse.audio import AudioLoadingError, DurationMismatchError
from lhotse.augmentation import Resample
from numpy.typing import NDArray

from tagspeech.audio.files import open_recording
from tagspeech.errors import InputError, is_encodable

log = logging.getLogger(__name__)

PIECE = 30.0  # seconds read at a time
SILENCE = 2.0**-15  # no sample above it: nothing but the last bit of 16
LOUDEST = 2.0**20  # samples above it are damage: even 16-bit integers taken for floats are below


class Span(NamedTuple):
    """From `start` to `end`, seconds of a recording."""

    start: float
    end: float


def is_audible(samples_T: NDArray[np.float32]) -> bool:
    """Whether the samples hold more than silence."""
    return len(samples_T) > 0 and float(np.abs(samples_T).max()) > SILENCE


def are_unusable(samples: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which samples are no numbers or far too large to be audio, in the shape of `samples`."""
    with np.errstate(invalid="ignore"):
        unusable: NDArray[np.bool_] = ~(np.abs(samples) <= LOUDEST)
    return unusable


class Audio(ABC):
    """One stream of audio of a recording.

    Attributes:
        name: The session of its segments.
        label: What messages call it: the path of a file.
        duration: Seconds.
        rate: Samples per second as they are stored.
        files: Where the recording is stored; empty: in memory.
        channels: Those whose mean is transcribed.
    """

    name: str
    label: str
    duration: float
    rate: int
    files: Sequence[Path] = ()
    channels: tuple[int, ...] = ()

    @abstractmethod
    def _read(self, span: Span) -> NDArray[np.float32]:
        """The samples (T,) of a span at `rate`."""

    def samples(self, sampling_rate: int, span: Span) -> NDArray[np.float32]:
        """The samples of a part of the recording.

        Args:
            sampling_rate: Samples per second of the result.
            span: The part, in seconds; what lies behind the end of the recording is left out.

        Returns:
            Samples (T,).

        Raises:
            InputError: The audio cannot be read there.
        """
        span = Span(span.start, min(span.end, self.duration))
        if span.end <= span.start:
            return np.zeros(0, dtype=np.float32)
        samples_T = self._read(span)
        if sampling_rate == self.rate:
            return samples_T
        resampled_T = Resample(self.rate, sampling_rate)(samples_T[None])[0]
        return np.asarray(resampled_T, dtype=np.float32)

    def pieces(self, sampling_rate: int) -> Iterator[NDArray[np.float32]]:
        """The whole recording in order, samples (T,) of a few seconds at a time."""
        start = 0.0
        while start < self.duration:
            end = min(start + PIECE, self.duration)
            yield self.samples(sampling_rate, Span(start, end))
            start = end


@dataclass
class ArrayAudio(Audio):
    """Samples (T,) in memory, from -1 to 1, at `rate`, of which the first is at `begin` seconds."""

    name: str
    array_T: NDArray[np.float32]
    rate: int
    begin: float = 0.0

    def __post_init__(self) -> None:
        self.label = self.name
        samples = self.array_T
        if samples.ndim != 1:
            raise InputError(
                f"{self.name}: must be samples of one channel (T,), got {samples.shape}"
            )
        if not np.issubdtype(samples.dtype, np.floating):
            raise InputError(
                f"{self.name}: must be float samples from -1 to 1, got {samples.dtype}"
            )
        unusable_T = are_unusable(samples)
        if unusable_T.any():
            first = int(unusable_T.argmax()) / self.rate
            raise InputError(
                f"{self.name}: has samples that are no numbers or far too large, the first at "
                f"{first:.2f} s"
            )
        self.duration = self.begin + len(samples) / self.rate

    def _read(self, span: Span) -> NDArray[np.float32]:
        start, end = (round((time - self.begin) * self.rate) for time in span)
        return np.asarray(self.array_T[start:end], dtype=np.float32)


@dataclass
class RecordingAudio(Audio):
    """Channels of a Lhotse recording; the audio is their mean.

    A sample that is no number, or far too large to be one, is taken as silence; one warning says
    how many a piece has.
    """

    recording: Recording
    channels: tuple[int, ...]
    name: str = ""
    _warned: set[float] = field(default_factory=set)  # starts of pieces

    def __post_init__(self) -> None:
        self.name = self.name or self.recording.id
        self.files = [Path(one.source) for one in self.recording.sources if one.type == "file"]
        self.label = str(self.files[0]) if self.files else self.name
        self.duration = self.recording.duration
        self.rate = self.recording.sampling_rate

    def _read(self, span: Span) -> NDArray[np.float32]:
        channels = self.channels[0] if len(self.channels) == 1 else list(self.channels)
        try:
            samples_CT = self.recording.load_audio(
                channels=channels, offset=span.start, duration=span.end - span.start
            )
        except (AudioLoadingError, DurationMismatchError) as error:
            raise InputError(
                f"{self.label}: cannot be read from {span.start:.2f} to {span.end:.2f} s: the file "
                "is damaged there; get it again, or cut that part off"
            ) from error
        unusable_CT = are_unusable(samples_CT)
        if unusable_CT.any():
            self._warn(unusable_CT, span)
            samples_CT = np.where(unusable_CT, np.float32(0), samples_CT)
        return np.asarray(samples_CT.mean(axis=0), dtype=np.float32)

    def _warn(self, unusable_CT: NDArray[np.bool_], span: Span) -> None:
        """Says which samples are unusable, once for each second in which such samples begin."""
        unusable_T = unusable_CT.any(axis=0)
        first = span.start + int(unusable_T.argmax()) / self.rate
        if int(first) in self._warned:  # windows are read again after the search for speech
            return
        self._warned.add(int(first))
        log.warning(
            "%s: %d samples from %.2f s on are no numbers or far too large; they are taken as "
            "silence",
            self.label,
            unusable_T.sum(),
            first,
        )


def open_audio(path: Path, channel: str = "auto") -> list[RecordingAudio]:
    """The streams of a file that are transcribed apart: one, or one for each channel.

    Args:
        path: An audio file.
        channel: As `TranscribeOptions.channel`. A warning says what is chosen by itself.

    Raises:
        InputError: The file cannot be read, or lacks the channel.
    """
    if not is_encodable(path.name):  # a transcript could not name it
        raise InputError(f"{path}: its name is not UTF-8; rename the file")
    recording = open_recording(path, path.stem)
    ids = list(recording.channel_ids or [0])
    return [RecordingAudio(recording, own) for own in choose_channels(str(path), ids, channel)]


def choose_channels(label: str, ids: Sequence[int], channel: str) -> list[tuple[int, ...]]:
    """The channels of each stream that is transcribed apart; a stream is the mean of its channels.

    Args:
        label: What messages call the recording.
        ids: The numbers of its channels.
        channel: As `TranscribeOptions.channel`. A warning says what "auto" takes of several.

    Raises:
        InputError: There is no such channel.
    """
    if channel.isdecimal():
        if int(channel) not in ids:
            raise InputError(f"{label}: has no channel {channel}; it has {list(ids)}")
        return [(int(channel),)]
    if channel == "each":
        return [(number,) for number in ids]
    is_array = len(ids) > 2
    if channel == "auto" and len(ids) > 1:
        log.warning(
            "%s: has %d channels; transcribing %s (--channel N takes one, mix their mean, each "
            "every one apart)",
            *(label, len(ids), f"channel {ids[0]}" if is_array else "their mix"),
        )
    return [tuple(ids[:1] if channel == "auto" and is_array else ids)]
