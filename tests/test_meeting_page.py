"""The page of whole meetings: what is in it, and what it does in a browser."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lhotse")

import soundfile
from chromium import CHROMIUM, Page

from tagspeech import formats
from tagspeech.segments import Segment

TURNS = 2000  # of ten speakers, 2 s each: an hour and some minutes


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meeting")
    ref = [
        Segment("m", f"S{i % 10}", 2.0 * i, 2.0 * i + 1.8, f"turn {i} </script>")
        for i in range(TURNS)
    ]
    hyp = [
        Segment("m", f"{9 - i % 10}", 2.0 * i + 0.1, 2.0 * i + 1.9, f"turn {i}")
        for i in range(TURNS)
    ]
    for side, rows in (("ref", ref), ("hyp", hyp)):
        formats.write(rows, folder / f"{side}.seglst.json")
    soundfile.write(folder / "any.flac", np.zeros(2000 * TURNS, dtype=np.int16), 1000)
    call = [sys.executable, "-m", "tagspeech", "page", "--hyp", "hyp.seglst.json"]
    call += ["--ref", "ref.seglst.json", "--output", "out/page.html", "any.flac"]
    (folder / "out").mkdir()
    subprocess.run(call, cwd=folder, check=True, capture_output=True)
    return folder / "out/page.html"


@pytest.fixture
def browser(page: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: chromium; or CHROMIUM=PATH)")
    browser = Page(page, width=getattr(request, "param", 1200))
    yield browser
    browser.close()


def test_speakers_are_paired_and_audio_is_linked(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    (meeting,) = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.S)[0])["meetings"]
    assert meeting["pairs"] == [[f"S{i}", f"{9 - i}"] for i in range(10)]
    assert meeting["audio"] == "../any.flac"
    assert not re.search(r"https?://|<(link|script|img)[^>]+(src|href)=", text)


def test_zoom_jump_search_and_share(browser: Page) -> None:
    browser.click("#in")
    assert browser.run("view.to - view.from") == pytest.approx(2 * TURNS / 2, abs=1)
    browser.run("at('filter').value = 'turn 1234'; choose()")
    assert browser.run("at('status').textContent") == f"2 of {2 * TURNS} segments"
    browser.click("#list button")
    browser.wait("audio.currentTime >= 2468 && view.from < 2468 && view.to > 2470")
    share = browser.run("document.querySelector('#share tbody tr').innerText").split("\t")
    assert share[1:4] == ["360.0", "10.0", "600"]
    browser.run("at('time').focus()")
    browser.press("Home")
    browser.wait("now === 0 && view.from === 0")


def test_an_unknown_recording_is_one_line(page: Path) -> None:
    call = [sys.executable, "-m", "tagspeech", "page", "--hyp", "hyp.seglst.json"]
    call += ["--output", "x.html", "gone.flac"]
    ended = subprocess.run(call, cwd=page.parent.parent, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "gone.flac: does not exist" in ended.stderr


@pytest.mark.parametrize("browser", [1200, 390], indirect=True, ids=["desktop", "phone"])
def test_axe_core_finds_it_accessible(browser: Page) -> None:
    browser.run("at('filter').value = 'turn 12'; choose()")
    assert browser.violations() == []
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
