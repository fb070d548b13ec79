#!/usr/bin/env python3
"""Mixes recordings of single digits into conversations, the corpus of the recipe "digits".

Writes sessions and Lhotse manifests (see tagspeech.simulation.sessions). An utterance has two to
six digits of one person, each a separate recording:

    |-- 7_theo_12 --|  |-- 0_theo_31 --|    |- 3_theo_8 -|      "seven zero three"
                    pause                pause                  a word ends with its recording

The index of a recording decides its split; the hash of a string of three or more digits decides
that of the string. All splits have the same people.
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
REVISION = 1  # of the generated data; increase it to invalidate existing sessions

TEST_INDICES = range(5)  # the authors' division; they use all others for training
DEV_INDICES = range(5, 8)
GENDERS = dict.fromkeys(("george", "jackson", "lucas", "nicolas", "theo", "yweweler"), "M")

MAX_SPEAKERS = 3  # in a group
LENGTHS = (2, 6)  # digits in an utterance
FREE_LENGTH = 2  # digits in a string that may occur in every split
PAUSES = (0.03, 0.2)  # seconds between digits
FRAME = SAMPLING_RATE // 100  # samples for which loudness is measured
AUDIBLE_DB = 30.0  # below the loudest frame; quieter frames at both ends are trimmed
MARGIN = SAMPLING_RATE // 50  # quiet samples to keep at both ends
LONGEST_CLOSURE = 15  # quiet frames in a digit ("six") at most; noises after more are trimmed
FADE = SAMPLING_RATE // 200  # samples, less than a frame


@dataclass(frozen=True)
class Person:
    """A speaker of the dataset; `gender` as in its metadata.py, None if unknown."""

    name: str
    gender: str | None


@dataclass(frozen=True)
class DigitsCorpus:
    """Content of the corpus, a `tagspeech.simulation.sessions.Source`.

    Attributes:
        recordings: Folder of DIGIT_speaker_INDEX.wav.
        checksum: Checksum of these recordings.
        train_groups: Minimum number of groups.
        dev_groups: The same.
        test_groups: The same.
        seed: Seed of everything that is drawn.
    """

    recordings: Path
    checksum: str
    train_groups: int
    dev_groups: int
    test_groups: int
    seed: int

    def __post_init__(self) -> None:
        for split in filter(self.sessions, SPLITS):
            read_digits(self.recordings, split)  # raises errors before the work starts

    def sessions(self, split: str) -> int:
        """The number of recordings of `split`."""
        return -(-int(getattr(self, f"{split}_groups")) // GROUPS_PER_SESSION)

    def made_with(self, split: str) -> dict[str, Any]:
        """The parameters of a session, except for its split and number."""
        return {"revision": REVISION, "recordings": self.checksum, "seed": self.seed}

    def draw(self, split: str, index: int) -> SimulatedSession:
        """Draws session number `index` of `split`, with three or four people."""
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
    """Draws a string of digits of `split`; `takes` has the recordings (N,) of each digit, 0-9."""
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
    """The split of a string of digits; test and dev have 10 % each."""
    return {0: "test", 1: "dev"}.get(zlib.crc32(text.encode()) % 10, "train")


@functools.lru_cache(maxsize=len(SPLITS))
def read_digits(folder: Path, split: str) -> dict[Person, tuple[list[np.ndarray], ...]]:
    """Reads the recordings of `split` by person and digit, 0-9; see `read_recording`.

    Raises:
        InputError: There are fewer than three people, or a person lacks a digit.
    """
    found = []
    for path in folder.iterdir():
        match = NAME.fullmatch(path.name)
        if match:
            digit, speaker, index = int(match[1]), match[2], int(match[3])
            is_test, is_dev = index in TEST_INDICES, index in DEV_INDICES
            if split == ("test" if is_test else "dev" if is_dev else "train"):
                found.append((speaker, digit, index, path))
    recorded: dict[Person, tuple[list[np.ndarray], ...]] = {}
    for speaker, digit, _, path in sorted(found):
        person = Person(speaker, GENDERS.get(speaker))
        takes = recorded.setdefault(person, tuple([] for _ in DIGITS))
        takes[digit].append(read_recording(path))
    if len(recorded) < MAX_SPEAKERS:
        raise InputError(
            f"{folder}: {split} must have recordings of {MAX_SPEAKERS} or more people, got "
            f"{len(recorded)}"
        )
    for person, takes in recorded.items():
        for digit, recordings in enumerate(takes):
            if not recordings:
                raise InputError(f"{folder}: {split} has no {digit}_{person.name}_INDEX.wav")
    return recorded


def read_recording(path: Path) -> np.ndarray:
    """Reads a recording, trimmed and at SPEECH_LEVEL: (N,) float32 at 16 kHz.

    Raises:
        InputError: The recording cannot be read, is not mono, or is silent.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: cannot be read: {error.error_string}") from error
    if samples.ndim != 1:
        raise InputError(f"{path}: must have 1 channel, got {samples.shape[1]}")
    unit = math.gcd(SAMPLING_RATE, rate)
    samples = trim(resample_poly(samples, SAMPLING_RATE // unit, rate // unit))
    if not samples.any():
        raise InputError(f"{path}: is silent or shorter than 0.01 s; remove it")
    ramp = np.sin(np.linspace(0, np.pi / 2, FADE, dtype=np.float32)) ** 2
    samples[:FADE] *= ramp
    samples[-FADE:] *= ramp[::-1]
    return samples * (SPEECH_LEVEL / np.sqrt(np.mean(samples**2)))


def trim(samples: np.ndarray) -> np.ndarray:
    """The audible part around the loudest frame; empty if shorter than a frame."""
    power = np.square(samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)).mean(axis=1)
    if not len(power):
        return samples[:0]
    audible = np.flatnonzero(power >= power.max() * 10 ** (-AUDIBLE_DB / 10))
    pieces = np.split(audible, np.flatnonzero(np.diff(audible) > LONGEST_CLOSURE) + 1)
    spoken = next(piece for piece in pieces if power.argmax() in piece)
    return samples[max(0, spoken[0] * FRAME - MARGIN) : (spoken[-1] + 1) * FRAME + MARGIN].copy()


def main() -> int:
    """Returns 0, or 2 after an error that the user can mend."""
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
    """A whole number from 0; raises `InputError` for anything else."""
    if not text.isdecimal():
        raise InputError(f"{name} must be a whole number from 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
