"""The verb that transcribes recordings and streams."""

from __future__ import annotations

import argparse
from pathlib import Path

from tagspeech.cli.arguments import (
    add_device,
    add_model,
    add_options,
    add_path,
    add_threads,
    add_verb,
    options_of,
    positive,
    use_threads,
)
from tagspeech.errors import InputError
from tagspeech.options import TranscribeOptions

# Options of `TranscribeOptions` that a stream cannot have
_NOT_LIVE = "batch_size", "max_duration", "window_overlap", "min_speakers"


def add_transcribe(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.report.transcript_files import (
            ModelChoice,
            People,
            follow_stream,
            transcribe_files,
        )

        use_threads(args)
        options = options_of(args, TranscribeOptions)
        choice = ModelChoice(args.model, args.revision, args.offline, args.device, args.dtype)
        people = People(dict(args.enroll), args.diarization)
        if args.follow:
            _refuse_beside_follow(args)
            follow_stream(
                *(choice, str(args.audio[0]), args.format),
                options=options,
                people=people,
                sampling_rate=args.sampling_rate,
                idle=args.idle,
            )
        else:
            transcribe_files(
                *(choice, args.audio, args.format.split(","), args.output),
                options=options,
                people=people,
                page=args.page,
            )

    parser = add_verb(verbs, "transcribe", "Transcribes recordings of any length.", run)
    add_model(parser)
    parser.add_argument(
        "--format",
        default="seglst",
        help="formats, separated by commas: seglst, rttm, stm, ctm, srt, vtt, textgrid, tagged "
        "(default: seglst)",
    )
    add_path(parser, "output", "folder (default: the first format goes to stdout)", required=False)
    parser.add_argument(
        "--page",
        action="store_true",
        help="write OUTPUT/STEM.html too, a page to look at and to listen to",
    )
    add_device(parser)
    add_threads(parser)
    add_options(parser.add_argument_group("how recordings are transcribed"), TranscribeOptions)
    _add_people(parser)
    _add_follow(parser)
    parser.add_argument("audio", nargs="+", type=Path, metavar="AUDIO", help="recordings")


def _add_people(parser: argparse.ArgumentParser) -> None:
    people = parser.add_argument_group("known speakers")
    people.add_argument(
        "--enroll",
        action="append",
        default=[],
        type=_name_and_file,
        metavar="NAME=FILE",
        help="a known speaker: a recording of that voice only; may be repeated",
    )
    people.add_argument(
        "--diarization",
        type=Path,
        metavar="RTTM",
        help="speaker turns from another system; they replace voice activity detection and linking",
    )


def _add_follow(parser: argparse.ArgumentParser) -> None:
    live = parser.add_argument_group(
        "live use",
        "A line for each segment is printed when its window is decoded: at most --max-window "
        "seconds after the segment began, plus the time of decoding, which must keep up. A pause "
        "of --max-pause seconds ends a window early. No line is taken back.",
    )
    live.add_argument(
        "--follow",
        action="store_true",
        help="AUDIO is a growing file of 16-bit PCM, or - for standard input: a WAV, or bare "
        "samples of one channel",
    )
    live.add_argument(
        "--sampling-rate", type=positive, default=16000, help="of bare samples (default: 16000)"
    )
    live.add_argument(
        "--idle",
        type=float,
        default=10.0,
        help="seconds without growth after which a file is at its end (default: 10)",
    )


def _refuse_beside_follow(args: argparse.Namespace) -> None:
    if len(args.audio) > 1:
        raise InputError(f"--follow: must be one stream, got {len(args.audio)}")
    defaults = TranscribeOptions()
    given = [name for name in ("output", "page", "diarization") if getattr(args, name)]
    given += [name for name in _NOT_LIVE if getattr(args, name) != getattr(defaults, name)]
    if given:
        name = given[0].replace("_", "-")
        raise InputError(f"--{name}: has no effect with --follow; leave it out")


def _name_and_file(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise argparse.ArgumentTypeError(f"must be NAME=FILE, got {text!r}")
    return name, Path(file)
