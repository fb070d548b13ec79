"""`tagspeech import`, and the recipe that is there to be copied: its page, run as written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from corpora import Source, imported, manifests, segments_of
from lhotse import CutSet

from tagspeech.cli import main
from tagspeech.config import Config
from tagspeech.config_file import load_config, to_tree
from tagspeech.corpus.splits import SPLITS


def run(command: list[object], cwd: Path, code: int = 0, timeout: int = 100) -> str:
    """Runs a command, checks its exit code, gives its stderr."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stderr


def test_command(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["import", "--output", "out", "--audio", "audio", "--words", "all.stm"]
    messages = run([sys.executable, "-m", "tagspeech", *options, "--verbose"], small)
    assert "train: 1 recordings, 0.00 hours, 2 segments, 2 speakers (0 of known gender)" in messages
    source = Path(manifests(small / "out", "dev")[0][0].sources[0].source)
    assert source == small / "audio/dev/b.wav"  # whatever folder one stands in later
    monkeypatch.chdir(small)
    (small / "audio/dev/b.wav").unlink()
    assert main(options) == 2
    out, messages = capsys.readouterr()
    assert messages.startswith("tagspeech import: 1 of 3 sessions with segments have no recording")
    assert (out, messages.count("\n")) == ("", 1)
    with pytest.raises(SystemExit):
        main([*options, "--shares", "most"])
    assert (
        "--shares: must be three numbers such as 0.8,0.1,0.1, got 'most'" in capsys.readouterr().err
    )


@pytest.fixture
def house(root: Path, tmp_path: Path) -> Path:
    """A copy of the repository whose environment is installed."""
    folder = tmp_path / "house"
    folder.mkdir()
    wanted = [f"folder {folder}\ngpu false"]
    for name in ("run.sh", "path.sh", "pyproject.toml", *(p.name for p in root.glob("req*.txt"))):
        shutil.copy2(root / name, folder)
    for name in ("pyproject.toml", "requirements.txt", "requirements-gpu.txt"):
        wanted.append((folder / name).read_text().rstrip("\n"))
    for name in ("local", "utils", "tagspeech", "egs/template"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".venv").mkdir()
    (folder / ".venv/.installed").write_text("\n".join(wanted) + "\n")
    return folder


def test_page_runs_as_written(root: Path, house: Path, corpus: Path, source: Source) -> None:
    page = (root / "egs/template/README.md").read_text()
    copying, trying = re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S)
    run(["bash", "-euc", copying], house)
    conf = house / "egs/mycorpus/conf/recipe.conf"
    assert conf.read_text().count('corpus_dir=""') == 1
    conf.write_text(conf.read_text().replace('corpus_dir=""', f'corpus_dir="{corpus}"'))
    messages = run(["bash", "-euc", trying], house)
    assert messages.count("(begin: not done yet)") == 3
    log = (house / "egs/mycorpus/exp/log/00-download-or-simulate.log").read_text()
    assert "test: 1 recordings" in log
    data = house / "egs/mycorpus/data"
    assert imported(data / "manifests", source) == [
        replace(one, gender="u") for one in source.segments
    ]
    grouped = [
        replace(one, start=one.start + cut.start)
        for split in SPLITS
        for cut in CutSet.from_file(data / f"groups/{split}.jsonl.gz")
        for one in cut.supervisions
    ]
    assert segments_of(grouped) == [replace(one, gender="u") for one in source.segments]
    assert (data / "rejected.jsonl").read_text() == ""
    messages = run(["egs/mycorpus/run.sh", "--stop-stage", 2], house)
    assert messages.count("done already") == 3
    everything, *_ = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    steps = ("max_steps=2", "warmup_steps=1", "valid_every=2", "checkpoint_every=2")
    few = [f"{part}.{one}" for part in ("semantic.train", "voice.train", "train") for one in steps]
    sets = [f"--set {one}" for one in (*few, "decode.max_new_tokens=30")]
    run(["bash", "-euc", " ".join([everything.rstrip(), *sets])], house, timeout=600)
    results = json.loads((house / "egs/mycorpus/exp-tiny/results.json").read_text())
    assert results["test"]["cpwer"] > 0
    assert results["test"]["sessions"] == len(CutSet.from_file(data / "groups/test.jsonl.gz"))


@pytest.mark.parametrize(
    "options",
    [
        ". --words all.ctm --speakers all.rttm --genders train/spk2gender --split-by lists",
        "whole --kaldi true --split-by shares --local-speakers true --skip-unmatched true",
    ],
)
def test_variables_of_the_recipe(house: Path, corpus: Path, source: Source, options: str) -> None:
    for split in SPLITS:
        names = [name for name in source.wavs if source.split(name) == split]
        (corpus / f"{split}.txt").write_text("\n".join(names))
    folder, *words = options.split()
    command = ["egs/template/local/data.sh", "--corpus-dir", corpus / folder, *words]
    for stage in (0, 1):
        run([*command, "--stage", stage], house)
    found = [manifests(house / "egs/template/data/manifests", split) for split in SPLITS]
    assert {one.id for own, _ in found for one in own} == set(source.wavs)
    assert sum(len(own) for _, own in found) == len(source.segments)
    speakers = {one.speaker.startswith("sim-") for _, own in found for one in own}
    assert speakers == {"--local-speakers" in options}
    assert any(one.gender for _, own in found for one in own)


def test_corpus_must_be_named(house: Path) -> None:
    messages = run(["egs/template/local/data.sh", "--stage", 0], house, code=2)
    assert (
        "no corpus: --corpus-dir must name its folder, or set it in egs/template/conf" in messages
    )
    words = ["--corpus-dir", "nowhere"]
    messages = run(["egs/template/local/data.sh", "--stage", 0, *words], house, code=2)
    assert messages.endswith("--corpus-dir nowhere: no such folder\n")


def test_the_template_has_the_geometry_of_the_paper(root: Path) -> None:
    tree = to_tree(load_config(root / "egs/template/conf/tagspeech.yaml"))
    for stream in ("semantic", "voice"):
        assert max(tree[stream]["encoder"]["encoder_dim"]) == 768
        tree[stream]["encoder"] = to_tree(Config())[stream]["encoder"]
    assert tree["llm"].pop("name") == "Qwen/Qwen2.5-7B-Instruct"
    assert tree["llm"].pop("revision") == "main"
    paper = to_tree(Config())
    assert tree == {**paper, "llm": {key: paper["llm"][key] for key in tree["llm"]}}
    tiny = load_config(root / "egs/template/conf/tiny.yaml")
    assert (tiny.semantic.stack, tiny.semantic.anchor_interval) == (4, 8)
    assert tiny.llm.trainable == "full"
