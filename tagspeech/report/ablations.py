"""Ablation tables: scores of configuration variants beside the results of the paper.

local/ablations/tables.yaml  the tables and their variants
EXP/VARIANT/seed-N           the experiment of a variant and seed, run by ./run.sh
RESULTS.md                   each table between <!-- ablations:NAME:begin --> and ...:end -->
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from tagspeech.config_file import from_tree, parse_yaml
from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_json, read_text, write_text
from tagspeech.report.examples import percent, read_scores
from tagspeech.report.plots import KIND_COLOURS, STYLE, WIDTH, save_figure, stack_der

ALL = "all"
SCORES = "tagspeech/greedy/scores.json"
ENCODERS = "sot"  # default encoders of a variant
KINDS = {"missed": "missed", "false_alarm": "false alarm", "confusion": "confusion"}
REGIONS = {"der_overlap": "DER, overlapped", "der_nonoverlap": "DER, not overlapped"}
SPLIT_RATES = {"der": "DER", "cpwer": "cpWER"}
BREAKDOWN_TITLES = {"by_speakers": "By number of speakers", "by_duration": "By duration in seconds"}

Scores = Mapping[str, Any]  # the content of scores.json


@dataclass(frozen=True)
class Paper:
    """Results of the paper in percent; None: not reported."""

    der: float | None = None
    cpwer: float | None = None
    wer: float | None = None
    speaker_count_accuracy: float | None = None
    malformed_rate: float | None = None


COLUMNS = {
    "der": "DER",
    "cpwer": "cpWER",
    "wer": "WER",
    "speaker_count_accuracy": "speaker count right",
    "malformed_rate": "malformed",
}


@dataclass(frozen=True)
class TableRow:
    """One row of a table: a variant of the configuration."""

    label: str
    variant: str
    encoders: str = ENCODERS  # variants with the same name share the results of stages 3 to 5
    paper: Paper = field(default_factory=Paper)


@dataclass(frozen=True)
class Table:
    """The table of one ablation."""

    name: str
    title: str
    rows: tuple[TableRow, ...]
    found: str  # the finding of the paper


@dataclass(frozen=True)
class _Tables:
    tables: tuple[Table, ...]


def read_tables(path: Path, wanted: str = ALL) -> list[Table]:
    """Reads all tables of a file, or the table `wanted`. Raises `InputError` if it is unknown."""
    tree = parse_yaml(read_text(path), str(path))
    tables = from_tree(_Tables, {"tables": tree}, str(path)).tables
    names = [table.name for table in tables]
    if wanted not in (ALL, *names):
        raise InputError(f"--table {wanted}: must be one of {', '.join([*names, ALL])} ({path})")
    return [table for table in tables if wanted in (ALL, table.name)]


def cells(tables: Sequence[Table], seeds: int) -> list[tuple[str, int, str]]:
    """The distinct (variant, seed, encoders) of all tables, sorted by seed, then variant."""
    rows = [row for table in tables for row in table.rows]
    found = {(row.variant, seed, row.encoders) for row in rows for seed in range(1, seeds + 1)}
    order = [row.variant for row in rows]
    return sorted(found, key=lambda cell: (cell[1], order.index(cell[0])))


def write_tables(
    tables: Sequence[Table], seeds: int, experiments: Path, results: Path, command: str
) -> None:
    """Updates the tables in the Markdown file `results` with the scores below `experiments`.

    Missing scores are dashes. A table without markers is appended to the file. A plot of each
    table's DER is written beside the file, `ablations-NAME.svg`.

    Raises:
        InputError: A table has a begin marker without an end marker.
    """
    text = read_text(results) if results.exists() else ""
    for table in tables:
        numbers = range(1, seeds + 1)
        scored = {row.label: _read(experiments / row.variant, numbers) for row in table.rows}
        plot = results.with_name(f"ablations-{table.name}.svg")
        block = render(table, scored, command)
        known = any(scored.values())
        if known:
            block += f"\n![DER of each row of the table, by its parts]({plot.name})\n"
        before, text = text, _replace(text, table, block, results)
        if known and (text != before or not plot.exists()):
            write_stacked(plot, table.title, scored)
    write_text(results, text)


def _read(folder: Path, seeds: Sequence[int]) -> list[Scores]:
    """The scores of a variant for all seeds that have any."""
    paths = [folder / f"seed-{seed}" / SCORES for seed in seeds]
    return [read_scores(path) | _origin(path) for path in paths if path.exists()]


def _origin(path: Path) -> dict[str, str]:
    """The commit of an experiment, if its report exists."""
    results = path.parents[2] / "results.json"
    return {"commit": read_json(results)["commit"]} if results.exists() else {}


def render(table: Table, scored: Mapping[str, Sequence[Scores]], command: str) -> str:
    """A table and its breakdowns as Markdown; `scored` has each row's scores, one per seed."""
    with_paper = {name for row in table.rows for name in COLUMNS if getattr(row.paper, name)}
    head = [table.title, "seeds"]
    for name, title in COLUMNS.items():
        head += [title, "paper"] if name in with_paper else [title]
    lines = [head]
    for row in table.rows:
        runs = scored[row.label]
        line = [row.label, str(len(runs))]
        for name in COLUMNS:
            line.append(spread([_rate(scores["overall"], name) for scores in runs]))
            if name in with_paper:
                figure = getattr(row.paper, name)
                line.append("-" if figure is None else f"{figure:.2f}")
        lines.append(line)
    parts = [_origins(scored, command), markdown(lines), table.found]
    if any(scored.values()):
        parts += [_regions(table, scored)]
        parts += [_split(table, scored, key, title) for key, title in BREAKDOWN_TITLES.items()]
    return "\n\n".join(parts) + "\n"


def _origins(scored: Mapping[str, Sequence[Scores]], command: str) -> str:
    """The provenance of the scores: command, commits, test set."""
    known = [scores for runs in scored.values() for scores in runs]
    if not known:
        return f"`{command}`: not run yet."
    commits = ", ".join(sorted({run["commit"] for run in known if "commit" in run})) or "unknown"
    sessions = ", ".join(sorted({str(run["overall"]["sessions"]) for run in known}))
    return (
        f"`{command}`, at {commits}; {sessions} test groups, speakers by LLM, collar 0, percent: "
        "the mean over seeds, minimum and maximum in brackets."
    )


def _regions(table: Table, scored: Mapping[str, Sequence[Scores]]) -> str:
    """The parts of DER, and DER of overlapped and of non-overlapped speech."""
    lines = [[table.title, *KINDS.values(), *REGIONS.values()]]
    for row in table.rows:
        overall = [scores["overall"] for scores in scored[row.label]]
        parts = [spread([part_of_der(metrics, kind) for metrics in overall]) for kind in KINDS]
        regions = [spread([_rate(metrics, name) for metrics in overall]) for name in REGIONS]
        lines.append([row.label, *parts, *regions])
    return markdown(lines)


def _split(table: Table, scored: Mapping[str, Sequence[Scores]], key: str, title: str) -> str:
    """DER and cpWER by range of duration or number of speakers."""
    ranges: dict[str, int] = {}
    for scores in (scores for runs in scored.values() for scores in runs):
        ranges |= {name: part["sessions"] for name, part in scores[key].items()}
    heads = [f"{rate} {name}" for rate in SPLIT_RATES.values() for name in ranges]
    lines = [[table.title, *heads]]
    for row in table.rows:
        line = [row.label]
        for rate in SPLIT_RATES:
            for name in ranges:
                parts = [run[key][name] for run in scored[row.label] if name in run[key]]
                line.append(spread([_rate(part, rate) for part in parts]))
        lines.append(line)
    groups = ", ".join(f"{name}: {count}" for name, count in ranges.items())
    return f"{title} (groups: {groups}):\n\n{markdown(lines)}"


def _rate(metrics: Mapping[str, Any], name: str) -> float | None:
    value = metrics.get(name)
    return value["error_rate"] if isinstance(value, dict) else value


def part_of_der(metrics: Mapping[str, Any], kind: str) -> float | None:
    """Missed speech, false alarm or confusion as a fraction of the scored speech."""
    der = metrics["der"]
    share: float | None = der[kind] / der["scored"] if der["scored"] else None
    return share


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def spread(values: Sequence[float | None]) -> str:
    """The mean in percent; minimum and maximum are added for several values."""
    known = [value for value in values if value is not None]
    text = percent(mean(known))
    if len(known) < 2:
        return text
    return f"{text} ({percent(min(known))}-{percent(max(known))})"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first line has the heads."""
    head, *others = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "| " + " | ".join("---" for _ in lines[0]) + " |", *others])


def _replace(text: str, table: Table, block: str, where: Path) -> str:
    """Puts `block` between the table's markers in `text`, which are added if missing."""
    begin, end = (f"<!-- ablations:{table.name}:{side} -->" for side in ("begin", "end"))
    if begin not in text:
        text += f"\n## Ablation: {table.title}\n\n{begin}\n{end}\n"
    before, _, rest = text.partition(begin)
    if end not in rest:
        raise InputError(f"{where}: has {begin} but no {end} after it")
    return f"{before}{begin}\n{block}{end}{rest.partition(end)[2]}"


def write_stacked(path: Path, title: str, scored: Mapping[str, Sequence[Scores]]) -> None:
    """Writes the figure of `stacked` as SVG."""
    with rc_context(STYLE), atomic_path(path) as temporary:
        save_figure(stacked(title, scored), temporary, "svg")


def stacked(title: str, scored: Mapping[str, Sequence[Scores]]) -> Figure:
    """The parts of DER of each row, mean over seeds; a row without scores has no bar."""
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    bars = {
        name.replace(", ", ",\n"): {
            kind: mean([part_of_der(scores["overall"], kind) for scores in runs]) or 0.0
            for kind in KIND_COLOURS
        }
        for name, runs in scored.items()
    }
    stack_der(figure, bars).set_xlabel(title)
    return figure
