"""Transcribes files and streams to disk or stdout (`tagspeech transcribe`)."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from tagspeech.audio.pcm import PcmStream
from tagspeech.audio.sources import open_audio
from tagspeech.checkpoints.download import find_model
from tagspeech.checkpoints.native import load_on
from tagspeech.default_model import default_model
from tagspeech.errors import InputError
from tagspeech.formats import OUTPUTS, render, write
from tagspeech.inference.linking import Voices
from tagspeech.inference.live import LINE_FORMATS, Cutter, follow, line_of
from tagspeech.inference.meeting import enroll, transcribe
from tagspeech.inference.recognizer import Recognizer
from tagspeech.llm.place import find_place
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.options import TranscribeOptions
from tagspeech.report.page import write_page
from tagspeech.segments import Segment, renamed, unused_names

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelChoice:
    """A trained model and where it runs.

    Attributes:
        name: A folder, or ORG/NAME on the Hub; empty: `default_model`.
        revision: A branch, tag or commit on the Hub; None: the default branch.
        offline: Make no network requests.
        device: As torch names it, such as cpu or cuda:1; auto: see `find_place`.
        dtype: Of the LLM: float32, bfloat16, float16 or auto.
    """

    name: str
    revision: str | None = None
    offline: bool = False
    device: str = "auto"
    dtype: str = "auto"

    def load(self) -> TagSpeechModel:
        """The model in eval mode, on its device.

        Raises:
            InputError: The device cannot be used, the LLM is too large for a CPU that nobody asked
                for, or the model cannot be loaded.
        """
        place = find_place(self.device, self.dtype)
        folder = find_model(self.name or default_model(), self.revision, self.offline)
        return load_on(TagSpeechModel, folder, place, offline=self.offline)


@dataclass(frozen=True)
class People:
    """Known speakers and turns.

    Attributes:
        enrolled: For each name, a recording of that voice only.
        diarization: A file with the speaker turns of the recordings; None: unknown.
    """

    enrolled: Mapping[str, Path] = field(default_factory=dict)
    diarization: Path | None = None

    def check(self) -> None:
        """Raises `InputError` if a recording cannot be read."""
        for path in self.enrolled.values():
            open_audio(path)

    def voices(self, recognizer: Recognizer) -> Voices:
        """The speakers that a recording may have."""
        known = {name: enroll(recognizer, path) for name, path in self.enrolled.items()}
        threshold = recognizer.model.config.decode.link_threshold
        return Voices(threshold, recognizer.options.limits, known)


def transcribe_files(
    choice: ModelChoice,
    files: Sequence[Path],
    formats: Sequence[str],
    output: Path | None = None,
    *,
    options: TranscribeOptions | None = None,
    people: People | None = None,
    page: bool = False,
    names: Mapping[str, str] | None = None,
    readable: bool = False,
) -> None:
    """Writes `output/STEM.EXTENSION` for each file and format, and optionally a page for each file.

    Without `output` the segments of all files go to stdout as one list in the first format.
    Journals in `output` make a killed run resumable; they are removed at the end.

    Args:
        choice: The model.
        files: Recordings of any length.
        formats: Names of formats.
        output: A folder; None: stdout.
        options: How to transcribe.
        people: Known voices and turns.
        page: Write `output/STEM.html`, a page with the transcript and the audio.
        names: New names of speakers.
        readable: Lay out subtitles for people, as for `tagspeech.formats.render`.

    Raises:
        InputError: Two files have the same stem, a format is unknown, or a file cannot be read;
            all checked before the model is loaded.
    """
    _check_names(formats, files)
    if page and output is None:
        raise InputError("--page: needs --output, a folder for the page")
    if output is not None and output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: is a file; it must be a folder")
    options, people = options or TranscribeOptions(), people or People()
    people.check()
    inputs = [open_audio(path, options.channel) for path in files]
    recognizer = Recognizer(choice.load(), options)
    journals = None
    if output is not None:
        journals = [
            [output / f"{path.stem}{f'.{n}' * (n > 0)}.journal.jsonl" for n in range(len(streams))]
            for path, streams in zip(files, inputs, strict=True)
        ]
    everything: list[Segment] = []
    found = transcribe(
        recognizer,
        inputs,
        voices=people.voices(recognizer),
        diarization=people.diarization,
        journals=journals,
    )
    unused = dict(names or {})
    for path, heard in zip(files, found, strict=True):
        unused = {name: unused[name] for name in unused_names(heard, unused)}
        segments = renamed(heard, names or {})
        everything += segments
        if output is not None:
            _write(segments, path, output, formats, page, readable=readable)
    if output is None:  # a single list, since two would be invalid JSON
        print(render(everything, formats[0], readable=readable), end="")
    if unused:
        log.warning("--rename: no recording has a speaker %s", " or ".join(unused))
    for journal in chain.from_iterable(journals or ()):
        journal.unlink()


def follow_stream(
    choice: ModelChoice,
    path: str,
    form: str,
    *,
    options: TranscribeOptions,
    people: People,
    sampling_rate: int,
    idle: float,
    names: Mapping[str, str] | None = None,
) -> None:
    """Prints a line for each segment of a growing file or a pipe as soon as it is decoded.

    An interrupt (SIGINT, SIGTERM) ends the stream; what has been read is still transcribed.

    Args:
        choice: The model.
        path: A growing file of 16-bit PCM, or "-" for standard input (`PcmStream`).
        form: The format of the lines.
        options: How to transcribe.
        people: Known voices.
        sampling_rate: In Hz, of a stream without a header.
        idle: Seconds without growth after which a file has ended.
        names: New names of speakers.

    Raises:
        InputError: Before the model is loaded: the format is not line-based, or the stream or a
            voice is unusable. After the transcript is printed: the file was removed, replaced or
            truncated.
    """
    if form not in LINE_FORMATS:
        raise InputError(f"--format {form}: must be one of {', '.join(LINE_FORMATS)} with --follow")
    people.check()
    stream = PcmStream(path, sampling_rate, options.channel, idle)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stream.stop())
    recognizer = Recognizer(choice.load(), options)
    cutter = Cutter(stream.rate, recognizer.options)
    segments_of_windows = follow(
        recognizer,
        "live" if path == "-" else Path(path).stem,
        stream.blocks(cutter.block),
        cutter,
        people.voices(recognizer),
    )
    for segments in segments_of_windows:
        for segment in renamed(segments, names or {}):
            print(line_of(segment, form), flush=True)
    if stream.problem:
        raise stream.problem


def _write(
    segments: list[Segment],
    audio: Path,
    output: Path,
    formats: Sequence[str],
    page: bool,
    readable: bool,
) -> None:
    """The transcript of one recording in all formats, and its page."""
    for name in formats:
        write(segments, output / f"{audio.stem}.{OUTPUTS[name]}", name, readable=readable)
    if page:
        html = output / f"{audio.stem}.html"
        write_page(html, audio.name, {}, [], segments, recordings={audio.stem: str(audio)})


def _check_names(formats: Sequence[str], files: Sequence[Path]) -> None:
    unknown = [name for name in formats if name not in OUTPUTS]
    if unknown:
        raise InputError(f"--format {unknown[0]}: must be one of {', '.join(OUTPUTS)}")
    stems = [path.stem for path in files]
    repeated = next((stem for stem in stems if stems.count(stem) > 1), None)
    if repeated is not None:
        raise InputError(f"two inputs are named {repeated}; their outputs would be the same file")
