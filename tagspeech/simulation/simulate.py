"""A corpus of simulated meetings with Lhotse manifests.

    OUTPUT/{train,dev,test,meetings}/sim-train-00001.{wav,json}  see tagspeech.simulation.sessions
    OUTPUT/{split}_recordings.jsonl.gz {split}_supervisions.jsonl.gz
    OUTPUT/params.json                                           the configuration

espeak-ng speaks the sentences of `sentences` in the voices of `voices`, in groups of 1-3 speakers.
The split `meetings` has voices and sentences of `test`. The same seed gives the same bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagspeech.errors import InputError
from tagspeech.files import write_json
from tagspeech.simulation.conversation import (
    BACKCHANNEL_SHARE,
    OVERLAP_SHARE,
    SAMPLING_RATE,
    Utterance,
    utter,
)
from tagspeech.simulation.espeak import Espeak
from tagspeech.simulation.sentences import VOCABULARY, draw_backchannel, draw_sentence
from tagspeech.simulation.sessions import (
    GROUPS_PER_SESSION,
    SimulatedSession,
    draw_session,
    make_corpus,
)
from tagspeech.simulation.voices import Voice, voices

SIMULATED_SPLITS = ("train", "dev", "test", "meetings")
REVISION = 2  # of the generated data; increase it to invalidate existing sessions


@dataclass(frozen=True)
class SimulateConfig:
    """Size and content of the corpus.

    Attributes:
        train_groups: Minimum number of groups; sessions have at least ten.
        dev_groups: The same.
        test_groups: The same.
        meetings: Number of whole meetings.
        meeting_minutes: Minimum duration of a meeting.
        max_speakers: Maximum number of speakers in a group.
        seed: Seed of everything that is drawn.
        train_from: Voices and sentences of the split train: "train", or "pretrain", which shares
            none with any other split.
        overlap_share: Share of speaker changes that overlap. With 0.65, 14 % of the speech is
            overlapped, with 0.5 11 %.
    """

    train_groups: int = 12500
    dev_groups: int = 200
    test_groups: int = 400
    meetings: int = 3
    meeting_minutes: float = 5.0
    max_speakers: int = 3
    seed: int = 1
    train_from: str = "train"
    overlap_share: float = OVERLAP_SHARE

    def __post_init__(self) -> None:
        for name in ("train_groups", "dev_groups", "test_groups", "meetings", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 1 <= self.max_speakers <= len(voices("dev")):
            raise InputError(
                f"max_speakers must be from 1 to {len(voices('dev'))}, got {self.max_speakers}"
            )
        if self.train_from not in ("train", "pretrain"):
            raise InputError(f"train_from must be train or pretrain, got {self.train_from!r}")
        if not 0 <= self.overlap_share <= 1:
            raise InputError(f"overlap_share must be from 0 to 1, got {self.overlap_share}")
        if not 0 < self.meeting_minutes < float("inf"):
            raise InputError(f"meeting_minutes must be more than 0, got {self.meeting_minutes}")

    def sessions(self, split: str) -> int:
        """The number of recordings of `split`."""
        if split == "meetings":
            return self.meetings
        return -(-int(getattr(self, f"{split}_groups")) // GROUPS_PER_SESSION)

    def source(self, split: str) -> str:
        """The split whose voices and sentences `split` has."""
        return {"train": self.train_from, "meetings": "test"}.get(split, split)

    def made_with(self, split: str) -> dict[str, Any]:
        """The parameters of a session of `split`, except for its number."""
        keys = ["max_speakers", "seed", "overlap_share"]
        keys += ["meeting_minutes"] if split == "meetings" else []
        with Espeak() as espeak:
            version = espeak.version()
        return {
            "revision": REVISION,
            "espeak": version,
            "source": self.source(split),
            **{key: getattr(self, key) for key in keys},
        }

    def draw(self, split: str, index: int) -> SimulatedSession:
        """Draws session number `index` of `split`. Each group contains the next word of the
        vocabulary, so that all words occur."""
        rng = np.random.default_rng([self.seed, zlib.crc32(split.encode()), index])
        source = self.source(split)
        pool = draw_pool(rng, voices(source), max(int(rng.integers(3, 5)), self.max_speakers))
        shortest = self.meeting_minutes * 60 * SAMPLING_RATE if split == "meetings" else 0
        with Espeak() as espeak:

            def say(group: int, voice: Voice, is_first: bool) -> Utterance:
                if not is_first and rng.random() < BACKCHANNEL_SHARE:
                    return utter(espeak, voice, draw_backchannel(rng))
                word = VOCABULARY[(index * GROUPS_PER_SESSION + group) % len(VOCABULARY)]
                sentence = draw_sentence(rng, source, word if is_first else None)
                return utter(espeak, voice, sentence)

            return draw_session(rng, pool, self.max_speakers, say, shortest, self.overlap_share)


def simulate(output: str | Path, config: SimulateConfig | None = None, *, jobs: int = 2) -> None:
    """Makes what is missing of the corpus in `output`; see `make_corpus`."""
    output, config = Path(output), config or SimulateConfig()
    make_corpus(output, config, SIMULATED_SPLITS, jobs=jobs)
    write_json(output / "params.json", asdict(config))


def draw_pool(rng: np.random.Generator, inventory: Sequence[Voice], count: int) -> list[Voice]:
    """Draws `count` voices, of different variants as far as possible."""
    order = [inventory[i] for i in rng.permutation(len(inventory))]
    fresh = {voice.variant: voice for voice in reversed(order)}
    first = [voice for voice in order if fresh[voice.variant] is voice]
    return (first + [voice for voice in order if fresh[voice.variant] is not voice])[:count]
