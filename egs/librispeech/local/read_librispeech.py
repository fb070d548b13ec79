"""Reads a LibriSpeech folder, in either of two layouts.

    SPLIT/SPEAKER/CHAPTER/ID.flac   as published, with SPEAKER-CHAPTER.trans.txt beside the audio,
    SPEAKERS.TXT  CHAPTERS.TXT      SPLIT such as train-clean-100

    FOLDER/ID.opus (.flac, .wav)    a small copy: `speaker sex folder` in speakers.tsv (with a
    speakers.tsv  trans.txt         heading), `ID TEXT` in trans.txt; utterances of the folder
                                    "voices" need no text

ID is SPEAKER-CHAPTER-NUMBER. The words of a text are those of the project's normalisation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from tagspeech.errors import InputError
from tagspeech.files import read_journal, read_text
from tagspeech.text import normalise

RATE = 16000  # Hz
VOICES = "voices"  # folder of the small layout whose utterances need no text
AUDIO_SUFFIXES = (".opus", ".flac", ".wav")

Words = tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Recorded:
    """An utterance of LibriSpeech.

    Attributes:
        id: SPEAKER-CHAPTER-NUMBER.
        gender: F or M; None if unknown.
        folder: Its split as published, or the folder of the small layout.
        path: Its audio file.
        text: Normalised words; None if it has no transcript.
    """

    id: str
    gender: str | None
    folder: str
    path: Path
    text: str | None

    @property
    def speaker(self) -> str:
        return self.id.split("-")[0]

    @property
    def chapter(self) -> str:
        return self.id.split("-")[1]


def read_corpus(folder: Path) -> list[Recorded]:
    """Reads the utterances in `folder`, sorted by ID.

    Raises:
        InputError: It is in neither layout, a file is absent, or a line is not of the format.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --corpus-dir names a LibriSpeech folder")
    if (folder / "speakers.tsv").exists():
        found = list(_read_small(folder))
    elif (folder / "SPEAKERS.TXT").exists():
        found = list(_read_published(folder))
    elif (folder / "LibriSpeech/SPEAKERS.TXT").exists():
        found = list(_read_published(folder / "LibriSpeech"))
    else:
        raise InputError(
            f"{folder}: must have SPEAKERS.TXT (LibriSpeech as published) or speakers.tsv (the "
            "small layout); --corpus-dir names a LibriSpeech folder"
        )
    if not found:
        raise InputError(f"{folder}: has no utterance")
    return sorted(found, key=lambda recorded: recorded.id)


def read_books(folder: Path) -> dict[str, str]:
    """The book of each chapter, from CHAPTERS.TXT; empty where that is absent."""
    places = (folder / "CHAPTERS.TXT", folder / "LibriSpeech/CHAPTERS.TXT")
    path = next((place for place in places if place.exists()), None)
    rows = [row.split("|") for row in _rows(path)] if path else []
    return {row[0].strip(): row[5].strip() for row in rows if len(row) > 5}


def frames_of(path: Path) -> int:
    """The number of samples of a file.

    Raises:
        InputError: The file cannot be read, or is not mono at 16 kHz.
    """
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: cannot be read: {error.error_string}") from error
    if info.channels != 1 or info.samplerate != RATE:
        raise InputError(
            f"{path}: must be mono at {RATE} Hz, got {info.channels} channels at "
            f"{info.samplerate} Hz"
        )
    return int(info.frames)


def _read_published(folder: Path) -> Iterator[Recorded]:
    genders = {}
    for row in _rows(folder / "SPEAKERS.TXT"):
        fields = [field.strip() for field in row.split("|")]
        if len(fields) > 1:
            genders[fields[0]] = fields[1]
    for transcripts in sorted(folder.glob("*/*/*/*.trans.txt")):
        split = transcripts.relative_to(folder).parts[0]
        for name, text in _texts(transcripts).items():
            path = transcripts.with_name(f"{name}.flac")
            if not path.exists():
                raise InputError(f"{transcripts}: {name}.flac is absent; get the corpus again")
            yield Recorded(name, _gender(genders.get(name.split("-")[0])), split, path, text)


def _read_small(folder: Path) -> Iterator[Recorded]:
    table = folder / "speakers.tsv"
    texts = _texts(folder / "trans.txt")
    for number, row in enumerate(read_text(table).splitlines()[1:], 2):
        fields = row.split("\t")
        if len(fields) != 3:
            raise InputError(f"{table}, line {number}: must be SPEAKER, SEX, FOLDER, got {row!r}")
        speaker, sex, place = fields
        files = [p for p in (folder / place).glob(f"{speaker}-*") if p.suffix in AUDIO_SUFFIXES]
        if not files:
            raise InputError(f"{table}, line {number}: {place} has no audio of speaker {speaker}")
        for path in files:
            text = texts.get(path.stem)
            if text is None and place != VOICES:
                raise InputError(f"{folder / 'trans.txt'}: has no line for {path.stem}")
            yield Recorded(path.stem, _gender(sex), place, path, text)


def _gender(sex: str | None) -> str | None:
    return sex if sex in ("F", "M") else None


def _texts(path: Path) -> dict[str, str]:
    pairs = (row.partition(" ") for row in _rows(path))
    return {name: normalise(text, "en") for name, _, text in pairs}


def _rows(path: Path) -> list[str]:
    """Lines that are neither empty nor comments."""
    if not path.exists():
        raise InputError(f"{path}: is absent")
    return [row for row in read_text(path).splitlines() if row.strip() and row[0] != ";"]


def read_words(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a file of word times by ID; see align_words.py.

    Raises:
        InputError: The file is absent or a row is not of the format.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file; --words names a file of word times")
    rows = {}
    for number, row in enumerate(read_journal(path), 1):
        if not isinstance(row.get("words"), list) or not isinstance(row.get("id"), str):
            raise InputError(f"{path}, line {number}: must have id and words, got {row}")
        rows[row["id"]] = row
    return rows


def dumps(rows: Iterable[dict[str, Any]]) -> str:
    """JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
