"""The command `tagspeech`: parse, call one function, return. Nothing heavy is imported to parse."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tagspeech.config import Config, load_config, to_tree
from tagspeech.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb. Returns 0; 2 for what the user can mend, said in one line on stderr."""
    args = _parser().parse_args(argv)
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    try:
        args.run(args)
    except InputError as error:
        print(f"tagspeech {args.verb}: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a missing permission
        print(f"tagspeech {args.verb}: {error}", file=sys.stderr)
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tagspeech", description="Who spoke what and when in a meeting recording."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in (_simulate, _groups, _train, _embed, _new_llm, _decode, _score, _report):
        add(verbs)
    for add in (_transcribe, _convert, _config, _export, _verify):
        add(verbs)
    return parser


def _verb(verbs: object, name: str, summary: str, run: object) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary)  # type: ignore[attr-defined]
    parser.add_argument("--verbose", action="store_true", help="log what is done")
    parser.set_defaults(run=run)
    return parser


def _path(parser: argparse.ArgumentParser, name: str, text: str, required: bool = True) -> None:
    parser.add_argument(f"--{name}", type=Path, required=required, metavar="PATH", help=text)


def _configured(parser: argparse.ArgumentParser) -> None:
    _path(parser, "config", "conf/tagspeech.yaml of the recipe")
    parser.add_argument(
        *("--set",), action="append", default=[], metavar="KEY=VALUE", help="overrides a key"
    )


def _config_of(args: argparse.Namespace) -> Config:
    return load_config(args.config, args.set)


def _use_threads(args: argparse.Namespace) -> None:
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)


def _threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        *("--threads",), type=_count, default=0, help="CPU threads; 0: torch's choice"
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"wants a whole number from 0, not {text!r}")
    return int(text)


def _simulate(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.data.simulate import SimulateConfig, simulate

        names = [field.name for field in dataclasses.fields(SimulateConfig)]
        config = SimulateConfig(**{name: getattr(args, name) for name in names})
        simulate(args.output, config, jobs=args.jobs)

    parser = _verb(verbs, "simulate", "Writes simulated meetings with Lhotse manifests.", run)
    _path(parser, "output", "folder of the corpus")
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


def _groups(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.data.groups import make_groups

        make_groups(
            args.manifests,
            args.output,
            rejected=args.rejected,
            splits=args.splits.split(),
            max_pause=args.max_pause,
            language=_config_of(args).language,
        )

    parser = _verb(verbs, "groups", "Cuts recordings into utterance groups.", run)
    _configured(parser)
    _path(
        parser, "manifests", "folder of SPLIT_recordings.jsonl.gz and SPLIT_supervisions.jsonl.gz"
    )
    _path(parser, "output", "folder for SPLIT.jsonl.gz")
    _path(parser, "rejected", "list of what cannot be used, with reasons")
    parser.add_argument("--splits", default="train dev test", help="names, separated by spaces")
    parser.add_argument("--max-pause", type=float, default=0.0, help="seconds within a group")


def _train(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.training.parallel import launch

        _use_threads(args)
        config = _config_of(args)
        if args.part == "tagspeech":
            from tagspeech.training.tagspeech import train_tagspeech

            if args.semantic is None or args.voice is None:
                raise InputError("training tagspeech wants --semantic and --voice, both final.pt")
            launch(
                *(args.processes, train_tagspeech, config),
                *(args.groups, args.semantic, args.voice, args.output),
            )
        else:
            from tagspeech.training import encoders

            train = {"semantic": encoders.train_semantic, "voice": encoders.train_voice}
            launch(args.processes, train[args.part], config, args.groups, args.output, args.init)

    parser = _verb(verbs, "train", "Trains an encoder or TagSpeech; resumes where it stopped.", run)
    parser.add_argument("part", choices=("semantic", "voice", "tagspeech"))
    _configured(parser)
    _path(parser, "groups", "folder of utterance groups (tagspeech: with embeddings)")
    _path(parser, "semantic", "final.pt of the semantic encoder (tagspeech)", required=False)
    _path(parser, "voice", "final.pt of the voice encoder (tagspeech)", required=False)
    _path(parser, "init", "encoder weights to start from (semantic, voice)", required=False)
    _path(parser, "output", "run folder")
    parser.add_argument("--processes", type=_count, default=1, help="that train together")
    _threads(parser)


def _embed(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.training.embed import embed
        from tagspeech.training.parallel import launch

        _use_threads(args)
        launch(
            *(args.jobs, embed, _config_of(args), args.groups, args.semantic, args.voice),
            *(args.output, args.splits.split()),
        )

    parser = _verb(verbs, "embed", "Stores encoder frames and speaker vectors of groups.", run)
    _configured(parser)
    _path(parser, "groups", "folder of utterance groups")
    _path(parser, "semantic", "final.pt of the semantic encoder")
    _path(parser, "voice", "final.pt of the voice encoder")
    _path(parser, "output", "folder for SPLIT.jsonl.gz and the arrays")
    parser.add_argument("--splits", default="train dev", help="names, separated by spaces")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the work")
    _threads(parser)


def _new_llm(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.training.parallel import launch
        from tagspeech.training.text import new_llm

        _use_threads(args)
        launch(args.processes, new_llm, _config_of(args), args.groups, args.output)

    parser = _verb(verbs, "new-llm", "Makes a small LLM and its tokenizer from target texts.", run)
    _configured(parser)
    _path(parser, "groups", "folder of utterance groups")
    _path(parser, "output", "run folder; the LLM is OUTPUT/pretrained")
    parser.add_argument("--processes", type=_count, default=1, help="that train together")
    _threads(parser)


def _decode(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.decoding.decode import decode

        _use_threads(args)
        decode(args.model, args.groups, args.output, _config_of(args).decode)

    parser = _verb(verbs, "decode", "Decodes utterance groups; resumes where it stopped.", run)
    _configured(parser)
    _path(parser, "model", "folder of a trained model")
    _path(parser, "groups", "SPLIT.jsonl.gz")
    _path(parser, "output", "folder for SPLIT.raw.jsonl, SPLIT.{ref,hyp,hyp-voice}.seglst.json")
    _threads(parser)


def _score(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.scoring.score import score_files

        score_files(
            args.ref, args.hyp, args.raw, args.language, collar=args.collar, output=args.output
        )

    parser = _verb(verbs, "score", "Scores a hypothesis against a reference.", run)
    _path(parser, "ref", "reference segments")
    _path(parser, "hyp", "hypothesis segments")
    _path(parser, "raw", "SPLIT.raw.jsonl of the decoder: what was malformed", required=False)
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    parser.add_argument("--collar", type=float, default=5.0, help="seconds, of tcpWER")
    _path(parser, "output", "scores.json", required=False)


def _report(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.report.table import report

        report(
            args.scores,
            args.ref,
            args.hyp,
            scores_voice_path=args.scores_voice,
            recipe=args.recipe,
            commit=args.commit,
            seconds=args.seconds,
            output=args.output,
        )

    parser = _verb(verbs, "report", "Prints the table of scores and three examples.", run)
    _path(parser, "scores", "scores.json")
    _path(parser, "scores-voice", "scores.json of speakers by voice", required=False)
    _path(parser, "ref", "reference segments")
    _path(parser, "hyp", "hypothesis segments")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--commit", default="unknown", help="of the code that ran")
    parser.add_argument("--seconds", type=json.loads, default={}, help="JSON: of each stage")
    _path(parser, "output", "results.json")


def _transcribe(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.api import transcribe_files

        _use_threads(args)
        formats = args.format.split(",")
        transcribe_files(args.model, args.audio, formats, args.output, args.speakers)

    parser = _verb(verbs, "transcribe", "Transcribes recordings with a trained model.", run)
    _path(parser, "model", "folder of a trained model")
    parser.add_argument("--format", default="seglst", help="formats, separated by commas")
    _path(parser, "output", "folder; without it the first format goes to stdout", required=False)
    parser.add_argument(
        *("--speakers",), choices=("llm", "voice"), default="llm", help="who decides on them"
    )
    _threads(parser)
    parser.add_argument("audio", nargs="+", type=Path, metavar="AUDIO")


def _convert(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.formats.convert import convert

        convert(args.files, args.format.split(","), args.output)

    parser = _verb(verbs, "convert", "Turns one format of segments into another.", run)
    parser.add_argument("--format", required=True, help="formats, separated by commas")
    _path(parser, "output", "folder; without it the first format goes to stdout", required=False)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")


def _config(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        tree = to_tree(_config_of(args))
        print(json.dumps(tree, sort_keys=True))

    _configured(_verb(verbs, "config", "Prints the resolved configuration as JSON.", run))


def _export(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.models.export import export_parts

        export_parts(args.semantic, args.voice, args.llm, args.output)

    parser = _verb(verbs, "export", "Writes trained parts for other runs to start from.", run)
    _path(parser, "semantic", "final.pt of the semantic encoder")
    _path(parser, "voice", "final.pt of the voice encoder")
    _path(parser, "llm", "folder of the LLM")
    _path(parser, "output", "folder for the parts in half precision, with SHA256SUMS")


def _verify(verbs: object) -> None:
    def run(args: argparse.Namespace) -> None:
        from tagspeech.files import verify_checksums

        verify_checksums(args.folder)

    parser = _verb(verbs, "verify", "Compares files with the SHA256SUMS beside them.", run)
    parser.add_argument("folder", type=Path)
