"""The page of `tagspeech serve` in a browser, with a server behind it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi")

from chromium import CHROMIUM, Page

MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture
def page(tiny_model_folder: Path, tmp_path: Path) -> Iterator[Page]:
    """The page, on a wide screen."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: chromium; or CHROMIUM=PATH)")
    command = [sys.executable, "-m", "tagspeech", "serve", "--model", str(tiny_model_folder)]
    command += ["--port", "0", "--folder", str(tmp_path / "jobs"), "--max-upload", "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        page = Page(process.stdout.readline().strip(), more=MICROPHONE)
        page.wait("document.querySelector('#kept').textContent.includes('5 MB')")
        yield page
        page.close()
        process.terminate()


def test_the_page(page: Page, tmp_path: Path) -> None:
    name = "<img src=x onerror=document.title=1>.wav"
    soundfile.write(tmp_path / name, np.random.default_rng(1).normal(0, 0.1, 16000), 16000)
    soundfile.write(tmp_path / "large.wav", np.zeros(3_000_000), 16000)
    (tmp_path / "note.txt").write_text("no audio")
    page.choose("#files", *(tmp_path / file for file in (name, "large.wav", "note.txt")))
    rows = "[...document.querySelectorAll('#jobs > li')]"
    page.wait(f"{rows}.length === 3 && {rows}[2].querySelector('a.button')", 300)
    page.wait("document.querySelectorAll('#jobs .error').length === 2")
    said = page.run(f"{rows}.map((row) => row.textContent)")
    assert "note.txt: is not audio" in said[0]
    assert "must be at most 5 MB" in said[1]
    assert said[2].startswith(name)
    links = page.run(f"[...{rows}[2].querySelectorAll('.files a')].map((link) => link.textContent)")
    assert links[:2] == ["JSON (SegLST)", "RTTM"]
    assert len(links) == 9

    page.click("#record")
    page.wait("document.querySelector('#status').textContent.startsWith('Recording, 0:01')")
    page.click("#record")
    page.wait(f"{rows}.length === 4 && {rows}[0].querySelector('a.button')", 300)
    assert page.run(f"{rows}[0].querySelector('.name').textContent").startswith("Recording 2")

    for width in (390, 768, 1200):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        page.call("Emulation.setDeviceMetricsOverride", **size)
        assert page.run("document.documentElement.scrollWidth") <= width
        for scheme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            page.call("Emulation.setEmulatedMedia", features=[feature])
            assert page.violations() == []
    assert page.run("document.title") == "Transcribe"

    # The browser lists its own recordings again; what failed was never on the server.
    page.call("Page.navigate", url=page.run("location.href"))
    page.wait("document.querySelectorAll('#jobs a.button').length === 2")
    page.run("window.confirm = () => true; document.querySelector('#jobs button').click()")
    page.wait("document.querySelectorAll('#jobs > li').length === 1")
    address = page.run("document.querySelector('#jobs a.button').href")
    page.call("Page.navigate", url=address)
    page.wait("document.title.startsWith('<img') && document.querySelector('#title')")
