"""Recordings of any length to segments: windows, what is heard in each, one set of speakers.

    recording -> regions of speech -> windows -> Heard of each -> join -> link -> segments

Shape suffix: D encoder channels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from tagspeech import formats
from tagspeech.decoding.transcribe import open_audio
from tagspeech.errors import InputError
from tagspeech.meetings.hearing import Channels, Cutting, Ears
from tagspeech.meetings.linking import Voices, link
from tagspeech.meetings.seams import join, mend
from tagspeech.meetings.windows import Span
from tagspeech.models.tagspeech import TagSpeechModel
from tagspeech.segments import Segment, by_time, composed

log = logging.getLogger(__name__)


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

    speakers, grammar, batch_size   as of `Ears`
    cutting       how windows are cut
    voices        who may speak; None: any number, told apart by `decode.link_threshold`
    diarization   RTTM with the turns of the recording: they are its regions of speech, and each
                  segment is said by whom it overlaps most. Nothing is linked by voice
    journal_path  where what was heard is written down: a killed run goes on there

    Raises `InputError` for audio that cannot be read, a journal of another recording or model or of
    other options, and an RTTM without a turn.
    """
    audio = Channels(open_audio(path, channel), channel)
    ears = Ears(model, speakers, grammar, batch_size)
    cutting = cutting or Cutting()
    turns = _turns(diarization, path.stem) if diarization else None
    regions = audio.speech(cutting.vad) if turns is None else _regions(turns)
    spans = ears.windows(regions, cutting)
    heard = list(ears.hear_all(audio, spans, repr((cutting, turns)), journal_path))
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
    audio, ears = Channels(open_audio(path)), Ears(model)
    total_D = None
    for span in ears.windows(audio.speech("silero"), Cutting(overlap=0.0, max_pause=0.0)):
        samples = audio.samples(ears.reader.sampling_rate, span)
        with torch.inference_mode():
            frames = model.encode(*ears.reader.of_samples([samples]))
        summed_D = frames.voice[0, : frames.voice_lens[0]].float().sum(0)
        total_D = summed_D if total_D is None else total_D + summed_D
    if total_D is None:
        raise InputError(f"{path}: nobody speaks in it; enroll wants some seconds of one speaker")
    return np.asarray(normalize(total_D, dim=0).cpu().numpy(), dtype=np.float32)


def _turns(path: Path, session: str) -> list[Segment]:
    turns = [one for one in formats.read(path) if one.duration]
    sessions = {one.session for one in turns}
    name = composed(session)
    own = [one for one in turns if one.session == name] if len(sessions) > 1 else turns
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
