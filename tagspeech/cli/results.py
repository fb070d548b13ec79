"""Verbs that decode test sets, score them and report the results."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tagspeech.cli.arguments import (
    ConfigOptions,
    DeviceOptions,
    LanguageOptions,
    log_progress,
    verb,
)
from tagspeech.cli.corpus import COMMANDS
from tagspeech.cli.machine import JOBS, sharing_processes
from tagspeech.errors import InputError
from tagspeech.options import NO_HOTWORDS, TranscribeOptions, argument, like, option
from tagspeech.ranges import Count, Natural, NonNegative, Processes

GROUPS = "SPLIT.jsonl.gz, the utterance groups"
SEGMENTS = "segments: a file, or a folder of files"


@verb("decode")
class Decode(ConfigOptions, DeviceOptions):
    """Decodes utterance groups; resumes where it stopped."""

    model: Path = option("folder of a trained model")
    groups: Path = option(GROUPS)
    output: Path = option("folder for SPLIT.raw.jsonl, SPLIT.{ref,hyp,hyp-voice}.seglst.json")
    grammar: bool | None = like(TranscribeOptions, "grammar", None)
    word_times: str | None = like(TranscribeOptions, "word_times", None)
    hotwords: tuple[str, ...] | None = like(TranscribeOptions, "hotwords", None)
    hotword_strength: NonNegative | None = like(TranscribeOptions, "hotword_strength", None)
    shard: str | None = option(
        "decode only part K of N; merge-decoded merges the parts",
        None,
        shown="all",
        metavar="K/N",
    )
    jobs: Processes = option(JOBS, 1)

    def run(self) -> None:
        from tagspeech.inference.decode import Shard, decode
        from tagspeech.parallel import launch

        log_progress()
        shard = Shard.parse(self.shard) if self.shard else None
        if shard and self.jobs > 1:
            raise InputError("--jobs: has no effect with --shard; leave it out")
        config = self.load().decode
        names = ("grammar", "word_times", "hotwords", "hotword_strength")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        config = replace(config, **given)
        if self.hotword_strength is not None and not config.hotwords:
            raise InputError(NO_HOTWORDS)
        processes = 1 if shard else sharing_processes(self.device, self.jobs)
        work = partial(decode, shard=shard)
        paths = (self.model, self.groups, self.output)
        launch(processes, _at_place, work, self.device, self.dtype, *paths, config)


def _at_place(work: Callable[..., None], device: str, dtype: str, *inputs: Any) -> None:
    """Calls `work` with the place of this process."""
    from tagspeech.llm.place import find_place

    work(*inputs, place=find_place(device, dtype))


@verb("merge-decoded", "tagspeech.inference.decode.merge_decoded")
class MergeDecoded:
    """Merges the parts that decode --shard wrote; refuses gaps and duplicates."""

    groups_path: Path = option(GROUPS, flag="--groups")
    output: Path = option("folder for what decode writes without --shard")
    folders: tuple[Path, ...] = argument(
        "folders of SPLIT.K-of-N.raw.jsonl", (), shown="that of --output"
    )


@verb("score", "tagspeech.scoring.files.score_files")
class Score(LanguageOptions):
    """Scores a hypothesis against a reference."""

    ref: Path = option(f"reference {SEGMENTS}")
    hyp: Path = option(f"hypothesis {SEGMENTS}")
    output: Path | None = option("scores.json, with the scores of each session", None)
    collar: NonNegative = option("seconds of collar of tcpWER and tcORC-WER", 5.0)
    normaliser: str = option(
        "own: rules for all languages; basic: Whisper's for any language; whisper: Whisper's for "
        "English, without fillers, with numbers as digits and American spelling",
        "own",
        choices=("own", "basic", "whisper"),
    )
    protocol: str = option(
        "paper: sessions of 0.5 to 80 s; as-authors: of these, sessions whose output parses, and "
        "DER over the time of the reference",
        "all",
        choices=("all", "paper", "as-authors"),
    )
    uem: Path | None = option("UEM file: regions that DER, tcpWER and tcORC-WER score", None)
    raw: Path | None = option("SPLIT.raw.jsonl of decode, to count malformed outputs", None)
    groups: Path | None = option(f"{GROUPS}: all sessions and their durations", None)
    fold: bool = option(
        "score traditional characters as simplified ones", False, flag="--fold-chinese"
    )


@dataclass(frozen=True, kw_only=True)
class ScoredOptions:
    """A scored test set."""

    scores_path: Path = option("scores.json", flag="--scores")
    ref_path: Path = option("reference segments", flag="--ref")
    hyp_path: Path = option("hypothesis segments", flag="--hyp")


def _seconds(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"must be a JSON object, got {text!r}") from error


@verb("report", "tagspeech.report.report.report")
class Report(ScoredOptions):
    """Writes results.json, and prints the table of scores and three examples."""

    recipe: str = option("name of the recipe", metavar="NAME")
    output: Path = option("results.json")
    scores_voice_path: Path | None = option(
        "scores.json with speakers by voice", None, flag="--scores-voice"
    )
    commit: str = option("commit of the code that ran", "unknown")
    places: Path | None = option("SPLIT.places.json of decode: where it computed", None)
    seconds: str = option("JSON object: the time of each stage", "{}", parse=_seconds)
    page: Path | None = option("report.html, a page to read and listen to", None)
    groups: Path | None = option(f"page: {GROUPS}, which name the audio", None)
    audio: Count = option("page: sessions that contain their audio, worst first", 10)
    experiment: Path | None = option(
        "page: folder of the experiment, for its training curves", None, flag="--exp"
    )


@verb("page", "tagspeech.report.page.write_page_of")
class SegmentsPage(LanguageOptions):
    """Writes a page of segments in any format, to read and listen to."""

    hyp: Path = option(SEGMENTS)
    output: Path = option("page.html")
    ref: Path | None = option(f"reference {SEGMENTS}", None)
    audio: tuple[Path, ...] = argument("recordings, named like their sessions", ())


@verb("examples", "tagspeech.report.examples.write_examples")
class Examples(ScoredOptions):
    """Writes three test sessions to listen to."""

    groups_path: Path = option(GROUPS, flag="--groups")
    output: Path = option("new folder for README.md and the audio")


@verb("plot", "tagspeech.report.plots.write_plots")
class Plot(ScoredOptions):
    """Draws scores for a paper, as SVG and PNG."""

    output: Path = option("new folder for timeline, breakdown and diarization")
    session: str | None = option("session of the timeline", None, shown="that of most errors")


@verb("ablation-cells")
class AblationCells:
    """Prints variant, seed and encoders of each experiment of the ablations."""

    tables: Path = option("local/ablations/tables.yaml")
    table: str = option("name of a table, or all", "all", metavar="NAME")
    seeds: Natural = option("seeds 1 to N", 1)

    def run(self) -> None:
        from tagspeech.report.ablations import cells, read_tables

        for cell in cells(read_tables(self.tables, self.table), self.seeds):
            print(*cell)


@verb("ablation-tables")
class AblationTables(AblationCells):
    """Fills the tables of the ablations with the scores of the experiments."""

    exp: Path = option("folder of the experiments, VARIANT/seed-N")
    results: Path = option("Markdown file with the tables")
    command: str = option("command that the tables name as their source")

    def run(self) -> None:
        from tagspeech.report.ablations import read_tables, write_tables

        tables = read_tables(self.tables, self.table)
        write_tables(tables, self.seeds, self.exp, self.results, self.command)


@verb("meetings")
class EvaluateMeetings(ConfigOptions, DeviceOptions):
    """Decodes and scores whole meetings and their oracle groups; resumes where it stopped."""

    model: Path = option("folder of a trained model")
    manifests: Path = option("PATH of PATH_recordings.jsonl.gz and PATH_supervisions.jsonl.gz")
    output: Path = option("folder for segments, scores*.json and results.json")
    max_pause: NonNegative = option("seconds without speech within an oracle group", 0.0)
    speakers: str = like(TranscribeOptions, "speakers", "voice")
    vad: str = like(TranscribeOptions, "vad", "silero")
    allow_commands: bool = option(COMMANDS, False)
    jobs: Processes = option(JOBS, 1)

    def run(self) -> None:
        from tagspeech.parallel import launch
        from tagspeech.report.meetings import evaluate_meetings

        log_progress()
        work = partial(
            evaluate_meetings,
            max_pause=self.max_pause,
            options=TranscribeOptions(speakers=self.speakers, vad=self.vad),
            allow_commands=self.allow_commands,
        )
        processes = sharing_processes(self.device, self.jobs)
        inputs = (self.model, self.manifests, self.output, self.load())
        launch(processes, _at_place, work, self.device, self.dtype, *inputs)
