"""Finds the files of a corpus to import, and warns about files that are not read."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from tagspeech.errors import InputError
from tagspeech.formats import split_name

log = logging.getLogger(__name__)

AUDIO = (".wav", ".flac")
OTHER_AUDIO = (
    *(".mp3", ".m4a", ".mp4", ".aac", ".ogg", ".opus", ".wma", ".aif", ".aiff", ".sph", ".webm"),
    *(".mkv", ".mov"),
)
WORDS = ("stm", "ctm", "seglst", "textgrid")
OTHER_WORDS = ("srt", "vtt")  # speakers are optional in them


def find_audio(folder: Path) -> list[Path]:
    """The WAV and FLAC files in `folder` and below. Raises `InputError` if there are none."""
    paths = _walk(folder)
    found = _visible(folder, [path for path in paths if path.suffix.lower() in AUDIO])
    others = [path for path in paths if path.suffix.lower() in OTHER_AUDIO]
    _warn_of(folder, others, "audio files are not read", "; convert them to WAV or FLAC")
    if not found:
        raise InputError(f"{folder}: has no file named *.wav or *.flac")
    return found


def find_files(path: Path, formats: Sequence[str]) -> list[Path]:
    """`path`, or the files of `formats` in this folder. Raises `InputError` if there are none."""
    if path.is_dir():
        paths = _walk(path)
        found = _visible(path, [file for file in paths if split_name(file)[1] in formats])
        if not found:
            raise InputError(f"{path}: has no file of {', '.join(formats)}")
        for other in OTHER_WORDS if formats == WORDS else ():
            unread = [file for file in paths if split_name(file)[1] == other]
            _warn_of(path, unread, f"files of {other} are not read")
        return found
    if split_name(path)[1] not in formats:
        raise InputError(f"{path}: its extension must be that of {', '.join(formats)}")
    return [path]


def _walk(folder: Path) -> list[Path]:
    """All files in `folder` and below; unlike rglob, follows links to folders."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = [Path(f, name) for f, _, names in os.walk(folder, followlinks=True) for name in names]
    return sorted(found)


def _visible(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """`paths` without hidden files, such as those that macOS writes to other file systems."""
    hidden = [path for path in paths if path.name.startswith(".")]
    _warn_of(folder, hidden, "hidden files are skipped")
    return [path for path in paths if not path.name.startswith(".")]


def _warn_of(folder: Path, paths: Sequence[Path], what: str, remedy: str = "") -> None:
    if paths:
        log.warning("%s: %d %s (the first: %s)%s", folder, len(paths), what, paths[0], remedy)
