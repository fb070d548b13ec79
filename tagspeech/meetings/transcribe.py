"""Recordings of any length to segments: windows, what is heard in each, one set of speakers.

    recording -> regions of speech -> windows -> Heard of each -> join -> link -> segments

Audio is read in pieces: memory does not grow with the length, but for what was heard.

Shape suffixes: T samples or frames, N segments, D encoder channels.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from lhotse import Recording
from numpy.typing import NDArray
from torch.nn.functional import normalize
from tqdm import tqdm

from tagspeech import formats
from tagspeech.data.batches import FeatureReader
from tagspeech.decoding.speakers import voice_vectors
from tagspeech.decoding.transcribe import hear, open_audio, sounds, with_speakers_of
from tagspeech.errors import InputError
from tagspeech.files import journal, read_journal, sha256_of
from tagspeech.meetings.heard import Heard
from tagspeech.meetings.linking import Voices, link
from tagspeech.meetings.seams import join, mend
from tagspeech.meetings.windows import SAMPLING_RATE, Span, detector, speech_regions, windows
from tagspeech.models.tagspeech import TagSpeechModel
from tagspeech.segments import Segment, by_time

log = logging.getLogger(__name__)

PIECE = 30.0  # seconds read at a time


@dataclass(frozen=True)
class Cutting:
    """How a recording is cut into windows.

    vad        what tells speech: "silero" or "energy"
    longest    seconds of a window at most; None: `decode.max_window` of the model
    overlap    seconds that windows share where speech goes on without a pause
    max_pause  seconds without speech that end a window
    """

    vad: str = "silero"
    longest: float | None = None
    overlap: float = 2.0
    max_pause: float = 1.0


def transcribe_meeting(
    model: TagSpeechModel,
    path: Path,
    *,
    channel: int = 0,
    speakers: str = "llm",
    grammar: bool | None = None,
    batch_size: int = 1,
    cutting: Cutting | None = None,
    voices: Voices | None = None,
    diarization: Path | None = None,
    journal_path: Path | None = None,
) -> list[Segment]:
    """Segments of one channel of a recording, in order; the session is the stem of its path.

    speakers      of a window: as the LLM wrote them ("llm"), or by voice ("voice")
    batch_size    windows that are computed together
    cutting       how windows are cut
    voices        who may speak; None: any number, told apart by `decode.link_threshold`
    diarization   RTTM with the turns of the recording: they are its regions of speech, and each
                  segment is said by whom it overlaps most. Nothing is linked by voice
    journal_path  where what was heard is written down: a killed run goes on there

    Raises `InputError` for audio that cannot be read, a journal of another recording or model or of
    other options, and an RTTM without a turn.
    """
    recording = open_audio(path, channel)
    cutting = cutting or Cutting()
    longest = cutting.longest or model.config.decode.max_window
    turns = _turns(diarization, path.stem) if diarization else None
    regions = (
        speech_regions(_pieces(recording, SAMPLING_RATE, channel), detector(cutting.vad))
        if turns is None
        else _regions(turns)
    )
    spans = windows(regions, longest, cutting.overlap, cutting.max_pause)
    identity = {
        "recording": sha256_of(path),
        "model": _fingerprint(model),
        "options": repr((channel, speakers, grammar, batch_size, cutting, turns)),
        "decode": asdict(model.config.decode),
    }
    heard = list(
        _journalled(
            *(model, recording, spans, journal_path, identity),
            channel=channel,
            speakers=speakers,
            grammar=grammar,
            batch_size=batch_size,
        )
    )
    if not heard:
        log.warning("%s: nobody talks in it, as far as --vad %s can tell", path, cutting.vad)
    joined = join(heard)
    if turns is None:
        segments = link(joined, voices or Voices(model.config.decode.link_threshold))
    else:
        segments = [_said_by(one, turns) for window in joined for one in window.segments]
    return by_time(mend(segments))


def enroll(model: TagSpeechModel, path: Path) -> NDArray[np.float32]:
    """The voice of who speaks alone in a recording: (D,), unit length.

    Raises `InputError` where nobody speaks.
    """
    recording = open_audio(path)
    reader = FeatureReader(model.config.features, model.config.semantic.whisper_bins)
    regions = speech_regions(_pieces(recording, SAMPLING_RATE, 0), detector("silero"))
    total_D, longest = None, model.config.decode.max_window
    for span in windows(regions, longest, 0.0, max_pause=0.0):
        samples = _samples(recording, reader.sampling_rate, 0, span)
        with torch.inference_mode():
            frames = model.encode(*reader.of_samples([samples]))
        summed_D = frames.voice[0, : frames.voice_lens[0]].float().sum(0)
        total_D = summed_D if total_D is None else total_D + summed_D
    if total_D is None:
        raise InputError(f"{path}: nobody speaks in it; enroll wants some seconds of one speaker")
    return np.asarray(normalize(total_D, dim=0).cpu().numpy(), dtype=np.float32)


def _fingerprint(model: TagSpeechModel) -> str:
    """SHA-256 of the projectors: what every training of a TagSpeech changes, and small."""
    digest = hashlib.sha256()
    for projector in (model.semantic_projector, model.voice_projector):
        for weight in projector.parameters():
            digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _journalled(
    model: TagSpeechModel,
    recording: Recording,
    spans: Iterator[Span],
    path: Path | None,
    identity: Mapping[str, object],
    *,
    channel: int,
    speakers: str,
    grammar: bool | None,
    batch_size: int,
) -> Iterator[Heard]:
    """What is heard in each window. Batches are those of a run that was never stopped, and what
    was heard goes through a row of the journal in any case: the same bytes."""
    rows = read_journal(path) if path else []
    if rows and rows[0] != identity:
        raise InputError(
            f"{path}: was begun for another recording or model, or with other options; delete it"
        )
    done = rows[1:]
    reader = FeatureReader(model.config.features, model.config.semantic.whisper_bins)
    with (
        journal(path) if path else nullcontext(lambda row: None) as add,
        tqdm(total=round(recording.duration), desc=recording.id, unit=" s") as bar,
    ):
        if not rows:
            add(dict(identity))
        for number in count():
            batch = list(islice(spans, batch_size))
            if not batch:
                break
            if number < len(done):
                row = done[number]
            else:
                audio = [_samples(recording, reader.sampling_rate, channel, one) for one in batch]
                heard = _hear_windows(model, reader, recording, batch, audio, speakers, grammar)
                row = {"windows": [one.to_row() for one in heard]}
                add(row)
            yield from map(Heard.from_row, row["windows"])
            bar.update(round(batch[-1].end) - bar.n)
        bar.update(round(recording.duration) - bar.n)


def _hear_windows(
    model: TagSpeechModel,
    reader: FeatureReader,
    recording: Recording,
    spans: Sequence[Span],
    audio: Sequence[NDArray[np.float32]],
    speakers: str,
    grammar: bool | None,
) -> Iterator[Heard]:
    pairs = [(span, samples) for span, samples in zip(spans, audio, strict=True) if sounds(samples)]
    if not pairs:
        return
    told = hear(model, reader, [(samples, recording.id) for _, samples in pairs], grammar)
    for (span, _), (segments, voice_TD) in zip(pairs, told, strict=True):
        segments = with_speakers_of(model, segments, voice_TD, speakers)
        if segments and len(voice_TD):
            vectors_ND = normalize(voice_vectors(segments, voice_TD).float()).cpu().numpy()
        else:
            vectors_ND = np.zeros((len(segments), 1), dtype=np.float32)
        moved = tuple(
            replace(one, start=round(one.start + span.start, 3), end=round(one.end + span.start, 3))
            for one in segments
        )
        yield Heard(span.start, span.end, moved, vectors_ND)


def _samples(
    recording: Recording, sampling_rate: int, channel: int, span: Span
) -> NDArray[np.float32]:
    """One channel of a part of a recording: (T,)."""
    resampled = recording.resample(sampling_rate)
    seconds = min(span.end, resampled.duration) - span.start
    audio = resampled.load_audio(channels=channel, offset=span.start, duration=seconds)
    return np.asarray(audio[0], dtype=np.float32)


def _pieces(
    recording: Recording, sampling_rate: int, channel: int
) -> Iterator[NDArray[np.float32]]:
    start = 0.0
    while start < recording.duration:
        end = min(start + PIECE, recording.duration)
        yield _samples(recording, sampling_rate, channel, Span(start, end))
        start = end


def _turns(path: Path, session: str) -> list[Segment]:
    turns = formats.read(path)
    sessions = {one.session for one in turns}
    own = [one for one in turns if one.session == session] if len(sessions) > 1 else turns
    if not own:
        raise InputError(f"{path}: has no turn of {session}; its sessions: {sorted(sessions)}")
    return by_time(own)


def _regions(turns: Sequence[Segment]) -> Iterator[Span]:
    """Where anybody talks."""
    region = Span(turns[0].start, turns[0].end)
    for one in turns[1:]:
        if one.start > region.end:
            yield region
            region = Span(one.start, one.end)
        region = Span(region.start, max(region.end, one.end))
    yield region


def _said_by(segment: Segment, turns: Sequence[Segment]) -> Segment:
    """The segment with the speaker whose turns it overlaps most, or is nearest to."""

    def shared(turn: Segment) -> float:
        return min(segment.end, turn.end) - max(segment.start, turn.start)

    seconds: dict[str, float] = {}
    for turn in turns:
        if shared(turn) > 0:
            seconds[turn.speaker] = seconds.get(turn.speaker, 0.0) + shared(turn)
    if seconds:
        return replace(segment, speaker=max(seconds, key=seconds.__getitem__))
    return replace(segment, speaker=max(turns, key=shared).speaker)
