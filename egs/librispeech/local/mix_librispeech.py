#!/usr/bin/env python3
"""Mixes utterances of LibriSpeech into conversations, the corpus of the recipe "librispeech".

    OUTPUT/pieces/audio.npy            all audio, decoded once: int16, 16 kHz
    OUTPUT/pieces/{split}.jsonl        pieces of it with the times of their words: cut_pieces.py
    OUTPUT/{train,dev,test,meetings}/  sessions: tagspeech.simulation.sessions
    OUTPUT/{split}_{recordings,supervisions}.jsonl.gz

What is complete and was made with the same options is kept.
"""

from __future__ import annotations

import argparse
import functools
import logging
import math
import sys
import zlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from cut_pieces import LENGTHS, Piece
from divide_librispeech import SPLITS
from make_pieces import PieceOptions, checksum, make_pieces, pieces_file, read_pieces
from scipy.signal import resample_poly

from tagspeech.errors import InputError
from tagspeech.ranges import Range
from tagspeech.simulation.conversation import (
    SAMPLING_RATE,
    SPEECH_LEVEL,
    GroupShape,
    Utterance,
)
from tagspeech.simulation.sessions import (
    GROUPS_PER_SESSION,
    SimulatedSession,
    draw_session,
    make_corpus,
)

CORPUS_SPLITS = (*SPLITS, "meetings")
REVISION = 1  # of the generated data; increase it to invalidate pieces and sessions
POOL = (3, 5)  # speakers in a session
MEETING_SECONDS = 300
FADE = SAMPLING_RATE // 200  # samples
SHORTEST_OVERLAP = 0.3  # seconds

COUNTS = ("train_groups", "dev_groups", "test_groups", "meetings", "seed")
WHOLE = Range(0, 10**9)
RANGES = {
    "max_speakers": Range(1, POOL[0] + 1),
    "max_group": Range(LENGTHS[1] / 0.5, 60),
    "overlap_share": Range(0, 1),
    "longest_overlap": Range(SHORTEST_OVERLAP, 10),
    "cuttings": Range(1, 100),
    "voice_share": Range(0, 1),
}


@dataclass(frozen=True)
class Person:
    """A speaker at a speed: another speed has another pitch, so it is another voice."""

    speaker: str
    gender: str | None
    speed: float

    @property
    def name(self) -> str:
        return self.speaker if self.speed == 1 else f"{self.speaker}-sp{self.speed:g}"


@dataclass(frozen=True)
class LibriSpeechCorpus:
    """Content of the corpus, a `tagspeech.simulation.sessions.Source`.

    Attributes:
        pieces: Folder of the pieces.
        train_groups: Minimum number of groups.
        dev_groups: The same.
        test_groups: The same.
        meetings: Number of whole meetings.
        seed: Seed of everything that is drawn.
        max_speakers: In a group.
        shape: Overlaps and length of groups.
        voice_share: Share of the speakers in a session of train whose texts Whisper wrote.
        speeds: Of the speakers of train.
    """

    pieces: Path
    train_groups: int
    dev_groups: int
    test_groups: int
    meetings: int
    seed: int
    max_speakers: int
    shape: GroupShape
    voice_share: float
    speeds: tuple[float, ...]

    def __post_init__(self) -> None:
        for split in SPLITS:
            count = len(read_pieces(pieces_file(self.pieces, split)))
            if self.sessions(split) and count < self.max_speakers:
                raise InputError(
                    f"{split} must have as many speakers as a group ({self.max_speakers}), got "
                    f"{count}; --max-speakers sets that"
                )

    def sessions(self, split: str) -> int:
        """The number of recordings of `split`."""
        if split == "meetings":
            return self.meetings
        return -(-int(getattr(self, f"{split}_groups")) // GROUPS_PER_SESSION)

    def made_with(self, split: str) -> dict[str, Any]:
        """The parameters of a session, except for its split and number."""
        varied = {"voice_share": self.voice_share, "speeds": [*self.speeds]}
        return {
            "revision": REVISION,
            "pieces": checksum(_pieces_file(self.pieces, split)),
            "seed": self.seed,
            "max_speakers": self.max_speakers,
            "overlap_share": self.shape.overlap_share,
            "overlaps": [*self.shape.overlaps],
            "max_seconds": self.shape.max_seconds,
            **(varied if split == "train" else {}),
        }

    def draw(self, split: str, index: int) -> SimulatedSession:
        """Draws session number `index` of `split`, with three to five speakers."""
        rng = np.random.default_rng([self.seed, zlib.crc32(split.encode()), index])
        pool = self._draw_pool(rng, split)
        audio = _open(self.pieces / "audio.npy")
        spoken = read_pieces(_pieces_file(self.pieces, split))
        queues: dict[Person, list[Piece]] = {}
        cuttings = {person: rng.random() for person in pool}

        def say(group: int, person: Person, is_first: bool) -> Utterance:
            queue = queues.setdefault(person, [])
            if not queue:
                known = spoken[person.speaker]
                cutting = int(cuttings[person] * (1 + max(piece.cutting for piece in known)))
                chosen = [piece for piece in known if piece.cutting == cutting] or known
                queue += [chosen[place] for place in rng.permutation(len(chosen))]
            return utter(person, queue.pop(), audio)

        shortest = MEETING_SECONDS * SAMPLING_RATE if split == "meetings" else 0
        return draw_session(rng, pool, self.max_speakers, say, shortest, self.shape)

    def _draw_pool(self, rng: np.random.Generator, split: str) -> list[Person]:
        """Draws the speakers of a session and, for train, their speeds."""
        spoken = read_pieces(_pieces_file(self.pieces, split))
        heard = [name for name, pieces in spoken.items() if pieces[0].transcript == "whisper"]
        read = [name for name in spoken if name not in set(heard)]
        count = min(len(spoken), max(self.max_speakers, int(rng.integers(POOL[0], POOL[1] + 1))))
        kinds = [[kind[i] for i in rng.permutation(len(kind))] for kind in (read, heard)]
        pool = []
        for _ in range(count):
            is_heard = bool(rng.random() < self.voice_share)
            names = kinds[is_heard] or kinds[not is_heard]
            speaker = names.pop()
            speed = float(rng.choice(self.speeds)) if split == "train" else 1.0
            pool.append(Person(speaker, spoken[speaker][0].gender, speed))
        return pool


def utter(person: Person, piece: Piece, audio: np.ndarray) -> Utterance:
    """The utterance that `person` makes of `piece`; `audio` (N,) int16 has it."""
    samples = audio[piece.start : piece.start + piece.samples].astype(np.float32)
    stretch = 1 / Fraction(person.speed).limit_denominator(100)
    if stretch != 1:
        samples = resample_poly(samples, stretch.numerator, stretch.denominator)
        samples = samples.astype(np.float32)
    ramp = np.sin(np.linspace(0, np.pi / 2, FADE, dtype=np.float32)) ** 2
    samples[:FADE] *= ramp
    samples[-FADE:] *= ramp[::-1]
    samples *= SPEECH_LEVEL / np.sqrt(np.mean(samples**2))
    words = tuple((w, s * float(stretch), e * float(stretch)) for w, s, e in piece.words)
    return Utterance(person, piece.text, samples, words)


def _pieces_file(folder: Path, split: str) -> Path:
    return pieces_file(folder, {"meetings": "test"}.get(split, split))


@functools.lru_cache(maxsize=1)
def _open(path: Path) -> np.ndarray:
    return np.asarray(np.load(path, mmap_mode="r"))


def main() -> int:
    """Returns 0, or 2 after an error that the user can mend."""
    parser = argparse.ArgumentParser(prog="mix_librispeech.py", description=__doc__.split("\n")[0])
    parser.add_argument("--corpus-dir", type=Path, required=True, help="a LibriSpeech folder")
    parser.add_argument("--words", type=Path, required=True, help="word times: align_words.py")
    parser.add_argument("--output", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--dev-speakers", required=True, help="separated by spaces")
    parser.add_argument("--test-speakers", required=True, help="separated by spaces")
    for name in (*COUNTS, *RANGES):
        parser.add_argument(f"--{name.replace('_', '-')}", required=True)
    parser.add_argument("--speeds", required=True, help="separated by spaces")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="mix_librispeech.py: %(message)s")
    try:
        mix(args)
    except InputError as error:
        print(f"mix_librispeech.py: {error}", file=sys.stderr)
        return 2
    return 0


def mix(args: argparse.Namespace) -> None:
    """Makes pieces and sessions.

    Raises:
        InputError: An option is out of its range, or the corpus is not of its format.
    """
    counts = {name: int(number(name, getattr(args, name), WHOLE)) for name in COUNTS}
    given = {name: number(name, getattr(args, name), limits) for name, limits in RANGES.items()}
    speeds = tuple(number("speeds", text, Range(0.5, 2)) for text in args.speeds.split())
    if not speeds:
        raise InputError("speeds must have a number, such as 1.0, got nothing")
    options = PieceOptions(
        args.corpus_dir,
        args.words,
        tuple(args.dev_speakers.split()),
        tuple(args.test_speakers.split()),
        int(given["cuttings"]),
        counts["seed"],
    )
    make_pieces(args.output / "pieces", options, args.jobs)
    overlaps = (SHORTEST_OVERLAP, given["longest_overlap"])
    corpus = LibriSpeechCorpus(
        pieces=args.output / "pieces",
        max_speakers=int(given["max_speakers"]),
        shape=GroupShape(given["overlap_share"], overlaps, given["max_group"]),
        voice_share=given["voice_share"],
        speeds=speeds,
        **counts,
    )
    make_corpus(args.output, corpus, CORPUS_SPLITS, jobs=args.jobs)


def number(name: str, text: str, limits: Range) -> float:
    """A number within `limits`; raises `InputError` for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    whole = name in (*COUNTS, "cuttings", "max_speakers")
    if value not in limits or (whole and value % 1):
        kind = "a whole number" if whole else "a number"
        raise InputError(f"{name} must be {kind} {limits}, got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
