"""Simulated recordings on disk with Lhotse manifests, for every simulated corpus.

    OUTPUT/SPLIT/sim-SPLIT-00001.wav     16 kHz, mono, 16 bit
    OUTPUT/SPLIT/sim-SPLIT-00001.json    segments; written last
    OUTPUT/SPLIT_recordings.jsonl.gz  OUTPUT/SPLIT_supervisions.jsonl.gz

A recording has at least ten utterance groups, 1.5-2.5 s apart, so Lhotse's
`trim_to_supervision_groups(max_pause=1.0)` recovers exactly these groups. A segment lasts from its
first to its last audible sample, without reverberation. A `Source` decides who says what. The same
source gives the same bytes for any order of sessions and number of processes; complete sessions of
an interrupted run are kept.
"""

from __future__ import annotations

import functools
import gzip
import json
import logging
import multiprocessing
import os
import threading
import wave
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from tagspeech.files import atomic_path, read_json, write_json
from tagspeech.simulation.conversation import (
    DEFAULT_SHAPE,
    SAMPLING_RATE,
    GroupShape,
    Placed,
    SomeSpeaker,
    Speaker,
    Utterance,
    draw_group,
)
from tagspeech.simulation.mixing import mix

log = logging.getLogger(__name__)

GROUPS_PER_SESSION = 10
SESSIONS_PER_TASK = 5
GAPS = (1.5, 2.5)  # seconds between groups
EDGES = (0.5, 1.0)  # seconds before the first and after the last group


@dataclass(frozen=True)
class SimulatedSession:
    """A recording before it is mixed.

    Attributes:
        speakers: All who may speak.
        placed: (number of the group, utterance), sorted by group and start.
        length: Number of samples.
        rng: Generator for the acoustics.
    """

    speakers: Sequence[Speaker]
    placed: Sequence[tuple[int, Placed]]
    length: int
    rng: np.random.Generator


class Source(Protocol):
    """The content of a simulated corpus. It must be picklable for worker processes."""

    def sessions(self, split: str) -> int:
        """The number of recordings of `split`."""

    def made_with(self, split: str) -> dict[str, Any]:
        """The parameters of a session of `split`, except for its number."""

    def draw(self, split: str, index: int) -> SimulatedSession:
        """Draws session number `index` of `split`, the same at every call."""


def draw_session(
    rng: np.random.Generator,
    pool: Sequence[SomeSpeaker],
    max_speakers: int,
    say: Callable[[int, SomeSpeaker, bool], Utterance],
    shortest: float = 0,
    shape: GroupShape = DEFAULT_SHAPE,
) -> SimulatedSession:
    """Draws at least ten utterance groups, one after the other.

    Args:
        rng: Generator for everything that is drawn.
        pool: Speakers to choose from.
        max_speakers: Maximum number of speakers in a group.
        say: Draws an utterance, given the number of the group, the speaker and whether it is the
            first of the group.
        shortest: Minimum number of samples.
        shape: Overlaps and the maximum length of a group.
    """
    placed: list[tuple[int, Placed]] = []
    group, end = 0, 0
    while group < GROUPS_PER_SESSION or end < shortest:
        end += _seconds(rng, GAPS if placed else EDGES)
        items = draw_group(rng, pool, max_speakers, functools.partial(say, group), shape)
        placed += [(group, Placed(end + item.start, item.utterance)) for item in items]
        end += max(item.end for item in items)
        group += 1
    return SimulatedSession(pool, placed, end + _seconds(rng, EDGES), rng)


def make_corpus(output: Path, source: Source, splits: Sequence[str], *, jobs: int) -> None:
    """Makes what is missing of the corpus in `output`, with `jobs` processes.

    Sessions with other parameters are made again.

    Raises:
        InputError: `output` cannot be written.
    """
    missing = []
    for split in splits:
        made_with = source.made_with(split)
        for index in range(source.sessions(split)):
            if not _is_made(_sidecar(output, split, index), made_with):
                missing.append((split, index))
    if missing:
        for split in splits:
            for path in _manifests(output, split):
                path.unlink(missing_ok=True)
            for path in (output / split).glob(".sim-*.partial-*"):  # of an interrupted run
                path.unlink()
    tasks = [missing[i : i + SESSIONS_PER_TASK] for i in range(0, len(missing), SESSIONS_PER_TASK)]
    with tqdm(total=len(missing), desc="simulate", unit="session", disable=not missing) as progress:
        for count in _run(output, source, tasks, jobs):
            progress.update(count)
    for split in splits:
        _write_manifests(output, split, source.sessions(split))


def _run(
    output: Path, source: Source, tasks: Sequence[list[tuple[str, int]]], jobs: int
) -> Iterator[int]:
    """Makes the sessions of all tasks; yields the number of sessions of each completed task."""
    if jobs <= 1 or len(tasks) <= 1:
        for task in tasks:
            yield make_sessions(output, source, task)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(jobs, len(tasks)), mp_context=context, initializer=_end_with_parent
    ) as executor:
        futures = [executor.submit(make_sessions, output, source, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            executor.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Makes this worker exit when its parent is killed, instead of waiting forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def make_sessions(output: Path, source: Source, task: Iterable[tuple[str, int]]) -> int:
    """Writes the (split, index) sessions of `task` and returns their number."""
    count = 0
    for split, index in task:
        session = source.draw(split, index)
        items = [item for _, item in session.placed]
        pcm = mix(session.rng, session.speakers, items, session.length)
        sidecar = _sidecar(output, split, index)
        write_wav(sidecar.with_suffix(".wav"), pcm)
        segments = [_segment(item, group) for group, item in session.placed]
        made_with = source.made_with(split)
        write_json(
            sidecar, {"made_with": made_with, "samples": session.length, "segments": segments}
        )
        count += 1
    return count


def _seconds(rng: np.random.Generator, limits: tuple[float, float]) -> int:
    """Draws a duration in samples."""
    return int(np.ceil(rng.uniform(*limits) * SAMPLING_RATE))


def _segment(item: Placed, group: int) -> dict[str, Any]:
    offset, utterance = item.start / SAMPLING_RATE, item.utterance
    return {
        "group": group,
        "speaker": utterance.voice.name,
        "gender": utterance.voice.gender,
        "start": round(offset, 7),
        "end": round(item.end / SAMPLING_RATE, 7),
        "words": [[w, round(offset + s, 7), round(offset + e, 7)] for w, s, e in utterance.words],
    }


def _sidecar(output: Path, split: str, index: int) -> Path:
    return output / split / f"sim-{split}-{index + 1:05d}.json"


def _is_made(sidecar: Path, made_with: dict[str, Any]) -> bool:
    return sidecar.exists() and bool(read_json(sidecar)["made_with"] == made_with)


def _manifests(output: Path, split: str) -> tuple[Path, Path]:
    return output / f"{split}_recordings.jsonl.gz", output / f"{split}_supervisions.jsonl.gz"


def _write_manifests(output: Path, split: str, count: int) -> None:
    """Writes both manifests of `split`; removes sessions beyond `count`, of an earlier run."""
    from lhotse import Recording, SupervisionSegment
    from lhotse.audio import AudioSource
    from lhotse.supervision import AlignmentItem

    wanted = {_sidecar(output, split, index) for index in range(count)}
    for sidecar in sorted((output / split).glob(f"sim-{split}-*.json")):
        if sidecar not in wanted:
            sidecar.unlink()
            sidecar.with_suffix(".wav").unlink(missing_ok=True)
    recordings, supervisions = [], []
    for sidecar in sorted(wanted):
        session, data = sidecar.stem, read_json(sidecar)
        source = AudioSource(type="file", channels=[0], source=str(sidecar.with_suffix(".wav")))
        samples = data["samples"]
        recordings.append(
            Recording(session, [source], SAMPLING_RATE, samples, samples / SAMPLING_RATE).to_dict()
        )
        for number, segment in enumerate(data["segments"]):
            words = [
                AlignmentItem(word, start, round(end - start, 7))
                for word, start, end in segment["words"]
            ]
            supervision = SupervisionSegment(
                id=f"{session}-{segment['group']:02d}-{number:04d}",
                recording_id=session,
                start=segment["start"],
                duration=round(segment["end"] - segment["start"], 7),
                text=" ".join(word.symbol for word in words),
                language="English",
                speaker=segment["speaker"],
                gender=segment["gender"],
                alignment={"word": words},
            )
            supervisions.append(supervision.to_dict())
    hours = sum(recording["duration"] for recording in recordings) / 3600
    log.info("%s: %d recordings, %.2f h, %d segments", split, count, hours, len(supervisions))
    recordings_path, supervisions_path = _manifests(output, split)
    _write_jsonl_gz(recordings_path, recordings)
    _write_jsonl_gz(supervisions_path, supervisions)


def write_wav(path: Path, pcm: np.ndarray) -> None:
    """Writes int16 samples, (N,) or (channels, N), atomically."""
    channels = np.atleast_2d(pcm)
    with atomic_path(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(SAMPLING_RATE)
        file.writeframes(channels.T.astype("<i2").tobytes())


def _write_jsonl_gz(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes Lhotse's format without a time stamp, so equal content gives equal bytes."""
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(lines.encode(), mtime=0))
