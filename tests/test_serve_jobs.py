"""`tagspeech serve` at work: OpenAI's client, many clients at once, kills."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("fastapi")

import httpx2

from tagspeech import Segment, TagSpeech
from tagspeech.formats import OUTPUTS, read

WINDOWS = ("--max-window", "2", "--window-overlap", "0.5", "--vad", "none")
HTTP = httpx2.Client(timeout=60)  # for all threads


@pytest.fixture(scope="module")
def talker(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights that writes something for each window."""
    model = TagSpeech.from_pretrained(tiny_model_folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.llm.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.3)
    folder = tmp_path_factory.mktemp("talker") / "pretrained"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven seconds: four windows."""
    path = tmp_path_factory.mktemp("recording") / "talk ü.wav"
    soundfile.write(path, np.random.default_rng(1).normal(0, 0.1, 7 * 16000), 16000)
    return path


@pytest.fixture(scope="module")
def expected(talker: Path, recording: Path) -> list[Segment]:
    """What the model writes without a server."""
    model = TagSpeech.from_pretrained(talker)
    options = {"max_window": 2.0, "window_overlap": 0.5, "vad": "none"}
    return model.transcribe([recording], **options)[0]


@pytest.fixture(scope="module")
def server(root: Path, talker: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server, started by the line of README.md with another model."""
    folder = tmp_path_factory.mktemp("jobs")
    line = re.search(r"^tagspeech (serve .*?) *#", (root / "README.md").read_text(), re.M)
    assert line is not None
    words = line[1].replace("egs/mini/exp/tagspeech/pretrained", str(talker)).split()
    command = [sys.executable, "-m", "tagspeech", *words]
    command += ["--port", "0", "--folder", str(folder), *WINDOWS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        yield address
        process.terminate()


def finished(server: str, job: dict[str, Any]) -> dict[str, Any]:
    """The job when it has ended."""
    for _ in range(3000):
        found: dict[str, Any] = HTTP.get(f"{server}/jobs/{job['id']}").json()
        if found["state"] in ("done", "failed"):
            return found
        time.sleep(0.1)
    raise AssertionError(f"never ends: {found}")


def test_results_are_those_of_transcribe(
    server: str, recording: Path, expected: list[Segment], tmp_path: Path
) -> None:
    assert len({item.start // 2 for item in expected}) > 1  # of several windows
    files = {"file": (recording.name, recording.read_bytes())}
    job = finished(server, HTTP.post(f"{server}/jobs", files=files).json())
    assert (job["state"], job["done"], job["before"]) == ("done", 7.0, 0)
    for form, extension in OUTPUTS.items():
        answer = HTTP.get(f"{server}/jobs/{job['id']}/files/{form}")
        assert answer.status_code == 200
        name = f"attachment; filename*=UTF-8''talk%20%C3%BC.{extension}"
        assert answer.headers["content-disposition"] == name
        (tmp_path / f"talk ü.{extension}").write_text(answer.text, encoding="utf-8")
    assert read(tmp_path / "talk ü.seglst.json") == expected
    page = HTTP.get(f"{server}/jobs/{job['id']}/page.html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "audio.wav" in page.text
    assert HTTP.delete(f"{server}/jobs/{job['id']}").status_code == 204
    assert HTTP.get(f"{server}/jobs/{job['id']}/page.html").status_code == 404


def test_the_official_client(server: str, recording: Path, expected: list[Segment]) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", timeout=120)
    assert [model.id for model in client.models.list()] == ["pretrained"]
    text = " ".join(item.words for item in expected if item.words)

    def ask(form: str, **more: Any) -> Any:
        with open(recording, "rb") as file:
            return client.audio.transcriptions.create(
                file=file, model="whisper-1", response_format=form, **more
            )

    assert ask("json").text == text
    assert ask("text").strip() == text
    assert "-->" in ask("srt")
    assert ask("vtt").startswith("WEBVTT")
    verbose = ask("verbose_json", timestamp_granularities=["word", "segment"])
    assert (verbose.duration, verbose.language, verbose.text) == (7.0, "en", text)
    assert [item.text for item in verbose.segments] == [item.words for item in expected]
    assert [item.word for item in verbose.words] == text.split()
    diarized = ask("diarized_json")
    found = [(item.speaker, item.start, item.end, item.text) for item in diarized.segments]
    assert found == [(item.speaker, item.start, item.end, item.words) for item in expected]
    with pytest.raises(openai.BadRequestError, match="is not audio"):
        client.audio.transcriptions.create(file=("a.wav", b"hello"), model="whisper-1")

    kinds = [event.type for event in ask("json", stream=True)]
    assert kinds[-1] == "transcript.text.done"
    assert set(kinds[:-1]) == {"transcript.text.delta"}
    events = list(ask("diarized_json", stream=True, chunking_strategy="auto"))
    segments = [event for event in events if event.type == "transcript.text.segment"]
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert "".join(deltas).split() == " ".join(item.text for item in segments).split()
    assert events[-1].text == text
    assert [item.id for item in segments] == [f"seg_{n:03d}" for n in range(len(segments))]
    unfinished = HTTP.get(f"{server}/health").json()["unfinished"]
    assert unfinished == 0


def test_twenty_clients_at_once(server: str, recording: Path) -> None:
    """None is lost, and all get the same."""
    data = io.BytesIO()
    samples, rate = soundfile.read(recording, stop=16000)
    soundfile.write(data, samples, rate, format="WAV")

    def send(number: int) -> dict[str, Any]:
        files = {"file": (f"{number}.wav", data.getvalue())}
        answer = HTTP.post(f"{server}/jobs", files=files)
        assert answer.status_code == 202
        return finished(server, answer.json())

    with ThreadPoolExecutor(20) as pool:
        jobs = list(pool.map(send, range(20)))
    assert [job["state"] for job in jobs] == ["done"] * 20
    assert [job["name"] for job in jobs] == [f"{number}.wav" for number in range(20)]
    assert len({job["ended"] for job in jobs}) == 20
    texts = set()
    for job in jobs:
        rows = HTTP.get(f"{server}/jobs/{job['id']}/files/seglst").json()
        texts.add(tuple(row["words"] for row in rows))
        assert {row["session_id"] for row in rows} <= {Path(job["name"]).stem}
    assert len(texts) == 1


def test_kills_lose_nothing(root: Path, talker: Path, tmp_path: Path) -> None:
    """A short run of the campaign that docs/serve.md describes."""
    command = [sys.executable, str(root / "benchmarks/serve.py"), "--model", str(talker)]
    command += ["--output", str(tmp_path / "out"), "--requests", "18", "--clients", "6"]
    command += [
        "--seconds",
        "0.5",
        "2.5",
        "--kills",
        "3",
        "--clips",
        "2",
        "--waiting",
        "4",
        *WINDOWS,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    match = re.fullmatch(
        r"serve: 18 requests of 6 clients, (\d+) kills: (\d+) jobs ended once, 0 lost, 0 twice, "
        r"0 failed, 0 different; .*\n",
        done.stdout,
    )
    assert match, done.stdout
    assert int(match[1]) > 0
    assert int(match[2]) > 4
