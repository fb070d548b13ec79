"""Models on a Hub that is a folder: uploaded with a card, downloaded again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import CommitOperationAdd

from tagspeech import TagSpeech
from tagspeech.checkpoints import download, upload
from tagspeech.cli import main
from tagspeech.errors import InputError
from tagspeech.report import card
from tagspeech.report.card import CardFacts

RATES = {"wer": 0.133, "cpwer": 0.238, "tcpwer": 0.25, "der": None, "sessions": 400}


class FakeHub:
    """Repositories as folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.private: dict[str, bool] = {}

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        if name.startswith("others/"):
            raise OSError("403 Forbidden\nYou may not write there")
        self.private.setdefault(name, private)
        (self.folder / name).mkdir(parents=True, exist_ok=True)

    def create_commit(self, name: str, operations: list[CommitOperationAdd], **_: Any) -> Any:
        for item in operations:
            path = self.folder / name / item.path_in_repo
            path.parent.mkdir(parents=True, exist_ok=True)
            with item.as_file() as file:
                path.write_bytes(file.read())
        return type("Done", (), {"commit_url": f"https://hub.example/{name}/commit/1"})

    def snapshot_download(self, name: str, **_: Any) -> str:
        return str(self.folder / name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    hub = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(upload, "HfApi", lambda: hub)
    monkeypatch.setattr(download, "snapshot_download", hub.snapshot_download)

    def model_info(name: str, revision: str) -> Any:
        if name == "org/gone":
            raise OSError("no network\nin two lines")
        assert (name, revision) == ("org/llm", "1" * 40)
        return type("Info", (), {"card_data": type("Card", (), {"license": "mit"})})

    monkeypatch.setattr(card, "model_info", model_info)
    return hub


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    folder = tmp_path / "exp"
    (folder / "meetings").mkdir(parents=True)
    results = {"recipe": "mini", "commit": "abc123", "seconds": {}, "test": RATES}
    (folder / "results.json").write_text(json.dumps({**results, "test_voice": RATES}))
    whole = {"recipe": "mini", "commit": "abc123", "whole": {**RATES, "cpwer": 0.3}}
    (folder / "meetings/results.json").write_text(json.dumps(whole))
    parts = {
        "semantic_init": {"name": "semantic.safetensors", "commit": None},
        "llm": {"name": "org/llm", "commit": "1" * 40},
    }
    (folder / "parts.json").write_text(json.dumps(parts))
    return folder


def test_a_model_comes_back_as_it_went(
    hub: FakeHub, tiny_model_folder: Path, experiment: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = TagSpeech.from_pretrained(tiny_model_folder)
    facts = CardFacts("cc-by-4.0", experiment, "Simulated meetings.", "./run.sh --jobs 2")
    address = model.push_to_hub("me/tiny", facts, private=True)
    assert address == "https://hub.example/me/tiny/commit/1"
    assert hub.private == {"me/tiny": True}
    again = TagSpeech.from_pretrained("me/tiny")
    states = model.state_dict(), again.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    text = (hub.folder / "me/tiny/README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    data = yaml.safe_load(head)
    assert (data["license"], data["language"]) == ("cc-by-4.0", "en")
    metrics = data["model-index"][0]["results"][0]["metrics"]
    assert [(item["type"], item["value"]) for item in metrics] == [
        ("wer", 13.3),
        ("cpwer", 23.8),
        ("tcpwer", 25.0),
    ]
    assert "| speakers by LLM | 400 | 13.3 | 23.8 | 25.0 | - |" in body
    assert "| whole meetings | 400 | 13.3 | 30.0 | 25.0 | - |" in body
    assert "Simulated meetings." in body
    assert "command (commit abc123): `./run.sh --jobs 2`" in body
    assert f"| llm | org/llm | {'1' * 40} | mit |" in body
    assert "| semantic_init | semantic.safetensors |  | not known: ask its publisher |" in body
    (line,) = caplog.messages
    assert line.startswith("semantic_init: the licence of semantic.safetensors is not known")


def test_push_from_the_command_line(
    hub: FakeHub,
    tiny_model_folder: Path,
    experiment: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    args = ["push", "--model", str(folder), "--licence", "mit", "--experiment", str(experiment)]
    licence = ["--part-licence", "semantic_init=apache-2.0"]
    assert main([*args, "--to", "me/tiny", *licence]) == 0
    assert capsys.readouterr().out == "https://hub.example/me/tiny/commit/1\n"
    text = (hub.folder / "me/tiny/README.md").read_text(encoding="utf-8")
    assert "| semantic_init | semantic.safetensors |  | apache-2.0 |" in text
    assert text.startswith("---\n")
    weights = "model.safetensors"
    assert (hub.folder / "me/tiny" / weights).read_bytes() == (folder / weights).read_bytes()

    for to, words in (
        ("tiny", "must be ORG/NAME"),
        ("others/tiny", "others/tiny: cannot be uploaded: You may not write there"),
    ):
        assert main([*args, "--to", to]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert words in error
    assert main([*args, "--to", "me/x", "--part-licence", "nothing=mit"]) == 2
    assert "licence of nothing: must be of one of the parts" in capsys.readouterr().err


def test_a_card_without_an_experiment(
    hub: FakeHub, tiny_model_folder: Path, tmp_path: Path
) -> None:
    model = TagSpeech.from_pretrained(tiny_model_folder)
    model.save_pretrained(tmp_path / "saved", CardFacts("mit"))
    text = (tmp_path / "saved/README.md").read_text(encoding="utf-8")
    assert "Not measured." in text
    assert "model-index" not in text
    TagSpeech.from_pretrained(tmp_path / "saved")
    with pytest.raises(InputError, match=r"results\.json: is missing"):
        model.save_pretrained(tmp_path / "other", CardFacts("mit", tmp_path))
