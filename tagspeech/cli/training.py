"""Verbs that train, and what trained parts need."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import Any

from tagspeech.cli.arguments import (
    add_configuration,
    add_model,
    add_path,
    add_threads,
    add_verb,
    config_of,
    count,
    use_threads,
)
from tagspeech.config import PartsConfig
from tagspeech.config_file import load_config, to_tree
from tagspeech.dependencies import NOT_READ, of_stage
from tagspeech.errors import InputError


def add_train(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.training.parallel import launch

        _tell_of_training()
        use_threads(args)
        config = config_of(args)
        if args.part == "tagspeech":
            from tagspeech.training.tagspeech import train_tagspeech

            launch(
                *(args.processes, train_tagspeech, config),
                *(args.groups, args.semantic, args.voice, args.output, _start(args)),
            )
        else:
            from tagspeech.training import encoders

            train = {"semantic": encoders.train_semantic, "voice": encoders.train_voice}
            init = [args.init, args.init_units] if args.part == "semantic" else [args.init]
            launch(args.processes, train[args.part], config, args.groups, args.output, *init)

    parser = add_verb(
        verbs, "train", "Trains an encoder or TagSpeech; resumes where it stopped.", run
    )
    parser.add_argument("part", choices=("semantic", "voice", "tagspeech"))
    add_configuration(parser)
    add_path(parser, "groups", "folder of utterance groups (tagspeech: with embeddings)")
    _add_start(parser)
    add_path(parser, "init", "encoder weights to start from (semantic, voice)", required=False)
    add_path(
        *(parser, "init-units", "sentencepiece model of the CTC output of --init (semantic)"),
        required=False,
    )
    add_path(parser, "output", "run folder")
    parser.add_argument("--processes", type=count, default=1, help="that train together")
    add_threads(parser)


def _tell_of_training() -> None:
    """What lasts hours says what it does: the first process logs without --verbose."""
    if os.environ.get("RANK", "0") == "0":  # torchrun's name for the number of a process
        logging.getLogger("tagspeech").setLevel(logging.INFO)


def _add_start(parser: argparse.ArgumentParser) -> None:
    """The options --semantic and --voice, and --init-from, which has both encoders."""
    for stream in ("semantic", "voice"):
        text = f"final.pt of the {stream} encoder (tagspeech)"
        add_path(parser, stream, text, required=False)
    parser.add_argument(
        *("--init-from",),
        metavar="MODEL",
        help="trained TagSpeech to go on from, in place of both (tagspeech): folder, or ORG/NAME",
    )


def _start(args: argparse.Namespace) -> Path | None:
    """The folder of --init-from, or None where there are both encoders."""
    if args.init_from is None:
        from tagspeech.training.embed import NO_ENCODERS

        if not args.semantic or not args.voice:
            raise InputError(NO_ENCODERS)
        return None
    if args.semantic or args.voice:
        raise InputError("--init-from has both encoders; leave out --semantic and --voice")
    from tagspeech.checkpoints.download import find_model

    return find_model(args.init_from)


def add_embed(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.training.embed import embed
        from tagspeech.training.parallel import launch

        use_threads(args)
        launch(
            *(args.jobs, embed, config_of(args), args.groups, args.semantic, args.voice),
            *(args.output, args.splits.split(), _start(args)),
        )

    parser = add_verb(verbs, "embed", "Stores encoder frames and speaker vectors of groups.", run)
    add_configuration(parser)
    add_path(parser, "groups", "folder of utterance groups")
    _add_start(parser)
    add_path(parser, "output", "folder for SPLIT.jsonl.gz and the arrays")
    parser.add_argument("--splits", default="train dev", help="names, separated by spaces")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the work")
    add_threads(parser)


def add_parts(verbs: object) -> None:
    names = [field.name for field in dataclasses.fields(PartsConfig)]

    def run(args: argparse.Namespace) -> None:
        from tagspeech.checkpoints.recipe_parts import GivenParts, recipe_parts

        named = {name: getattr(args, name) for name in (*names, "llm")}
        answer = recipe_parts(
            lambda overrides: load_config(args.config, [*overrides, *args.set], args.variant),
            GivenParts(
                {name: value for name, value in named.items() if value},
                *(args.init_from, args.from_scratch, args.new_llm),
            ),
            args.record,
            offline=args.offline,
            search=not args.no_search,
        )
        for name, value in answer.items():
            print(f"{name}={value}")

    summary = "Finds or downloads what was trained before, tries it, prints where it is."
    parser = add_verb(verbs, "parts", summary, run)
    add_configuration(parser)
    add_path(parser, "record", "JSON file with commits and checksums, read and written")
    parser.add_argument("--offline", action="store_true", help="take only what is downloaded")
    for name in names:
        option, text = name.replace("_", "-"), f"path or ORG/NAME, in place of parts.{name}"
        parser.add_argument(f"--{option}", metavar="NAME", help=text)
    parser.add_argument("--llm", metavar="NAME", help="path or ORG/NAME, in place of llm.name")
    add_path(parser, "init-from", "trained TagSpeech with all parts", required=False)
    parser.add_argument("--from-scratch", action="store_true", help="without any part")
    add_path(parser, "new-llm", "folder of the LLM that is made where none is named", False)
    parser.add_argument("--no-search", action="store_true", help="look for no file")


def add_new_llm(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.training.parallel import launch
        from tagspeech.training.text import new_llm

        _tell_of_training()
        use_threads(args)
        launch(args.processes, new_llm, config_of(args), args.groups, args.output)

    parser = add_verb(
        verbs, "new-llm", "Makes a small LLM and its tokenizer from target texts.", run
    )
    add_configuration(parser)
    add_path(parser, "groups", "folder of utterance groups")
    add_path(parser, "output", "run folder; the LLM is OUTPUT/pretrained")
    parser.add_argument("--processes", type=count, default=1, help="that train together")
    add_threads(parser)


def add_export(verbs: Any) -> None:
    summary = "Writes a trained model, or parts of one, for others."
    parser = verbs.add_parser("export", help=summary, description=summary)
    layouts = parser.add_subparsers(dest="layout", required=True, metavar="LAYOUT")
    _add_export_parts(layouts)
    _add_export_released(layouts)
    _add_export_merged(layouts)


def _add_export_parts(layouts: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.checkpoints.export import export_parts

        export_parts(args.semantic, args.voice, args.llm, args.output)

    parser = add_verb(layouts, "parts", "Trained parts for other runs to start from.", run)
    add_path(parser, "semantic", "final.pt of the semantic encoder")
    add_path(parser, "voice", "final.pt of the voice encoder")
    add_path(parser, "llm", "folder of the LLM")
    add_path(parser, "output", "folder for the parts in half precision, with SHA256SUMS")


def _add_export_released(layouts: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.api import export_released

        export_released(args.model, args.revision, args.offline, args.output)

    summary = "The layout of the published checkpoints, for the authors' code."
    parser = add_verb(layouts, "released", summary, run)
    add_model(parser)
    add_path(parser, "output", "folder of the model in that layout")


def _add_export_merged(layouts: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.api import export_merged

        export_merged(args.model, args.revision, args.offline, args.output)

    parser = add_verb(layouts, "merged", "A model with its adapters written into its LLM.", run)
    add_model(parser)
    add_path(parser, "output", "folder of the model without adapters")


def add_verify(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.files import verify_checksums

        verify_checksums(args.folder)

    parser = add_verb(verbs, "verify", "Compares files with the SHA256SUMS beside them.", run)
    parser.add_argument("folder", type=Path)


def add_config(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        tree = to_tree(config_of(args))
        if args.stages:
            print(json.dumps({stage: of_stage(stage, tree) for stage in NOT_READ}))
        else:
            print(json.dumps(tree, sort_keys=True))

    parser = add_verb(verbs, "config", "Prints the resolved configuration as JSON.", run)
    add_configuration(parser)
    parser.add_argument(
        *("--stages",), action="store_true", help="for each stage of a recipe what it depends on"
    )
