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
    """Transcripts to unit ids and back.

    Transcripts here are in lower case. Where the units have capitals only, as those of icefall's
    LibriSpeech do, text is spelt in capitals on the way there and in lower case on the way back.
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
        """The unit ids of a transcript, speaker changes included."""
        if self.capitals:
            transcript = SPEAKER_CHANGE.join(
                part.upper() for part in transcript.split(SPEAKER_CHANGE)
            )
        ids: list[int] = self.model.encode(transcript)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The transcript of unit ids, spaces around speaker changes."""
        text = self.model.decode(list(ids)).lower()
        return text.replace(SPEAKER_CHANGE, f" {SPEAKER_CHANGE} ")

    def unknown_share(self, transcripts: Iterable[str]) -> float:
        """The share of units of transcripts that are the unknown one."""
        ids = [unit for one in transcripts for unit in self.encode(one)]
        return ids.count(self.model.unk_id()) / max(1, len(ids))


def train_units(transcripts: Iterable[str], config: SotConfig, output: Path) -> None:
    """Writes a sentencepiece model: blank 0, unknown 1, the speaker-change token, then the units.

    A vocabulary larger than the text supports becomes as large as the text allows.
    """
    if config.units not in ("bpe", "word", "char"):
        raise InputError(f"semantic.sot.units: wants bpe, word or char, found {config.units!r}")
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


# A piece of a sentencepiece model as protobuf spells it: text, score 0, type USER_DEFINED.
_PIECE = b"\x0a\x04" + SPEAKER_CHANGE.encode() + b"\x15\0\0\0\0\x18\x04"


def given_units(path: Path) -> Units:
    """Units that were made elsewhere.

    Raises `InputError` where `path` is no sentencepiece model, or its unit 0 is not the blank.
    """
    try:
        units = Units(path)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{path}: cannot be read as a sentencepiece model, such as icefall's bpe.model"
        ) from error
    if (first := units.model.id_to_piece(0)) != BLANK:
        raise InputError(f"{path}: its unit 0 is {first!r}, not the blank {BLANK!r}")
    return units


def grow_units(given: Path, output: Path) -> None:
    """Writes the sentencepiece model `given` with the speaker-change token as its last unit.

    The other units keep their ids. Where the token is there already, nothing changes. Raises
    `InputError` as `given_units` does.
    """
    model = given_units(given).model
    is_there = model.piece_to_id(SPEAKER_CHANGE) != model.unk_id()
    # Messages of protobuf behind each other are one message: the piece joins the list of pieces.
    more = b"" if is_there else b"\x0a" + bytes([len(_PIECE)]) + _PIECE
    with atomic_path(output) as temporary:
        temporary.write_bytes(given.read_bytes() + more)
