"""What the verbs' arguments have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from tagspeech.config import Config
from tagspeech.config_file import load_config
from tagspeech.text import LANGUAGES

T = TypeVar("T")


def add_verb(verbs: object, name: str, summary: str, run: object) -> argparse.ArgumentParser:
    """A verb with its help; `run` gets the arguments."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary)  # type: ignore[attr-defined]
    parser.add_argument("--verbose", action="store_true", help="log what is done")
    parser.set_defaults(run=run)
    return parser


def add_path(parser: argparse.ArgumentParser, name: str, text: str, required: bool = True) -> None:
    """An option --NAME that takes a file or folder."""
    parser.add_argument(f"--{name}", type=Path, required=required, metavar="PATH", help=text)


def add_model(parser: argparse.ArgumentParser) -> None:
    """The options --model, --revision and --offline."""
    parser.add_argument(
        *("--model",), required=True, metavar="MODEL", help="folder, or ORG/NAME on the Hub"
    )
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--offline", action="store_true", help="take only what is downloaded")


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """The options --config, --variant and --set."""
    add_path(parser, "config", "conf/tagspeech.yaml of the recipe")
    add_path(parser, "variant", "YAML that is laid over it", required=False)
    parser.add_argument(
        *("--set",), action="append", default=[], metavar="KEY=VALUE", help="overrides a key"
    )


def config_of(args: argparse.Namespace) -> Config:
    """The configuration that the arguments name."""
    return load_config(args.config, args.set, args.variant)


def use_threads(args: argparse.Namespace) -> None:
    """Sets torch's threads to --threads, if given."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)


def add_threads(parser: argparse.ArgumentParser) -> None:
    """The option --threads."""
    parser.add_argument(
        *("--threads",), type=count, default=0, help="CPU threads; 0: torch's choice"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """The options --device and --dtype."""
    parser.add_argument("--device", default="cpu", help="such as cpu, cuda, cuda:1, mps")
    parser.add_argument(
        *("--dtype",), choices=("float32", "bfloat16", "float16"), default="float32", help="of LLM"
    )


def add_options(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    options: type[Any],
    names: Sequence[str] = (),
) -> None:
    """An option for each field of a dataclass of `tagspeech.options`, or for those in `names`."""
    types = get_type_hints(options)
    for field in fields(options):
        if names and field.name not in names:
            continue
        kind = _kind(types[field.name])
        choices = ("on", "off") if kind is bool else field.metadata["choices"]
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=str if choices else kind,
            choices=choices or None,
            default=field.default,
            metavar=None if choices else kind.__name__.upper(),
            help=f"{field.metadata['help']} (default: {field.metadata['default']})",
        )


def options_of(args: argparse.Namespace, options: type[T]) -> T:
    """The dataclass with the values that `add_options` has read.

    Raises:
        InputError: A value is out of its range.
    """
    types = get_type_hints(options)
    values = {field.name: getattr(args, field.name) for field in fields(options)}  # type: ignore[arg-type]
    for name, value in values.items():
        if value in ("on", "off") and _kind(types[name]) is bool:
            values[name] = value == "on"
    return options(**values)


def _kind(hint: Any) -> type:
    """The type of an option: `int` of `int` and of `int | None`."""
    kind: type = get_args(hint)[0] if get_args(hint) else hint
    return kind


def add_language(parser: argparse.ArgumentParser) -> None:
    """The option --language."""
    parser.add_argument(
        *("--language",),
        choices=(*LANGUAGES, "none"),
        default="en",
        help="of the normaliser; zh, ja and ko count characters, spaces left out, en counts words; "
        "none: words as they stand, as meeteval counts them (default: en)",
    )


def add_subtitle_speakers(parser: argparse.ArgumentParser) -> None:
    """The option --subtitle-speakers."""
    parser.add_argument(
        *("--subtitle-speakers",),
        choices=("auto", "prefix", "none"),
        default="auto",
        help="of SRT and VTT: whether `Name:` or `[Name]` before the words is the speaker; auto "
        "(default): where most subtitles of the file begin so; prefix: always; none: never",
    )


def count(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"wants a whole number from 0, not {text!r}")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"wants a whole number from 1, not {text!r}")
    return int(text)
