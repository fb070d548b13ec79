"""Divides LibriSpeech into train, dev and test, by speaker, with no text in two of them.

Where the folder has train-*, dev-clean and test-clean, these are the splits. Otherwise speakers are
named for dev and test, and all others are for training. Utterances of the folder "voices" are for
training only: their texts are no references.

What dev and test have is then removed from training, and what test has from dev: chapters, books
(where CHAPTERS.TXT has them), and pieces with the same text or eight words in a row.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from cut_pieces import Piece
from read_librispeech import VOICES, Recorded

from tagspeech.errors import InputError

log = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")
OWN_SPLITS = {"dev-clean": "dev", "test-clean": "test"}
PROTECTED = {"dev": ("test",), "train": ("dev", "test")}  # from what is in which others
SHARED_WORDS = 8  # in a row


def divide(
    corpus: Sequence[Recorded],
    dev_speakers: Sequence[str],
    test_speakers: Sequence[str],
    books: Mapping[str, str],
) -> dict[str, list[Recorded]]:
    """The utterances of each split.

    Args:
        corpus: All utterances.
        dev_speakers: Speakers of dev, where the folder has no splits of its own.
        test_speakers: Speakers of test, likewise.
        books: The book of each chapter; empty if unknown.

    Raises:
        InputError: A speaker of dev or test is not in the corpus or in both, or a split is empty.
    """
    folders = {recorded.folder for recorded in corpus}
    has_splits = {*OWN_SPLITS} <= folders and any(name.startswith("train-") for name in folders)
    if not has_splits:
        _check_speakers(corpus, dev_speakers, test_speakers)
    divided: dict[str, list[Recorded]] = {split: [] for split in SPLITS}
    unused: dict[str, int] = {}
    for recorded in corpus:
        folder = recorded.folder
        if has_splits:
            split = "train" if folder.startswith("train-") else OWN_SPLITS.get(folder)
        else:
            named = {**dict.fromkeys(dev_speakers, "dev"), **dict.fromkeys(test_speakers, "test")}
            split = named.get(recorded.speaker, "train")
            split = None if split != "train" and recorded.text is None else split
        if split is None:
            unused[folder] = unused.get(folder, 0) + 1
        else:
            divided[split].append(recorded)
    for folder, count in unused.items():
        log.info("left out: %d utterances of %s, which is in no split", count, folder)
    for split, others in PROTECTED.items():
        divided[split] = _without_chapters(split, divided, others, books)
    for split in SPLITS:
        if not divided[split]:
            raise InputError(f"--corpus-dir: has no utterance for {split}")
    return divided


def _check_speakers(corpus: Sequence[Recorded], dev: Sequence[str], test: Sequence[str]) -> None:
    known = {recorded.speaker for recorded in corpus if recorded.folder != VOICES}
    for option, names in (("--dev-speakers", dev), ("--test-speakers", test)):
        for name in names:
            if name not in known:
                raise InputError(f"{option}: {name} must be a speaker of --corpus-dir with texts")
    if both := sorted({*dev} & {*test}):
        raise InputError(f"--dev-speakers and --test-speakers both have {', '.join(both)}")


def _without_chapters(
    split: str,
    divided: Mapping[str, Sequence[Recorded]],
    others: Sequence[str],
    books: Mapping[str, str],
) -> list[Recorded]:
    taken = {recorded.chapter for other in others for recorded in divided[other]}
    taken_books = {books[chapter] for chapter in taken if chapter in books}
    kept = [
        recorded
        for recorded in divided[split]
        if recorded.chapter not in taken and books.get(recorded.chapter) not in taken_books
    ]
    log.info(
        "%s: %d of %d utterances removed because %s has their chapter%s",
        split,
        len(divided[split]) - len(kept),
        len(divided[split]),
        " or ".join(others),
        " or book" if books else " (books are unknown: there is no CHAPTERS.TXT)",
    )
    return kept


def without_shared_text(pieces: Mapping[str, Sequence[Piece]]) -> dict[str, list[Piece]]:
    """The pieces of each split, without those whose text dev or test has too."""
    kept = {split: list(found) for split, found in pieces.items()}
    for split, others in PROTECTED.items():
        taken: set[tuple[str, ...]] = set()
        for piece in (piece for other in others for piece in pieces[other]):
            taken.update(_runs(piece))
        kept[split] = [piece for piece in pieces[split] if taken.isdisjoint(_runs(piece))]
        log.info(
            "%s: %d of %d pieces removed because %s has their text, or %d words of it in a row",
            split,
            len(pieces[split]) - len(kept[split]),
            len(pieces[split]),
            " or ".join(others),
            SHARED_WORDS,
        )
    return kept


def _runs(piece: Piece) -> set[tuple[str, ...]]:
    """The whole text, and all runs of `SHARED_WORDS` words."""
    words = tuple(word for word, _, _ in piece.words)
    starts = range(len(words) - SHARED_WORDS + 1)
    return {words, *(words[start : start + SHARED_WORDS] for start in starts)}
