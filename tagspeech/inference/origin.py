"""What a journal of decoded groups was made from, in a file beside it: `SPLIT.raw.origin.json`."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tagspeech.dependencies import flatten
from tagspeech.errors import InputError
from tagspeech.files import read_json, sha256_inside, write_json

log = logging.getLogger(__name__)

Origin = dict[str, Any]
LARGE = 1 << 30  # bytes; of larger files, only samples enter the fingerprint
SAMPLES, SAMPLE = 1024, 1 << 14  # evenly spaced pieces of a large file, and their bytes


def origin_of(model: Path, groups: Path, **options: Any) -> Origin:
    """Fingerprints of a model's folder and of a file of utterance groups, and the options."""
    return {"model": fingerprint(model), "groups": sha256_inside(groups), **options}


def fingerprint(model: Path) -> str:
    """SHA-256 of a file of weights, or of the files of a model but its README.md, with names."""
    digest = hashlib.sha256()
    for path in [model] if model.is_file() else sorted(model.rglob("*")):
        if path.is_file() and path.suffix != ".md":
            size = path.stat().st_size
            digest.update(
                f"{path.relative_to(model).as_posix() if path != model else ''} {size}\n".encode()
            )
            step = SAMPLE if size <= LARGE else size // SAMPLES
            with path.open("rb") as file:
                for start in range(0, size, step):
                    file.seek(start)
                    digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def check_origin(journal: Path, origin: Origin) -> None:
    """Raises `InputError` if a journal was made from something else than `origin`.

    A journal without a record of it, as older versions wrote it, is continued with a warning.
    """
    if not journal.exists() or not journal.stat().st_size:
        return
    if not origin_file(journal).exists():
        log.warning(
            "%s: does not say which model, groups and options it was made with; it is continued "
            "unchecked",
            journal,
        )
    elif differing := _difference(_read(journal), origin):
        raise InputError(
            f"{journal}: was decoded with another {differing}; delete it, or name another --output"
        )


def write_origin(journal: Path, origin: Origin) -> None:
    """Writes what a journal is made from."""
    write_json(origin_file(journal), origin)


def common_origin(journals: Sequence[Path]) -> Origin | None:
    """What all journals were made from; None if none of them says it.

    Raises:
        InputError: They were made from different things.
    """
    known = [journal for journal in journals if origin_file(journal).exists()]
    origins = [_read(journal) for journal in known]
    for journal, origin in zip(known, origins, strict=True):
        if differing := _difference(origins[0], origin):
            raise InputError(
                f"{journal}: was decoded with another {differing} than {known[0]}; decode one of "
                "them again"
            )
    return origins[0] if origins else None


def origin_file(journal: Path) -> Path:
    """The file beside a journal."""
    return journal.with_name(f"{journal.name.removesuffix('.jsonl')}.origin.json")


def _read(journal: Path) -> Origin:
    origin = read_json(origin_file(journal))
    if not isinstance(origin, dict):
        raise InputError(f"{origin_file(journal)}: must be an object; delete it and {journal.name}")
    return origin


def _difference(old: Origin, new: Origin) -> str:
    """The first key that differs, or nothing."""
    before, after = flatten(old), flatten(new)
    return next((k for k in {**before, **after} if before.get(k) != after.get(k)), "")
