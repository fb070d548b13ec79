"""Shards of a decoding, and the journals of processes that share one.

`SPLIT.K-of-N.raw.jsonl` is the journal of a shard that a call of its own decodes,
`SPLIT.part.K-of-N.raw.jsonl` that of a process beside others, which is gone when all have ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from lhotse import CutSet

from tagspeech.data.batches import batches_by_duration
from tagspeech.errors import InputError
from tagspeech.files import read_journal, write_json, write_text
from tagspeech.inference.origin import origin_file, write_origin
from tagspeech.llm.place import read_places


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1 to `count`, of the utterance groups of a split."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that an option K/N names.

        Raises:
            InputError: The text is not K/N with K from 1 to N.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"--shard {text}: must be K/N with K from 1 to N, such as 2/4")
        return cls(int(match[1]), int(match[2]))

    def journal(self, split: str) -> str:
        """The file name of the shard's journal."""
        return f"{split}.{self.number}-of-{self.count}.raw.jsonl"

    def take(self, groups: CutSet, max_duration: float) -> CutSet:
        """The groups of the shard: whole batches of `max_duration` seconds, so that sums have the
        bits that they have without shards; dealt out from the longest on, for about equal time."""
        batches = list(batches_by_duration(groups, max_duration))[self.number - 1 :: self.count]
        return CutSet.from_cuts(cut for batch in batches for cut in batch)


PART = ".part"  # after SPLIT in the journals of processes that share the groups


def parts_of(output: Path, split: str) -> list[Path]:
    """The journals of processes that share the groups."""
    return sorted(output.glob(f"{split}{PART}.*-of-*.raw.jsonl"))


def join_parts(
    whole: Path,
    rows: Mapping[str, dict[str, Any]],
    groups: CutSet,
    origin: dict[str, Any],
    max_duration: float,
) -> None:
    """Replaces the journals of processes by the one that a single process would have written."""
    split = whole.name.removesuffix(".raw.jsonl")
    parts = parts_of(whole.parent, split)
    if not parts:
        return
    batches = batches_by_duration(groups, max_duration)
    lines = (to_line(rows[cut.id]) for cut in chain.from_iterable(batches))
    lists = [read_places(places_file(path)) for path in (whole, *parts)]
    write_json(places_file(whole), list(dict.fromkeys(chain.from_iterable(lists))))
    write_origin(whole, origin)
    write_text(whole, "".join(lines))
    for path in parts:
        for file in (places_file(path), origin_file(path), path):
            file.unlink(missing_ok=True)


def to_line(row: dict[str, Any]) -> str:
    """A row as `files.journal` writes it."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def places_file(raw: Path) -> Path:
    """The file beside a journal that says where its rows were computed."""
    return raw.with_name(raw.name.replace(".raw.jsonl", ".places.json"))


def find_shards(split: str, folders: Sequence[Path]) -> dict[Shard, Path]:
    """The journals of all shards in `folders`.

    Raises:
        InputError: There are no shards, or shards of several divisions, or a shard is missing or
            present twice.
    """
    found: dict[Shard, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob(f"{split}.*-of-*.raw.jsonl")):
            match = re.fullmatch(r"(\d+)-of-(\d+)\.raw\.jsonl", path.name[len(split) + 1 :])
            if not match:
                continue
            shard = Shard(int(match[1]), int(match[2]))
            if shard in found:
                raise InputError(f"{path}: {found[shard]} is the same shard; name only one of them")
            found[shard] = path
    counts = sorted({shard.count for shard in found})
    where = ", ".join(map(str, folders))
    if len(counts) != 1:
        kinds = " and ".join(map(str, counts)) or "no"
        raise InputError(f"{where}: holds {kinds} shards of {split}; they must be of one division")
    for number in range(1, counts[0] + 1):
        if Shard(number, counts[0]) not in found:
            raise InputError(
                f"{where}: lacks shard {number}/{counts[0]} of {split}; decode it with "
                f"--shard {number}/{counts[0]}"
            )
    return found


def rows_of(groups: CutSet, found: Mapping[Shard, Path]) -> list[dict[str, Any]]:
    """The rows of all shards' journals, in the order of the groups.

    Raises:
        InputError: A session is missing, present twice, or not among the groups.
    """
    rows: dict[str, dict[str, Any]] = {}
    wanted = set(groups.ids)
    for path in found.values():
        for row in read_journal(path):
            session = row["session"]
            if session in rows:
                raise InputError(f"{path}: session {session} is decoded twice; remove one of them")
            if session not in wanted:
                raise InputError(f"{path}: session {session} is not among the groups")
            rows[session] = row
    missing = [cut.id for cut in groups if cut.id not in rows]
    if missing:
        count = next(iter(found)).count
        raise InputError(
            f"{', '.join(map(str, found.values()))}: lacks {len(missing)} sessions, {missing[0]} "
            f"the first; continue with --shard 1/{count} to {count}/{count}"
        )
    return [rows[cut.id] for cut in groups]
