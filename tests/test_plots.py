"""`tagspeech plot`: pictures that hold what was scored."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from test_scoring import REF

from tagspeech import formats
from tagspeech.cli import main
from tagspeech.report.plots import breakdown, diarization_parts
from tagspeech.scoring import score, score_files
from tagspeech.segments import Segment


def arguments(folder: Path) -> list[str]:
    names = {"scores": "scores.json", "ref": "ref.seglst.json", "hyp": "hyp.seglst.json"}
    words = [word for name, file in names.items() for word in (f"--{name}", str(folder / file))]
    return ["plot", *words, "--output", str(folder / "plots")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for side, rows in (("ref", REF), ("hyp", REF[:2])):
        formats.write(rows, tmp_path / f"{side}.seglst.json")
    sides = (tmp_path / f"{side}.seglst.json" for side in ("ref", "hyp"))
    score_files(*sides, output=tmp_path / "scores.json")
    return tmp_path


def test_three_plots_as_svg_and_png(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "tagspeech", *arguments(folder)], check=True)
    names = {path.name for path in (folder / "plots").iterdir()}
    plots = ("timeline", "breakdown", "diarization")
    assert names == {f"{name}.{format}" for name in plots for format in ("svg", "png")}
    text = (folder / "plots/timeline.svg").read_text()
    for words in ("one two three", "ref A", "ref B", "hyp A", "hyp B", ">s1<"):
        assert words in text, words
    with Image.open(folder / "plots/timeline.png") as picture:
        assert picture.width == 1260
        assert len(set(picture.convert("RGB").resize((60, 20)).getdata())) > 10
    first = (folder / "plots/breakdown.svg").read_bytes()
    assert main(arguments(folder)) == 0
    assert (folder / "plots/breakdown.svg").read_bytes() == first


@pytest.mark.filterwarnings("ignore:Glyph")
def test_characters_that_count_as_others_are_drawn_as_these(tmp_path: Path) -> None:
    pytest.importorskip("opencc")
    files = [tmp_path / f"{side}.seglst.json" for side in ("ref", "hyp")]
    for path, words in zip(files, ("討論", "讨论"), strict=True):
        formats.write([Segment("s", "A", 0, 4, words)], path)
    score_files(*files, language="zh", fold=True, output=tmp_path / "scores.json")
    assert main(arguments(tmp_path)) == 0
    assert (tmp_path / "plots/timeline.svg").read_text().count("讨论</text>") == 2


def test_a_session_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments(folder), "--session", "s9"]) == 2
    assert re.search(r"has no session 's9'", capsys.readouterr().err)


def test_bars_are_the_rates() -> None:
    scores = score(REF, REF[:2])
    two, one = breakdown(scores).axes[1].patches[:2]  # cpWER of one speaker, of two
    assert [two.get_height(), one.get_height()] == pytest.approx([100.0, 200 / 7])
    missed, alarm = diarization_parts(scores["overall"]).axes[0].patches[:2]
    assert missed.get_height() == pytest.approx(100 * 5.5 / 11)
    assert alarm.get_height() == 0
