"""Long-form talk of a few people, and the faults that published corpora have.

alice  |--- so let's ... ---|-- is it ready --|             |--- okay we ...
bob             |- yeah -|                 |--- no it ... ---|
                back-channel   sentences of    overlap    pause (or silence of some seconds)
                               one turn touch
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

REVISION = 1  # of what is generated: a change here makes old replicas stale
PEOPLE = 4
SENTENCES_WEIGHTS = (0.5, 0.3, 0.2)  # of turns of one, two, three sentences
SILENCE_SHARE = 0.2  # of the turns
SILENCES = (1.0, 4.0)  # seconds
RECENT = 8  # utterances that may still be heard when the next begins
OWN_OVERLAP = 0.1  # seconds
PROMISED = 16000  # samples that the header of a broken file promises beyond those that follow

Fault = Literal[
    "",
    "past-end",  # the last segments begin after the end of the audio
    "short-audio",  # the audio ends within the last segment
    "sample-count",  # files hold other numbers of samples than they or each other say
    "empty-segment",  # segments without a word
    "own-overlap",  # a speaker begins a sentence before he has ended the one before
    "one-speaker",
]

Say = Callable[[Voice, bool], Utterance]


@dataclass(frozen=True)
class Plan:
    """What one meeting is.

    name   of the recording; meetings whose names have the first six characters in common have
           people in common
    split  whose voices and sentences it has: train, dev or test
    """

    name: str
    split: str
    fault: Fault = ""


@dataclass(frozen=True)
class SimulatedMeeting:
    """A meeting before it is recorded.

    people  whoever may speak in it
    placed  their utterances, by start; the audio may end before
    length  samples of the audio
    rng     what acoustics are drawn with
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
    """The meeting of `plan`, the same at every call. `language` makes what draws an utterance of a
    voice, and is told whether a back-channel is wanted, from synthesizer and split."""
    people_rng = np.random.default_rng([seed, zlib.crc32(plan.name[:6].encode())])
    people = draw_pool(people_rng, voices(plan.split), PEOPLE)
    if plan.fault == "one-speaker":
        people = people[:1]
    rng = np.random.default_rng([seed, zlib.crc32(plan.name.encode())])
    with Espeak() as espeak:
        placed = draw_talk(rng, people, minutes * 60, language(espeak, rng, plan.split))
    if plan.fault == "own-overlap":
        placed = overlap_oneself(placed)
    ends = max(item.end for item in placed)
    length = ends + math.ceil(rng.uniform(*EDGES) * SAMPLING_RATE)
    if plan.fault == "past-end":
        length = placed[-1].start - SAMPLING_RATE // 5
    elif plan.fault == "short-audio":
        length = (placed[-1].start + placed[-1].end) // 2
    return SimulatedMeeting(plan, people, placed, length, rng)


def draw_talk(
    rng: np.random.Generator, people: Sequence[Voice], seconds: float, say: Say
) -> list[Placed]:
    """Turns of `people`, sorted by start, until `seconds` are over; everybody has one, the
    first of several sentences."""
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


def overlap_oneself(placed: Sequence[Placed]) -> list[Placed]:
    """Moves one sentence into the one before it, of the same turn: less than the words that meet,
    so that it stays clear which word belongs to which."""

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
    shift = int(min(OWN_OVERLAP, shortest(first, second) / 2) * SAMPLING_RATE)
    moved = Placed(second.start - shift, second.utterance)
    others = [item for item in placed if item is not second]
    return sorted([*others, moved], key=lambda item: item.start)


def person_number(voice: Voice) -> int:
    """A number from 1 on, one for each voice of train, dev and test."""
    names = [one.name for split in ("train", "dev", "test") for one in voices(split)]
    return names.index(voice.name) + 1


def promise_more(path: Path) -> None:
    """Makes the header of a WAV file promise `PROMISED` samples more than follow, as after a
    download that broke off."""
    data = bytearray(path.read_bytes())
    (block,) = struct.unpack_from("<H", data, 32)  # bytes of a sample of all channels
    for place in (4, 40):  # lengths of the file and of its samples
        (size,) = struct.unpack_from("<I", data, place)
        struct.pack_into("<I", data, place, size + PROMISED * block)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
