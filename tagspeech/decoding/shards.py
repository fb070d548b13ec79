"""Decoding in shards, on several devices or hosts, and what becomes one again of their journals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhotse import CutSet

from tagspeech.errors import InputError
from tagspeech.files import read_journal


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1 to `count`, of the groups of a split."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard of an option K/N. Raises `InputError` for anything else."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"--shard {text}: wants K/N with K from 1 to N, such as 2/4")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_torchrun(cls, environment: Mapping[str, str]) -> Shard | None:
        """The shard of a process that torchrun started; None where there is but one."""
        count = int(environment.get("WORLD_SIZE", "1"))
        return cls(int(environment["RANK"]) + 1, count) if count > 1 else None

    def journal(self, split: str) -> str:
        """The name of its journal."""
        return f"{split}.{self.number}-of-{self.count}.raw.jsonl"

    def take(self, groups: CutSet) -> CutSet:
        """Its groups: dealt out from the longest on, so that all shards last about as long."""
        ordered = sorted(groups, key=lambda cut: (-cut.duration, cut.id))
        return CutSet.from_cuts(ordered[self.number - 1 :: self.count])


def read_shards(groups: CutSet, split: str, folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The rows of all shards' journals in `folders`, in the order of the groups.

    Raises `InputError` where there are none, for shards of two divisions, for a shard that is
    missing or there twice, and for a session that is missing, there twice, or none of the groups.
    """
    found: dict[Shard, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob(f"{split}.*-of-*.raw.jsonl")):
            match = re.fullmatch(r"(\d+)-of-(\d+)\.raw\.jsonl", path.name[len(split) + 1 :])
            if not match:
                continue
            shard = Shard(int(match[1]), int(match[2]))
            if shard in found:
                raise InputError(f"{path}: {found[shard]} is the same shard; name one of them")
            found[shard] = path
    counts = sorted({shard.count for shard in found})
    where = ", ".join(map(str, folders))
    if len(counts) != 1:
        kinds = " and ".join(map(str, counts)) or "no"
        raise InputError(f"{where}: holds {kinds} shards of {split}; wants those of one division")
    for number in range(1, counts[0] + 1):
        if Shard(number, counts[0]) not in found:
            raise InputError(
                f"{where}: lacks shard {number}/{counts[0]} of {split}; decode it with "
                f"--shard {number}/{counts[0]}"
            )
    return _rows(groups, found)


def _rows(groups: CutSet, found: Mapping[Shard, Path]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    wanted = set(groups.ids)
    for path in found.values():
        for row in read_journal(path):
            session = row["session"]
            if session in rows:
                raise InputError(f"{path}: session {session} is decoded twice; remove one of them")
            if session not in wanted:
                raise InputError(f"{path}: session {session} is none of the groups")
            rows[session] = row
    for shard, path in found.items():
        missing = [cut.id for cut in shard.take(groups) if cut.id not in rows]
        if missing:
            raise InputError(
                f"{path}: lacks {len(missing)} sessions, {missing[0]} the first; go on with "
                f"--shard {shard.number}/{shard.count}"
            )
    return [rows[cut.id] for cut in groups]
