#!/usr/bin/env python3
"""Extracts the recordings of single digits from their archive, or copies them from a folder.

Usage: unpack_digits.py SOURCE OUTPUT [CHECKSUM]

Writes OUTPUT/DIGIT_speaker_INDEX.wav: all recordings or none.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tarfile
import zlib
from pathlib import Path

from tagspeech.errors import InputError
from tagspeech.files import atomic_path

NAME = re.compile(r"([0-9])_([a-z]+)_([0-9]+)\.wav")


def read_source(source: Path) -> dict[str, bytes]:
    """Reads the recordings in an archive, or in a folder or its subfolder `recordings`.

    In an archive, recordings are regular files with a matching name, in any folder.

    Returns:
        The content of each file by name.

    Raises:
        InputError: `source` is damaged, not an archive, or has no recording.
    """
    found: dict[str, bytes] = {}
    try:
        if source.is_dir():
            inner = source / "recordings"
            for path in (inner if inner.is_dir() else source).iterdir():
                if NAME.fullmatch(path.name):
                    found[path.name] = path.read_bytes()
        else:
            with tarfile.open(source) as archive:
                for member in archive:
                    name = Path(member.name).name
                    content = archive.extractfile(member) if member.isfile() else None
                    if content and NAME.fullmatch(name):
                        found[name] = content.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{source}: is not an intact archive of recordings: {reason}") from error
    if not found:
        raise InputError(f"{source}: has no recording named DIGIT_speaker_INDEX.wav")
    return found


def checksum_of(recordings: dict[str, bytes]) -> str:
    """The output of `sha256sum *.wav | sha256sum` in their folder.

    Checksums of archives that GitHub generates can change; those of their content cannot.
    """
    lines = (f"{hashlib.sha256(recordings[n]).hexdigest()}  {n}\n" for n in sorted(recordings))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def unpack(source: Path, output: Path, checksum: str) -> None:
    """Writes the recordings of `source` to the folder `output`.

    Raises:
        InputError: Their checksum is not `checksum`; an empty one is not compared.
    """
    recordings = read_source(source)
    found = checksum_of(recordings)
    if checksum not in ("", found):
        raise InputError(
            f"{source}: the checksum of its {len(recordings)} recordings must be {checksum}, got "
            f"{found}; to use other recordings, pass an empty --checksum"
        )
    with atomic_path(output) as temporary:
        temporary.mkdir()
        for name, content in recordings.items():
            (temporary / name).write_bytes(content)


if __name__ == "__main__":
    try:
        unpack(Path(sys.argv[1]), Path(sys.argv[2]), "".join(sys.argv[3:]))
    except InputError as error:
        sys.exit(f"unpack_digits.py: {error}")
