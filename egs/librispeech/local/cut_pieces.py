"""Cuts utterances of LibriSpeech at pauses, into pieces of 1-7 s with the times of their words.

    word times   |  he   |hoped   |there|    would    |  be   |   each ends where the next starts
    sound          ####   #######  ####               ######  ###
    pause                              |==============|           around a single boundary
    piece         |----------------------|          |------------|   0.03 s more than the sound

A pause is a silence that contains exactly one boundary between words, give or take what Whisper's
times are wrong by. The words beside a pause end and start with their sound. A piece is a run of
phrases: what lies between two pauses.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from read_librispeech import RATE, Recorded, frames_of

log = logging.getLogger(__name__)

FRAME = RATE // 100  # samples for which loudness is measured
QUIET_SHARE = 0.3  # of the range, in dB, from the background to loud speech
LEAST_BELOW = 20.0  # dB that silence is below loud speech
SHORTEST_PAUSE = 0.15  # seconds
LONGEST_BREATH = 0.5  # seconds of sound within a pause
TOLERANCE = 0.12  # seconds that a word boundary may lie outside its pause
SHORTEST_WORD = 0.04  # seconds left of a word beside a pause
MARGIN = 0.03  # seconds kept around the sound
LENGTHS = (1.0, 7.0)  # seconds of a piece

Times = list[tuple[str, float, float]]


@dataclass(frozen=True)
class Piece:
    """A part of an utterance.

    Attributes:
        recorded: ID of the utterance.
        speaker: Its speaker.
        gender: F or M; None if unknown.
        transcript: Who wrote the text: `reference`, or `whisper`, which is no reference.
        cutting: The cutting that the piece belongs to; pieces of one do not overlap.
        start: First sample, in the array of all audio.
        samples: Number of samples.
        words: (word, start, end) in seconds from the first sample.
    """

    recorded: str
    speaker: str
    gender: str | None
    transcript: str
    cutting: int
    start: int
    samples: int
    words: Times

    @property
    def text(self) -> str:
        return " ".join(word for word, _, _ in self.words)


class Phrase(NamedTuple):
    """Words between two pauses, and where they start and end, in seconds; no words: unusable."""

    words: Times
    start: float
    end: float


class Task(NamedTuple):
    """Utterances to decode and cut: with their word times and first sample in the array."""

    audio: Path
    rows: list[tuple[Recorded, Times, int]]
    cuttings: int
    seed: int


def cut_all(
    rows: Sequence[tuple[Recorded, Times]],
    audio: Path,
    *,
    cuttings: Callable[[Recorded], int],
    seed: int,
    jobs: int,
) -> list[Piece]:
    """Decodes utterances into the array `audio`, and cuts them.

    Args:
        rows: Utterances with their word times.
        audio: File to write: int16 samples of all utterances, one after the other (NumPy's format).
        cuttings: How many times an utterance is cut, each time at other pauses.
        seed: Seed of the lengths.
        jobs: Number of processes.

    Returns:
        All pieces, in the order of `rows`.
    """
    offset, tasks = 0, []
    placed = []
    for recorded, words in rows:
        placed.append((recorded, words, offset))
        offset += frames_of(recorded.path)
    np.lib.format.open_memmap(audio, mode="w+", dtype=np.int16, shape=(offset,)).flush()
    for first in range(0, len(placed), 100):
        for count in sorted({cuttings(row[0]) for row in placed[first : first + 100]}):
            chosen = [row for row in placed[first : first + 100] if cuttings(row[0]) == count]
            tasks.append(Task(audio, chosen, count, seed))
    if jobs <= 1:
        done = [cut_task(task) for task in tasks]
    else:
        with ProcessPoolExecutor(jobs) as pool:
            done = list(pool.map(cut_task, tasks))
    pieces = [piece for found, _, _ in done for piece in found]
    kept = sum(seconds for _, seconds, _ in done) / 3600
    spoken = sum(seconds for _, _, seconds in done) / 3600
    log.info(
        "%d utterances, %.2f h of speech, give %d pieces of %g-%g s; %.2f h of it are left out: "
        "phrases too long without a pause, too short, or with words outside the sound",
        len(rows),
        spoken,
        sum(piece.cutting == 0 for piece in pieces),
        *LENGTHS,
        spoken - kept,
    )
    return sorted(pieces, key=lambda piece: (piece.start, piece.cutting))


def cut_task(task: Task) -> tuple[list[Piece], float, float]:
    """Decodes and cuts; returns the pieces, the seconds that the first cutting keeps, and those of
    all phrases."""
    array = np.lib.format.open_memmap(task.audio, mode="r+")
    pieces: list[Piece] = []
    kept = spoken = 0.0
    for recorded, words, offset in task.rows:
        samples, _ = soundfile.read(recorded.path, dtype="int16")
        array[offset : offset + len(samples)] = samples
        phrases = phrases_of(samples, words)
        spoken += sum(phrase.end - phrase.start for phrase in phrases)
        for cutting in range(task.cuttings):
            key = [task.seed, zlib.crc32(recorded.id.encode()), cutting]
            for run in draw_runs(np.random.default_rng(key), phrases):
                kept += 0 if cutting else sum(phrase.end - phrase.start for phrase in run)
                pieces.append(_piece(recorded, run, offset, cutting))
    return pieces, kept, spoken


def _piece(recorded: Recorded, run: Sequence[Phrase], offset: int, cutting: int) -> Piece:
    start, end = (round(time * RATE) for time in (run[0].start, run[-1].end))
    words = [
        (word, round(a - start / RATE, 4), round(min(b, end / RATE) - start / RATE, 4))
        for phrase in run
        for word, a, b in phrase.words
    ]
    return Piece(
        recorded.id,
        recorded.speaker,
        recorded.gender,
        "whisper" if recorded.text is None else "reference",
        cutting,
        offset + start,
        end - start,
        words,
    )


def draw_runs(rng: np.random.Generator, phrases: Sequence[Phrase]) -> list[list[Phrase]]:
    """Joins consecutive phrases to runs of `LENGTHS`, of a length drawn for each."""
    runs: list[list[Phrase]] = []
    run: list[Phrase] = []
    target = 0.0

    def close() -> None:
        if run and length(run) >= LENGTHS[0]:
            runs.append(run)
        elif run and runs and runs[-1][-1].end <= run[0].start:
            joined = [*runs[-1], *run]
            is_next = phrases.index(run[0]) == phrases.index(runs[-1][-1]) + 1
            if is_next and length(joined) <= LENGTHS[1]:
                runs[-1] = joined

    for phrase in phrases:
        is_full = length(run) >= target or length([*run, phrase]) > LENGTHS[1] if run else False
        if is_full or not phrase.words:
            close()
            run = []
        if not phrase.words:
            continue
        if not run:
            target = rng.uniform(*LENGTHS)
        run = [*run, phrase]
        if length(run) > LENGTHS[1]:
            run = []  # a phrase that is too long
    close()
    return runs


def length(run: Sequence[Phrase]) -> float:
    """Seconds from the first to the last sound."""
    return run[-1].end - run[0].start


def phrases_of(samples: np.ndarray, words: Times) -> list[Phrase]:
    """Splits the words of an utterance at its pauses; `samples` are (N,) int16."""
    levels = levels_of(samples)
    quiet = levels < threshold(levels)
    sound = np.flatnonzero(~quiet)
    if not len(words) or not len(sound):
        return []
    first, last = sound[0] * FRAME / RATE, (sound[-1] + 1) * FRAME / RATE
    pauses = find_pauses(silences(quiet), words)
    phrases = []
    starts = [(0, first), *((number, after) for number, _, after in pauses)]
    ends = [*((number, before) for number, before, _ in pauses), (len(words), last)]
    for (begin, start), (stop, end) in zip(starts, ends, strict=True):
        inside = [(w, max(a, start), min(b, end)) for w, a, b in words[begin:stop]]
        if inside[0][2] - start < SHORTEST_WORD or end - inside[-1][1] < SHORTEST_WORD:
            inside = []  # a word outside the sound: its times are wrong
        else:
            inside[0] = (inside[0][0], start, inside[0][2])
            inside[-1] = (inside[-1][0], inside[-1][1], end)
        total = len(samples) / RATE
        phrases.append(Phrase(_widen(inside), max(0.0, start - MARGIN), min(total, end + MARGIN)))
    return phrases


def _widen(words: Times) -> Times:
    """Gives words shorter than `SHORTEST_WORD` a share of the word before, by characters."""
    wide: Times = []
    for word, start, end in words:
        if wide and min(end - start, wide[-1][2] - wide[-1][1]) < SHORTEST_WORD:
            before, first, _ = wide.pop()
            middle = first + (end - first) * len(before) / (len(before) + len(word))
            wide += [(before, first, middle), (word, middle, end)]
        else:
            wide.append((word, start, end))
    return wide


def levels_of(samples: np.ndarray) -> np.ndarray:
    """Level (frames,) of 20 ms around each frame of 10 ms, in dB."""
    blocks = samples[: len(samples) // FRAME * FRAME].astype(np.float64).reshape(-1, FRAME)
    power = np.square(blocks).mean(axis=1)
    return 10 * np.log10(np.convolve(power, [0.25, 0.5, 0.25], mode="same") + 1)


def threshold(levels: np.ndarray) -> float:
    """The level, in dB, below which a frame is silent."""
    if not len(levels):
        return 0.0
    background, loud = np.percentile(levels, (3, 95))
    return float(min(background + QUIET_SHARE * (loud - background), loud - LEAST_BELOW))


def silences(quiet: np.ndarray) -> list[tuple[float, float]]:
    """The (start, end), in seconds, of silences of `SHORTEST_PAUSE` or more."""
    changes = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]])))
    runs = ((a * FRAME / RATE, b * FRAME / RATE) for a, b in changes.reshape(-1, 2))
    return [(a, b) for a, b in runs if b - a >= SHORTEST_PAUSE]


def find_pauses(
    silent: Iterable[tuple[float, float]], words: Times
) -> list[tuple[int, float, float]]:
    """The pauses as (number of the word after it, start, end), sorted.

    A silence with several boundaries near it is none: which word is before it is not clear.
    """
    times = np.array([start for _, start, _ in words])
    found: dict[int, list[tuple[float, float]]] = {}
    for a, b in silent:
        near = np.flatnonzero((times > a - TOLERANCE) & (times < b + TOLERANCE))
        if len(near) == 1 and near[0] > 0:
            found.setdefault(int(near[0]), []).append((a, b))
    pauses: list[tuple[int, float, float]] = []
    for number, runs in sorted(found.items()):
        sounds = [after - before for (_, before), (after, _) in pairwise(runs)]
        a, b = runs[0][0], runs[-1][1]
        before = max(words[number - 1][1], pauses[-1][2] if pauses else 0.0)
        is_clear = a - before >= SHORTEST_WORD and words[number][2] - b >= SHORTEST_WORD
        if is_clear and all(sound <= LONGEST_BREATH for sound in sounds):
            pauses.append((number, a, b))
    return pauses
