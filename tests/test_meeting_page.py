"""report.html of whole meetings: zoom, jump to a segment, share of talk; without a reference."""

from __future__ import annotations

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

from tagspeech import formats
from tagspeech.report.page import write_page
from tagspeech.scoring import score
from tagspeech.segments import Segment

SECONDS = 360  # of the meeting


def talk(speakers: str, shift: float = 0.0) -> list[Segment]:
    """A turn every four seconds; the last speaker has half as much to say."""
    turns = []
    for number in range(SECONDS // 4):
        speaker = speakers[number % len(speakers)]
        seconds = 1.0 if speaker == speakers[-1] else 2.0
        start = 4.0 * number + shift
        sure = (0.9, 0.9, 0.2) if number == 3 else (0.9, 0.9, 0.9)
        words = f"turn number {number}"
        turns.append(Segment("m", speaker, start, start + seconds, words, "u", sure))
    return turns


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meeting")
    soundfile.write(folder / "m.wav", np.zeros(SECONDS * 8000), 8000)
    ref, hyp = talk("ABC"), talk("123", 0.2)
    scores = {"whole": score(ref, hyp)}
    recordings = {"m": str(folder / "m.wav")}
    write_page(folder / "report.html", "meetings", scores, ref, hyp, recordings=recordings)
    return folder / "report.html"


def content(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(re.findall(r'id="data">(.*?)</script>', text, re.S)[0])
    return data


def test_a_meeting_links_to_its_audio_and_names_unsure_words(page: Path) -> None:
    (session,) = content(page)["sessions"]
    assert (session["audio"], session["begins"]) == ("m.wav", 0.0)
    assert session["hyp"][3][5] == [["3", 0.2]]
    assert all(len(row) == 5 for row in session["hyp"][4:])


def test_without_a_reference_words_are_no_errors(tmp_path: Path) -> None:
    write_page(tmp_path / "m.html", "m.wav", {}, [], talk("12"))
    data = content(tmp_path / "m.html")
    (session,) = data["sessions"]
    assert data["tables"] == data["breakdowns"] == session["ref"] == []
    assert [pair[:2] for pair in session["pairs"]] == [[None, "1"], [None, "2"]]
    assert all(said == heard for pair in session["pairs"] for said, heard in pair[2])
    assert sum(len(pair[2]) for pair in session["pairs"]) == 3 * len(talk("12"))


def test_segments_of_files_become_a_page(tmp_path: Path) -> None:
    for side, speakers in (("ref", "AB"), ("hyp", "12")):
        formats.write(talk(speakers), tmp_path / f"{side}.seglst.json")
    soundfile.write(tmp_path / "m.wav", np.zeros(SECONDS * 8000), 8000)
    call = [sys.executable, "-m", "tagspeech", "page", "--hyp", "hyp.seglst.json"]
    call += ["--ref", "ref.seglst.json", "--output", "m.html"]
    subprocess.run([*call, "m.wav"], cwd=tmp_path, check=True)
    data = content(tmp_path / "m.html")
    assert data["tables"][0][2][:2] == ["cpWER", "0.0"]
    assert data["sessions"][0]["audio"] == "m.wav"
    (tmp_path / "m.wav").rename(tmp_path / "other.wav")
    refused = subprocess.run([*call, "other.wav"], cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "session m has no audio; must be one of ['other']" in refused.stderr


@pytest.fixture(params=[1200, 390], ids=["desktop", "phone"])
def browser(page: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: chromium; or CHROMIUM=PATH)")
    browser = Page(page, width=request.param)
    browser.wait("document.querySelector('.transcript .turn')")
    yield browser
    browser.close()


def test_zoom_jump_and_shares(browser: Page) -> None:
    lanes = "document.querySelector('.lanes')"
    widths = f"[{lanes}.scrollWidth, {lanes}.clientWidth]"
    scroll, client = browser.run(widths)
    assert scroll == client  # the whole meeting at first
    browser.run("document.querySelector('[aria-label^=\"zoom into\"]').click()")
    assert browser.run(f"{lanes}.scrollWidth") > 1.5 * client
    browser.run("document.querySelector('[aria-label^=\"show all\"]').click()")
    assert browser.run(f"{lanes}.scrollWidth") == client
    browser.run("document.querySelector('.all summary').click()")
    browser.wait("document.querySelectorAll('.index button').length === 180")
    browser.run("document.querySelectorAll('.index button')[101].click()")
    label = "document.activeElement.getAttribute('aria-label')"
    assert "hyp 3, 200.20 to 201.20 s: turn number 50" in browser.run(label)
    seen = (
        "(() => { const a = document.activeElement.getBoundingClientRect(), "
        f"b = {lanes}.getBoundingClientRect(); return a.left > b.left && a.right < b.right; }})()"
    )
    assert browser.run(seen)
    browser.wait("document.querySelector('audio').currentTime > 200")
    tick = browser.run("[...document.querySelectorAll('.tick')].map((t) => t.textContent)")
    assert "3:20" in tick
    assert len(tick) < 60  # only what is seen
    rows = browser.run(
        "[...document.querySelectorAll('.body table tbody tr')].map((row) => row.textContent)"
    )
    assert [row.split(",")[0] for row in rows] == ["A", "B", "C"]
    assert "40.0 %" in rows[0]
    assert "60.0 s" in rows[0]
    assert "20.0 %" in rows[2]
    assert browser.run("document.documentElement.scrollWidth") <= client + 100
    assert browser.violations() == []


@pytest.fixture
def reader(tmp_path: Path, page: Path) -> Iterator[Page]:
    """The page of a meeting without a reference, whose names a browser would run if it could."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: chromium; or CHROMIUM=PATH)")
    said = [*talk("12"), Segment("m", "<img src=x onerror=document.title=1>", 358, 359, "<b>x</b>")]
    recordings = {"m": str(page.parent / "m.wav")}
    write_page(tmp_path / "m.html", "m.wav", {}, [], said, recordings=recordings)
    reader = Page(tmp_path / "m.html")
    yield reader
    reader.close()


def test_a_meeting_opens_as_one_reads_it(reader: Page) -> None:
    turns = "[...document.querySelectorAll('.turn')].filter((turn) => !turn.hidden)"
    assert reader.run(f"{turns}.length") == 91
    assert reader.run(f"{turns}[3].textContent").startswith("0:122turn number 3")
    assert reader.run("[...document.querySelectorAll('.turn .dim')].map(n => n.textContent)") == [
        "3"
    ]
    assert reader.run("document.title") == "m.wav"
    assert "<b>x</b>" in reader.run(f"{turns}[90].textContent")
    assert reader.run("getComputedStyle(document.querySelector('#player')).position") == "fixed"
    reader.run(
        "{ const find = document.querySelector('.body input[type=search]'); "
        "find.value = 'number 7'; find.dispatchEvent(new Event('input')); }"
    )
    assert reader.run(f"{turns}.length") == 11  # 7 and 70 to 79
    assert reader.run("document.querySelector('.turn mark').textContent") == "number"
    reader.click(".turn:not([hidden]) .stamp")
    reader.wait("document.querySelector('#player audio').currentTime > 28.2")
    reader.wait("document.querySelector('.turn.now .stamp').textContent === '0:28'")
    assert reader.violations() == []


def test_a_new_name_is_kept(reader: Page) -> None:
    reader.run(
        "{ const field = document.querySelector('.names input'); field.value = 'Anna'; "
        "field.dispatchEvent(new Event('change')); }"
    )
    named = "document.querySelector('.turn .who').textContent"
    assert reader.run(named) == "Anna"
    label = "document.querySelector('.segment').getAttribute('aria-label')"
    assert reader.run(label).startswith("hyp Anna,")
    reader.call("Page.reload")
    reader.wait("document.readyState === 'complete' && document.querySelector('.turn')")
    assert reader.run(named) == "Anna"
    reader.run(
        "HTMLAnchorElement.prototype.click = "
        "function () { window.saved = [this.download, this.href]; }"
    )
    reader.run(
        "[...document.querySelectorAll('.names button')]"
        ".find((button) => button.textContent === 'Download names').click()"
    )
    name, link = reader.run("window.saved")
    assert name == "m.names.txt"
    assert link == "data:text/plain;charset=utf-8,1%3DAnna%0A"
