"""Recordings of any length to segments.

    recording -> regions of speech -> windows -> WindowResult of each -> join -> link -> segments

A recording that fits into one window goes the same way. Shape suffix: D encoder channels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagspeech import formats
from tagspeech.audio.sources import Audio, Span, open_audio
from tagspeech.errors import InputError
from tagspeech.inference.linking import Voices, link
from tagspeech.inference.recognizer import Recognizer, Window, WindowResult
from tagspeech.inference.resumable import Meeting, Watch, recognize_meetings
from tagspeech.inference.stitching import join, mend
from tagspeech.inference.windows import SAMPLING_RATE, detector, speech_regions, windows
from tagspeech.options import TranscribeOptions
from tagspeech.segments import Segment, by_time, composed

log = logging.getLogger(__name__)


def transcribe(
    recognizer: Recognizer,
    inputs: Sequence[Sequence[Audio]],
    *,
    voices: Voices | None = None,
    diarization: Path | None = None,
    journals: Sequence[Sequence[Path]] | None = None,
    watch: Watch | None = None,
) -> Iterator[list[Segment]]:
    """Transcribes recordings of any length.

    Args:
        recognizer: Decodes the windows; its options say how.
        inputs: The streams of each recording: one, or several that are transcribed apart, whose
            speakers are then named CHANNEL-SPEAKER.
        voices: Who may speak; None: as the options and `decode.link_threshold` say.
        diarization: A file with the speaker turns of the recordings. The turns take the place of
            voice activity detection and of linking by voice: each segment is said by the speaker
            whose turns it overlaps most.
        journals: A file for each stream, in which a killed run finds what is done.
        watch: Is called for each window, as by `recognize_meetings`; streams are counted over all
            recordings.

    Yields:
        The segments of each recording, in order of time.

    Raises:
        InputError: Audio cannot be read; a journal belongs to another recording or model or other
            options; the diarization has no turn of a recording.
    """
    if voices is None:
        threshold = recognizer.model.config.decode.link_threshold
        voices = Voices(threshold, recognizer.options.limits)
    meetings, turns = [], []
    for place, streams in enumerate(inputs):
        for number, audio in enumerate(streams):
            own = _turns(diarization, audio) if diarization else None
            path = journals[place][number] if journals else None
            meetings.append(_meeting(audio, recognizer.options, own, path))
            turns.append(own)
    results = zip(recognize_meetings(recognizer, meetings, watch), turns, strict=True)
    for streams in inputs:
        segments = []
        for number, audio in enumerate(streams):
            windows, own = next(results)
            found = _segments(audio, windows, voices, own, recognizer.options)
            if len(streams) > 1:
                found = [_of_channel(segment, number, voices) for segment in found]
            segments += found
        yield by_time(segments)


def enroll(recognizer: Recognizer, path: Path) -> NDArray[np.float32]:
    """The voice of the one speaker of a recording: (D,), of unit length.

    Raises:
        InputError: The file cannot be read, or nobody speaks in it.
    """
    (audio,) = open_audio(path)
    regions = speech_regions(audio.pieces(SAMPLING_RATE), detector("silero"))
    longest = recognizer.options.max_window
    assert longest is not None
    spans = windows(regions, longest, 0.0, 0.0)
    voice_D = recognizer.voice(Window(audio, span) for span in spans)
    if voice_D is None:
        raise InputError(f"{path}: nobody speaks in it; --enroll needs seconds of one speaker")
    return voice_D


def cut_windows(
    audio: Audio, options: TranscribeOptions, turns: Sequence[Segment] | None = None
) -> Iterator[Span]:
    """The windows of a recording, by its speaker turns or by voice activity.

    Args:
        audio: The recording.
        options: Resolved.
        turns: By time; None: `options.vad` decides.
    """
    longest, overlap = options.max_window, options.window_overlap
    assert longest is not None and overlap is not None  # noqa: PT018
    regions: Iterable[Span]
    if turns is not None:
        regions = _regions(turns)
    elif options.vad == "none" or (options.vad == "auto" and audio.duration <= longest):
        regions = [Span(0.0, audio.duration)] if audio.duration else []
    else:
        kind = "energy" if options.vad == "energy" else "silero"
        regions = speech_regions(audio.pieces(SAMPLING_RATE), detector(kind))
    return windows(regions, longest, overlap, options.max_pause)


def _meeting(
    audio: Audio,
    options: TranscribeOptions,
    turns: list[Segment] | None,
    journal_path: Path | None,
) -> Meeting:
    return Meeting(audio, lambda: cut_windows(audio, options, turns), repr(turns), journal_path)


def _segments(
    audio: Audio,
    results: list[WindowResult],
    voices: Voices,
    turns: list[Segment] | None,
    options: TranscribeOptions,
) -> list[Segment]:
    """The segments of a recording, its speakers linked over the windows."""
    if not results:
        vad = "silero" if options.vad == "auto" else options.vad
        by = "--vad " + vad if turns is None else "the diarization"
        log.warning("%s: nobody talks in it, as far as %s can tell", audio.label, by)
    elif not any(result.segments for result in results):
        log.warning("%s: the model hears no words in it", audio.label)
    joined = join(results)
    if turns is None:
        segments = link(joined, voices)
    else:
        segments = [_said_by(segment, turns) for result in joined for segment in result.segments]
    return by_time(segments if len(results) == 1 else mend(segments))


def _of_channel(segment: Segment, number: int, voices: Voices) -> Segment:
    """The segment with a speaker's name that includes the channel; enrolled names stay."""
    if segment.speaker in voices.enrolled:
        return segment
    return replace(segment, speaker=f"{number}-{segment.speaker}")


def _turns(path: Path, audio: Audio) -> list[Segment]:
    """The turns of a recording, as far as its audio goes."""
    turns = [turn for turn in formats.read(path) if turn.duration]
    sessions = {turn.session for turn in turns}
    name = composed(audio.name)
    own = [turn for turn in turns if turn.session == name] if len(sessions) > 1 else turns
    if not own:
        raise InputError(f"{path}: has no turn of {audio.name}; its sessions: {sorted(sessions)}")
    beyond = [turn for turn in own if turn.end > audio.duration]
    if beyond:
        first = min(turn.start for turn in beyond)
        log.warning(
            "%s: %d turns of %s reach beyond the end of the recording at %.2f s, the first from "
            "%.2f s on; what lies beyond is left out",
            *(path, len(beyond), audio.name, audio.duration, first),
        )
    return by_time(
        [
            replace(turn, end=min(turn.end, audio.duration))
            for turn in own
            if turn.start < audio.duration
        ]
    )


def _regions(turns: Sequence[Segment]) -> Iterator[Span]:
    """Where anybody talks."""
    region: Span | None = None
    for turn in turns:
        if region and turn.start > region.end:
            yield region
            region = None
        region = Span(
            region.start if region else turn.start,
            max(region.end, turn.end) if region else turn.end,
        )
    if region:
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
