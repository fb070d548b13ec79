"""Verbs of whole meetings."""

from __future__ import annotations

import argparse
from pathlib import Path

from tagspeech.cli.arguments import add_path, add_verb


def add_combine(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.meetings.combine import combine_files

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
