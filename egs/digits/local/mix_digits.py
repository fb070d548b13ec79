#!/usr/bin/env python3
"""Mixes recordings of single digits into conversations: the corpus of the recipe "digits".

Writes sessions and Lhotse manifests, see tagspeech.simulation.sessions. An utterance is two to six
digits of one person, each a recording of its own:

    |-- 7_theo_12 --|  |-- 0_theo_31 --|    |- 3_theo_8 -|      "seven zero three"
                    pause                pause                  a word ends with its recording

A recording is heard in one split only, by its index; so is a string of three digits or more, by its
hash. The people are the same in all splits.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from scipy.signal import resample_poly
from unpack_digits import NAME, checksum_of, read_source

from tagspeech.errors import InputError
from tagspeech.simulation.conversation import SAMPLING_RATE, SPEECH_LEVEL, Utterance
from tagspeech.simulation.sentences import DIGITS
from tagspeech.simulation.sessions import (
    GROUPS_PER_SESSION,
    SimulatedSession,
    draw_session,
    make_corpus,
)

SPLITS = ("train", "dev", "test")
COUNTS = ("train_groups", "dev_groups", "test_groups", "seed")
REVISION = 1  # of what is made, here and in tagspeech.data: a change makes old sessions stale

TEST_INDICES = range(5)  # as the dataset's authors divide it; they leave the rest to training
DEV_INDICES = range(5, 8)
GENDERS = dict.fromkeys(("george", "jackson", "lucas", "nicolas", "theo", "yweweler"), "M")

MAX_SPEAKERS = 3  # in a group
LENGTHS = (2, 6)  # digits of an utterance
FREE_LENGTH = 2  # digits of a string that may be heard in every split
PAUSES = (0.03, 0.2)  # seconds between digits
FRAME = SAMPLING_RATE // 100  # samples over which loudness is measured
AUDIBLE_DB = 30.0  # below the loudest frame: what is quieter at either end is trimmed ...
MARGIN = SAMPLING_RATE // 50  # ... but for so many samples
LONGEST_CLOSURE = 15  # quiet frames inside a digit ("six"); beyond more of them lie stray noises
FADE = SAMPLING_RATE // 200  # samples, less than a frame


@dataclass(frozen=True)
class Person:
    """A speaker of the dataset; `gender` as its metadata.py says, None for one it does not know."""

    name: str
    gender: str | None


@dataclass(frozen=True)
class DigitsCorpus:
    """What is mixed, a `tagspeech.simulation.sessions.Source`. Numbers of groups are least numbers.

    recordings  folder of DIGIT_speaker_INDEX.wav
    checksum    of these recordings
    """

    recordings: Path
    checksum: str
    train_groups: int
    dev_groups: int
    test_groups: int
    seed: int

    def __post_init__(self) -> None:
        for split in filter(self.sessions, SPLITS):
            read_digits(self.recordings, split)  # what is wrong with them is said before the work

    def sessions(self, split: str) -> int:
        """How many recordings `split` has."""
        return -(-int(getattr(self, f"{split}_groups")) // GROUPS_PER_SESSION)

    def made_with(self, split: str) -> dict[str, Any]:
        """All that the content of one session depends on, but for its split and number."""
        return {"revision": REVISION, "recordings": self.checksum, "seed": self.seed}

    def draw(self, split: str, index: int) -> SimulatedSession:
        """Session number `index` of `split`, of three or four people."""
        rng = np.random.default_rng([self.seed, zlib.crc32(split.encode()), index])
        recorded = read_digits(self.recordings, split)
        order = rng.permutation(len(recorded))[: int(rng.integers(3, 5))]
        pool = [list(recorded)[place] for place in order]

        def say(group: int, person: Person, is_first: bool) -> Utterance:
            return draw_utterance(rng, person, split, recorded[person])

        return draw_session(rng, pool, MAX_SPEAKERS, say)


def draw_utterance(
    rng: np.random.Generator, person: Person, split: str, takes: Sequence[Sequence[np.ndarray]]
) -> Utterance:
    """A random string of digits that `split` may have; `takes` are recordings (N,) of each digit,
    0 to 9."""
    count = rng.integers(LENGTHS[0], LENGTHS[1] + 1)
    while True:
        digits = rng.integers(len(DIGITS), size=count)
        text = " ".join(DIGITS[digit] for digit in digits)
        if count <= FREE_LENGTH or split_of(text) == split:
            break
    parts: list[np.ndarray] = []
    words = []
    end = 0
    for digit in digits:
        if parts:
            parts.append(np.zeros(round(rng.uniform(*PAUSES) * SAMPLING_RATE), np.float32))
            end += len(parts[-1])
        parts.append(takes[digit][int(rng.integers(len(takes[digit])))])
        start, end = end, end + len(parts[-1])
        words.append((DIGITS[digit], start / SAMPLING_RATE, end / SAMPLING_RATE))
    return Utterance(person, text, np.concatenate(parts), tuple(words))


def split_of(text: str) -> str:
    """The split in which a string of digits may be heard: test and dev have one of ten each."""
    return {0: "test", 1: "dev"}.get(zlib.crc32(text.encode()) % 10, "train")


@functools.lru_cache(maxsize=len(SPLITS))
def read_digits(folder: Path, split: str) -> dict[Person, tuple[list[np.ndarray], ...]]:
    """The recordings of `split` of each person and digit, 0 to 9, as `read_recording` gives them.

    Raises `InputError` where there are fewer than three people, or a digit of one is missing.
    """
    found = []
    for path in folder.iterdir():
        match = NAME.fullmatch(path.name)
        if match:
            digit, speaker, index = int(match[1]), match[2], int(match[3])
            own = "test" if index in TEST_INDICES else "dev" if index in DEV_INDICES else "train"
            if own == split:
                found.append((speaker, digit, index, path))
    recorded: dict[Person, tuple[list[np.ndarray], ...]] = {}
    for speaker, digit, _, path in sorted(found):
        person = Person(speaker, GENDERS.get(speaker))
        takes = recorded.setdefault(person, tuple([] for _ in DIGITS))
        takes[digit].append(read_recording(path))
    if len(recorded) < MAX_SPEAKERS:
        raise InputError(
            f"{folder}: {split} has recordings of {len(recorded)} people, wants {MAX_SPEAKERS} or "
            "more"
        )
    for person, takes in recorded.items():
        for digit, own_takes in enumerate(takes):
            if not own_takes:
                raise InputError(f"{folder}: {split} has no {digit}_{person.name}_INDEX.wav")
    return recorded


def read_recording(path: Path) -> np.ndarray:
    """Samples (N,) float32 of one recording at 16 kHz, trimmed, at SPEECH_LEVEL.

    Raises `InputError` when it is no audio, not mono, or silent.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: cannot be read: {error.error_string}") from error
    if samples.ndim != 1:
        raise InputError(f"{path}: has {samples.shape[1]} channels, wants 1")
    unit = math.gcd(SAMPLING_RATE, rate)
    samples = trim(resample_poly(samples, SAMPLING_RATE // unit, rate // unit))
    if not samples.any():
        raise InputError(f"{path}: is silent or shorter than 0.01 s; remove it")
    ramp = np.sin(np.linspace(0, np.pi / 2, FADE, dtype=np.float32)) ** 2
    samples[:FADE] *= ramp
    samples[-FADE:] *= ramp[::-1]
    return samples * (SPEECH_LEVEL / np.sqrt(np.mean(samples**2)))


def trim(samples: np.ndarray) -> np.ndarray:
    """The audible part around the loudest frame; nothing of what is shorter than a frame."""
    power = np.square(samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)).mean(axis=1)
    if not len(power):
        return samples[:0]
    audible = np.flatnonzero(power >= power.max() * 10 ** (-AUDIBLE_DB / 10))
    pieces = np.split(audible, np.flatnonzero(np.diff(audible) > LONGEST_CLOSURE) + 1)
    spoken = next(piece for piece in pieces if power.argmax() in piece)
    return samples[max(0, spoken[0] * FRAME - MARGIN) : (spoken[-1] + 1) * FRAME + MARGIN].copy()


def main() -> int:
    """Returns 0; 2 for what the user can mend, said in one line on stderr."""
    parser = argparse.ArgumentParser(prog="mix_digits.py", description=__doc__.split("\n")[0])
    parser.add_argument("--recordings", type=Path, required=True, help="DIGIT_speaker_INDEX.wav")
    parser.add_argument("--output", type=Path, required=True, help="folder of the corpus")
    for name in COUNTS:
        parser.add_argument(f"--{name.replace('_', '-')}", required=True)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    try:
        corpus = DigitsCorpus(
            recordings=args.recordings,
            checksum=checksum_of(read_source(args.recordings)),
            **{name: count(name, getattr(args, name)) for name in COUNTS},
        )
        make_corpus(args.output, corpus, SPLITS, jobs=args.jobs)
    except InputError as error:
        print(f"mix_digits.py: {error}", file=sys.stderr)
        return 2
    return 0


def count(name: str, text: str) -> int:
    """Raises `InputError` for what is no whole number from 0."""
    if not text.isdecimal():
        raise InputError(f"{name} wants a whole number from 0, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
