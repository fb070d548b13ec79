"""Verbs of whole meetings."""

from __future__ import annotations

import argparse
from pathlib import Path

from tagspeech.cli.arguments import (
    add_configuration,
    add_device,
    add_options,
    add_path,
    add_threads,
    add_verb,
    config_of,
    use_threads,
)
from tagspeech.options import TranscribeOptions


def add_combine(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.scoring.combine import combine_files

        combine_files(args.views, args.output, args.session)

    summary = "Combines several views of the same meetings: speakers by DOVER-Lap, words by time."
    parser = add_verb(verbs, "combine", summary, run)
    add_path(parser, "output", "file of segments; its extension names the format")
    parser.add_argument("--session", help="of all views, which call one meeting by several names")
    parser.add_argument(
        *("views",),
        nargs="+",
        type=Path,
        metavar="VIEW",
        help="file of segments, or folder: of one channel, model, or shift of the windows",
    )


def add_meetings(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.llm.load import DTYPES, usable_device
        from tagspeech.report.meetings import evaluate_meetings

        use_threads(args)
        evaluate_meetings(
            *(args.model, args.manifests, args.output, config_of(args)),
            max_pause=args.max_pause,
            options=TranscribeOptions(speakers=args.speakers, vad=args.vad),
            device=usable_device(args.device),
            dtype=DTYPES[args.dtype],
        )

    summary = "Decodes and scores whole meetings, beside oracle groups; resumes where it stopped."
    parser = add_verb(verbs, "meetings", summary, run)
    add_configuration(parser)
    add_path(parser, "model", "folder of a trained model")
    add_path(parser, "manifests", "PATH of PATH_recordings.jsonl.gz, PATH_supervisions.jsonl.gz")
    add_path(parser, "output", "folder for segments, scores*.json, results.json")
    parser.add_argument("--max-pause", type=float, default=0.0, help="seconds within oracle groups")
    add_options(parser, TranscribeOptions, ("speakers", "vad"))
    parser.set_defaults(speakers="voice", vad="silero")
    add_device(parser)
    add_threads(parser)
