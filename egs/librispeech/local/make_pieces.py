"""Makes the pieces of LibriSpeech that conversations are mixed from.

OUTPUT/audio.npy       all audio, decoded once: int16, 16 kHz
OUTPUT/{split}.jsonl   the pieces of a split: `cut_pieces.Piece`
OUTPUT/made_with.json  what they were made with; they are kept while that is the same
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cut_pieces import RATE, Piece, cut_all
from divide_librispeech import SPLITS, divide, without_shared_text
from read_librispeech import Recorded, dumps, read_books, read_corpus, read_words

from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_journal, read_json, write_json

log = logging.getLogger(__name__)

REVISION = 1  # of the pieces; increase it to make existing ones again


@dataclass(frozen=True)
class PieceOptions:
    """What pieces are made from.

    Attributes:
        corpus_dir: A LibriSpeech folder.
        words: File of word times.
        dev_speakers: Speakers of dev, where the folder has no splits of its own.
        test_speakers: Speakers of test, likewise.
        cuttings: How many times each utterance of train is cut.
        seed: Seed of the lengths.
    """

    corpus_dir: Path
    words: Path
    dev_speakers: tuple[str, ...]
    test_speakers: tuple[str, ...]
    cuttings: int
    seed: int

    def made_with(self, corpus: Sequence[Recorded]) -> dict[str, Any]:
        """What the pieces depend on; `corpus` has all utterances."""
        files = (f"{row.id} {row.path.stat().st_size} {row.text}" for row in corpus)
        return {
            "revision": REVISION,
            "corpus": hashlib.sha256("\n".join(files).encode()).hexdigest(),
            "words": checksum(self.words),
            "dev_speakers": [*self.dev_speakers],
            "test_speakers": [*self.test_speakers],
            "cuttings": self.cuttings,
            "seed": self.seed,
        }


def pieces_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.jsonl"


@functools.lru_cache(maxsize=len(SPLITS))
def read_pieces(path: Path) -> dict[str, list[Piece]]:
    """The pieces in `path` by speaker."""
    spoken: dict[str, list[Piece]] = defaultdict(list)
    for row in read_journal(path):
        piece = Piece(**row)
        spoken[piece.speaker].append(piece)
    return dict(sorted(spoken.items()))


def checksum(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_pieces(folder: Path, options: PieceOptions, jobs: int) -> None:
    """Makes the pieces of all splits in `folder`, where that is not done.

    Raises:
        InputError: The corpus or the file of word times is not of its format.
    """
    corpus = read_corpus(options.corpus_dir)
    rows = read_words(options.words)
    made_with = options.made_with(corpus)
    stamp = folder / "made_with.json"
    if stamp.exists() and read_json(stamp) == made_with:
        return
    books = read_books(options.corpus_dir)
    divided = divide(corpus, options.dev_speakers, options.test_speakers, books)
    split_of = {row.id: split for split, found in divided.items() for row in found}
    chosen = [row for row in corpus if row.id in split_of and _has_words(row, rows, options.words)]
    without = len(split_of) - len(chosen)
    log.info("left out: %d of %d utterances, without words", without, len(split_of))
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        pieces = cut_all(
            [(row, rows[row.id]["words"]) for row in chosen],
            temporary / "audio.npy",
            cuttings=lambda row: options.cuttings if split_of[row.id] == "train" else 1,
            seed=options.seed,
            jobs=jobs,
        )
        cut: dict[str, list[Piece]] = {split: [] for split in SPLITS}
        for piece in pieces:
            cut[split_of[piece.recorded]].append(piece)
        for split, found in without_shared_text(cut).items():
            if not found:
                raise InputError(f"{options.corpus_dir}: no piece of {split} can be cut")
            pieces_file(temporary, split).write_text(dumps(map(asdict, found)), encoding="utf-8")
            _say(split, [piece for piece in found if piece.cutting == 0])
        write_json(temporary / stamp.name, made_with)


def _say(split: str, pieces: Sequence[Piece]) -> None:
    log.info(
        "%s: %d pieces, %.2f h, %d speakers",
        split,
        len(pieces),
        sum(piece.samples for piece in pieces) / RATE / 3600,
        len({piece.speaker for piece in pieces}),
    )


def _has_words(recorded: Recorded, rows: dict[str, dict[str, Any]], path: Path) -> bool:
    """Whether `rows` has words for `recorded`.

    Raises:
        InputError: They are not those of its text.
    """
    words = rows.get(recorded.id, {"words": []})["words"]
    found = " ".join(word for word, _, _ in words)
    if words and recorded.text is not None and found != recorded.text:
        raise InputError(
            f"{path}: {recorded.id}: words must be those of its text, {recorded.text!r}, got "
            f"{found!r}; remove the file to make it again"
        )
    return bool(words)
