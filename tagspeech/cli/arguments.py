"""The command line from dataclasses: their fields are the options of a verb."""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from tagspeech.config import Config
from tagspeech.config_file import load_config
from tagspeech.errors import InputError
from tagspeech.options import option
from tagspeech.ranges import Threads, fault, plain_type
from tagspeech.segments import composed
from tagspeech.text import LANGUAGES

T = TypeVar("T")
VERBS: dict[str, Any] = {}  # name -> dataclass with a method `run`


def verb(name: str, calls: str = "") -> Callable[[type[T]], type[T]]:
    """Makes a class the verb `name`, such as "score" or "export parts".

    The class becomes a frozen dataclass. Its docstring is the help of the verb, and its fields are
    the options (`tagspeech.options.option`). Its method `run` is called; without such a method the
    function `calls` is, with the fields as keyword arguments.
    """

    def register(cls: type[T]) -> type[T]:
        VERBS[name] = made = dataclass(frozen=True, kw_only=True)(cls)
        made.calls = calls  # type: ignore[attr-defined]
        return made

    return register


def add_options(parser: Any, cls: type) -> list[argparse.Action]:
    """Adds an option for each field of a dataclass, and a section for each that is a dataclass."""
    actions: list[argparse.Action] = []
    hints = get_type_hints(cls, include_extras=True)
    for item in sorted(fields(cls), key=lambda item: item.name not in cls.__annotations__):
        kind, given = plain_type(hints[item.name]), item.metadata
        if is_dataclass(kind):
            section = parser.add_argument_group(given["title"], given["text"] or None)
            actions += add_options(section, cast(type, kind))
        elif "is_positional" in given:
            actions.append(parser.add_argument(item.name, **_settings(item, kind)))
        else:
            settings = {"dest": item.name, "required": item.default is MISSING}
            actions.append(parser.add_argument(_flag(item), **settings, **_settings(item, kind)))
    return actions


def usage(prog: str, actions: Sequence[argparse.Action]) -> str:
    """A short usage: the required options, then the arguments without a name."""
    words = [prog]
    words += [
        f"{item.option_strings[0]} {item.metavar}"
        for item in actions
        if item.required and item.option_strings
    ]
    words.append("[options]")
    for item in actions:
        if not item.option_strings:
            name = str(item.metavar or f"{{{','.join(item.choices or ())}}}")
            words.append({"+": f"{name} ...", "*": f"[{name} ...]"}.get(str(item.nargs), name))
    return " ".join(words)


def log_progress() -> None:
    """Logs progress without --verbose, in the first process: the work takes hours."""
    if os.environ.get("RANK", "0") == "0":  # torchrun's name for the number of a process
        logging.getLogger("tagspeech").setLevel(logging.INFO)


def call(options: Any) -> None:
    """Runs a verb with its options."""
    if getattr(options, "threads", 0):
        import torch

        torch.set_num_threads(options.threads)
    if options.calls:
        module, _, function = options.calls.rpartition(".")
        getattr(import_module(module), function)(**vars(options))
    else:
        options.run()


def read(cls: type[T], args: argparse.Namespace) -> T:
    """The dataclass with the values that the options of `add_options` have.

    Raises:
        InputError: A value is out of its range; the message names the option.
    """
    hints = get_type_hints(cls, include_extras=True)
    values: dict[str, Any] = {}
    for item in fields(cls):  # type: ignore[arg-type]
        kind = plain_type(hints[item.name])
        if is_dataclass(kind):
            values[item.name] = read(cast(type, kind), args)
            continue
        value = getattr(args, item.name)
        if problem := fault(hints[item.name], value):
            raise InputError(f"{_flag(item)}: {problem}")
        values[item.name] = tuple(value) if isinstance(value, list) else value
    return cls(**values)


def _flag(item: Field[Any]) -> str:
    return item.metadata["flag"] or f"--{item.name.replace('_', '-')}"


def _settings(item: Field[Any], kind: Any) -> dict[str, Any]:
    """The keywords of argparse for a field."""
    given, default = item.metadata, item.default
    text = given["text"].replace("%", "%%")
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    shown = given["shown"] or ("none" if default in (None, "", ()) else shown)
    is_positional = "is_positional" in given
    if kind is bool and default is False:
        return {"action": "store_true", "help": f"{text} (default: off)"}
    if default is MISSING:
        help_text = text if is_positional else f"{text} (required)"
    else:
        help_text = f"{text} (default: {shown})"
    settings: dict[str, Any] = {"help": help_text, "choices": given["choices"] or None}
    if default is not MISSING:
        settings["default"] = list(default) if given["is_repeated"] else default
    is_tuple = get_origin(kind) is tuple
    item_kind = get_args(kind)[0] if is_tuple else kind
    settings["type"] = given["parse"] or (_on_off if kind is bool else item_kind)
    if given["is_repeated"]:
        settings["action"] = "append"
    elif is_tuple and is_positional:
        settings["nargs"] = "+" if default is MISSING else "*"
    elif is_tuple and item_kind is str and not given["parse"]:
        settings["type"] = _names
    if not given["choices"]:
        usual = item.name.upper() if is_positional else _METAVARS.get(item_kind, item.name.upper())
        settings["metavar"] = given["metavar"] or usual
    return settings


def _names(text: str) -> tuple[str, ...]:
    return tuple(re.split("[, ]+", text.strip()))


def _on_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"must be on or off, got {text!r}")
    return text == "on"


_METAVARS: dict[Any, str] = {int: "N", float: "NUMBER", bool: "{on,off}", Path: "PATH"}


@dataclass(frozen=True, kw_only=True)
class ConfigOptions:
    """The configuration of a recipe."""

    config: Path = option("configuration of a recipe, its conf/tagspeech.yaml")
    variant: Path | None = option("YAML file whose values replace those of --config", None)
    overrides: tuple[str, ...] = option(
        "a value, such as train.lr=1e-4; may be repeated",
        (),
        flag="--set",
        metavar="KEY=VALUE",
        is_repeated=True,
    )

    def load(self) -> Config:
        """The resolved configuration."""
        return load_config(self.config, self.overrides, self.variant)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """A trained model on disk or on the Hub."""

    model: str = option("folder, or ORG/NAME on the Hugging Face Hub")
    revision: str | None = option(
        "branch, tag or commit on the Hub", None, shown="the default branch"
    )
    offline: bool = option("make no network requests; use what is downloaded already", False)


@dataclass(frozen=True, kw_only=True)
class ModelOrDefaultOptions(ModelOptions):
    """A trained model, by default that of the repository."""

    model: str = option(
        "folder, or ORG/NAME on the Hugging Face Hub",
        "",
        shown="the model for English in egs/librispeech/pretrained",
    )


@dataclass(frozen=True, kw_only=True)
class ThreadOptions:
    """The number of threads."""

    threads: Threads = option("CPU threads; 0: as many as torch chooses", 0)


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(ThreadOptions):
    """Where a model runs."""

    device: str = option(
        "auto: a GPU by CUDA where there is one, else the CPU; or cpu, cuda, cuda:N, mps or "
        "another that torch names",
        "auto",
    )
    dtype: str = option(
        "type of the LLM's weights; auto: bfloat16 on a GPU that computes in it, else float32",
        "auto",
        choices=("auto", "float32", "bfloat16", "float16"),
    )


@dataclass(frozen=True, kw_only=True)
class ProcessorOptions(ThreadOptions):
    """Where the processes of a training run."""

    device: str = option(
        "auto: GPUs by CUDA, one for each process, where there are any, else the CPU",
        "auto",
        choices=("auto", "cpu", "cuda"),
    )


@dataclass(frozen=True, kw_only=True)
class SubtitleOptions:
    """How subtitles are read."""

    subtitle_speakers: str = option(
        "in SRT and VTT, read `Name:` or `[Name]` before the words as the speaker; auto: if most "
        "subtitles of the file begin like that",
        "auto",
        choices=("auto", "prefix", "none"),
    )


def _new_names(text: str) -> tuple[tuple[str, str], ...]:
    """`OLD=NEW`, or all lines of this form in `@FILE`."""
    lines = [text]
    if text.startswith("@"):
        try:
            lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise argparse.ArgumentTypeError(f"{text[1:]}: {error}") from error
    pairs = [tuple(line.split("=", 1)) for line in lines if line.strip()]
    for pair in pairs:
        if len(pair) != 2 or not all(name.strip() for name in pair):
            raise argparse.ArgumentTypeError(f"must be OLD=NEW, got {'='.join(pair)!r}")
    return tuple((composed(old.strip()), new.strip()) for old, new in pairs)


@dataclass(frozen=True, kw_only=True)
class TranscriptOptions:
    """How transcripts are written."""

    rename: tuple[tuple[tuple[str, str], ...], ...] = option(
        "the new name of a speaker, or a file with such lines, as the page downloads it; may be "
        "repeated; speakers with the same new name become one",
        (),
        metavar="OLD=NEW|@FILE",
        parse=_new_names,
        is_repeated=True,
    )
    exact_subtitles: bool = option(
        "srt, vtt: write each segment as one cue with its exact times; otherwise cues are split, "
        "broken into two lines and shown long enough for readers",
        False,
    )

    @property
    def names(self) -> dict[str, str]:
        """The new names. Raises `InputError` if a speaker has two."""
        names: dict[str, str] = {}
        for old, new in (pair for pairs in self.rename for pair in pairs):
            if names.setdefault(old, new) != new:
                raise InputError(f"--rename: {old} is given two names, {names[old]} and {new}")
        return names


@dataclass(frozen=True, kw_only=True)
class LanguageOptions(SubtitleOptions):
    """How words are counted."""

    language: str = option(
        "normalisation of words and unit of error rates: words in en, characters without spaces in "
        "zh, ja and ko; none: words as they are, as meeteval counts them",
        "en",
        choices=(*LANGUAGES, "none"),
    )
