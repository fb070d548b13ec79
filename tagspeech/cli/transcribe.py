"""The verb that transcribes recordings and streams."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from tagspeech.cli.arguments import DeviceOptions, ModelOrDefaultOptions, TranscriptOptions, verb
from tagspeech.cli.corpus import FORMATS
from tagspeech.errors import InputError
from tagspeech.options import TranscribeOptions, argument, group, option
from tagspeech.ranges import Natural, NonNegative

# Options of `TranscribeOptions` that a stream cannot have
_NOT_LIVE = "batch_size", "max_duration", "window_overlap", "min_speakers"


def _name_and_file(text: str) -> tuple[str, Path]:
    name, _, file = text.partition("=")
    if not (name and file):
        raise argparse.ArgumentTypeError(f"must be NAME=FILE, got {text!r}")
    return name, Path(file)


@dataclass(frozen=True)
class LiveOptions:
    """A stream as input."""

    follow: bool = option(
        "AUDIO is a growing file of 16-bit PCM, or - for standard input: a WAV, or raw samples of "
        "one channel",
        False,
    )
    sampling_rate: Natural = option("samples per second of raw samples", 16000)
    idle: NonNegative = option("seconds without growth after which a file is at its end", 10.0)


@verb("transcribe")
class Transcribe(ModelOrDefaultOptions, DeviceOptions, TranscriptOptions):
    """Transcribes recordings of any length."""

    audio: tuple[Path, ...] = argument("recordings")
    format: tuple[str, ...] = option(FORMATS, ("seglst",))
    output: Path | None = option("folder", None, shown="the first format goes to stdout")
    page: bool = option("also write OUTPUT/STEM.html, a page to read and listen to", False)
    enroll: tuple[tuple[str, Path], ...] = option(
        "a known speaker: a recording of that voice only; may be repeated",
        (),
        metavar="NAME=FILE",
        parse=_name_and_file,
        is_repeated=True,
    )
    diarization: Path | None = option(
        "speaker turns of another system; they replace voice activity detection and linking",
        None,
        metavar="RTTM",
    )
    options: TranscribeOptions = group("transcription")
    live: LiveOptions = group(
        "live use",
        "Prints a line for each segment when its window is decoded: at most --max-window seconds "
        "after the segment began, plus the time of decoding, which must keep up. A pause of "
        "--max-pause seconds ends a window early. Printed lines are final.",
    )

    def run(self) -> None:
        from tagspeech.report.transcript_files import (
            ModelChoice,
            People,
            follow_stream,
            transcribe_files,
        )

        self._check()
        choice = ModelChoice(self.model, self.revision, self.offline, self.device, self.dtype)
        people = People(dict(self.enroll), self.diarization)
        if self.live.follow:
            follow_stream(
                choice,
                str(self.audio[0]),
                ",".join(self.format),
                options=self.options,
                people=people,
                sampling_rate=self.live.sampling_rate,
                idle=self.live.idle,
                names=self.names,
            )
        else:
            inputs = (choice, self.audio, self.format, self.output)
            transcribe_files(
                *inputs,
                options=self.options,
                people=people,
                page=self.page,
                names=self.names,
                readable=not self.exact_subtitles,
            )

    def _check(self) -> None:
        """Refuses options that would have no effect, and two voices of the same name."""
        self.names  # noqa: B018  # checks them
        speakers = [name for name, _ in self.enroll]
        for name in speakers:
            if speakers.count(name) > 1:
                raise InputError(f"--enroll: {name} is given twice; give one recording per name")
        if self.live.follow and len(self.audio) > 1:
            raise InputError(f"--follow: must be one stream, got {len(self.audio)}")
        if self.live.follow:
            given = [
                name
                for name in ("output", "page", "diarization", "exact_subtitles")
                if getattr(self, name)
            ]
            defaults = vars(TranscribeOptions())
            given += [n for n in _NOT_LIVE if getattr(self.options, n) != defaults[n]]
        else:
            given = [n for n, value in vars(LiveOptions()).items() if vars(self.live)[n] != value]
        if given:
            how = "with" if self.live.follow else "without"
            flag = f"--{given[0].replace('_', '-')}"
            raise InputError(f"{flag}: has no effect {how} --follow; leave it out")
