"""Cuts a recording into windows that are short enough to decode, at pauses where possible.

    audio     ....speech speech......speech...speech speech speech speech speech.....
    regions       |-----------|      |----|   |-------------------------------|
    windows       |-----------|      |------------------------|
                                                           |------------------|
                                                           overlap

Shape suffix: T samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from tagspeech.audio.sources import Span
from tagspeech.errors import InputError
from tagspeech.ranges import check_overlap

SAMPLING_RATE = 16000  # of the audio in which speech is detected
BLOCK = 512  # samples of one decision, as silero-vad takes them
BEGINS, CONTINUES = 0.5, 0.35  # speech probabilities at which speech starts and continues
PADDING = 0.1  # seconds kept around speech; models learn from groups that start with a word
SHORTEST_PAUSE = 0.3  # seconds; shorter pauses stay inside a region
FLOOR_SECONDS = 20.0  # of the past from which the noise level is estimated
OVER_NOISE = 10.0  # decibels above the noise level that count as speech
QUIET = 1e-4  # root mean square of digital silence and of dither: never speech


def detector(kind: str) -> Callable[[NDArray[np.float32]], float]:
    """A function that gives the speech probability of each block of `BLOCK` samples, in order.

    Args:
        kind: "silero" for silero-vad; "energy" for 1 where a block is louder than the noise
            before it, else 0.

    Raises:
        InputError: There is no such kind.
    """
    if kind == "energy":
        return _Energy()
    if kind != "silero":
        raise InputError(f"vad: must be silero or energy, got {kind!r}")
    from silero_vad import load_silero_vad  # takes a second

    model = load_silero_vad()

    def probability(block_T: NDArray[np.float32]) -> float:
        with torch.inference_mode():
            return float(model(torch.from_numpy(block_T), SAMPLING_RATE))

    return probability


class _Energy:
    """An energy detector. The noise level is that of the quietest tenth of the last seconds.

    Silence is assumed before the first block, so that speech at the start is not taken for noise.
    """

    def __init__(self) -> None:
        blocks = round(FLOOR_SECONDS * SAMPLING_RATE / BLOCK)
        self.past = deque([QUIET] * blocks, maxlen=blocks)

    def __call__(self, block_T: NDArray[np.float32]) -> float:
        level = float(np.sqrt(np.square(block_T, dtype=np.float64).mean()))
        self.past.append(level)
        noise = max(QUIET, float(np.quantile(self.past, 0.1)))
        return float(level > noise * 10 ** (OVER_NOISE / 20))


def speech_regions(
    pieces: Iterable[NDArray[np.float32]], probability: Callable[[NDArray[np.float32]], float]
) -> Iterator[Span]:
    """Regions of speech, in order, separated by pauses longer than `SHORTEST_PAUSE`.

    Args:
        pieces: Consecutive samples (T,) at `SAMPLING_RATE`, of any lengths.
        probability: A function made by `detector`.
    """
    seconds = BLOCK / SAMPLING_RATE
    speaking, total = False, 0.0
    region: Span | None = None
    for number, block_T in enumerate(_blocks(pieces)):
        total = (number + 1) * seconds
        speaking = probability(block_T) >= (CONTINUES if speaking else BEGINS)
        if not speaking:
            continue
        start = max(0.0, number * seconds - PADDING)
        if region and start - region.end > SHORTEST_PAUSE:
            yield _rounded(region)
            region = None
        region = Span(region.start if region else start, total + PADDING)
    if region:
        yield _rounded(Span(region.start, min(region.end, total)))


def _rounded(span: Span) -> Span:
    return Span(round(span.start, 3), round(span.end, 3))


def _blocks(pieces: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    rest_T = np.zeros(0, dtype=np.float32)
    for piece_T in pieces:
        rest_T = np.concatenate([rest_T, piece_T])
        whole = len(rest_T) // BLOCK * BLOCK
        yield from rest_T[:whole].reshape(-1, BLOCK)
        rest_T = rest_T[whole:]
    if len(rest_T):
        yield np.pad(rest_T, (0, BLOCK - len(rest_T)))


def windows(
    regions: Iterable[Span], longest: float, overlap: float, max_pause: float
) -> Iterator[Span]:
    """Windows of at most `longest` seconds that cover all speech, in order.

    A window ends at a pause longer than `max_pause` seconds, or at the last pause before it would
    be too long. Windows overlap, by `overlap` seconds, only where speech has no pause.

    Args:
        regions: Disjoint regions of speech, in order.
        longest: Seconds.
        overlap: Seconds, at most half of `longest`.
        max_pause: Seconds.

    Raises:
        InputError: `overlap` is out of its range.
    """
    check_overlap(overlap, longest)
    window: Span | None = None
    for region in regions:
        if window and (
            region.start - window.end > max_pause or region.end - window.start > longest
        ):
            yield window
            window = None
        start = window.start if window else region.start
        while region.end - start > longest:
            yield Span(start, round(start + longest, 3))
            start = round(start + longest - overlap, 3)
        window = Span(start, region.end)
    if window:
        yield window
