"""Starts the server (`tagspeech serve`)."""

from __future__ import annotations

import fcntl
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from tagspeech.errors import InputError
from tagspeech.options import TranscribeOptions
from tagspeech.report.transcript_files import ModelChoice
from tagspeech.serve.app import make_app
from tagspeech.serve.guard import LOOPBACK
from tagspeech.serve.store import Bounds, JobStore
from tagspeech.serve.worker import Worker

PATIENCE = 3  # seconds that open requests have when the server is asked to end


def serve(
    choice: ModelChoice,
    folder: Path,
    *,
    host: str,
    port: int,
    bounds: Bounds,
    options: TranscribeOptions,
) -> None:
    """Serves until it is interrupted; prints its address when it can be called.

    Args:
        choice: The model.
        folder: Where jobs are stored; those of an earlier server resume.
        host: The address to listen on. On loopback, requests must name it as such.
        port: The port; 0: any that is free.
        bounds: How much is accepted.
        options: How to transcribe.

    Raises:
        InputError: The address cannot be listened on, another server uses the folder, or the model
            cannot be loaded.
    """
    with _listening(host, port) as door, _locked(folder):
        # Uploads go to the disk of the jobs, in files without a name, which a killed server leaves
        # no trace of; /tmp may be in memory.
        tempfile.tempdir = str(folder)
        store = JobStore(folder, bounds)
        worker = Worker(choice.load(), options, store)
        hosts = LOOPBACK if host in LOOPBACK else ()
        app = make_app(Path(choice.name).name, store, worker, hosts)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=PATIENCE
        )
        door.listen(128)
        number = door.getsockname()[1]
        print(f"http://{f'[{host}]' if ':' in host else host}:{number}", flush=True)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[door])


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket at an address, which is free again at the end."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(
                f"--host {host} --port {port}: cannot be listened on: {reason}; choose another port"
            ) from error
        yield door


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder of a server, which no other may use."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"--folder {folder}: another server uses it; stop that one or give another folder"
            ) from error
        yield
