"""`tagspeech serve`: what it accepts and refuses, without a model at work."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi")

import httpx2

from tagspeech.errors import InputError
from tagspeech.options import TranscribeOptions
from tagspeech.serve.app import make_app
from tagspeech.serve.guard import LOOPBACK
from tagspeech.serve.jobs import Job, safe_name
from tagspeech.serve.store import Bounds, JobStore
from tagspeech.serve.worker import ATTEMPTS, Worker, _count_attempt

BOUNDS = Bounds(max_upload=1.0, max_hours=0.01, max_waiting=3, keep_days=7.0)


def sound(seconds: float = 1.0, form: str = "WAV", rate: int = 8000) -> bytes:
    file = io.BytesIO()
    samples = np.random.default_rng(1).normal(0, 0.1, round(seconds * rate))
    soundfile.write(file, samples, rate, format=form)
    return file.getvalue()


class Idle:
    """An application whose worker never starts, so that jobs stay in the queue."""

    def __init__(self, model: Any, folder: Path) -> None:
        self.store = JobStore(folder, BOUNDS)
        self.worker = Worker(model, TranscribeOptions(), self.store)
        self.app = make_app("toy", self.store, self.worker, LOOPBACK)

    def ask(self, method: str, path: str, **content: Any) -> httpx2.Response:
        """The answer to a request."""

        async def ask() -> httpx2.Response:
            transport = httpx2.ASGITransport(self.app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as own:
                return await own.request(method, path, **content)

        return asyncio.run(ask())

    def send(self, data: bytes, name: str = "a.wav", **fields: str) -> httpx2.Response:
        """The answer to a recording."""
        return self.ask("POST", "/jobs", files={"file": (name, data)}, data=fields)


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> Any:
    from tagspeech import TagSpeech

    return TagSpeech.from_pretrained(tiny_model_folder)


@pytest.fixture
def idle(model: Any, tmp_path: Path) -> Idle:
    return Idle(model, tmp_path)


def refused(answer: httpx2.Response, status: int) -> str:
    """The one line of a refusal."""
    assert answer.status_code == status, answer.text
    message: str = answer.json()["error"]["message"]
    assert "\n" not in message
    assert answer.headers["x-content-type-options"] == "nosniff"
    return message


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../../etc/passwd.wav", "passwd.wav"),
        ("C:\\Users\\x\\a.wav", "a.wav"),
        ("/abs/olute.flac", "olute.flac"),
        ("..", "recording"),
        (" .wav", "wav"),
        ("a\nb\x00c\u202e.wav", "a_b_c_.wav"),
        ("<img src=x onerror=alert(1)>.wav", "<img src=x onerror=alert(1)>.wav"),
        ("%2e%2e%2fx.wav", "%2e%2e%2fx.wav"),
        ("ü" * 300, "ü" * 60),
        ("\ud800.wav", "?.wav"),
    ],
)
def test_a_name_from_outside_is_no_path(name: str, shown: str) -> None:
    assert safe_name(name) == shown


def test_files_of_a_hostile_name_stay_in_the_folder(idle: Idle, tmp_path: Path) -> None:
    answer = idle.send(sound(), "../../../x.wav")
    assert answer.status_code == 202
    job = answer.json()
    assert (job["name"], job["state"], job["seconds"]) == ("x.wav", "queued", 1.0)
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert made == {f"jobs/{job['id']}/audio.wav", f"jobs/{job['id']}/job.json"}
    assert not (tmp_path.parent / "x.wav").exists()


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/unknown",
        "/jobs/..%2f..%2fjob.json",
        "/jobs/%2e%2e/files/srt",
        "/jobs/{id}/job.json",
        "/jobs/{id}/..%2fjob.json",
        "/jobs/{id}/audio.flac",
        "/jobs/{id}/files/..%2f..%2fjob.json",
        "/docs",
    ],
)
def test_unknown_ids_and_files_are_not_found(idle: Idle, path: str) -> None:
    job = idle.send(sound()).json()
    message = refused(idle.ask("GET", path.replace("{id}", job["id"])), 404)
    assert str(idle.store.folder) not in message


def test_what_is_not_audio_is_refused_in_one_line(idle: Idle, tmp_path: Path) -> None:
    assert "a.wav: is not audio" in refused(idle.send(b"hello"), 400)
    assert "a.wav: is not audio" in refused(idle.send(b""), 400)
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    assert "is not audio" in refused(idle.send(playlist, "a.m3u8"), 400)
    cut = refused(idle.send(sound()[:-4000]), 400)
    assert "cut off" in cut
    assert str(tmp_path) not in cut
    assert idle.store.unfinished == 0
    assert list(idle.store.folder.iterdir()) == []


def test_formats_are_told_by_content(idle: Idle) -> None:
    job = idle.send(sound(form="FLAC"), "page.html").json()
    assert [path.name for path in idle.store.folder.glob("*/audio*")] == ["audio.flac"]
    answer = idle.ask("GET", f"/jobs/{job['id']}/audio.flac", headers={"range": "bytes=0-3"})
    assert (answer.status_code, answer.content) == (206, b"fLaC")
    assert answer.headers["content-type"] == "audio/flac"


def test_limits(idle: Idle) -> None:
    big = sound(70, rate=8000)
    assert len(big) > 1_100_000
    assert "must be at most 1 MB" in refused(idle.send(big), 413)

    async def parts() -> AsyncIterator[bytes]:
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for part in (head, big, b"\r\n--x--\r\n"):
            yield part

    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = idle.ask("POST", "/jobs", content=parts(), headers=kind)  # without a length
    assert "must be at most 1 MB" in refused(answer, 413)
    assert "must be at most 0.01" in refused(idle.send(sound(40)), 413)
    for _ in range(3):
        assert idle.send(sound()).status_code == 202
    full = idle.send(sound())
    assert "the queue is full: 3 recordings are waiting" in refused(full, 429)
    assert full.headers["retry-after"] == "5"
    first = idle.store.waiting[0]
    assert idle.ask("DELETE", f"/jobs/{first.id}").status_code == 204
    assert not first.folder.exists()
    assert idle.send(sound()).status_code == 202
    assert [idle.store.place(job) for job in idle.store.waiting] == [0, 1, 2]


def test_pages_of_others_are_refused(idle: Idle) -> None:
    """A name that leads here, and a page elsewhere that sends a form."""
    assert "host" in refused(idle.ask("GET", "/", headers={"host": "evil.example:8000"}), 403)
    evil = {"origin": "http://evil.example"}
    answer = idle.ask("POST", "/jobs", files={"file": ("a.wav", sound())}, headers=evil)
    assert "origin" in refused(answer, 403)
    own = {"origin": "http://localhost:8000", "host": "localhost:8000"}
    assert idle.ask("GET", "/about", headers=own).status_code == 200
    assert idle.store.unfinished == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"speakers": "psychic"}, "speakers: must be llm or voice, got 'psychic'"),
        ({"num_speakers": "two"}, "num_speakers: must be a number, got 'two'"),
        ({"num_speakers": "0"}, "num_speakers: must be 1 or more, got 0"),
        ({"model": "x"}, "model: must be one of file, speakers, num_speakers"),
    ],
)
def test_wishes_are_checked(idle: Idle, fields: dict[str, str], message: str) -> None:
    assert refused(idle.send(sound(), **fields), 400) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"response_format": "xml"}, "response_format: must be one of json, text"),
        ({"temperature": "0.7"}, "temperature: must be 0, got '0.7'"),
        ({"stream": "true", "response_format": "srt"}, "stream: response_format must be"),
        ({"include[]": "logprobs"}, "include: is not supported here"),
    ],
)
def test_what_openai_has_and_we_do_not_is_said(
    idle: Idle, fields: dict[str, str], message: str
) -> None:
    files = {"file": ("a.wav", sound())}
    answer = idle.ask("POST", "/v1/audio/transcriptions", files=files, data=fields)
    assert message in refused(answer, 400)


def test_forms_that_are_none(idle: Idle) -> None:
    assert "must be multipart" in refused(idle.ask("POST", "/jobs", content=b"x"), 415)
    text = {"file": (None, "no file name")}
    assert "file: is missing" in refused(idle.ask("POST", "/jobs", files=text), 400)
    two = [("file", ("a.wav", sound())), ("file", ("b.wav", sound()))]
    assert "Too many files" in refused(idle.ask("POST", "/jobs", files=two), 400)
    other = {"sound": ("a.wav", sound())}
    assert "in the field file" in refused(idle.ask("POST", "/jobs", files=other), 400)


def test_a_new_server_resumes_what_was_accepted(model: Any, tmp_path: Path) -> None:
    first = Idle(model, tmp_path)
    ids = [first.send(sound(), f"{number}.wav").json()["id"] for number in range(3)]
    ended = first.store.start_next()
    assert ended is not None
    first.store.end(ended, "no good")
    assert first.store.start_next() is not None  # and the server is killed
    half = tmp_path / "jobs/half"  # as is a deletion
    half.mkdir()
    second = Idle(model, tmp_path)
    assert [job.id for job in second.store.waiting] == ids[1:]
    states = [second.ask("GET", f"/jobs/{job_id}").json() for job_id in ids]
    assert [state["state"] for state in states] == ["failed", "queued", "queued"]
    assert states[0]["error"] == "no good"
    assert not half.exists()


def test_an_end_waits_for_a_place_on_the_disk(
    idle: Idle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = idle.send(sound()).json()["id"]
    job = idle.store.start_next()
    assert job is not None
    full = [InputError("end.json: cannot be written: No space left on device")]

    def write(path: Path, value: object) -> None:
        if full:
            raise full.pop()
        path.write_text(json.dumps(value))

    monkeypatch.setattr("tagspeech.serve.store.write_json", write)
    monkeypatch.setattr("tagspeech.serve.worker.RETRY", 0.01)
    asyncio.run(idle.worker._end(job, "no good"))
    assert "No space left" in caplog.text
    assert idle.ask("GET", f"/jobs/{job_id}").json()["state"] == "failed"
    assert idle.store.running is None


def test_old_results_are_deleted(model: Any, tmp_path: Path) -> None:
    idle = Idle(model, tmp_path)
    job_id = idle.send(sound()).json()["id"]
    job = idle.store.start_next()
    assert job is not None
    idle.store.end(job, "no good")
    end = job.folder / "end.json"
    end.write_text(json.dumps({"ended": 1.0, "error": None}))
    assert idle.store.get(job_id) is job
    later = Idle(model, tmp_path)
    refused(later.ask("GET", f"/jobs/{job_id}"), 404)
    assert not job.folder.exists()


def test_a_recording_that_ends_every_server_is_given_up(tmp_path: Path) -> None:
    job = Job("x", 1, tmp_path, "a.wav", "audio.wav", 1.0)
    journal = tmp_path / "journal"
    for _ in range(ATTEMPTS):
        _count_attempt(job, [journal])
    journal.write_text("a window more\n")
    for _ in range(ATTEMPTS):
        _count_attempt(job, [journal])
    with pytest.raises(InputError, match=r"a\.wav: 5 times the server ended"):
        _count_attempt(job, [journal])


def serve(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tagspeech", "serve", "--model", "none", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def test_errors_before_the_model_is_loaded(tmp_path: Path) -> None:
    import fcntl
    import socket

    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        port = str(door.getsockname()[1])
        done = serve("--folder", tmp_path, "--port", port)
    assert done.returncode == 2
    assert f"--port {port}: cannot be listened on: Address already in use" in done.stderr
    with open(tmp_path / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = serve("--folder", tmp_path, "--port", "0")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "another server uses it" in done.stderr


def test_missing_packages_are_named(tmp_path: Path) -> None:
    program = "import sys; sys.modules['fastapi'] = None; from tagspeech.cli import main; main()"
    words = ["serve", "--model", "none", "--folder", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert "fastapi: not installed; remedy: pip install -r requirements-serve.txt" in done.stderr
