"""A model by its Hub id: fetched from a Hub of our own, from the cache, refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

COMMIT = "1" * 40
WEIGHTS = b"weights " * 5000
FILES = {
    "config.json": b"{}",
    "projectors.pt": b"projectors",
    "llm/model.safetensors": WEIGHTS,
    "llm/tokenizer.json": b"{}",
    "modeling.py": b"raise SystemExit",
}


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a download asks for; the weights break off once, half-way."""

    broken: list[str]

    def do_HEAD(self) -> None:
        self.answer(send=False)

    def do_GET(self) -> None:
        self.answer(send=True)

    def answer(self, send: bool) -> None:
        path = self.path.partition("?")[0]
        tree = [
            {"type": "file", "path": name, "size": len(one), "oid": digest(name)}
            for name, one in FILES.items()
        ]
        about = json.dumps({"id": "org/name", "sha": COMMIT})
        pages = {
            "/api/models/org/name/revision/main": about,
            f"/api/models/org/name/revision/{COMMIT}": about,
            f"/api/models/org/name/tree/{COMMIT}": json.dumps(tree),
        }
        name = path.removeprefix(f"/org/name/resolve/{COMMIT}/")
        if path not in pages and name not in FILES:
            self.send_response(404)
            missing = "RevisionNotFound" if "/org/name/" in path else "RepoNotFound"
            self.send_header("X-Error-Code", missing)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = pages[path].encode() if path in pages else FILES[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{digest(name)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if send and body is WEIGHTS and not self.broken:
            self.broken.append(name)
            body = body[: len(body) // 2]
            self.close_connection = True
        if send:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def digest(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


@contextmanager
def serve() -> Iterator[str]:
    """A Hub with `FILES` as org/name; gives its address."""
    Hub.broken = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def endpoint() -> Iterator[str]:
    with serve() as url:
        yield url


def find(endpoint: str, cache: Path, arguments: str) -> str:
    """What `find_model` answers, or the error it raises, in a process of its own."""
    script = (
        "from tagspeech.errors import InputError\n"
        "from tagspeech.checkpoints.download import find_model\n"
        f"try:\n    print(find_model({arguments}))\n"
        "except InputError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


def test_download_that_breaks_off_goes_on(endpoint: str, tmp_path: Path) -> None:
    answer = find(endpoint, tmp_path, "'org/name'")
    folder = Path(answer)
    assert folder.is_dir(), answer
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert found == {name: one for name, one in FILES.items() if name != "modeling.py"}
    assert Hub.broken == ["llm/model.safetensors"]
    assert find("http://127.0.0.1:9", tmp_path, "'org/name', offline=True") == str(folder)
    assert find("http://127.0.0.1:9", tmp_path, "'org/name'") == str(folder)


def test_what_the_hub_does_not_have(endpoint: str, tmp_path: Path) -> None:
    assert "has no model of this name" in find(endpoint, tmp_path, "'org/other'")
    assert "has no revision v9 on the" in find(endpoint, tmp_path, "'org/name', 'v9'")


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    message = find("http://127.0.0.1:9", tmp_path, "'org/name', 'v1'")
    assert "hf download org/name --revision v1 --local-dir name" in message
    assert "refused" in message
    assert "\n" not in message
