#!/usr/bin/env python3
"""Prints the folder of a published corpus that Lhotse can prepare, for stage 1 of a recipe.

Usage: usable_corpus.py LIST FOLDER [--first-channel]

LIST is what list_files of corpus.sh writes. Mostly the folder is the corpus itself. Where Lhotse
would stop at what it finds there, or drop a meeting, FOLDER is made and printed: links to the files
of LIST. It has no files named ._*, which macOS writes and Lhotse takes for audio and annotations,
and with --first-channel the first channel of each WAV file that has several.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import soundfile

from tagspeech.corpus.recordings import write_channel
from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_text


def usable(listed: Path, folder: Path, first_channel: bool) -> Path:
    """The corpus, or `folder` with links to it. Raises `InputError` for unreadable audio."""
    corpus, _, *rows = read_text(listed).rstrip("\n").split("\n")
    names = [row.split(" ", 1)[1] for row in rows if row[0].isdecimal()]
    several = {}
    if first_channel:
        for name in names:
            path = Path(corpus, name)
            if name.endswith(".wav") and (count := _count_channels(path)) > 1:
                several[name] = count
                say = f"{path}: has {count} channels: the first of them is taken"
                print(f"usable_corpus.py: {say}", file=sys.stderr)
    if not several and not _has_hidden_files(corpus):
        return Path(corpus)
    folder = Path(os.path.abspath(folder))
    with atomic_path(folder) as temporary:
        for name in names:
            link = temporary / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if name in several:
                write_channel(Path(corpus, name), 0, link)
            else:
                link.symlink_to(Path(corpus, name))
    return folder


def _count_channels(path: Path) -> int:
    try:
        return int(soundfile.info(path).channels)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: cannot be read as audio; get it again") from error


def _has_hidden_files(corpus: str) -> bool:
    folders = os.walk(corpus, followlinks=True)
    return any(name.startswith("._") for _, _, names in folders for name in names)


if __name__ == "__main__":
    try:
        options = sys.argv[3:]
        print(usable(Path(sys.argv[1]), Path(sys.argv[2]), options == ["--first-channel"]))
    except InputError as error:
        sys.exit(f"usable_corpus.py: {error}")
