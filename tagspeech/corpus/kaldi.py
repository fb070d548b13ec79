"""A Kaldi data directory as a corpus to import.

Read here rather than by Lhotse's `load_kaldi_data_dir`: that wants one sampling rate for all, takes
the first channel of everything, rounds durations, leaves relative paths to the folder one happens
to stand in, and ends in an assertion or a KeyError that names neither file nor line.
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
    """The recordings of `wav.scp` and the utterances of `segments`, `text` and `utt2spk`.

    root   what relative paths in `wav.scp` are relative to; its commands are run there
    split  what `Audio.folder` becomes

    Without `segments` an utterance is a whole recording; an end of -1 is that of the recording. An
    utterance that one of the three files lacks is rejected. The channel of audio that has several
    is that of `reco2file_and_channel` (A and 1 are the first), or `channel` as `Audio` has it.
    Raises `InputError` for a file that is missing or has a wrong line.
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
    """Lines of a key, `composed`, and its value. Raises `InputError` when a key comes twice."""
    table: dict[str, str] = {}
    if not must_exist and not path.exists():
        return table
    for number, line in enumerate(read_text(path).split("\n"), 1):
        key, *rest = line.split(maxsplit=1)[:2] or [""]
        key = composed(key)
        if key in table:
            raise InputError(f"{path}, line {number}: {key!r} has a line before; remove one")
        if key:
            table[key] = "".join(rest).strip()
    return table


def read_genders(path: Path, must_exist: bool = True) -> dict[str, str]:
    """Lines of a speaker and m or f, as in Kaldi's spk2gender."""
    table = read_table(path, must_exist)
    return {name: gender_of(value, f"{path}, speaker {name}") for name, value in table.items()}


def _span(text: str, where: str) -> tuple[str, float, float]:
    """Recording, start and end of a line of `segments`; an end of -1 is infinite."""
    fields = text.split()
    if len(fields) != 3:
        remedy = "each channel as a recording of its own" if len(fields) == 4 else "a line mended"
        raise InputError(f"{where}: wants recording, start, end, not {text!r}; {remedy}")
    try:
        start, end = float(fields[1]), float(fields[2])
    except ValueError as error:
        raise InputError(f"{where}: {fields[1]} and {fields[2]} are no times") from error
    if end != -1:
        segment(where, fields[0], "", start, end)  # checks them
        if start == end:
            raise InputError(f"{where}: has zero duration; correct or remove it")
    return composed(fields[0]), start, math.inf if end == -1 else end


def _channel(folder: Path, name: str, value: str) -> int:
    """Of "FILE A" or "FILE 1", 0."""
    letter = value.split()[-1] if value else ""
    if re.fullmatch("[A-Z]", letter):
        return ord(letter) - ord("A")
    if letter.isdecimal() and int(letter) > 0:
        return int(letter) - 1
    raise InputError(
        f"{folder}/reco2file_and_channel, recording {name}: wants a file and a channel such as A "
        f"or 1, not {value!r}"
    )
