"""Reads and writes Lhotse manifests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lhotse import CutSet, RecordingSet, SupervisionSet, load_manifest
from lhotse.cut import Cut

from tagspeech.errors import InputError
from tagspeech.files import atomic_path


def read_manifest(path: Path) -> Any:
    """Reads a Lhotse manifest. Raises `InputError` if it is missing or unreadable."""
    if not path.exists():
        raise InputError(f"{path}: does not exist; run the stage that makes it")
    try:
        return load_manifest(path)
    except (ValueError, KeyError, EOFError, OSError) as error:
        raise InputError(f"{path}: is not a Lhotse manifest: {error}") from error


def write_cuts(path: Path, cuts: Sequence[Cut]) -> None:
    """Writes cuts as `.jsonl.gz`, atomically."""
    write_manifest(path, CutSet.from_cuts(cuts))


def write_manifest(path: Path, rows: CutSet | RecordingSet | SupervisionSet) -> None:
    """Writes a Lhotse manifest as `.jsonl.gz`, atomically."""
    with atomic_path(path) as temporary:
        named = temporary.with_name(f"{temporary.name}.jsonl.gz")
        rows.to_file(named)
        named.rename(temporary)
