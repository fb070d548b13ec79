"""Transcribes one job after another with the only model of a server."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import soundfile

from tagspeech.audio.files import AudioError
from tagspeech.audio.sources import RecordingAudio, open_audio
from tagspeech.errors import InputError, is_out_of_memory
from tagspeech.files import read_json, write_json
from tagspeech.formats import write
from tagspeech.inference.linking import Voices
from tagspeech.inference.live_speakers import Identities
from tagspeech.inference.meeting import transcribe
from tagspeech.inference.recognizer import Recognizer, WindowResult
from tagspeech.inference.stitching import join
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.options import TranscribeOptions
from tagspeech.report.page import write_page
from tagspeech.segments import Segment
from tagspeech.serve.jobs import Job, Wish
from tagspeech.serve.store import JobStore

log = logging.getLogger(__name__)

IDLE = 600.0  # seconds after which a worker without jobs looks for old ones to delete
RETRY = 10.0  # seconds between two attempts to write to a full disk
ATTEMPTS = 5  # servers that may end while they transcribe the same window
# The formats of libsndfile that are accepted, with the extension under which we store them: readers
# of audio choose by extension, and a client must not choose the reader.
CONTAINERS = {"WAV": "wav", "WAVEX": "wav", "RF64": "wav", "FLAC": "flac", "OGG": "ogg"}
CONTAINERS |= {"MPEG": "mp3", "AIFF": "aiff", "AU": "au", "CAF": "caf", "W64": "w64"}


class StoppedError(Exception):
    """A job is not wanted any more, or the server ends."""


def store_audio(upload: Path, name: str, channel: str) -> tuple[str, float]:
    """Gives an uploaded file the extension of its format.

    Args:
        upload: The file, without an extension.
        name: What messages call it.
        channel: As `TranscribeOptions.channel`.

    Returns:
        Its new name and its duration in seconds.

    Raises:
        InputError: It is not audio, is damaged, or lacks the channel.
    """
    try:
        container = soundfile.info(upload).format
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string).rstrip(". ")
        raise InputError(f"{name}: is not audio: {reason}; send WAV, FLAC, MP3 or Ogg") from error
    if container not in CONTAINERS:
        raise InputError(f"{name}: is {container}; send WAV, FLAC, MP3 or Ogg")
    path = upload.with_name(f"audio.{CONTAINERS[container]}")
    upload.rename(path)
    try:
        duration = open_audio(path, channel)[0].duration
    except AudioError as error:
        raise InputError(_without(error.reason, path, name)) from error
    except InputError as error:
        raise InputError(_without(str(error), path, name)) from error
    return path.name, duration


def _without(message: str, path: Path, name: str) -> str:
    """A message that calls a file by the name that its client knows, not by our path."""
    text = message.replace(str(path), name)
    return text if name in text else f"{name}: {text}"


class Heard:
    """Collects the segments of a job while it is transcribed.

    A window is final when the next one is known, since words that both contain are removed.
    Speakers have the names of live use: the result may name them otherwise.

    Args:
        job: Gets the segments.
        streams: Those of its recording that are transcribed apart.
        voices: Who may speak.
    """

    def __init__(self, job: Job, streams: list[RecordingAudio], voices: Voices) -> None:
        self.job, self.streams = job, streams
        self.identities = [Identities(voices) for _ in streams]
        self.open: tuple[int, WindowResult] | None = None

    def add(self, number: int, result: WindowResult) -> None:
        """Takes the result of a window of stream `number`. Raises `StoppedError` if cancelled."""
        if self.job.is_cancelled:
            raise StoppedError
        if self.open is not None and self.open[0] == number:
            final, result = join([self.open[1], result])
            self.open = number, final
        self.finish()
        self.open = number, result
        whole = len(self.streams) * self.job.seconds
        before = number * self.job.seconds
        self.job.done = (before + result.end) / whole * self.job.seconds if whole else 0.0

    def finish(self) -> None:
        """Takes the open window as final."""
        if self.open is None:
            return
        number, result = self.open
        for segment in self.identities[number].name(result):
            speaker = segment.speaker if len(self.streams) == 1 else f"{number}-{segment.speaker}"
            self.job.heard.append(replace(segment, session=self.job.session, speaker=speaker))
        self.open = None


class Worker:
    """Takes jobs off a queue, one after another, in a thread of its own.

    Args:
        model: In eval mode.
        options: How to transcribe, unless a job wishes otherwise.
        store: The jobs.
    """

    def __init__(self, model: TagSpeechModel, options: TranscribeOptions, store: JobStore) -> None:
        self.options, self.store = options, store
        self.base = Recognizer(model, options)
        self.base.fingerprint  # noqa: B018  # takes seconds; all jobs share it
        self.wake = asyncio.Event()
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="transcribe")

    def options_of(self, wish: Wish) -> TranscribeOptions:
        """How a job is transcribed. Raises `InputError` if its wishes are out of range."""
        wishes = {name: value for name, value in asdict(wish).items() if value is not None}
        return replace(self.options, **wishes)

    async def run(self) -> None:
        """Transcribes jobs until it is cancelled; no error of a job ends it."""
        while True:
            job = self.store.start_next()
            if job is None:
                self.wake.clear()
                try:
                    await asyncio.wait_for(self.wake.wait(), IDLE)
                except (TimeoutError, asyncio.TimeoutError):
                    self.store.sweep()
                continue
            future = asyncio.wrap_future(self.pool.submit(self.transcribe, job))
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                job.is_cancelled = True  # the thread stops after its window; the job stays queued
                raise
            await self._end(job, self._reason(job, future.exception()))

    async def _end(self, job: Job, reason: str | None) -> None:
        """Notes how a job ended, as soon as the disk has a place for it."""
        while job is self.store.running:
            try:
                self.store.end(job, reason)
            except InputError as error:
                log.error("%s; tried again in %g s", error, RETRY)
                await asyncio.sleep(RETRY)

    def _reason(self, job: Job, error: BaseException | None) -> str | None:
        """Why a job failed, for its client; what nobody expects goes to the log with its place."""
        if error is None or isinstance(error, StoppedError):
            return None
        if isinstance(error, InputError):
            reason = _without(str(error), job.folder / job.audio, job.name)
            reason = reason.replace(f"{job.folder}/", "")
        elif isinstance(error, Exception) and is_out_of_memory(error):
            reason = f"{job.name}: the memory of the server is too small for it"
        else:
            log.error("job %s: failed", job.id[:8], exc_info=error)
            reason = f"{job.name}: an error of the server, which its log describes"
        log.warning("job %s: failed: %s", job.id[:8], reason)
        return reason

    def transcribe(self, job: Job) -> None:
        """Writes the result of a job and its page.

        Raises:
            InputError: The recording cannot be transcribed.
            StoppedError: The job was cancelled.
        """
        job.done, job.heard = 0.0, []
        recognizer = Recognizer(self.base.model, self.options_of(job.wish))
        recognizer.fingerprint = self.base.fingerprint
        streams = [
            RecordingAudio(audio.recording, audio.channels, job.session)
            for audio in open_audio(job.folder / job.audio, recognizer.options.channel)
        ]
        for audio in streams:
            audio.label = job.name  # messages may reach the client
        threshold = recognizer.model.config.decode.link_threshold
        voices = Voices(threshold, recognizer.options.limits)
        heard = Heard(job, streams, voices)
        journals = _journals(job, recognizer, len(streams))
        _count_attempt(job, journals)
        (segments,) = transcribe(
            recognizer, [streams], voices=voices, journals=[journals], watch=heard.add
        )
        heard.finish()
        self._write(job, segments)

    def _write(self, job: Job, segments: list[Segment]) -> None:
        write(segments, job.result, "seglst")
        recordings = {job.session: str(job.folder / job.audio)}
        write_page(job.page, job.name, {}, [], segments, recordings=recordings)


def _journals(job: Job, recognizer: Recognizer, streams: int) -> list[Path]:
    """The journals of a job; another model or other options of a later server have others."""
    decode = asdict(recognizer.model.config.decode)
    basis = repr((recognizer.fingerprint, recognizer.options, decode))
    key = hashlib.sha256(basis.encode()).hexdigest()[:16]
    return [job.folder / f"journal-{key}-{number}.jsonl" for number in range(streams)]


def _count_attempt(job: Job, journals: list[Path]) -> None:
    """Raises `InputError` if server after server ended while it transcribed the same window."""
    path = job.folder / "attempts.json"
    done = sum(journal.stat().st_size for journal in journals if journal.exists())
    last = read_json(path) if path.exists() else {"done": -1, "attempts": 0}
    attempts = 1 + (last["attempts"] if last["done"] == done else 0)
    if attempts > ATTEMPTS:
        raise InputError(
            f"{job.name}: {ATTEMPTS} times the server ended while it transcribed this recording"
        )
    write_json(path, {"done": done, "attempts": attempts})
