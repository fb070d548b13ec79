"""The plan of a recipe: its formulas at the paper's size, and the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tagspeech.cli import main
from tagspeech.config import Config
from tagspeech.config_file import load_config
from tagspeech.report.plan import StagePlan, plan


@pytest.fixture
def paper(root: Path) -> Config:
    return load_config(root / "egs/ami/conf/paper.yaml")


def of_ami(config: Config, gpus: int) -> list[StagePlan]:
    return plan(config, gpus, 66.0, dev_hours=7.6, test_hours=7.3)


def test_training_at_the_papers_size(paper: Config) -> None:
    """A step of 80 s has 2,900 positions, 75 tera-operations of the LLM and takes 0.2 s."""
    training = of_ami(paper, 1)[6]
    assert training.hours * 3600 / 15000 == pytest.approx(0.22, abs=0.02)
    boundless = replace(paper, train=replace(paper.train, max_positions=0))
    assert 62e9 < of_ami(boundless, 1)[6].memory < 78e9
    assert 50e9 < training.memory < 62e9
    bounded = replace(paper, train=replace(paper.train, max_positions=4000))
    assert of_ami(bounded, 1)[6].memory < 40e9
    assert of_ami(paper, 0)[6].hours > 24 * 100  # on a core of a CPU


def test_a_length_in_epochs_or_hours_takes_less_time_on_more_gpus(paper: Config) -> None:
    in_epochs = replace(paper, train=replace(paper.train, max_epochs=5))
    assert of_ami(in_epochs, 8)[6].hours == pytest.approx(of_ami(in_epochs, 1)[6].hours / 8)
    in_hours = replace(paper, train=replace(paper.train, max_hours=330.0))
    assert of_ami(in_hours, 1)[6].hours == pytest.approx(of_ami(in_epochs, 1)[6].hours)
    assert of_ami(paper, 8)[6].hours == of_ami(paper, 1)[6].hours


def test_what_takes_the_place_of_a_stage(paper: Config) -> None:
    stages = of_ami(paper, 8)
    assert stages[3].skipped == "AudenAI/TagSpeech-AMI takes its place"
    assert "from_audio" in stages[5].skipped
    stored = replace(paper, train=replace(paper.train, from_audio=False))
    embedding = of_ami(stored, 8)[5]
    assert embedding.disk == pytest.approx(20e9, rel=0.05)
    assert embedding.hours == pytest.approx(of_ami(stored, 1)[5].hours / 8)
    for number in (7, 10):
        assert stages[number].others == "share the work"
        assert stages[number].hours == pytest.approx(of_ami(stored, 1)[number].hours / 8)
    assert stages[6].others == "train together: 8 x 80 s of audio a step"


def test_table_and_lines(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--config", str(root / "egs/ami/conf/tagspeech.yaml"), "--gpus", "1"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "6 TagSpeech" in out
    assert "reckoned, not measured" in out
    assert main([*words, "--form", "lines", "--hours", "66,7.6,7.3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert lines[7].startswith("7:\t1 GPU, 9 min, disk")
    with pytest.raises(SystemExit):
        main([*words, "--hours", "many"])
    assert "must be hours such as 66" in capsys.readouterr().err
    assert main([*words, "--set", "llm.name=/nowhere"]) == 2
    assert "its config.json is not on this machine" in capsys.readouterr().err


def test_hours_are_counted_in_groups(
    tiny_groups: Path, tiny_yaml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an LLM and encoders that are made anew."""
    words = ["plan", "--config", str(tiny_yaml), "--groups", str(tiny_groups), "--gpus", "0"]
    assert main(words) == 0
    (decoding,) = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith("7 decode ")
    )
    assert decoding.split()[2:5] == ["CPU", "<1", "min"]


@pytest.mark.parametrize("recipe", ["ami", "alimeeting"])
@pytest.mark.parametrize("gpus", ["1", "8"])
def test_the_readme_has_the_table_of_the_command(
    root: Path, capsys: pytest.CaptureFixture[str], recipe: str, gpus: str
) -> None:
    folder = root / "egs" / recipe
    hours = next(
        line.partition("=")[2].split()[0]
        for line in (folder / "conf/recipe.conf").read_text().splitlines()
        if line.startswith("plan_hours=")
    )
    words = ["plan", "--config", str(folder / "conf/tagspeech.yaml"), "--gpus", gpus]
    assert main([*words, "--hours", hours, "--form", "markdown"]) == 0
    assert capsys.readouterr().out in (folder / "README.md").read_text()
