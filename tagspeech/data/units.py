"""Output units of the semantic encoder: a sentencepiece model over serialized transcripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from tagspeech.config import SotConfig
from tagspeech.errors import InputError
from tagspeech.files import atomic_path

SPEAKER_CHANGE = "<sc>"  # between segments of two speakers
BLANK = "<blk>"  # unit 0, as in icefall


class Units:
    """A sentencepiece model that maps transcripts in lower case to unit ids and back.

    Units that have capitals only, such as those of icefall's LibriSpeech, are supported.
    """

    def __init__(self, path: Path) -> None:
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        pieces = [self.model.id_to_piece(unit) for unit in range(len(self))]
        letters = "".join(piece for piece in pieces if not piece.startswith("<"))
        self.capitals = letters == letters.upper() != letters.lower()

    def __len__(self) -> int:
        size: int = self.model.vocab_size()
        return size

    def encode(self, transcript: str) -> list[int]:
        """The unit ids of a transcript with speaker changes."""
        if self.capitals:
            transcript = SPEAKER_CHANGE.join(
                part.upper() for part in transcript.split(SPEAKER_CHANGE)
            )
        ids: list[int] = self.model.encode(transcript)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The transcript of unit ids, with spaces around speaker changes."""
        text = self.model.decode(list(ids)).lower()
        return text.replace(SPEAKER_CHANGE, f" {SPEAKER_CHANGE} ")

    def unknown_share(self, transcripts: Iterable[str]) -> float:
        """The share of unknown units in transcripts."""
        ids = [unit for transcript in transcripts for unit in self.encode(transcript)]
        return ids.count(self.model.unk_id()) / max(1, len(ids))


def train_units(transcripts: Iterable[str], config: SotConfig, output: Path) -> None:
    """Trains a sentencepiece model: blank 0, unknown 1, the speaker-change token, other units.

    The vocabulary is smaller than configured if the text does not support more.
    """
    if config.units not in ("bpe", "word", "char"):
        raise InputError(f"semantic.sot.units: must be bpe, word or char, got {config.units!r}")
    with atomic_path(output) as temporary, open(temporary, "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(transcripts),
            model_writer=file,
            model_type=config.units,
            vocab_size=config.vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            pad_id=0,
            pad_piece=BLANK,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            user_defined_symbols=[SPEAKER_CHANGE],
            minloglevel=1,
        )


# A piece of a sentencepiece model in protobuf's encoding: text, score 0, type USER_DEFINED.
_PIECE = b"\x0a\x04" + SPEAKER_CHANGE.encode() + b"\x15\0\0\0\0\x18\x04"


def given_units(path: Path) -> Units:
    """Reads units that were made elsewhere.

    Raises:
        InputError: `path` is not a sentencepiece model, or its unit 0 is not the blank.
    """
    try:
        units = Units(path)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{path}: cannot be read as a sentencepiece model, such as icefall's bpe.model"
        ) from error
    if (first := units.model.id_to_piece(0)) != BLANK:
        raise InputError(f"{path}: unit 0 must be the blank {BLANK!r}, got {first!r}")
    return units


def grow_units(given: Path, output: Path) -> None:
    """Appends the speaker-change token to the sentencepiece model `given`, unless it has one.

    The other units keep their ids.

    Raises:
        InputError: As for `given_units`.
    """
    model = given_units(given).model
    is_there = model.piece_to_id(SPEAKER_CHANGE) != model.unk_id()
    # Concatenated protobuf messages are merged: the piece is appended to the list of pieces.
    more = b"" if is_there else b"\x0a" + bytes([len(_PIECE)]) + _PIECE
    with atomic_path(output) as temporary:
        temporary.write_bytes(given.read_bytes() + more)
