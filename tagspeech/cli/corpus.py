"""Verbs that make corpora, groups and files of segments."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from tagspeech.cli.arguments import add_configuration, add_path, add_verb, config_of
from tagspeech.errors import InputError


def add_simulate(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.data.simulate import SimulateConfig, simulate

        names = [field.name for field in dataclasses.fields(SimulateConfig)]
        config = SimulateConfig(**{name: getattr(args, name) for name in names})
        if args.layout is None:
            if args.minutes is not None:
                raise InputError("simulate: --minutes needs --layout; or give --meeting-minutes")
            simulate(args.output, config, jobs=args.jobs)
            return
        from tagspeech.data.replicas import simulate_replica

        for name in names:
            if name != "seed" and getattr(args, name) != getattr(SimulateConfig(), name):
                raise InputError(f"simulate: --layout goes without --{name.replace('_', '-')}")
        minutes = 2.0 if args.minutes is None else args.minutes
        simulate_replica(args.layout, args.output, minutes=minutes, seed=args.seed)

    parser = add_verb(
        *(verbs, "simulate"),
        "Writes simulated meetings with Lhotse manifests, or in the layout of a published corpus.",
        run,
    )
    add_path(parser, "output", "folder of the corpus")
    parser.add_argument(
        *("--layout",),
        choices=("ami", "alimeeting"),
        help="of a published corpus, with its known faults; takes --minutes and --seed only",
    )
    parser.add_argument("--minutes", type=float, help="of each meeting in --layout (default: 2)")
    parser.add_argument("--train-groups", type=int, default=12500)
    parser.add_argument("--dev-groups", type=int, default=200)
    parser.add_argument("--test-groups", type=int, default=400)
    parser.add_argument("--meetings", type=int, default=3, help="whole meetings")
    parser.add_argument("--meeting-minutes", type=float, default=5.0)
    parser.add_argument("--max-speakers", type=int, default=3, help="in an utterance group")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        *("--train-from",),
        choices=("train", "pretrain"),
        default="train",
        help="whose voices and sentences train has; pretrain shares none with other splits",
    )
    parser.add_argument("--jobs", type=int, default=2)


def add_groups(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.data.groups import make_groups

        make_groups(
            args.manifests,
            args.output,
            rejected=args.rejected,
            splits=args.splits.split(),
            max_pause=args.max_pause,
            language=config_of(args).language,
        )

    parser = add_verb(verbs, "groups", "Cuts recordings into utterance groups.", run)
    add_configuration(parser)
    add_path(
        parser, "manifests", "folder of SPLIT_recordings.jsonl.gz and SPLIT_supervisions.jsonl.gz"
    )
    add_path(parser, "output", "folder for SPLIT.jsonl.gz")
    add_path(parser, "rejected", "list of what cannot be used, with reasons")
    parser.add_argument("--splits", default="train dev test", help="names, separated by spaces")
    parser.add_argument("--max-pause", type=float, default=0.0, help="seconds within a group")


def add_convert(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.formats.convert import convert

        convert(args.files, args.format.split(","), args.output)

    parser = add_verb(verbs, "convert", "Turns one format of segments into another.", run)
    parser.add_argument("--format", required=True, help="formats, separated by commas")
    add_path(parser, "output", "folder; without it the first format goes to stdout", required=False)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
