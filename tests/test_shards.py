"""Decoding in shards: together they write what one process writes; gaps and duplicates are seen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tagspeech.data.batches import read_groups
from tagspeech.errors import InputError
from tagspeech.inference.decode import Shard


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(InputError, match="--shard"):
        Shard.parse(text)


def test_a_shard_has_one_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tagspeech", "decode", "--shard", "1/2", "--jobs", "2"]
    command += [f"--{name}={tmp_path}" for name in ("config", "model", "groups", "output")]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "--jobs: has no effect with --shard" in refused.stderr


def merge(groups: Path, output: Path, *folders: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tagspeech", "merge-decoded", "--groups", str(groups)]
    command += ["--output", str(output), *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_shards_become_one(tiny_groups: Path, tmp_path: Path) -> None:
    """Each group is in one shard; a missing shard, a missing and a doubled session are refused."""
    path = tiny_groups / "test.jsonl.gz"
    groups = read_groups(path)
    text = "<text>\n0.00-0.10>so\n</text>\n<speaker>\n"
    text += '<spk id="1" g="u" t="0.00-0.10"/>\n</speaker>'
    told = {"text": text, "malformed": False, "problems": [], "tokens": 9, "passes": 3}
    journals = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        shard = Shard(number, 2)
        rows = [
            json.dumps({"session": cut.id, **told, "speakers_by_voice": ["1"]}) + "\n"
            for cut in shard.take(groups, 20.0)
        ]
        journals.append(folder / shard.journal("test"))
        journals[-1].write_text("".join(rows))
    first, second = (one.parent for one in journals)
    output = tmp_path / "output"
    refused = merge(path, output, first)
    assert refused.returncode == 2
    assert "lacks shard 2/2" in refused.stderr
    assert merge(path, output, first, second).returncode == 0
    sessions = [json.loads(row)["session"] for row in (output / "test.raw.jsonl").open()]
    assert sessions == list(groups.ids)
    hyp = json.loads((output / "test.hyp.seglst.json").read_text())
    assert len(hyp) == len(groups)
    lines = journals[1].read_text().splitlines(keepends=True)
    journals[1].write_text("".join(lines[:-1]))
    assert "lacks 1 sessions" in merge(path, output, first, second).stderr
    journals[1].write_text("".join([*lines, lines[0]]))
    assert "is decoded twice" in merge(path, output, first, second).stderr
