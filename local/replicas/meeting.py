"""Simulated meetings of a few people, with the known faults of published corpora.

alice  |--- so let's ... ---|-- is it ready --|             |--- okay we ...
bob             |- yeah -|                 |--- no it ... ---|
                back-channel   sentences of    overlap    pause (or seconds of silence)
                               one turn adjoin
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tagspeech.files import atomic_path
from tagspeech.simulation.conversation import (
    BACKCHANNEL_SHARE,
    SAMPLING_RATE,
    Placed,
    Utterance,
    draw_start,
)
from tagspeech.simulation.espeak import Espeak
from tagspeech.simulation.sessions import EDGES
from tagspeech.simulation.simulate import draw_pool
from tagspeech.simulation.voices import Voice, voices

REVISION = 1  # of the generated data; increase it to invalidate existing replicas
PEOPLE = 4
SENTENCES_WEIGHTS = (0.5, 0.3, 0.2)  # probability of turns with one, two, three sentences
SILENCE_SHARE = 0.2  # share of turns that start after silence
SILENCES = (1.0, 4.0)  # seconds
RECENT = 8  # number of latest utterances that the next one may overlap
SELF_OVERLAP = 0.1  # seconds
MISSING = 16000  # samples that a broken file lacks according to its header

Fault = Literal[
    "",
    "past-end",  # the last segments begin after the end of the audio
    "short-audio",  # the audio ends within the last segment
    "sample-count",  # files contradict their headers or each other
    "empty-segment",  # segments without words
    "own-overlap",  # a speaker starts a sentence before the end of their previous one
    "one-speaker",
]

Say = Callable[[Voice, bool], Utterance]


@dataclass(frozen=True)
class Plan:
    """Description of one meeting.

    Attributes:
        name: Id of the recording. Meetings that share the first six characters share people.
        split: "train", "dev" or "test"; decides voices and sentences.
        fault: Known fault of the meeting; empty for none.
    """

    name: str
    split: str
    fault: Fault = ""


@dataclass(frozen=True)
class SimulatedMeeting:
    """A meeting before it is recorded.

    Attributes:
        plan: Its description.
        people: All who may speak.
        placed: Utterances sorted by start; they may extend past the end of the audio.
        length: Number of samples of the audio.
        rng: Generator for the acoustics.
    """

    plan: Plan
    people: Sequence[Voice]
    placed: Sequence[Placed]
    length: int
    rng: np.random.Generator


def draw_meeting(
    plan: Plan,
    minutes: float,
    seed: int,
    language: Callable[[Espeak, np.random.Generator, str], Say],
) -> SimulatedMeeting:
    """Draws the meeting of `plan`, the same at every call.

    Args:
        plan: Description of the meeting.
        minutes: Minimum duration.
        seed: Seed of everything that is drawn.
        language: Takes synthesizer, generator and split; returns a function that draws an
            utterance of a voice, a back-channel if its second argument is true.
    """
    people_rng = np.random.default_rng([seed, zlib.crc32(plan.name[:6].encode())])
    people = draw_pool(people_rng, voices(plan.split), PEOPLE)
    if plan.fault == "one-speaker":
        people = people[:1]
    rng = np.random.default_rng([seed, zlib.crc32(plan.name.encode())])
    with Espeak() as espeak:
        placed = draw_talk(rng, people, minutes * 60, language(espeak, rng, plan.split))
    if plan.fault == "own-overlap":
        placed = add_self_overlap(placed)
    end = max(item.end for item in placed)
    length = end + math.ceil(rng.uniform(*EDGES) * SAMPLING_RATE)
    if plan.fault == "past-end":
        length = placed[-1].start - SAMPLING_RATE // 5
    elif plan.fault == "short-audio":
        length = (placed[-1].start + placed[-1].end) // 2
    return SimulatedMeeting(plan, people, placed, length, rng)


def draw_talk(
    rng: np.random.Generator, people: Sequence[Voice], seconds: float, say: Say
) -> list[Placed]:
    """Draws turns of `people` until `seconds` are reached; returns utterances sorted by start.

    Everybody speaks at least once. The first turn has the maximum number of sentences.
    """
    placed: list[Placed] = []
    turn, end = 0, math.ceil(rng.uniform(*EDGES) * SAMPLING_RATE)
    last: Voice | None = None
    while turn < len(people) or end < seconds * SAMPLING_RATE:
        others = [voice for voice in people if voice != last] or people
        voice = people[turn] if turn < len(people) else others[int(rng.integers(len(others)))]
        is_backchannel = turn > 0 and bool(rng.random() < BACKCHANNEL_SHARE)
        sentences = 1 + int(rng.choice(len(SENTENCES_WEIGHTS), p=SENTENCES_WEIGHTS))
        sentences = sentences if turn else len(SENTENCES_WEIGHTS)
        utterance = say(voice, is_backchannel)
        start = draw_start(rng, placed[-RECENT:], utterance) if placed else end
        if rng.random() < SILENCE_SHARE:
            start = max(start, end + math.ceil(rng.uniform(*SILENCES) * SAMPLING_RATE))
        placed.append(Placed(start, utterance))
        for _ in range(0 if is_backchannel else sentences - 1):
            placed.append(Placed(placed[-1].end, say(voice, False)))
        end = max(item.end for item in placed[-RECENT:])
        turn, last = turn + 1, voice
    return sorted(placed, key=lambda item: item.start)


def add_self_overlap(placed: Sequence[Placed]) -> list[Placed]:
    """Moves one sentence of a turn into its predecessor, by at most half of either word there, so
    that the order of words stays clear."""

    def shortest(first: Placed, second: Placed) -> float:
        (_, start, end), (_, begin, stop) = first.utterance.words[-1], second.utterance.words[0]
        return min(end - start, stop - begin)

    pairs = [
        (first, second)
        for first in placed
        for second in placed
        if second.start == first.end and second.utterance.voice == first.utterance.voice
    ]
    first, second = max(pairs, key=lambda pair: shortest(*pair))
    shift = int(min(SELF_OVERLAP, shortest(first, second) / 2) * SAMPLING_RATE)
    moved = Placed(second.start - shift, second.utterance)
    others = [item for item in placed if item is not second]
    return sorted([*others, moved], key=lambda item: item.start)


def person_number(voice: Voice) -> int:
    """The number of a voice among those of train, dev and test, from 1."""
    names = [other.name for split in ("train", "dev", "test") for other in voices(split)]
    return names.index(voice.name) + 1


def overstate_length(path: Path) -> None:
    """Adds `MISSING` samples to the length in a WAV header, as in a partial download."""
    data = bytearray(path.read_bytes())
    (block,) = struct.unpack_from("<H", data, 32)  # bytes per sample of all channels
    for offset in (4, 40):  # sizes of the file and of its samples
        (size,) = struct.unpack_from("<I", data, offset)
        struct.pack_into("<I", data, offset, size + MISSING * block)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
