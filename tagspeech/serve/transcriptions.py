"""`POST /v1/audio/transcriptions` as OpenAI's clients know it."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from tagspeech import formats
from tagspeech.segments import LEAST_CONFIDENCE, Segment, by_time, word_times
from tagspeech.serve.jobs import Job, RefusedError
from tagspeech.serve.store import JobStore
from tagspeech.serve.uploads import Form, accept, received
from tagspeech.serve.worker import Worker

log = logging.getLogger(__name__)

FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")
STREAMED = ("json", "text", "diarized_json")  # formats that may be streamed, as at OpenAI's
LOOK = 0.1  # seconds between two looks at a job
# Fields that make no difference here; an answer names those that a request had.
IGNORED = ("language", "languages", "prompt", "keywords", "chunking_strategy")


@dataclass(frozen=True)
class Answer:
    """The form of an answer.

    Attributes:
        format: One of `FORMATS`.
        is_streamed: Events are sent while the recording is transcribed.
        has_words: verbose_json has the time of each word.
        has_segments: verbose_json has segments.
        ignored: Fields of the request that make no difference.
    """

    format: str
    is_streamed: bool
    has_words: bool
    has_segments: bool
    ignored: tuple[str, ...]

    @classmethod
    def of(cls, form: Form) -> Answer:
        """What a form asks for. Raises `RefusedError` for what cannot be done."""
        form.take("model")  # there is one
        chosen = form.take("response_format") or "json"
        if chosen not in FORMATS:
            raise RefusedError(400, f"response_format: must be one of {', '.join(FORMATS)}")
        stream = form.take("stream") or "false"
        if stream.lower() not in ("true", "false"):
            raise RefusedError(400, f"stream: must be true or false, got {stream[:40]!r}")
        is_streamed = stream.lower() == "true"
        if is_streamed and chosen not in STREAMED:
            raise RefusedError(400, f"stream: response_format must be one of {', '.join(STREAMED)}")
        temperature = form.take("temperature") or "0"
        if temperature not in ("0", "0.0"):
            raise RefusedError(400, f"temperature: must be 0, got {temperature[:40]!r}")
        times = form.values.pop("timestamp_granularities", ["segment"])
        if not {*times} <= {"word", "segment"}:
            raise RefusedError(400, "timestamp_granularities: must be word or segment")
        ignored = tuple(name for name in IGNORED if form.values.pop(name, None))
        if form.values:
            raise RefusedError(400, f"{next(iter(form.values))[:40]}: is not supported here")
        return cls(chosen, is_streamed, "word" in times, "segment" in times, ignored)

    @property
    def headers(self) -> dict[str, str]:
        """Those that say what is ignored."""
        return {"x-tagspeech-ignored": ", ".join(self.ignored)} if self.ignored else {}


def add_transcriptions(app: FastAPI, name: str, store: JobStore, worker: Worker) -> None:
    """Adds the addresses of OpenAI's API to an application."""

    @app.get("/v1/models")
    async def models() -> Response:
        model = {"id": name, "object": "model", "created": 0, "owned_by": "tagspeech"}
        return JSONResponse({"object": "list", "data": [model]})

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(request: Request) -> Response:
        async with received(request, store) as (upload, form):
            wish, answer = form.wish(), Answer.of(form)
            if answer.ignored:
                log.warning("fields that have no effect: %s", ", ".join(answer.ignored))
            job = await accept(upload, wish, store, worker, is_kept=False)
        if answer.is_streamed:
            events = _events(job, store, answer)
            return StreamingResponse(events, 200, answer.headers, "text/event-stream")
        try:
            while job.ended is None:
                if await request.is_disconnected():
                    return Response(status_code=499)
                await asyncio.sleep(LOOK)
            if job.error is not None:
                raise RefusedError(422, job.error)
            segments = await run_in_threadpool(formats.read, job.result, "seglst")
        finally:
            store.discard(job)
        return _whole(job, segments, answer, worker.base.model.config.language)


async def _events(job: Job, store: JobStore, answer: Answer) -> AsyncIterator[str]:
    """The events of a stream; the job is discarded at its end, or when its client is gone."""
    sent = 0
    try:
        while True:
            has_ended = job.ended is not None
            for segment in job.heard[sent:]:
                for event in _of_segment(segment, sent, answer):
                    yield event
                sent += 1
            if has_ended:
                break
            await asyncio.sleep(LOOK)
        if job.error is not None:
            error = {"message": job.error, "type": "invalid_request_error"}
            yield _event({"type": "error", "error": error})
            return
        segments = await run_in_threadpool(formats.read, job.result, "seglst")
        done = {"type": "transcript.text.done", "text": text_of(segments)}
        yield _event({**done, "usage": _usage(job)})
        yield "data: [DONE]\n\n"
    finally:
        store.discard(job)


def _of_segment(segment: Segment, number: int, answer: Answer) -> list[str]:
    """The events of a segment that is known."""
    text = segment.words if number == 0 else f" {segment.words}"
    delta: dict[str, Any] = {"type": "transcript.text.delta", "delta": text}
    if answer.format != "diarized_json":
        return [_event(delta)]
    row = _diarized(segment, number)
    return [_event({**delta, "segment_id": row["id"]}), _event(row)]


def _event(row: dict[str, Any]) -> str:
    return f"event: {row['type']}\ndata: {json.dumps(row, ensure_ascii=False)}\n\n"


def _whole(job: Job, segments: Sequence[Segment], answer: Answer, language: str) -> Response:
    """The answer that is not streamed."""
    headers, ordered = answer.headers, by_time(list(segments))
    text = text_of(ordered)
    if answer.format == "text":
        return PlainTextResponse(f"{text}\n", headers=headers)
    if answer.format in ("srt", "vtt"):
        subtitles = formats.render(ordered, answer.format, readable=True)
        return PlainTextResponse(subtitles, headers=headers)
    row: dict[str, Any] = {"text": text, "usage": _usage(job)}
    if answer.format != "json":
        row = {"task": "transcribe", "duration": round(job.seconds, 3), **row}
    if answer.format == "diarized_json":
        row["segments"] = [_diarized(item, number) for number, item in enumerate(ordered)]
    elif answer.format == "verbose_json":
        row["language"] = language
        if answer.has_segments:
            row["segments"] = [_verbose(item, number) for number, item in enumerate(ordered)]
        if answer.has_words:
            row["words"] = [word for item in ordered for word in _words(item)]
    return JSONResponse(row, headers=headers)


def text_of(segments: Sequence[Segment]) -> str:
    """All words in order of time."""
    return " ".join(item.words for item in by_time(list(segments)) if item.words)


def _usage(job: Job) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(job.seconds)}


def _diarized(item: Segment, number: int) -> dict[str, Any]:
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{number:03d}",
        "start": item.start,
        "end": item.end,
        "text": item.words,
        "speaker": item.speaker,
    }


def _verbose(item: Segment, number: int) -> dict[str, Any]:
    """A segment with the fields of Whisper. `seek`, `tokens` and `no_speech_prob` have no meaning
    here; a client expects them."""
    sure = [max(value, LEAST_CONFIDENCE) for value in item.word_confidences or ()]
    data = item.words.encode()
    return {
        "id": number,
        "start": item.start,
        "end": item.end,
        "text": item.words,
        "speaker": item.speaker,
        "avg_logprob": round(sum(map(math.log, sure)) / len(sure), 4) if sure else 0.0,
        "compression_ratio": round(len(data) / len(zlib.compress(data)), 3) if data else 0.0,
        "temperature": 0.0,
        "no_speech_prob": 0.0,
        "seek": 0,
        "tokens": [],
    }


def _words(item: Segment) -> list[dict[str, Any]]:
    return [
        {"word": word, "start": round(start, 3), "end": round(end, 3)}
        for word, (start, end) in zip(item.words.split(), word_times(item), strict=True)
    ]
