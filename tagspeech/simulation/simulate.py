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

from tagspeech.files import write_json
from tagspeech.options import SimulateOptions
from tagspeech.simulation.conversation import (
    BACKCHANNEL_SHARE,
    SAMPLING_RATE,
    GroupShape,
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
class SimulateConfig(SimulateOptions):
    """The sizes of a corpus, and what its sessions are made of. Sessions hold ten groups."""

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

            shape = GroupShape(overlap_share=self.overlap_share)
            return draw_session(rng, pool, self.max_speakers, say, shortest, shape)


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
