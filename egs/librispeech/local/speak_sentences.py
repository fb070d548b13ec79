#!/usr/bin/env python3
"""Speaks sentences with espeak-ng in simulated conversations: more text for training.

Usage: speak_sentences.py --sentences FILE --output DIR --groups N [--seed N] [--jobs N]

    DIR/spoken/               sessions: tagspeech.simulation.sessions
    DIR/spoken_{recordings,supervisions}.jsonl.gz

Voices are those that mini's pretrained parts are trained with. What is complete is kept.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagspeech.errors import InputError
from tagspeech.simulation.conversation import GroupShape, Utterance, utter
from tagspeech.simulation.espeak import Espeak
from tagspeech.simulation.sessions import (
    GROUPS_PER_SESSION,
    SimulatedSession,
    draw_session,
    make_corpus,
)
from tagspeech.simulation.simulate import draw_pool
from tagspeech.simulation.voices import Voice, voices

REVISION = 1  # of the generated data; increase it to invalidate sessions
MAX_SPEAKERS = 3
SHAPE = GroupShape(0.65, (0.3, 2.0), 20.0)


@dataclass(frozen=True)
class SpokenSentences:
    """Content of the corpus, a `tagspeech.simulation.sessions.Source`."""

    sentences: Path
    groups: int
    seed: int

    def sessions(self, split: str) -> int:
        """The number of recordings."""
        return -(-self.groups // GROUPS_PER_SESSION)

    def made_with(self, split: str) -> dict[str, Any]:
        """The parameters of a session, except for its number."""
        with Espeak() as espeak:
            version = espeak.version()
        text = _read(self.sentences)[1]
        return {"revision": REVISION, "espeak": version, "text": text, "seed": self.seed}

    def draw(self, split: str, index: int) -> SimulatedSession:
        """Draws session number `index`, with three or four voices."""
        rng = np.random.default_rng([self.seed, index])
        pool = draw_pool(rng, voices("pretrain"), int(rng.integers(3, 5)))
        lines, _ = _read(self.sentences)
        with Espeak() as espeak:

            def say(group: int, voice: Voice, is_first: bool) -> Utterance:
                return utter(espeak, voice, lines[int(rng.integers(len(lines)))])

            return draw_session(rng, pool, MAX_SPEAKERS, say, shape=SHAPE)


@functools.lru_cache(maxsize=1)
def _read(path: Path) -> tuple[list[str], str]:
    """The sentences of a file, and a checksum of it."""
    try:
        text = path.read_text()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: has no sentence")
    return lines, hashlib.sha256(text.encode()).hexdigest()


def main() -> int:
    """Returns 0, or 2 after an error that the user can mend."""
    parser = argparse.ArgumentParser(prog="speak_sentences.py", description=__doc__.split("\n")[0])
    parser.add_argument("--sentences", type=Path, required=True, help="a sentence a line")
    parser.add_argument("--output", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--groups", type=int, required=True, help="utterance groups to make")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="speak_sentences.py: %(message)s")
    try:
        corpus = SpokenSentences(args.sentences, args.groups, args.seed)
        make_corpus(args.output, corpus, ("spoken",), jobs=args.jobs)
    except InputError as error:
        print(f"speak_sentences.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
