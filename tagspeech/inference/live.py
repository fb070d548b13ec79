"""Live use: segments of a growing recording, printed as soon as their window is decoded.

    audio     ....speech speech......speech speech speech speech speech.....
    windows       |-------------|    |--------------------|------------|
    printed                       ^                        ^             ^

A window ends at a pause, or, when it has its full length, at its quietest point. A segment is
therefore printed at most that long after it began, plus the time of decoding. Nothing printed is
taken back: the speakers of a window get their names when it is decoded.

Shape suffix: T samples.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator

import numpy as np
from lhotse.augmentation import Resample
from numpy.typing import NDArray

from tagspeech.audio.sources import ArrayAudio, Span
from tagspeech.errors import InputError
from tagspeech.formats import render
from tagspeech.inference.linking import Voices
from tagspeech.inference.live_speakers import Identities
from tagspeech.inference.recognizer import Recognizer, Window
from tagspeech.inference.windows import (
    BEGINS,
    BLOCK,
    CONTINUES,
    PADDING,
    SAMPLING_RATE,
    detector,
)
from tagspeech.options import TranscribeOptions
from tagspeech.segments import Segment

log = logging.getLogger(__name__)

LINE_FORMATS = ("seglst", "rttm", "stm")  # formats that have one line for each segment
SECONDS = BLOCK / SAMPLING_RATE  # of a block


class Cutter:
    """Cuts a stream of blocks into windows.

    Args:
        sampling_rate: Samples per second of the stream.
        options: Resolved; of them `max_window`, `max_pause` and `vad` have an effect.

    Raises:
        InputError: `vad` is "none": a stream needs pauses at which it is cut.
    """

    def __init__(self, sampling_rate: int, options: TranscribeOptions) -> None:
        assert options.max_window is not None
        if options.vad == "none":
            raise InputError("--vad none: a stream is cut by voice activity; take silero or energy")
        self.probability = detector("energy" if options.vad == "energy" else "silero")
        self.rate = sampling_rate
        self.max_pause, self.longest = options.max_pause, options.max_window
        self.resample = Resample(sampling_rate, SAMPLING_RATE)
        self.kept: list[tuple[NDArray[np.float32], bool]] = []  # blocks since `begin`, speech
        self.begin = 0.0  # seconds
        self.speaking = False

    @property
    def block(self) -> int:
        """Samples of a block."""
        return round(SECONDS * self.rate)

    def add(self, block_T: NDArray[np.float32]) -> Iterator[tuple[Span, NDArray[np.float32]]]:
        """Takes the next block; yields the window that ends with it and its samples (T,)."""
        resampled_T = self.resample(block_T[None])[0][:BLOCK]
        resampled_T = np.pad(resampled_T, (0, BLOCK - len(resampled_T))).astype(np.float32)
        self.speaking = self.probability(resampled_T) >= (CONTINUES if self.speaking else BEGINS)
        self.kept.append((block_T, self.speaking))
        speech = [number for number, (_, is_speech) in enumerate(self.kept) if is_speech]
        padding = round(PADDING / SECONDS)
        if not speech:
            self._drop(max(0, len(self.kept) - padding))
        elif (len(self.kept) - 1 - speech[-1]) * SECONDS > self.max_pause:
            yield self._take(min(len(self.kept), speech[-1] + 1 + padding))
        elif (len(self.kept) + 1) * SECONDS > self.longest:
            yield self._take(self._quietest())

    def end(self) -> Iterator[tuple[Span, NDArray[np.float32]]]:
        """Yields what is left of the stream, if it contains speech."""
        if any(is_speech for _, is_speech in self.kept):
            yield self._take(len(self.kept))

    def _quietest(self) -> int:
        """The number of blocks of a full window: it is cut after the quietest of its last third."""
        power = [float(np.square(block_T).mean()) for block_T, _ in self.kept]
        around = np.convolve(power, np.ones(3), "same")[
            :-1
        ]  # a single block may be the closure of a stop
        first = 2 * len(around) // 3
        return first + int(np.argmin(around[first:])) + 1

    def _take(self, count: int) -> tuple[Span, NDArray[np.float32]]:
        samples_T = np.concatenate([block_T for block_T, _ in self.kept[:count]])
        span = Span(self.begin, self.begin + len(samples_T) / self.rate)
        self._drop(count)
        return span, samples_T

    def _drop(self, count: int) -> None:
        self.begin += sum(len(block_T) for block_T, _ in self.kept[:count]) / self.rate
        del self.kept[:count]


def follow(
    recognizer: Recognizer,
    session: str,
    blocks: Iterable[NDArray[np.float32]],
    cutter: Cutter,
    voices: Voices,
) -> Iterator[list[Segment]]:
    """The segments of each window as soon as it is decoded, in seconds from the start.

    Args:
        recognizer: Decodes the windows.
        session: The session of the segments.
        blocks: Samples (T,) of `cutter.block` samples each; only the last may be shorter.
        cutter: Cuts the stream into windows.
        voices: Who may speak.
    """
    identities = Identities(voices)

    def recognize(windows: Iterable[tuple[Span, NDArray[np.float32]]]) -> Iterator[list[Segment]]:
        for span, samples_T in windows:
            began = time.monotonic()
            audio = ArrayAudio(session, samples_T, cutter.rate, span.start)
            for result in recognizer.recognize([Window(audio, span)]):
                yield identities.name(result)
            log.info("%.1f-%.1f s: decoded in %.1f s", *span, time.monotonic() - began)

    for block_T in blocks:
        yield from recognize(cutter.add(block_T))
    yield from recognize(cutter.end())


def line_of(segment: Segment, name: str) -> str:
    """A segment as one line of `LINE_FORMATS`; of SegLST, an entry as JSON."""
    if name == "seglst":
        (entry,) = json.loads(render([segment], name))
        return json.dumps(entry, ensure_ascii=False)
    return render([segment], name).rstrip("\n")
