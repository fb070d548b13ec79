"""Reads a Kaldi data directory as a corpus to import.

Lhotse's `load_kaldi_data_dir` is not used: it needs one sampling rate for all recordings, takes the
first channel of all, rounds durations, resolves relative paths in the current folder, and raises
AssertionError or KeyError without naming file or line.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from shlex import quote

from lhotse.supervision import SupervisionSegment

from tagspeech.corpus.layouts import LHOTSE_GENDERS, Corpus, RecordingSource
from tagspeech.errors import InputError
from tagspeech.files import check_id, read_text
from tagspeech.formats.common import gender_of, segment
from tagspeech.segments import composed


def read_kaldi(
    folder: Path, root: Path, channel: int | str | None = None, split: str = ""
) -> Corpus:
    """Reads the recordings of `wav.scp` and the utterances of `segments`, `text` and `utt2spk`.

    Without `segments`, an utterance is a whole recording. An end of -1 is the end of the recording.
    An utterance that is missing in one of the three files is rejected.

    Args:
        folder: The data directory.
        root: Folder of relative paths in `wav.scp`; its commands run there.
        channel: As in `RecordingSource`, for recordings that `reco2file_and_channel` does not name
            (where A and 1 are the first channel).
        split: The `folder` of each `RecordingSource`.

    Raises:
        InputError: A file is missing or has a malformed line.
    """
    channels = read_table(folder / "reco2file_and_channel", must_exist=False)
    audio = {}
    for name, source in read_table(folder / "wav.scp").items():
        check_id(name, f"{folder}/wav.scp")
        is_command = source.endswith("|")
        audio[name] = RecordingSource(
            source=f"cd {quote(str(root))} && {source[:-1]}" if is_command else str(root / source),
            channel=_channel(folder, name, channels[name]) if name in channels else channel,
            is_command=is_command,
            mono_is_it=name in channels,
            folder=split,
        )
    has_segments = (folder / "segments").exists()
    tables = {
        "segments": read_table(folder / "segments")
        if has_segments
        else {name: f"{name} 0 -1" for name in audio},
        "text": read_table(folder / "text"),
        "utt2spk": read_table(folder / "utt2spk"),
    }
    genders = read_genders(folder / "spk2gender", must_exist=False)
    corpus = Corpus(audio, [])
    for utterance in dict.fromkeys(name for table in tables.values() for name in table):
        recording, start, end = "", 0.0, 0.0
        if utterance in tables["segments"]:
            where = f"{folder}/segments, utterance {utterance}"
            recording, start, end = _span(tables["segments"][utterance], where)
        speaker = composed(tables["utt2spk"].get(utterance, ""))
        supervision = SupervisionSegment(
            id=utterance,
            recording_id=recording,
            start=start,
            duration=round(end - start, 7),
            text=" ".join(tables["text"].get(utterance, "").split()),
            speaker=speaker,
            gender=LHOTSE_GENDERS[genders.get(speaker, "u")],
        )
        missing = [name for name, table in tables.items() if utterance not in table]
        if missing:
            corpus.rejected.append((f"it is missing in {folder}/{missing[0]}", supervision))
        else:
            corpus.supervisions.append(supervision)
    return corpus


def read_table(path: Path, must_exist: bool = True) -> dict[str, str]:
    """Reads lines of a key and a value; keys are `composed`. Raises `InputError` for duplicates."""
    table: dict[str, str] = {}
    if not must_exist and not path.exists():
        return table
    for number, line in enumerate(read_text(path).split("\n"), 1):
        key, *rest = line.split(maxsplit=1)[:2] or [""]
        key = composed(key)
        if key in table:
            raise InputError(f"{path}, line {number}: {key!r} has an earlier line; remove one")
        if key:
            table[key] = "".join(rest).strip()
    return table


def read_genders(path: Path, must_exist: bool = True) -> dict[str, str]:
    """Reads lines of a speaker and m or f, as in Kaldi's spk2gender."""
    table = read_table(path, must_exist)
    return {name: gender_of(value, f"{path}, speaker {name}") for name, value in table.items()}


def _span(text: str, where: str) -> tuple[str, float, float]:
    """Recording, start and end of a line of `segments`; an end of -1 becomes infinity."""
    fields = text.split()
    if len(fields) != 3:
        remedy = "make each channel a recording" if len(fields) == 4 else "correct the line"
        raise InputError(f"{where}: must be recording, start, end, got {text!r}; {remedy}")
    try:
        start, end = float(fields[1]), float(fields[2])
    except ValueError as error:
        raise InputError(
            f"{where}: start and end must be numbers, got {fields[1]} and {fields[2]}"
        ) from error
    if end != -1:
        segment(where, fields[0], "", start, end)  # checks the times
        if start == end:
            raise InputError(f"{where}: has zero duration; correct or remove it")
    return composed(fields[0]), start, math.inf if end == -1 else end


def _channel(folder: Path, name: str, value: str) -> int:
    """The channel of "FILE A" or "FILE 1", from 0."""
    letter = value.split()[-1] if value else ""
    if re.fullmatch("[A-Z]", letter):
        return ord(letter) - ord("A")
    if letter.isdecimal() and int(letter) > 0:
        return int(letter) - 1
    raise InputError(
        f"{folder}/reco2file_and_channel, recording {name}: must be a file and a channel such as "
        f"A or 1, got {value!r}"
    )
