"""Verbs that decode, transcribe, score and report."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

from tagspeech.cli.arguments import (
    add_configuration,
    add_device,
    add_language,
    add_options,
    add_path,
    add_subtitle_speakers,
    add_threads,
    add_verb,
    config_of,
    count,
    use_threads,
)
from tagspeech.options import TranscribeOptions


def add_decode(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.inference.decode import Shard, decode
        from tagspeech.llm.load import DTYPES, usable_device

        use_threads(args)
        config = config_of(args).decode
        if args.grammar:
            config = replace(config, grammar=args.grammar == "on")
        shard = Shard.parse(args.shard) if args.shard else Shard.of_torchrun(os.environ)
        device = args.device
        if device == "cuda" and "LOCAL_RANK" in os.environ:
            device = f"cuda:{os.environ['LOCAL_RANK']}"
        decode(
            *(args.model, args.groups, args.output, config),
            shard=shard,
            device=usable_device(device),
            dtype=DTYPES[args.dtype],
        )

    parser = add_verb(verbs, "decode", "Decodes utterance groups; resumes where it stopped.", run)
    add_configuration(parser)
    add_path(parser, "model", "folder of a trained model")
    add_path(parser, "groups", "SPLIT.jsonl.gz")
    add_path(parser, "output", "folder for SPLIT.raw.jsonl, SPLIT.{ref,hyp,hyp-voice}.seglst.json")
    add_options(parser, TranscribeOptions, ("grammar",))
    add_device(parser)
    parser.add_argument(
        *("--shard",),
        metavar="K/N",
        help="decodes part K of N alone, for merge-decoded (default: torchrun's rank, or all)",
    )
    add_threads(parser)


def add_merge_decoded(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.inference.decode import merge_decoded

        merge_decoded(args.groups, args.shards, args.output)

    summary = "Makes one of what decode --shard wrote; refuses gaps and duplicates."
    parser = add_verb(verbs, "merge-decoded", summary, run)
    add_path(parser, "groups", "SPLIT.jsonl.gz")
    add_path(parser, "output", "folder for what decode writes without --shard")
    parser.add_argument(
        *("shards",),
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="where SPLIT.K-of-N.raw.jsonl are (default: that of --output)",
    )


def add_score(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.scoring.files import score_files

        score_files(
            *(args.ref, args.hyp, args.raw, args.language),
            collar=args.collar,
            groups=args.groups,
            protocol=args.protocol,
            fold=args.fold_chinese,
            uem=args.uem,
            output=args.output,
            subtitle_speakers=args.subtitle_speakers,
        )

    parser = add_verb(verbs, "score", "Scores a hypothesis against a reference.", run)
    add_path(parser, "ref", "reference segments: a file, or a folder of files")
    add_path(parser, "hyp", "hypothesis segments: a file, or a folder of files")
    add_path(parser, "raw", "SPLIT.raw.jsonl of the decoder: what was malformed", required=False)
    add_language(parser)
    parser.add_argument(
        *("--fold-chinese",), action="store_true", help="traditional counts as simplified Chinese"
    )
    parser.add_argument(
        "--collar", type=float, default=5.0, help="seconds, of tcpWER and tcORC-WER"
    )
    parser.add_argument(
        *("--protocol",),
        choices=("all", "paper", "as-authors"),
        default="all",
        help="paper: sessions of 0.5-80 s; as-authors: those of them whose output parses, DER over "
        "the time of the reference (default: all)",
    )
    add_path(parser, "groups", "SPLIT.jsonl.gz: all sessions, how long they are", required=False)
    add_path(parser, "uem", "UEM file: what DER, tcpWER and tcORC-WER are of", required=False)
    add_subtitle_speakers(parser)
    add_path(parser, "output", "scores.json", required=False)


def add_report(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.report.report import report

        report(
            args.scores,
            args.ref,
            args.hyp,
            scores_voice_path=args.scores_voice,
            recipe=args.recipe,
            commit=args.commit,
            seconds=args.seconds,
            output=args.output,
            page=args.page,
            groups=args.groups,
            audio=args.audio,
            experiment=args.exp,
        )

    parser = add_verb(verbs, "report", "Prints the table of scores and three examples.", run)
    add_path(parser, "scores", "scores.json")
    add_path(parser, "scores-voice", "scores.json of speakers by voice", required=False)
    add_path(parser, "ref", "reference segments")
    add_path(parser, "hyp", "hypothesis segments")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--commit", default="unknown", help="of the code that ran")
    parser.add_argument("--seconds", type=json.loads, default={}, help="JSON: of each stage")
    add_path(parser, "output", "results.json")
    add_path(parser, "page", "report.html, a page to look at and to listen to", required=False)
    add_path(parser, "groups", "page: SPLIT.jsonl.gz, the audio", required=False)
    parser.add_argument(
        *("--audio",), type=count, default=10, help="page: sessions with audio inside (worst first)"
    )
    add_path(parser, "exp", "page: folder of the experiment, for its curves", required=False)


def add_page(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.report.page import write_page_of

        write_page_of(
            *(args.output, args.hyp, args.ref, args.audio),
            language=args.language,
            subtitle_speakers=args.subtitle_speakers,
        )

    summary = "Writes a page of segments in any format, to look at and to hear."
    parser = add_verb(verbs, "page", summary, run)
    add_path(parser, "hyp", "segments: a file, or a folder of files")
    add_path(parser, "ref", "reference segments, where there are any", required=False)
    add_language(parser)
    add_subtitle_speakers(parser)
    add_path(parser, "output", "page.html")
    parser.add_argument(
        "audio", nargs="*", type=Path, metavar="AUDIO", help="recordings, named as their sessions"
    )


def add_examples(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.report.examples import write_examples

        write_examples(args.scores, args.groups, args.ref, args.hyp, args.output)

    parser = add_verb(verbs, "examples", "Writes three test sessions to listen to.", run)
    add_path(parser, "scores", "scores.json")
    add_path(parser, "groups", "SPLIT.jsonl.gz")
    add_path(parser, "ref", "reference segments")
    add_path(parser, "hyp", "hypothesis segments")
    add_path(parser, "output", "folder to make: README.md and the audio")


def add_plot(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.report.plots import write_plots

        write_plots(args.scores, args.ref, args.hyp, args.output, args.session)

    parser = add_verb(verbs, "plot", "Draws scores for a paper, as SVG and PNG.", run)
    add_path(parser, "scores", "scores.json")
    add_path(parser, "ref", "reference segments")
    add_path(parser, "hyp", "hypothesis segments")
    parser.add_argument("--session", help="of the time-line; without it, that of most errors")
    add_path(parser, "output", "folder to make: timeline, breakdown, diarization")
