"""What a model hears in the windows of a recording, written down as it is heard.

Audio is read in pieces: memory does not grow with the length, but for what was heard.

Shape suffixes: T samples or frames, N segments, D encoder channels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from lhotse import Recording
from numpy.typing import NDArray
from torch.nn.functional import normalize
from tqdm import tqdm

from tagspeech.data.batches import FeatureReader
from tagspeech.decoding.speakers import voice_vectors
from tagspeech.decoding.transcribe import hear, sounds, with_speakers_of
from tagspeech.errors import InputError
from tagspeech.files import journal, read_journal, sha256_of
from tagspeech.meetings.heard import Heard
from tagspeech.meetings.windows import SAMPLING_RATE, Span, detector, speech_regions, windows
from tagspeech.models.tagspeech import TagSpeechModel

PIECE = 30.0  # seconds read at a time


@dataclass(frozen=True)
class Cutting:
    """How a recording is cut into windows.

    vad        what tells speech: "silero" or "energy"
    longest    seconds of a window at most; None: `decode.max_window` of the model
    overlap    seconds that windows share where speech goes on without a pause
    max_pause  seconds without speech that end a window
    """

    vad: str = "silero"
    longest: float | None = None
    overlap: float = 2.0
    max_pause: float = 1.0


@dataclass(frozen=True)
class Channels:
    """A recording and which of its channels are heard: one, or the mean of several."""

    recording: Recording
    channels: int | tuple[int, ...] = 0

    def samples(self, sampling_rate: int, span: Span) -> NDArray[np.float32]:
        """The audio of a part: (T,)."""
        resampled = self.recording.resample(sampling_rate)
        chosen = self.channels if isinstance(self.channels, int) else list(self.channels)
        seconds = min(span.end, resampled.duration) - span.start
        audio = resampled.load_audio(channels=chosen, offset=span.start, duration=seconds)
        return np.asarray(audio.mean(axis=0), dtype=np.float32)

    def pieces(self, sampling_rate: int) -> Iterator[NDArray[np.float32]]:
        """All of it, (T,) at a time."""
        start = 0.0
        while start < self.recording.duration:
            end = min(start + PIECE, self.recording.duration)
            yield self.samples(sampling_rate, Span(start, end))
            start = end

    def speech(self, vad: str) -> Iterator[Span]:
        """Where anybody talks."""
        return speech_regions(self.pieces(SAMPLING_RATE), detector(vad))


@dataclass(frozen=True)
class Ears:
    """A model that hears windows.

    speakers      of a window: as the LLM wrote them ("llm"), or by voice ("voice")
    grammar       whether the LLM writes target texts alone; None: `decode.grammar` of the model
    batch_size    windows that are computed together
    max_duration  seconds of their audio at most, padding included, where they are several
    """

    model: TagSpeechModel
    speakers: str = "llm"
    grammar: bool | None = None
    batch_size: int = 1
    max_duration: float = math.inf

    @cached_property
    def reader(self) -> FeatureReader:
        """Of the features that the model's encoders want."""
        config = self.model.config
        return FeatureReader(config.features, config.semantic.whisper_bins)

    def windows(self, regions: Iterable[Span], cutting: Cutting) -> Iterator[Span]:
        """Windows that hold these regions of speech."""
        longest = cutting.longest or self.model.config.decode.max_window
        return windows(regions, longest, cutting.overlap, cutting.max_pause)

    def hear(self, audio: Channels, spans: Sequence[Span]) -> Iterator[Heard]:
        """What is heard in windows that are computed together; nothing of silent ones."""
        rate = self.reader.sampling_rate
        windows = [(span, audio.samples(rate, span)) for span in spans]
        return self.hear_samples(audio.recording.id, windows)

    def hear_samples(
        self, name: str, windows: Sequence[tuple[Span, NDArray[np.float32]]]
    ) -> Iterator[Heard]:
        """The same for windows in memory: samples (T,) at the rate of the `reader`."""
        pairs = [(span, samples) for span, samples in windows if sounds(samples)]
        if not pairs:
            return
        told = hear(
            self.model, self.reader, [(samples, name) for _, samples in pairs], self.grammar
        )
        for (span, _), (segments, voice_TD) in zip(pairs, told, strict=True):
            segments = with_speakers_of(self.model, segments, voice_TD, self.speakers)
            if segments and len(voice_TD):
                vectors_ND = normalize(voice_vectors(segments, voice_TD).float()).cpu().numpy()
            else:
                vectors_ND = np.zeros((len(segments), 1), dtype=np.float32)
            moved = tuple(one.moved(span.start) for one in segments)
            yield Heard(span.start, span.end, moved, vectors_ND)

    def hear_all(
        self, audio: Channels, spans: Iterable[Span], cut_by: str, path: Path | None = None
    ) -> Iterator[Heard]:
        """What is heard in all windows of a recording, in order.

        cut_by  what the windows depend on
        path    journal: a killed run goes on there

        Batches are those of a run that was never stopped, and what was heard goes through a row of
        the journal in any case: the same bytes. Raises `InputError` for a journal of another
        recording or model, or of other options.
        """
        rows = read_journal(path) if path else []
        identity = self._identity(audio, cut_by)
        if rows and rows[0] != identity:
            raise InputError(
                f"{path}: was begun for another recording or model, or with other options; "
                "delete it"
            )
        done = rows[1:]
        seconds = round(audio.recording.duration)
        with (
            journal(path) if path else nullcontext(lambda row: None) as add,
            tqdm(total=seconds, desc=audio.recording.id, unit=" s") as bar,
        ):
            if not rows:
                add(identity)
            for number, batch in enumerate(self._batches(spans)):
                if number < len(done):
                    row = done[number]
                else:
                    row = {"windows": [one.to_row() for one in self.hear(audio, batch)]}
                    add(row)
                yield from map(Heard.from_row, row["windows"])
                bar.update(round(batch[-1].end) - bar.n)
            bar.update(seconds - bar.n)

    def _batches(self, spans: Iterable[Span]) -> Iterator[list[Span]]:
        batch: list[Span] = []
        longest = 0.0
        for span in spans:
            longest = max(longest, span.end - span.start)
            if len(batch) == self.batch_size or (
                batch and longest * (len(batch) + 1) > self.max_duration
            ):
                yield batch
                batch, longest = [], span.end - span.start
            batch.append(span)
        if batch:
            yield batch

    def _identity(self, audio: Channels, cut_by: str) -> dict[str, object]:
        """What a journal is of."""
        files = [Path(one.source) for one in audio.recording.sources if one.type == "file"]
        options = audio.channels, self.speakers, self.grammar, self.batch_size, cut_by
        return {
            "recording": [audio.recording.id, *map(sha256_of, files)],
            "model": self._fingerprint,
            "options": repr(options),
            "decode": asdict(self.model.config.decode),
        }

    @cached_property
    def _fingerprint(self) -> str:
        """SHA-256 of the projectors: what every training of a TagSpeech changes, and small."""
        digest = hashlib.sha256()
        for projector in (self.model.semantic_projector, self.model.voice_projector):
            for weight in projector.parameters():
                digest.update(weight.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()
