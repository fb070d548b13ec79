"""Simulated meetings as a corpus on disk, with Lhotse manifests.

    OUTPUT/{train,dev,test,meetings}/sim-train-00001.wav     16 kHz, mono, 16 bit
    OUTPUT/{train,dev,test,meetings}/sim-train-00001.json    its segments; written last
    OUTPUT/{split}_recordings.jsonl.gz {split}_supervisions.jsonl.gz
    OUTPUT/params.json                                       what it was made with

A recording holds utterance groups of 1-3 speakers, 1.5-2.5 s apart over running noise, so that
Lhotse's `trim_to_supervision_groups(max_pause=1.0)` recovers exactly the groups. A segment's times
are those of its first and last audible sample, before reverberation. `meetings` has the voices
and sentences of `test`. The same seed gives the same bytes, in whatever order and by however many
processes sessions are made; finished sessions of a killed run are kept.
"""

from __future__ import annotations

import gzip
import json
import logging
import multiprocessing
import os
import threading
import wave
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tagspeech.data.conversation import SAMPLING_RATE, Placed, draw_group
from tagspeech.data.espeak import Espeak
from tagspeech.data.mixing import mix
from tagspeech.data.sentences import VOCABULARY
from tagspeech.data.voices import Voice, voices
from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_json, write_json

log = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test", "meetings")
REVISION = 2  # of what is generated: a change here makes old sessions stale
GROUPS_PER_SESSION = 10
SESSIONS_PER_TASK = 5
GAPS = (1.5, 2.5)  # seconds between groups
EDGES = (0.5, 1.0)  # seconds before the first and after the last group


@dataclass(frozen=True)
class SimulateConfig:
    """Sizes are least numbers of groups (sessions hold ten), meetings and their minutes.

    train_from  whose voices and sentences the split train has: "train", or "pretrain" for a corpus
                that shares neither with any recipe
    """

    train_groups: int = 12500
    dev_groups: int = 200
    test_groups: int = 400
    meetings: int = 3
    meeting_minutes: float = 5.0
    max_speakers: int = 3
    seed: int = 1
    train_from: str = "train"

    def __post_init__(self) -> None:
        for name in ("train_groups", "dev_groups", "test_groups", "meetings", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"simulate: {name} is {getattr(self, name)}, wants 0 or more")
        if not 1 <= self.max_speakers <= len(voices("dev")):
            raise InputError(
                f"simulate: max_speakers is {self.max_speakers}, wants 1 to {len(voices('dev'))}"
            )
        if self.train_from not in ("train", "pretrain"):
            raise InputError(f"simulate: train_from is {self.train_from}, wants train or pretrain")
        if not 0 < self.meeting_minutes < float("inf"):
            raise InputError(f"simulate: meeting_minutes is {self.meeting_minutes}, wants > 0")

    def sessions(self, split: str) -> int:
        """How many recordings `split` has."""
        if split == "meetings":
            return self.meetings
        return -(-int(getattr(self, f"{split}_groups")) // GROUPS_PER_SESSION)

    def source(self, split: str) -> str:
        """Whose voices and sentences `split` has."""
        return {"train": self.train_from, "meetings": "test"}.get(split, split)

    def made_with(self, split: str) -> dict[str, Any]:
        """All that the content of one session of `split` depends on, but for its number."""
        keys = ("max_speakers", "seed") + (("meeting_minutes",) if split == "meetings" else ())
        with Espeak() as espeak:
            version = espeak.version()
        return {
            "revision": REVISION,
            "espeak": version,
            "source": self.source(split),
            **{key: getattr(self, key) for key in keys},
        }


def simulate(output: str | Path, config: SimulateConfig | None = None, *, jobs: int = 2) -> None:
    """Makes the corpus in `output`, or what is missing of it, by `jobs` processes.

    Sessions made with other parameters are made again. Raises `InputError` where `output` cannot
    be written.
    """
    output, config = Path(output), config or SimulateConfig()
    missing = []
    for split in SPLITS:
        made_with = config.made_with(split)
        for index in range(config.sessions(split)):
            if not _is_made(_sidecar(output, split, index), made_with):
                missing.append((split, index))
    if missing:
        for split in SPLITS:
            for path in _manifests(output, split):
                path.unlink(missing_ok=True)
            for path in (output / split).glob(".sim-*.partial-*"):  # of a killed run
                path.unlink()
    tasks = [missing[i : i + SESSIONS_PER_TASK] for i in range(0, len(missing), SESSIONS_PER_TASK)]
    with tqdm(total=len(missing), desc="simulate", unit="session", disable=not missing) as progress:
        for count in _run(output, config, tasks, jobs):
            progress.update(count)
    write_json(output / "params.json", asdict(config))
    for split in SPLITS:
        _write_manifests(output, split, config.sessions(split))


def _run(
    output: Path, config: SimulateConfig, tasks: Sequence[list[tuple[str, int]]], jobs: int
) -> Iterator[int]:
    """Makes the sessions of all tasks; yields how many are done as they get done."""
    if jobs <= 1 or len(tasks) <= 1:
        for task in tasks:
            yield make_sessions(output, config, task)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(jobs, len(tasks)), mp_context=context, initializer=_end_with_parent
    ) as executor:
        futures = [executor.submit(make_sessions, output, config, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            executor.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Ends this worker when its parent is killed, lest it waits for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def make_sessions(output: Path, config: SimulateConfig, task: Iterable[tuple[str, int]]) -> int:
    """Makes the (split, index) sessions of `task` on disk and returns their number."""
    count = 0
    for split, index in task:
        pool, placed, length, rng = _draw_session(config, split, index)
        pcm = mix(rng, pool, [item for _, item in placed], length)
        sidecar = _sidecar(output, split, index)
        _write_wav(sidecar.with_suffix(".wav"), pcm)
        segments = [_segment(item, group) for group, item in placed]
        made_with = config.made_with(split)
        write_json(sidecar, {"made_with": made_with, "samples": length, "segments": segments})
        count += 1
    return count


def _draw_session(
    config: SimulateConfig, split: str, index: int
) -> tuple[list[Voice], list[tuple[int, Placed]], int, np.random.Generator]:
    """Voices, (group, placed utterance) by start, length in samples, and the generator to go on
    with. Each group contains one word of the vocabulary in turn, so that all words occur."""
    rng = np.random.default_rng([config.seed, zlib.crc32(split.encode()), index])
    source = config.source(split)
    pool = _draw_pool(rng, voices(source), max(int(rng.integers(3, 5)), config.max_speakers))
    shortest = config.meeting_minutes * 60 * SAMPLING_RATE if split == "meetings" else 0
    placed: list[tuple[int, Placed]] = []
    group, end = 0, 0
    with Espeak() as espeak:
        while group < GROUPS_PER_SESSION or end < shortest:
            end += _seconds(rng, GAPS if placed else EDGES)
            word = VOCABULARY[(index * GROUPS_PER_SESSION + group) % len(VOCABULARY)]
            items = draw_group(rng, espeak, pool, source, word, config.max_speakers)
            placed += [(group, Placed(end + item.start, item.utterance)) for item in items]
            end += max(item.end for item in items)
            group += 1
    return pool, placed, end + _seconds(rng, EDGES), rng


def _draw_pool(rng: np.random.Generator, inventory: Sequence[Voice], count: int) -> list[Voice]:
    """`count` voices, of different variants as far as there are."""
    order = [inventory[i] for i in rng.permutation(len(inventory))]
    fresh = {voice.variant: voice for voice in reversed(order)}
    first = [voice for voice in order if fresh[voice.variant] is voice]
    return (first + [voice for voice in order if fresh[voice.variant] is not voice])[:count]


def _seconds(rng: np.random.Generator, limits: tuple[float, float]) -> int:
    """A random duration in samples."""
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
    """Both manifests of `split`; sessions beyond `count`, of an earlier run, are removed."""
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


def _write_wav(path: Path, pcm: np.ndarray) -> None:
    with atomic_path(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLING_RATE)
        file.writeframes(pcm.astype("<i2").tobytes())


def _write_jsonl_gz(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Lhotse's format without its time stamp, so that equal content gives equal bytes."""
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(lines.encode(), mtime=0))
