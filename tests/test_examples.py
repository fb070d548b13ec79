"""`tagspeech examples`: sessions to listen to, beside what was said and what was written."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import soundfile
from lhotse import CutSet

from tagspeech import formats
from tagspeech.cli import main
from tagspeech.corpus.groups import group_segments
from tagspeech.scoring import score


def arguments(folder: Path, groups: Path) -> list[str]:
    names = {"scores": "scores.json", "ref": "ref.seglst.json", "hyp": "hyp.seglst.json"}
    words = [word for name, file in names.items() for word in (f"--{name}", str(folder / file))]
    return ["examples", *words, "--groups", str(groups), "--output", str(folder / "examples")]


def test_three_sessions_to_listen_to(tiny_groups: Path, tmp_path: Path) -> None:
    groups = CutSet.from_file(tiny_groups / "test.jsonl.gz").to_eager()
    ref = [segment for group in groups for segment in group_segments(group)]
    worst = ref[-1].session
    hyp = [replace(one, words="" if one.session == worst else one.words) for one in ref]
    formats.write(ref, tmp_path / "ref.seglst.json")
    formats.write(hyp, tmp_path / "hyp.seglst.json")
    (tmp_path / "scores.json").write_text(json.dumps(score(ref, hyp)))
    assert main(arguments(tmp_path, tiny_groups / "test.jsonl.gz")) == 0
    page = (tmp_path / "examples/README.md").read_text()
    names = re.findall(r"\[(.*)\.flac\]\(\1\.flac\)", page)
    assert len(names) == 3
    assert names[-1] == worst
    assert "Highest: cpWER 100.0 %" in page
    for name in names:
        audio, rate = soundfile.read(tmp_path / f"examples/{name}.flac")
        assert rate == 16000
        assert len(audio) == groups[name].num_samples
        for segment in group_segments(groups[name]):
            assert segment.words in page


def test_a_session_without_a_group_is_named(
    tiny_groups: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = CutSet.from_file(tiny_groups / "test.jsonl.gz").to_eager()
    ref = group_segments(groups[0])
    for side in ("ref", "hyp"):
        formats.write(ref, tmp_path / f"{side}.seglst.json")
    (tmp_path / "scores.json").write_text(json.dumps(score(ref, ref)))
    assert main(arguments(tmp_path, tiny_groups / "dev.jsonl.gz")) == 2
    assert f"has no group {groups[0].id}" in capsys.readouterr().err
    assert not (tmp_path / "examples").exists()
