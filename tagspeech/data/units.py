"""Output units of the semantic encoder: a sentencepiece model over serialized transcripts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from tagspeech.config import SotConfig
from tagspeech.errors import InputError
from tagspeech.files import atomic_path

SPEAKER_CHANGE = "<sc>"  # between segments of two speakers


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
            pad_piece="<blk>",
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            user_defined_symbols=[SPEAKER_CHANGE],
            minloglevel=1,
        )
