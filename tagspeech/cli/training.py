"""Verbs that train models, and that find and export their parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tagspeech.cli.arguments import (
    ConfigOptions,
    ModelOptions,
    ProcessorOptions,
    log_progress,
    verb,
)
from tagspeech.cli.machine import JOBS, sharing_processes, training_place
from tagspeech.config import Config, PartsConfig
from tagspeech.config_file import load_config, to_tree
from tagspeech.dependencies import NOT_READ, of_stage
from tagspeech.errors import InputError
from tagspeech.options import argument, option
from tagspeech.ranges import Processes


@verb("parts")
class Parts(ConfigOptions):
    """Finds or downloads pretrained parts, tries them, and prints their paths."""

    record: Path = option("JSON file with commits and checksums, read and written")
    offline: bool = option("make no network requests; use what is downloaded already", False)
    semantic_init: str = option(
        "path, ORG/NAME or package:...; replaces parts.semantic_init", "", metavar="NAME"
    )
    semantic_units: str = option(
        "path or ORG/NAME; replaces parts.semantic_units", "", metavar="NAME"
    )
    semantic_encoder: str = option(
        "path, ORG/NAME or package:...; replaces parts.semantic_encoder", "", metavar="NAME"
    )
    voice_init: str = option(
        "path, ORG/NAME or package:...; replaces parts.voice_init", "", metavar="NAME"
    )
    voice_encoder: str = option(
        "path, ORG/NAME or package:...; replaces parts.voice_encoder", "", metavar="NAME"
    )
    llm: str = option("path, ORG/NAME or package:...; replaces llm.name", "", metavar="NAME")
    init_from: Path | None = option("trained TagSpeech, which has all parts", None)
    model: str = option("trained TagSpeech to decode, in place of all parts", "", metavar="NAME")
    from_scratch: bool = option("use no pretrained part", False)
    new_llm: Path | None = option("folder of the LLM that is made if none is named", None)
    no_search: bool = option("look for no file", False)
    names: bool = option("look for no file; print the names of parts for their paths", False)

    def run(self) -> None:
        from tagspeech.checkpoints.recipe_parts import GivenParts, recipe_parts
        from tagspeech.checkpoints.starting_points import find_trained

        if self.model:
            folder, commit = find_trained(self.model, self.record, offline=self.offline)
            print(f"model={folder}\nmodel_commit={commit}")
            return
        names = (*(field.name for field in fields(PartsConfig)), "llm")
        given = GivenParts(
            {name: value for name in names if (value := getattr(self, name))},
            *(self.init_from, self.from_scratch, self.new_llm),
        )
        answer = recipe_parts(
            self.load_with,
            given,
            self.record,
            offline=self.offline,
            search=not (self.no_search or self.names),
        )
        if self.names:
            parts = to_tree(self.load_with(given.overrides()).parts)
            for stream in ("semantic", "voice"):
                if parts[f"{stream}_encoder"]["name"]:
                    parts = {k: v for k, v in parts.items() if k != f"{stream}_init"}
            answer = {name: part["name"] for name, part in parts.items()} | answer
        for name, value in answer.items():
            print(f"{name}={value}")

    def load_with(self, given: Sequence[str]) -> Config:
        """The configuration with overrides that the user's own come after."""
        return load_config(self.config, [*given, *self.overrides], self.variant)


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    """The encoders that TagSpeech starts from."""

    semantic: Path | None = option("tagspeech: final.pt of the semantic encoder", None)
    voice: Path | None = option("tagspeech: final.pt of the voice encoder", None)
    init_from: str | None = option(
        "tagspeech: trained model to continue from, in place of both encoders: folder, or ORG/NAME",
        None,
        metavar="MODEL",
    )

    def start(self) -> Path | None:
        """The folder of --init-from; None if both encoders are given instead."""
        if self.init_from is None:
            from tagspeech.training.embed import NO_ENCODERS

            if not self.semantic or not self.voice:
                raise InputError(NO_ENCODERS)
            return None
        if self.semantic or self.voice:
            raise InputError("--init-from has both encoders; leave out --semantic and --voice")
        from tagspeech.checkpoints.download import find_model

        return find_model(self.init_from)


# Options of `train` that only some parts have
_PARTS = {
    "semantic": ("init", "init_units"),
    "voice": ("init",),
    "tagspeech": ("semantic", "voice", "init_from"),
}


@verb("train")
class Train(StartOptions, ConfigOptions, ProcessorOptions):
    """Trains an encoder or TagSpeech; resumes where it stopped."""

    part: str = argument("what is trained", choices=tuple(_PARTS))
    groups: Path = option("folder of utterance groups; for tagspeech, with embeddings")
    output: Path = option("run folder")
    processes: Processes = option("processes that train together", 1)
    wandb: str = option(
        "project of Weights & Biases that gets the curves too, beside TensorBoard; needs the "
        "package wandb",
        "",
        metavar="PROJECT",
    )
    init: Path | None = option("semantic, voice: encoder weights to start from", None)
    init_units: Path | None = option("semantic: sentencepiece model of the output of --init", None)

    def run(self) -> None:
        from tagspeech.checkpoints.native import check_size
        from tagspeech.parallel import launch
        from tagspeech.training.boards import mirror_to_wandb
        from tagspeech.training.encoders import train_semantic, train_voice
        from tagspeech.training.tagspeech import train_tagspeech

        for name in ("init", "init_units", "semantic", "voice", "init_from"):
            if getattr(self, name) is not None and name not in _PARTS[self.part]:
                flag = f"--{name.replace('_', '-')}"
                raise InputError(f"{flag}: has no effect on train {self.part}; leave it out")
        log_progress()
        config, groups, output = self.load(), self.groups, self.output
        place = training_place(self.device)
        if self.wandb:
            mirror_to_wandb(self.wandb, output)
        if self.part == "tagspeech":
            start = self.start()
            if start:
                check_size(start, place)
            else:
                place.check_size(config.llm)
            inputs = (groups, self.semantic, self.voice, output, start)
            launch(self.processes, train_tagspeech, config, *inputs)
        elif self.part == "semantic":
            inits = (self.init, self.init_units)
            launch(self.processes, train_semantic, config, groups, output, *inits)
        else:
            launch(self.processes, train_voice, config, groups, output, self.init)


@verb("embed")
class Embed(StartOptions, ConfigOptions, ProcessorOptions):
    """Stores encoder frames and speaker vectors of utterance groups."""

    groups: Path = option("folder of utterance groups")
    output: Path = option("folder for SPLIT.jsonl.gz and the arrays")
    splits: tuple[str, ...] = option("names of splits", ("train", "dev"))
    jobs: Processes = option(JOBS, 1)

    def run(self) -> None:
        from tagspeech.parallel import launch
        from tagspeech.training.embed import embed

        log_progress()
        processes = sharing_processes(self.device, self.jobs)
        inputs = (self.load(), self.groups, self.semantic, self.voice)
        launch(processes, embed, *inputs, self.output, self.splits, self.start())


@verb("new-llm")
class NewLLM(ConfigOptions, ProcessorOptions):
    """Makes a small LLM and its tokenizer from target texts."""

    groups: Path = option("folder of utterance groups")
    output: Path = option("run folder; the LLM is OUTPUT/pretrained")
    processes: Processes = option("processes that train together", 1)

    def run(self) -> None:
        from tagspeech.parallel import launch
        from tagspeech.training.text import new_llm

        log_progress()
        training_place(self.device)
        launch(self.processes, new_llm, self.load(), self.groups, self.output)


@verb("config")
class PrintConfig(ConfigOptions):
    """Prints the resolved configuration as JSON."""

    stages: bool = option("print what each stage of a recipe depends on", False)

    def run(self) -> None:
        tree = to_tree(self.load())
        if self.stages:
            print(json.dumps({stage: of_stage(stage, tree) for stage in NOT_READ}))
        else:
            print(json.dumps(tree, sort_keys=True))


@verb("export parts", "tagspeech.checkpoints.export.export_parts")
class ExportParts:
    """Writes trained parts in half precision, for other runs to start from."""

    semantic: Path = option("final.pt of the semantic encoder")
    voice: Path = option("final.pt of the voice encoder")
    llm: Path = option("folder of the LLM")
    output: Path = option("folder for the parts and their SHA256SUMS")


@verb("export icefall", "tagspeech.checkpoints.icefall.export_icefall")
class ExportIcefall:
    """Writes the semantic encoder for icefall's Zipformer scripts, and prints their options."""

    semantic: Path = option("folder of stage 3, such as exp/semantic")
    output: Path = option("folder for pretrained.pt, bpe.model, tokens.txt, options.txt")


@verb("export released", "tagspeech.api.export_released")
class ExportReleased(ModelOptions):
    """Writes a model in the layout of the published checkpoints, for the authors' code."""

    output: Path = option("folder for the model in that layout")


@verb("export merged", "tagspeech.api.export_merged")
class ExportMerged(ModelOptions):
    """Writes a model whose adapters are merged into its LLM."""

    output: Path = option("folder for the model without adapters")


@verb("export compact", "tagspeech.api.export_compact")
class ExportCompact(ModelOptions):
    """Writes only what training changed, in half precision; the model's parts are named."""

    semantic_encoder: str = option(
        "part that the semantic encoder comes from: path, ORG/NAME or package:...; none: the "
        "encoder is written whole",
        "",
        metavar="NAME",
        shown="none",
    )
    voice_encoder: str = option("the same for the voice encoder", "", metavar="NAME", shown="none")
    output: Path = option("folder for the compact model")


@verb("verify", "tagspeech.files.verify_checksums")
class Verify:
    """Compares the files of a folder with its SHA256SUMS."""

    folder: Path = argument("folder that contains SHA256SUMS")
