"""report.html: what is in it, and what it does in a browser."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lhotse")

import soundfile
from chromium import CHROMIUM, Page
from hypothesis import given
from lhotse import CutSet, Recording
from test_scoring_invariants import segments

from tagspeech import formats
from tagspeech.config import Config, SemanticConfig, WhisperEncoderConfig
from tagspeech.config_file import to_tree
from tagspeech.errors import InputError
from tagspeech.report.page import write_page
from tagspeech.scoring import score, score_files
from tagspeech.scoring.alignment import align
from tagspeech.segments import Segment

REF = [
    Segment("good", "A", 0.0, 2.0, "one two three", "f"),
    Segment("good", "B", 1.5, 3.0, "four five", "m"),
    Segment("bad", "A", 0.0, 1.0, "six </script> seven", "f"),
    Segment("bad", "B", 1.2, 2.5, "eight nine", "m"),
]
HYP = [*REF[:2], Segment("bad", "1", 0.1, 1.1, "six ten seven more")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two sessions; the audio of the worse one is inside."""
    folder = tmp_path_factory.mktemp("page")
    cuts = []
    for number, name in enumerate(("good", "bad")):
        noise = np.random.default_rng(number).normal(0, 0.1, 8 * 16000)
        soundfile.write(folder / f"{name}.wav", noise, 16000)
        recording = Recording.from_file(folder / f"{name}.wav", recording_id=name)
        cuts.append(recording.to_cut().truncate(offset=2, duration=4).with_id(name))
    CutSet.from_cuts(cuts).to_file(folder / "test.jsonl.gz")
    for side, rows in (("ref", REF), ("hyp", HYP)):
        formats.write(rows, folder / f"{side}.seglst.json")
    files = [folder / f"{side}.seglst.json" for side in ("ref", "hyp")]
    score_files(*files, groups=folder / "test.jsonl.gz", output=folder / "scores.json")
    training = folder / "exp/tagspeech"
    training.mkdir(parents=True)
    rows = [{"step": step, "seconds": 1.0, "wer": 1 / step} for step in (10, 20)]
    (training / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--groups", "test.jsonl.gz", "--audio", "1", "--exp", "exp"]
    call = [sys.executable, "-m", "tagspeech", "report", "--scores", "scores.json", *options]
    call += ["--ref", "ref.seglst.json", "--hyp", "hyp.seglst.json", "--recipe", "mini"]
    call += ["--output", "results.json", "--page", "report.html"]
    subprocess.run(call, cwd=folder, check=True, capture_output=True)
    return folder / "report.html"


def content(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    return json.loads(re.findall(r'id="data">(.*?)</script>', text, re.S)[0])


@pytest.mark.parametrize(("whisper", "seconds"), [(None, 1.28), (WhisperEncoderConfig(), 0.64)])
def test_anchors_stand_where_the_model_puts_them(
    tmp_path: Path, whisper: WhisperEncoderConfig | None, seconds: float
) -> None:
    """Every 8 projected frames of 4 frames: of a Zipformer at 25 Hz, of a Whisper at 50 Hz."""
    model = tmp_path / "tagspeech/pretrained"
    model.mkdir(parents=True)
    config = Config(semantic=SemanticConfig(whisper=whisper))
    (model / "config.json").write_text(json.dumps({"model_type": "tagspeech", **to_tree(config)}))
    output = tmp_path / "report.html"
    write_page(output, "mini", {"test": score(REF, HYP)}, REF, HYP, experiment=tmp_path)
    assert content(output)["anchors"] == pytest.approx(seconds)


def test_worst_first_with_words_and_audio(page: Path) -> None:
    data = content(page)
    bad, good = data["sessions"]
    assert (bad["name"], good["name"]) == ("bad", "good")
    assert bad["ref"][0] == ["A", 0.0, 1.0, "six </script> seven"]
    # Of "six script seven" and "six ten seven more" one is another and one too many
    assert bad["pairs"][0][2][1] == ["script", "ten"]
    assert bad["errors"] == sum(a != b for pair in bad["pairs"] for a, b in pair[2]) == 4
    assert bad["audio"].startswith("data:audio/flac;base64,")
    assert (page.parent / good["audio"]).is_file()
    assert good["begins"] == 2.0
    assert data["curves"] == [{"name": "tagspeech", "figures": {"wer": [[10, 0.1], [20, 0.05]]}}]
    assert data["tables"][0][2][0] == "cpWER"


def test_characters_that_count_as_others_are_shown_as_these(tmp_path: Path) -> None:
    """No word of the page is marked as an error where the scores know none."""
    pytest.importorskip("opencc")
    sides = [[Segment("s", "A", 0, 4, words)] for words in ("今天討論這個項目", "今天讨论这个项目")]
    files = [tmp_path / f"{side}.stm" for side in ("ref", "hyp")]
    for path, rows in zip(files, sides, strict=True):
        formats.write(rows, path)
    for fold, errors in ((False, 5), (True, 0)):
        scores = score_files(*files, language="zh", fold=fold)
        write_page(tmp_path / "report.html", "zh", {"test": scores}, *sides)
        shown = content(tmp_path / "report.html")
        (session,) = shown["sessions"]
        assert sum(said != heard for said, heard in session["pairs"][0][2]) == errors
        assert session["errors"] == errors
        assert shown["folded"] == fold
    assert session["ref"][0][3] == session["hyp"][0][3] == "今天讨论这个项目"


def test_audio_that_is_gone_is_one_line(page: Path, tmp_path: Path) -> None:
    groups = tmp_path / "test.jsonl.gz"
    lines = gzip.decompress((page.parent / groups.name).read_bytes())
    groups.write_bytes(gzip.compress(lines.replace(b"/bad.wav", b"/gone.wav")))
    scores = {"test": score(REF, HYP)}
    with pytest.raises(InputError, match=r"/gone\.wav: the audio of session bad cannot be read;"):
        write_page(tmp_path / "report.html", "mini", scores, REF, HYP, groups=groups, audio=1)


def test_page_needs_nothing_of_the_net(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\"\s]+", text)) == {"http://www.w3.org/2000/svg"}  # a name
    assert not re.search(r"<(link|script|img)[^>]+(src|href)=", text)


@given(segments(), segments())
def test_words_that_differ_are_the_errors(ref: list[Segment], hyp: list[Segment]) -> None:
    sides = [[s for s in side if s.session == "s1"] for side in (ref, hyp)]
    pairs = align(*sides, "en")
    different = sum(said != heard for pair in pairs for said, heard in pair.words)
    assert different == score(*sides, sessions=["s1"])["overall"]["cpwer"]["errors"]
    for side, speakers in zip(sides, ([p.ref for p in pairs], [p.hyp for p in pairs]), strict=True):
        assert {s for s in speakers if s is not None} == {s.speaker for s in side}


@pytest.fixture
def browser(page: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: chromium; or CHROMIUM=PATH)")
    browser = Page(page, width=getattr(request, "param", 1200))
    yield browser
    browser.close()


def test_used_by_mouse(browser: Page) -> None:
    assert browser.run("document.querySelectorAll('.head').length") == 2
    browser.click(".head")
    assert browser.run("document.querySelectorAll('.segment').length") == 3
    browser.click(".segment[aria-label^='ref B']")
    browser.wait("document.querySelector('audio').currentTime > 1.3")
    browser.wait("document.querySelector('audio').paused")  # at the end of the segment
    assert 2.4 < browser.run("document.querySelector('audio').currentTime") < 3.5
    cursor = browser.run("document.querySelector('.cursor').getBoundingClientRect().left")
    segment = "document.querySelector('.segment[aria-label^=\"ref B\"]')"
    right = browser.run(f"{segment}.getBoundingClientRect().right")
    assert cursor > right - 5  # it went along
    browser.run("document.querySelector('#filter').value = 'four'; choose()")
    assert browser.run("document.querySelector('#status').textContent") == "1 of 1 sessions shown"


def test_used_by_keyboard(browser: Page) -> None:
    browser.run("document.querySelectorAll('.head')[1].focus()")
    browser.press("Enter")
    assert browser.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    browser.run("document.querySelector('.segment').focus()")
    browser.press("ArrowRight")
    label = "document.activeElement.getAttribute('aria-label')"
    assert "0.00 to 2.00" in browser.run(label)  # what was heard at the same time
    browser.press("ArrowRight")
    assert browser.run(label).startswith("ref B, 1.50 to 3.00 s: four five")
    browser.press("Enter")  # the audio beside the page, from 2 s on
    browser.wait("document.querySelector('audio').currentTime > 3.6")
    browser.press("Escape")
    browser.wait("document.querySelector('audio').paused")
    browser.press("Home")
    assert browser.run(label).startswith("ref A, 0.00")
    browser.press("End")
    assert browser.run(label).startswith("hyp B, 1.50")
    # Tab stops at this one of the session's segments, however many there are
    assert browser.run("document.querySelectorAll('.segment[tabindex=\"0\"]').length") == 1
    assert browser.run("document.activeElement.tabIndex") == 0


def test_a_report_begins_with_figures_curve_and_worst_groups(browser: Page) -> None:
    shown = "[...document.querySelectorAll('.figures dt')].map((node) => node.textContent)"
    assert browser.run(shown) == ["cpWER", "WER", "DER", "speaker count right"]
    order = ["#figures", "#curve svg", ".head", "#charts .chart"]
    tops = [
        browser.run(f"document.querySelector('{name}').getBoundingClientRect().top")
        for name in order
    ]
    assert tops == sorted(tops)
    assert browser.run("document.querySelectorAll('#charts .dot').length") == 11
    assert browser.run("document.querySelectorAll('#charts .range').length") > 0
    assert not browser.run("document.querySelector('#folded-tables').open")


@pytest.mark.parametrize("browser", [390], indirect=True, ids=["phone"])
def test_fits_a_phone_and_names_everything(browser: Page) -> None:
    browser.click(".head")
    assert browser.run("document.documentElement.scrollWidth <= 390")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = {"button", "combobox", "searchbox", "image", "table", "region", "Audio"}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if not node["ignored"] and role in named:
            assert node.get("name", {}).get("value"), node
    assert browser.run("document.documentElement.lang && document.title") == "mini at unknown"


@pytest.mark.parametrize("browser", [1200, 390], indirect=True, ids=["desktop", "phone"])
def test_axe_core_finds_it_accessible(browser: Page) -> None:
    assert browser.violations() == []
    browser.run("document.querySelectorAll('.head').forEach((head) => head.click())")
    assert browser.run("document.querySelectorAll('.segment').length") == 7
    assert browser.violations() == []
