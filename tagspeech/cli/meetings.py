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


def add_page(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.report.meeting import meeting_page

        meeting_page(args.hyp, args.output, args.ref, args.audio)

    summary = "Writes a page of whole meetings to look at, to search and to listen to."
    parser = add_verb(verbs, "page", summary, run)
    add_path(parser, "hyp", "segments, as transcribe writes them: a file, or a folder of files")
    add_path(parser, "ref", "reference segments, to be shown above them", required=False)
    add_path(parser, "output", "such as meeting.html")
    parser.add_argument(
        *("audio",),
        nargs="*",
        type=Path,
        metavar="AUDIO",
        help="recordings, named after their sessions; the page links to them",
    )
