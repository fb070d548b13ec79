"""Simulated utterances with exact word times, and their placement in groups.

group   |--- f3-04: so alice sent the report ---|      |-- f3-04: okay i'm in room two --|
                      |- m1-02: yeah -|   |--- m5-01: is it ready ---|
        ^ 0           back-channel inside  overlap     pause <= 0.8 s
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, TypeVar

import numpy as np
from scipy.signal import firwin, resample_poly

from tagspeech.simulation.espeak import ESPEAK_RATE, Espeak
from tagspeech.simulation.sentences import MIN_WORDS
from tagspeech.simulation.voices import Voice

SAMPLING_RATE = 16000
SPEECH_LEVEL = 0.05  # root mean square of an utterance (-26 dBFS)
AUDIBLE = 0.005  # of the peak; quieter samples at both ends are trimmed

_UNIT = math.gcd(ESPEAK_RATE, SAMPLING_RATE)  # multiples of it are cheap to resample

MAX_GROUP_SECONDS = 12.0
SPEAKERS_WEIGHTS = (0.3, 0.4, 0.3)  # of groups with one, two, three or more speakers
SEGMENTS_WEIGHTS = (0.35, 0.25, 0.2, 0.1, 0.1)  # of one, two, ... segments
ATTEMPTS = 100  # to draw a group that is short enough, before it gets fewer segments
BACKCHANNEL_SHARE = 0.2
OVERLAP_SHARE = 0.65  # of speaker changes
OVERLAPS = (0.3, 1.5)  # seconds
PAUSES = (0.05, 0.8)  # seconds
SAME_SPEAKER_PAUSE = 0.2  # seconds, minimum between utterances of one speaker


class Speaker(Protocol):
    """A speaker, hashable: a `Voice`, or a person in recordings."""

    @property
    def name(self) -> str:
        """Unique in the corpus."""

    @property
    def gender(self) -> str | None:
        """F or M; None if unknown."""


SomeSpeaker = TypeVar("SomeSpeaker", bound=Speaker)


@dataclass(frozen=True)
class Utterance:
    """One text spoken by one speaker.

    Attributes:
        voice: The speaker.
        text: Words separated by spaces.
        samples: (N,) float32 at 16 kHz, from the first to the last audible sample, at SPEECH_LEVEL.
        words: (word, start, end) in seconds from the first sample.
    """

    voice: Speaker
    text: str
    samples: np.ndarray
    words: tuple[tuple[str, float, float], ...]

    @property
    def is_backchannel(self) -> bool:
        return len(self.words) < MIN_WORDS


@dataclass(frozen=True)
class Placed:
    """An utterance and where it starts and ends, in samples."""

    start: int
    utterance: Utterance

    @property
    def end(self) -> int:
        return self.start + len(self.utterance.samples)


@dataclass(frozen=True)
class GroupShape:
    """How the utterances of a group lie.

    Attributes:
        overlap_share: Share of speaker changes that overlap; pauses are at most 0.8 s.
        overlaps: Shortest and longest overlap, in seconds.
        max_seconds: Longest group.
    """

    overlap_share: float = OVERLAP_SHARE
    overlaps: tuple[float, float] = OVERLAPS
    max_seconds: float = MAX_GROUP_SECONDS


DEFAULT_SHAPE = GroupShape()


def utter(espeak: Espeak, voice: Voice, text: str) -> Utterance:
    """Synthesizes `text`, resamples it, trims silence and normalizes the level."""
    samples, events = espeak.speak(
        text, voice.espeak, rate=voice.rate, pitch=voice.pitch, pitch_range=voice.pitch_range
    )
    ratio = Fraction(SAMPLING_RATE, round(ESPEAK_RATE * voice.resampling / _UNIT) * _UNIT)
    up, down = ratio.as_integer_ratio()
    samples = resample_poly(samples, up, down, window=_low_pass(max(up, down)))
    audible = np.flatnonzero(np.abs(samples) > AUDIBLE * np.abs(samples).max())
    first, last = audible[0], audible[-1]
    samples = samples[first : last + 1]
    samples *= SPEECH_LEVEL / np.sqrt(np.mean(samples**2))
    speed = SAMPLING_RATE / (ESPEAK_RATE * float(ratio))
    events = [(index, time / speed - first / SAMPLING_RATE) for index, time in events]
    return Utterance(voice, text, samples, _word_times(text, events, len(samples) / SAMPLING_RATE))


@functools.lru_cache(maxsize=256)
def _low_pass(length: int) -> np.ndarray:
    """The filter that `resample_poly` would otherwise design at every call."""
    return firwin(20 * length + 1, 1 / length, window=("kaiser", 5.0)).astype(np.float32)


def _word_times(
    text: str, events: Sequence[tuple[int, float]], duration: float
) -> tuple[tuple[str, float, float], ...]:
    """Word times from (character, second) events, interpolated by characters between events."""
    characters = [0] + [index for index, _ in events if index > 0] + [len(text) + 1]
    seconds = [0.0] + [time for index, time in events if index > 0] + [duration]
    words = text.split()
    starts = np.cumsum([0] + [len(word) + 1 for word in words])
    times = np.interp(starts, characters, np.clip(seconds, 0, duration))
    spans = zip(words, times[:-1], times[1:], strict=True)
    return tuple((word, float(start), float(end)) for word, start, end in spans)


def draw_group(
    rng: np.random.Generator,
    pool: Sequence[SomeSpeaker],
    max_speakers: int,
    say: Callable[[SomeSpeaker, bool], Utterance],
    shape: GroupShape = DEFAULT_SHAPE,
) -> list[Placed]:
    """Draws an utterance group, sorted by start; the first utterance starts at 0.

    Args:
        rng: Generator for speakers, order and times.
        pool: Speakers to choose from.
        max_speakers: Maximum number of speakers. Groups have up to five segments, or one each.
        say: Draws an utterance of a speaker; the second argument is whether it is the first.
        shape: Overlaps and the maximum length, 12 s by default.

    Raises:
        ValueError: Single utterances are too long.
    """
    weights = np.array(SPEAKERS_WEIGHTS[:max_speakers])
    count = 1 + int(rng.choice(len(weights), p=weights / weights.sum()))
    if count == len(SPEAKERS_WEIGHTS):
        count = int(rng.integers(count, max_speakers + 1))
    rest = np.array(SEGMENTS_WEIGHTS[: len(SEGMENTS_WEIGHTS) - count + 1] or (1.0,))
    extra = int(rng.choice(len(rest), p=rest / rest.sum()))
    for attempt in itertools.count(1):
        if attempt % ATTEMPTS == 0:  # the speakers drawn may have long utterances only
            extra, count = max(0, extra - 1), count if extra else max(1, count - 1)
        speakers = rng.permutation(len(pool))[:count]
        turns = rng.permutation(np.concatenate([speakers, rng.choice(speakers, extra)]))
        placed: list[Placed] = []
        for turn in turns:
            utterance = say(pool[turn], not placed)
            placed.append(Placed(draw_start(rng, placed, utterance, shape), utterance))
        if max(item.end for item in placed) <= shape.max_seconds * SAMPLING_RATE:
            return sorted(placed, key=lambda item: item.start)
        if len(placed) == 1 and attempt > 9 * ATTEMPTS:
            raise ValueError(f"no utterance is shorter than {shape.max_seconds} s")
    raise AssertionError


def draw_start(
    rng: np.random.Generator,
    placed: Sequence[Placed],
    utterance: Utterance,
    shape: GroupShape = DEFAULT_SHAPE,
) -> int:
    """Draws the start of `utterance` in samples: during the last one in `placed`, if that is of
    another speaker and with the probability `shape.overlap_share`, or after a pause."""
    if not placed:
        return 0
    last = max(placed, key=lambda item: item.end)
    same_speaker_end = max(
        (i.end for i in placed if i.utterance.voice == utterance.voice), default=-math.inf
    )
    overlap, pause = (rng.uniform(*limits) * SAMPLING_RATE for limits in (shape.overlaps, PAUSES))
    place, is_overlap = rng.random(), rng.random() < shape.overlap_share
    margin = shape.overlaps[0] * SAMPLING_RATE
    room = last.end - last.start - 2 * margin - len(utterance.samples)
    if last.utterance.voice == utterance.voice or not is_overlap:
        start = last.end + pause
    elif utterance.is_backchannel and room > 0:
        start = last.start + margin + place * room
    else:
        start = max(last.end - overlap, last.start + margin)
    return math.ceil(max(start, same_speaker_end + SAME_SPEAKER_PAUSE * SAMPLING_RATE))
