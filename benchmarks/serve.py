"""Many clients of `tagspeech serve`, whose server is killed again and again.

    python benchmarks/serve.py --model egs/mini/exp/tagspeech/pretrained

Each client sends recordings, one after another: most to the queue, some to OpenAI's address. A
client whose connection breaks asks again; that is all it does about a killed server. At the end,
every job that was accepted must have ended once, with the transcript that an undisturbed server
writes. One line on stdout says how it went:

    serve: 1000 requests of 20 clients, 40 kills: 1000 ended once, 0 lost, 0 twice, 0 different; ...

Exit code 1: something was lost, ended twice, or differs.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import soundfile

RATE = 16000
OPENAI = 0.15  # share of requests to OpenAI's address
PAUSE = 0.5  # seconds between two looks at a job
PATIENCE = 1.5  # times longer after each kill without progress
HANG = 600.0  # seconds without a request that ends


@dataclass
class Findings:
    """What clients saw: transcripts by an undisturbed server, ends of jobs, and what is wrong."""

    clips: list[bytes] = field(default_factory=list)
    texts: list[tuple[Any, str]] = field(default_factory=list)
    ended: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    last: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)


def run_server(words: list[str], log: Path) -> None:
    """`tagspeech serve` in a process of its own."""
    with open(log, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from tagspeech.cli import main

    sys.exit(main(["serve", *words]))


class Server:
    """A server that a thread kills, and forks again from a process that has all modules."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.kills = self.peak = 0
        self.client = httpx2.Client(timeout=120)  # of all threads
        self.is_over = threading.Event()
        with socket.socket() as door:
            door.bind(("127.0.0.1", 0))
            self.port = door.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tagspeech.serve.server"])
        words = ["--model", args.model, "--port", self.port, "--folder", args.output / "jobs"]
        words += ["--threads", 1, "--max-waiting", args.waiting]
        self.words = [*map(str, words), *args.more]
        self.process: Any = None

    def start(self) -> None:
        """Starts the server, and returns when it can be called."""
        log = self.args.output / "log.txt"
        self.process = self.context.Process(target=run_server, args=(self.words, log), daemon=True)
        self.process.start()
        while True:
            if not self.process.is_alive():
                sys.exit(f"the server did not start; {log} says why")
            try:
                self.client.get(f"{self.url}/health")
            except httpx2.TransportError:
                time.sleep(0.2)
            else:
                return

    def kill(self) -> None:
        """Ends the server at once, as a machine without power would."""
        if self.process is None:
            return
        status = Path(f"/proc/{self.process.pid}/status")
        if status.exists() and (match := re.search(r"VmHWM:\s*(\d+)", status.read_text())):
            self.peak = max(self.peak, int(match[1]) // 1024)
        self.process.kill()
        self.process.join()

    def disturb(self, rng: random.Random, findings: Findings) -> None:
        """Kills the server after random seconds, until `is_over`; later if nothing gets done."""
        patience, done = 1.0, 0
        while not self.is_over.wait(patience * rng.uniform(*self.args.seconds)):
            patience = 1.0 if findings.requests > done else PATIENCE * patience
            done = findings.requests
            self.kill()
            self.kills += 1
            self.start()
            if self.kills == self.args.kills:
                return


def make_clips(seed: int, count: int, audio: Path | None) -> list[bytes]:
    """Recordings of 1 to 3 seconds: parts of a recording, or noise."""
    rng = np.random.default_rng(seed)
    whole = rng.normal(0, 0.1, 60 * RATE)
    if audio is not None:
        whole, rate = soundfile.read(audio)
        assert rate == RATE
    clips = []
    for _ in range(count):
        begin, length = rng.integers(len(whole) - 3 * RATE), rng.integers(RATE, 3 * RATE)
        file = io.BytesIO()
        soundfile.write(file, whole[begin : begin + length], RATE, format="WAV")
        clips.append(file.getvalue())
    return clips


def patient(server: Server, findings: Findings, method: str, path: str, **content: Any) -> Any:
    """The answer to a request, which is repeated while the server is away or its queue is full."""
    while time.monotonic() - findings.last < HANG:
        try:
            answer = server.client.request(method, server.url + path, **content)
        except httpx2.TransportError:
            findings.counts["broken"] += 1
        else:
            if answer.status_code != 429:
                return answer
            findings.counts["refused"] += 1
        time.sleep(PAUSE)
    raise LookupError(f"lost: {method} {path}: no request has ended for {HANG:.0f} s")


def by_queue(server: Server, findings: Findings, clip: int) -> Any:
    """The transcript of a recording, by way of the queue."""
    files = {"file": (f"clip{clip}.wav", findings.clips[clip])}
    job = patient(server, findings, "POST", "/jobs", files=files).json()
    while job["state"] in ("queued", "running"):
        time.sleep(PAUSE)
        job = patient(server, findings, "GET", f"/jobs/{job['id']}").json()
        if "error" in job and "id" not in job:
            raise LookupError(f"lost: {job['error']['message']}")
    if job["state"] != "done":
        raise LookupError(f"failed: {job['error']}")
    findings.ended[job["id"]] = job["ended"]
    path = f"/jobs/{job['id']}/files/seglst"
    return patient(server, findings, "GET", path).json()


def by_openai(server: Server, findings: Findings, clip: int) -> str:
    """The words of a recording, by one request."""
    files = {"file": (f"clip{clip}.wav", findings.clips[clip])}
    path = "/v1/audio/transcriptions"
    answer = patient(server, findings, "POST", path, files=files).json()
    if "text" not in answer:
        raise LookupError(f"failed: {answer['error']['message']}")
    return str(answer["text"])


def client(server: Server, findings: Findings, requests: int, rng: random.Random) -> None:
    """Sends requests, one after another."""
    for _ in range(requests):
        if server.is_over.is_set():
            return
        clip = rng.randrange(len(findings.clips))
        segments, text = findings.texts[clip]
        try:
            if rng.random() < OPENAI:
                same = by_openai(server, findings, clip) == text
            else:
                same = by_queue(server, findings, clip) == segments
            if not same:
                findings.wrong.append(f"different: clip {clip}")
        except LookupError as error:
            findings.wrong.append(str(error))
        with findings.lock:
            findings.requests += 1
            findings.last = time.monotonic()
            if findings.requests % 50 == 0:
                print(f"{findings.requests} requests, {server.kills} kills", file=sys.stderr)


def audit(server: Server, findings: Findings) -> int:
    """Looks at all jobs again: none may have ended twice, and none may be left over.

    Returns:
        The number of jobs whose acceptance no client has heard of, since the connection broke.
    """
    deadline = time.monotonic() + HANG
    while patient(server, findings, "GET", "/health").json()["unfinished"]:
        if time.monotonic() > deadline:
            break
        time.sleep(PAUSE)
    for job_id, ended in findings.ended.items():
        job = patient(server, findings, "GET", f"/jobs/{job_id}").json()
        if job.get("ended") != ended or job.get("state") != "done":
            findings.wrong.append(f"twice: {job_id} ended at {ended}, and then {job}")
    folders = [path for path in (server.args.output / "jobs/jobs").iterdir() if path.name[0] != "."]
    for folder in folders:
        end = folder / "end.json"
        if not end.exists() or json.loads(end.read_text())["error"]:
            findings.wrong.append(f"lost: {folder.name} has no good end")
    return sum(folder.name not in findings.ended for folder in folders)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The options; those that are not known go to the server."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--audio", type=Path, help="a recording of 16 kHz, for clips")
    parser.add_argument("--output", type=Path, default=Path("egs/mini/exp-serve"))
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clips", type=int, default=8, help="different recordings")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--waiting", type=int, default=15, help="--max-waiting of the server")
    parser.add_argument("--seconds", type=float, nargs=2, default=(2.0, 20.0), help="between kills")
    parser.add_argument("--kills", type=int, help="the largest number", default=1_000_000)
    parser.add_argument("--minutes", type=float, default=600.0, help="after which clients stop")
    parser.add_argument("--seed", type=int, default=1)
    args, args.more = parser.parse_known_args(words)
    return args


def send_all(server: Server, findings: Findings, args: argparse.Namespace) -> int:
    """Lets all clients send their requests while the server is killed; the result of `audit`."""
    for clip in range(args.clips):
        rows = by_queue(server, findings, clip)
        findings.texts.append((rows, " ".join(row["words"] for row in rows if row["words"])))
    killing = random.Random(args.seed)
    disturbing = threading.Thread(target=server.disturb, args=(killing, findings), daemon=True)
    disturbing.start()
    each, rest = divmod(args.requests, args.clients)
    threads = []
    for number in range(args.clients):
        rng = random.Random(f"{args.seed} {number}")
        own = (server, findings, each + (number < rest), rng)
        threads.append(threading.Thread(target=client, args=own, daemon=True))
        threads[-1].start()
    until = time.monotonic() + 60 * args.minutes
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    server.is_over.set()  # clients finish what they have begun
    for thread in threads:
        thread.join()
    disturbing.join()
    return audit(server, findings)


def main() -> int:
    args = parse()
    args.output.mkdir(parents=True)
    began, server = time.monotonic(), Server(args)
    findings = Findings(make_clips(args.seed, args.clips, args.audio))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        server.start()
        unknown = send_all(server, findings, args)
    finally:
        server.is_over.set()
        server.kill()
    kinds = Counter(text.partition(":")[0] for text in findings.wrong)
    print(
        f"serve: {findings.requests} requests of {args.clients} clients, {server.kills} kills: "
        f"{len(findings.ended)} jobs ended once, {kinds['lost']} lost, {kinds['twice']} twice, "
        f"{kinds['failed']} failed, {kinds['different']} different; {unknown} more ended whose "
        f"client was cut off; {findings.counts['broken']} broken connections, "
        f"{findings.counts['refused']} refusals; peak {server.peak / 1024:.1f} GB; "
        f"{(time.monotonic() - began) / 60:.1f} minutes"
    )
    for text in findings.wrong:
        print(text, file=sys.stderr)
    return int(bool(findings.wrong) or not findings.requests)


if __name__ == "__main__":
    sys.exit(main())
