"""Lhotse manifests: read with checks of what they hold, and written atomically.

Lhotse takes any values for its fields, and a manifest can make it run a command: a recording whose
source is a command or a piped address, or an array that is stored as a pickle. A manifest from
elsewhere is data, so both are refused.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from lhotse import (
    CutSet,
    Recording,
    RecordingSet,
    SupervisionSegment,
    SupervisionSet,
    load_manifest,
)
from lhotse.array import Array, TemporalArray
from lhotse.cut import Cut, MixedCut, PaddingCut

from tagspeech.errors import InputError
from tagspeech.files import atomic_path

# What Lhotse and the readers below it raise for damaged files and for values of a wrong type
_UNREADABLE = (
    *(ValueError, LookupError, EOFError, OSError, TypeError, AttributeError, AssertionError),
    *(RecursionError, OverflowError, zlib.error, struct.error),
)
_WEB = re.compile("https?://")
MOST_SECONDS = 1e8  # three years
STORED_AS = "numpy_files"  # how stage 5 stores arrays


def read_manifest(path: Path, *, allow_commands: bool = False) -> Any:
    """Reads a Lhotse manifest.

    Args:
        path: The manifest.
        allow_commands: Whether recordings may come from commands, which run when they are read.

    Raises:
        InputError: The manifest is missing, unreadable, or has values of a wrong type; or it would
            run commands.
    """
    if not path.exists():
        raise InputError(f"{path}: does not exist; run the stage that makes it")
    try:
        manifest = load_manifest(path)
        if not isinstance(manifest, (RecordingSet, SupervisionSet, CutSet)):
            raise InputError(f"{path}: must have recordings, supervisions or cuts")
        manifest = manifest.to_eager()
        items = list(manifest)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: is not a Lhotse manifest: {reason[:200]}") from error
    for item in items:
        _check_item(item, str(path), allow_commands)
    return manifest


def _check_item(item: Any, where: str, allow_commands: bool) -> None:
    """Raises `InputError` for a recording, supervision or cut with values that cannot be right."""
    if isinstance(item, Recording):
        _check_recording(item, where, allow_commands)
    elif isinstance(item, SupervisionSegment):
        _check_supervision(item, where)
    elif isinstance(item, MixedCut):
        _check(item, where, id=str)
        for track in item.tracks:
            _check(track, f"{where}: cut {item.id}, track", offset=float)
            _check_item(track.cut, where, allow_commands)
    elif not isinstance(item, PaddingCut):
        _check(item, where, id=str, start=float, duration=float, supervisions=list)
        _check_arrays(item, where)
        for supervision in item.supervisions:
            _check_supervision(supervision, f"{where}: cut {item.id}")
        if item.recording is not None:
            _check_recording(item.recording, f"{where}: cut {item.id}", allow_commands)
            channels = item.channel if isinstance(item.channel, list) else [item.channel]
            there = {c for source in item.recording.sources for c in source.channels}
            if there and not all(isinstance(c, int) and c in there for c in channels):
                raise InputError(
                    f"{where}: cut {item.id}: its recording has no channel {_short(item.channel)}"
                )


def _check_recording(item: Recording, where: str, allow_commands: bool) -> None:
    _check(item, where, id=str, sampling_rate=int, num_samples=int, duration=float, sources=list)
    where = f"{where}: recording {item.id}"
    if item.sampling_rate < 1 or item.num_samples < 0 or item.duration < 0:
        raise InputError(f"{where}: sampling_rate, num_samples and duration must not be negative")
    for source in item.sources:
        _check(source, where, type=str, channels=list)
        if not all(isinstance(channel, int) for channel in source.channels):
            raise InputError(f"{where}: channels must be integers, got {_short(source.channels)}")
        if source.type == "memory":
            continue
        _check(source, where, source=str)
        if source.type not in ("file", "url", "command"):
            raise InputError(f"{where}: type of a source must be file, got {_short(source.type)}")
        if source.type == "url" and not _WEB.match(source.source):
            raise InputError(f"{where}: url must begin with https://, got {_short(source.source)}")
        if source.type == "command" and not allow_commands:
            raise InputError(
                f"{where}: its audio is the output of the command {_short(source.source)}, which "
                "is not run; if you trust it, make groups with --allow-commands (run.sh: "
                "--allow-commands true)"
            )

    there = {channel for source in item.sources for channel in source.channels}
    if (
        item.sources
        and item.channel_ids is not None
        and (
            not (isinstance(item.channel_ids, list) and item.channel_ids)
            or not all(isinstance(channel, int) for channel in item.channel_ids)
            or not there.issuperset(item.channel_ids)
        )
    ):
        raise InputError(
            f"{where}: channel_ids must be those of its sources, {sorted(there)}, got "
            f"{_short(item.channel_ids)}"
        )


def _check_supervision(item: SupervisionSegment, where: str) -> None:
    _check(item, where, id=str, recording_id=str, start=float, duration=float)
    where = f"{where}: supervision {item.id}"
    for name in ("text", "speaker", "gender", "language"):
        value = getattr(item, name)
        if value is not None and not _is_text(value):
            raise InputError(f"{where}: {name} must be text, got {_short(value)}")
    channels = item.channel if isinstance(item.channel, list) else [item.channel]
    if not channels or not all(isinstance(channel, int) for channel in channels):
        raise InputError(f"{where}: channel must be an integer, got {_short(item.channel)}")
    _check_arrays(item, where)
    for word in (word for words in (item.alignment or {}).values() for word in words):
        _check(word, f"{where}: alignment", start=float, duration=float)
        if not _is_text(word.symbol):
            raise InputError(f"{where}: alignment: symbol must be text, got {_short(word.symbol)}")


def _check_arrays(item: Cut | SupervisionSegment, where: str) -> None:
    """Raises `InputError` for arrays that are not stored as files of NumPy."""
    for name, value in (item.custom or {}).items():
        array = value.array if isinstance(value, TemporalArray) else value
        if isinstance(array, Array) and (
            array.storage_type != STORED_AS or str(array.storage_path).startswith("pipe:")
        ):
            raise InputError(
                f"{where}: {item.id}: {name}: arrays must be stored as {STORED_AS}, got "
                f"{_short(array.storage_type)}; run stage 5 again"
            )


def _check(item: Any, where: str, **types: type) -> None:
    """Raises `InputError` if a field of `item` has another type; float stands for any number."""
    for name, expected in types.items():
        value = getattr(item, name)
        if expected is float:
            is_right = isinstance(value, (int, float)) and not isinstance(value, bool)
            is_right = is_right and -MOST_SECONDS <= value <= MOST_SECONDS  # never nan
        elif expected is int:
            is_right = isinstance(value, Integral) and not isinstance(value, bool)
            is_right = is_right and abs(int(value)) < 2**53
        else:
            is_right = _is_text(value) if expected is str else isinstance(value, expected)
        if not is_right:
            kind = {float: "a number of seconds", int: "an integer", str: "text", list: "a list"}
            label = "" if name == "id" else f" {getattr(item, 'id', '')}".rstrip()
            raise InputError(
                f"{where}:{label} {name} must be {kind[expected]}, got {_short(value)}"
            )


def _is_text(value: Any) -> bool:
    """Whether `value` is a string that can be written; JSON can hold halves of characters."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _short(value: Any) -> str:
    """`value` for a message, however long it is."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def write_cuts(path: Path, cuts: Sequence[Cut]) -> None:
    """Writes cuts as `.jsonl.gz`, atomically."""
    write_manifest(path, CutSet.from_cuts(cuts))


def write_manifest(path: Path, rows: CutSet | RecordingSet | SupervisionSet) -> None:
    """Writes a Lhotse manifest as `.jsonl.gz`, atomically."""
    with atomic_path(path) as temporary:
        named = temporary.with_name(f"{temporary.name}.jsonl.gz")
        rows.to_file(named)
        named.rename(temporary)
