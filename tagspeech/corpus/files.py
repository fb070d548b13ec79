"""The files of a corpus to import: which are read, and a line about those that are not."""

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
OTHER_WORDS = ("srt", "vtt")  # they need not name speakers


def find_audio(folder: Path) -> list[Path]:
    """The WAV and FLAC files anywhere in `folder`. Raises `InputError` if there are none."""
    paths = _walk(folder)
    found = _visible(folder, [path for path in paths if path.suffix.lower() in AUDIO])
    others = [path for path in paths if path.suffix.lower() in OTHER_AUDIO]
    _warn_of(folder, others, "audio files are not read", "; convert them to WAV or FLAC")
    if not found:
        raise InputError(f"{folder}: holds no file named *.wav or *.flac")
    return found


def find_files(path: Path, formats: Sequence[str]) -> list[Path]:
    """`path`, or the files of these formats in this folder. Raises `InputError` for none."""
    if path.is_dir():
        paths = _walk(path)
        found = _visible(path, [one for one in paths if split_name(one)[1] in formats])
        if not found:
            raise InputError(f"{path}: holds no file of {', '.join(formats)}")
        for other in OTHER_WORDS if formats == WORDS else ():
            unread = [one for one in paths if split_name(one)[1] == other]
            _warn_of(path, unread, f"files of {other} are not read")
        return found
    if split_name(path)[1] not in formats:
        raise InputError(f"{path}: its extension names none of {', '.join(formats)}")
    return [path]


def _walk(folder: Path) -> list[Path]:
    """All files in `folder`; unlike rglob's, those in folders that are links too."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = [Path(f, name) for f, _, names in os.walk(folder, followlinks=True) for name in names]
    return sorted(found)


def _visible(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """`paths` without hidden files, such as macOS writes beside each file of another system."""
    hidden = [path for path in paths if path.name.startswith(".")]
    _warn_of(folder, hidden, "hidden files are skipped")
    return [path for path in paths if not path.name.startswith(".")]


def _warn_of(folder: Path, paths: Sequence[Path], what: str, remedy: str = "") -> None:
    if paths:
        log.warning("%s: %d %s (the first: %s)%s", folder, len(paths), what, paths[0], remedy)
