"""The verb that transcribes recordings and streams."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tagspeech.cli.arguments import (
    add_device,
    add_grammar,
    add_model,
    add_path,
    add_threads,
    add_verb,
    count,
    positive,
    use_threads,
)
from tagspeech.errors import InputError


def add_transcribe(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.meetings.hearing import Cutting
        from tagspeech.meetings.linking import Limits
        from tagspeech.transcripts import follow_stream, transcribe_files

        use_threads(args)
        common: dict[str, Any] = {
            "speakers": args.speakers,
            "revision": args.revision,
            "offline": args.offline,
            "device": args.device,
            "dtype": args.dtype,
            "channel": args.channel,
            "grammar": None if args.grammar is None else args.grammar == "on",
            "cutting": Cutting(args.vad, args.max_window, args.window_overlap, args.max_pause),
            "limits": Limits(args.num_speakers, args.min_speakers, args.max_speakers),
            "enrolled": dict(args.enroll),
        }
        if args.follow:
            _refuse_beside_follow(args)
            (stream,) = args.audio
            follow_stream(
                *(args.model, str(stream), args.format),
                sampling_rate=args.sampling_rate,
                idle=args.idle,
                **common,
            )
            return
        transcribe_files(
            *(args.model, args.audio, args.format.split(","), args.output),
            batch_size=args.batch_size,
            diarization=args.diarization,
            page=args.page,
            **common,
        )

    parser = add_verb(verbs, "transcribe", "Transcribes recordings with a trained model.", run)
    add_model(parser)
    parser.add_argument("--format", default="seglst", help="formats, separated by commas")
    add_path(parser, "output", "folder; without it the first format goes to stdout", required=False)
    parser.add_argument(
        "--page", action="store_true", help="writes OUTPUT/STEM.html to look at too"
    )
    parser.add_argument(
        *("--speakers",), choices=("llm", "voice"), default="llm", help="who decides on them"
    )
    add_device(parser)
    parser.add_argument("--batch-size", type=positive, default=1, help="recordings at a time")
    parser.add_argument("--channel", type=count, default=0, help="of recordings with several")
    add_grammar(parser)
    _add_windows(parser)
    _add_follow(parser)
    add_threads(parser)
    parser.add_argument("audio", nargs="+", type=Path, metavar="AUDIO")


def _add_windows(parser: argparse.ArgumentParser) -> None:
    """How a recording of more than 80 s is cut, and who may speak in it."""
    windows = parser.add_argument_group("recordings of more than 80 s")
    windows.add_argument(
        *("--vad",), choices=("silero", "energy"), default="silero", help="what tells speech"
    )
    windows.add_argument(
        "--max-window", type=float, help="seconds heard at once (default: decode.max_window)"
    )
    windows.add_argument(
        *("--window-overlap",),
        type=float,
        default=2.0,
        help="seconds that windows share where there is no pause",
    )
    windows.add_argument(
        *("--max-pause",), type=float, default=1.0, help="seconds without speech that end a window"
    )
    windows.add_argument("--num-speakers", type=positive, help="where their number is known")
    windows.add_argument("--min-speakers", type=positive, default=1)
    windows.add_argument("--max-speakers", type=positive)
    windows.add_argument(
        *("--enroll",),
        action="append",
        default=[],
        type=_name_and_file,
        metavar="NAME=FILE",
        help="somebody by his voice alone in a file; may be given again",
    )
    windows.add_argument(
        *("--diarization",), type=Path, metavar="RTTM", help="who speaks when, by another system"
    )


def _add_follow(parser: argparse.ArgumentParser) -> None:
    live = parser.add_argument_group(
        "live use",
        "A line for each segment is printed at most --max-window seconds after it began, and what "
        "decoding takes; earlier where nobody talks for --max-pause seconds. None is taken back.",
    )
    live.add_argument(
        *("--follow",),
        action="store_true",
        help="AUDIO is a growing file of 16-bit PCM, or - for standard input: a WAV, or bare "
        "samples of one channel",
    )
    live.add_argument("--sampling-rate", type=positive, default=16000, help="of bare samples")
    live.add_argument(
        *("--idle",), type=float, default=10.0, help="seconds without growth that end a file"
    )


def _refuse_beside_follow(args: argparse.Namespace) -> None:
    if len(args.audio) > 1:
        raise InputError(f"--follow: wants one stream, found {len(args.audio)}")
    for name in ("output", "page", "diarization"):
        if getattr(args, name):
            raise InputError(f"--{name}: not with --follow, which prints lines as they come")


def _name_and_file(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise argparse.ArgumentTypeError(f"wants NAME=FILE, found {text!r}")
    return name, Path(file)
