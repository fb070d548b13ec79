"""Tables of ablations: what variants of one configuration score, beside the paper's figures.

local/ablations/tables.yaml   which tables there are, of which variants
EXP/VARIANT/seed-N           the experiment of a cell, trained and scored by ./run.sh
RESULTS.md                   each table between <!-- ablations:NAME:begin --> and ...:end -->
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from matplotlib import rc_context
from matplotlib.figure import Figure

from tagspeech.config_file import from_tree
from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_json, read_text, write_text
from tagspeech.report.examples import percent, read_scores
from tagspeech.report.plots import KIND_COLOURS, STYLE, WIDTH, save_figure

ALL = "all"
SCORES = "tagspeech/greedy/scores.json"
ENCODERS = "sot"  # of the variants that name no others
KINDS = {"missed": "missed", "false_alarm": "false alarm", "confusion": "confusion"}
REGIONS = {"der_overlap": "DER, overlapped", "der_nonoverlap": "DER, not overlapped"}
SPLIT_RATES = {"der": "DER", "cpwer": "cpWER"}
BREAKDOWN_TITLES = {"by_speakers": "By number of speakers", "by_duration": "By duration in seconds"}

Scores = Mapping[str, Any]  # the content of scores.json


@dataclass(frozen=True)
class Paper:
    """Figures of the paper in percent; None: not known here."""

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
    encoders: str = ENCODERS  # variants of one name share what stages 3 to 5 make
    paper: Paper = field(default_factory=Paper)


@dataclass(frozen=True)
class Table:
    """One ablation."""

    name: str
    title: str
    rows: tuple[TableRow, ...]
    found: str  # by the paper, in words


@dataclass(frozen=True)
class _Tables:
    tables: tuple[Table, ...]


def read_tables(path: Path, wanted: str = ALL) -> list[Table]:
    """The tables of a file, or the one that is `wanted`. Raises `InputError` for an unknown one."""
    try:
        tree = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    tables = from_tree(_Tables, {"tables": tree}, str(path)).tables
    names = [table.name for table in tables]
    if wanted not in (ALL, *names):
        raise InputError(f"--table {wanted}: {path} has {', '.join(names)}; or say {ALL}")
    return [table for table in tables if wanted in (ALL, table.name)]


def cells(tables: Sequence[Table], seeds: int) -> list[tuple[str, int, str]]:
    """Variant, seed and encoders of each experiment, once: tables share variants.

    The first seed of all variants comes first.
    """
    rows = [row for table in tables for row in table.rows]
    found = {(row.variant, seed, row.encoders) for row in rows for seed in range(1, seeds + 1)}
    order = [row.variant for row in rows]
    return sorted(found, key=lambda cell: (cell[1], order.index(cell[0])))


def write_tables(
    tables: Sequence[Table], seeds: int, experiments: Path, results: Path, command: str
) -> None:
    """Fills the tables in the Markdown file `results` with what is scored below `experiments`.

    A dash stands where nothing is scored yet. A table without markers gets them at the end of the
    file. Beside it lies a plot of each table's DER, `ablations-NAME.svg`.

    Raises `InputError` for a table with a beginning and no end.
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
    """The scores of a variant, of those seeds that are scored."""
    paths = [folder / f"seed-{seed}" / SCORES for seed in seeds]
    return [read_scores(path) | _origin(path) for path in paths if path.exists()]


def _origin(path: Path) -> dict[str, str]:
    """The commit that a cell ran at, once its report is written."""
    results = path.parents[2] / "results.json"
    return {"commit": read_json(results)["commit"]} if results.exists() else {}


def render(table: Table, scored: Mapping[str, Sequence[Scores]], command: str) -> str:
    """A table and what it splits into, as Markdown; `scored` has the scores of each row's seeds."""
    with_paper = {name for row in table.rows for name in COLUMNS if getattr(row.paper, name)}
    head = [table.title, "seeds"]
    for name, title in COLUMNS.items():
        head += [title, "paper"] if name in with_paper else [title]
    lines = [head]
    for row in table.rows:
        own = scored[row.label]
        line = [row.label, str(len(own))]
        for name in COLUMNS:
            line.append(spread([_rate(one["overall"], name) for one in own]))
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
    """Where the figures come from: command, commits, test set."""
    known = [one for own in scored.values() for one in own]
    if not known:
        return f"`{command}`: not run yet."
    commits = ", ".join(sorted({one["commit"] for one in known if "commit" in one})) or "unknown"
    sessions = ", ".join(sorted({str(one["overall"]["sessions"]) for one in known}))
    return (
        f"`{command}`, at {commits}; {sessions} test groups, speakers by LLM, collar 0, percent: "
        "mean over seeds, minimum and maximum in brackets."
    )


def _regions(table: Table, scored: Mapping[str, Sequence[Scores]]) -> str:
    """The parts of DER, and DER where speech is overlapped and where it is not."""
    lines = [[table.title, *KINDS.values(), *REGIONS.values()]]
    for row in table.rows:
        overall = [one["overall"] for one in scored[row.label]]
        parts = [spread([part_of_der(one, kind) for one in overall]) for kind in KINDS]
        regions = [spread([_rate(one, name) for one in overall]) for name in REGIONS]
        lines.append([row.label, *parts, *regions])
    return markdown(lines)


def _split(table: Table, scored: Mapping[str, Sequence[Scores]], key: str, title: str) -> str:
    """DER and cpWER within each range of duration or number of speakers."""
    ranges: dict[str, int] = {}
    for own in scored.values():
        for one in own:
            ranges |= {name: part["sessions"] for name, part in one[key].items()}
    heads = [f"{rate} {name}" for rate in SPLIT_RATES.values() for name in ranges]
    lines = [[table.title, *heads]]
    for row in table.rows:
        line = [row.label]
        for rate in SPLIT_RATES:
            for name in ranges:
                parts = [one[key][name] for one in scored[row.label] if name in one[key]]
                line.append(spread([_rate(part, rate) for part in parts]))
        lines.append(line)
    groups = ", ".join(f"{name}: {count}" for name, count in ranges.items())
    return f"{title} (groups: {groups}):\n\n{markdown(lines)}"


def _rate(metrics: Mapping[str, Any], name: str) -> float | None:
    value = metrics.get(name)
    return value["error_rate"] if isinstance(value, dict) else value


def part_of_der(metrics: Mapping[str, Any], kind: str) -> float | None:
    """Missed speech, false alarm or confusion as a share of the speech scored."""
    der = metrics["der"]
    share: float | None = der[kind] / der["scored"] if der["scored"] else None
    return share


def mean(values: Sequence[float | None]) -> float | None:
    """Of the values that are known; None: of none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def spread(values: Sequence[float | None]) -> str:
    """The mean in percent; of several values also the least and the greatest."""
    known = [value for value in values if value is not None]
    text = percent(mean(known))
    if len(known) < 2:
        return text
    return f"{text} ({percent(min(known))}-{percent(max(known))})"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table, its heads first."""
    head, *others = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "| " + " | ".join("---" for _ in lines[0]) + " |", *others])


def _replace(text: str, table: Table, block: str, where: Path) -> str:
    """`text` with the block between the table's markers, which are added where there are none."""
    begin, end = (f"<!-- ablations:{table.name}:{side} -->" for side in ("begin", "end"))
    if begin not in text:
        text += f"\n## Ablation: {table.title}\n\n{begin}\n{end}\n"
    before, _, rest = text.partition(begin)
    if end not in rest:
        raise InputError(f"{where}: has {begin} and behind it no {end}")
    return f"{before}{begin}\n{block}{end}{rest.partition(end)[2]}"


def write_stacked(path: Path, title: str, scored: Mapping[str, Sequence[Scores]]) -> None:
    """Writes an SVG; a row without scores has no bar. Of several seeds it shows the mean."""
    with rc_context(STYLE), atomic_path(path) as temporary:
        save_figure(stacked(title, scored), temporary, "svg")


def stacked(title: str, scored: Mapping[str, Sequence[Scores]]) -> Figure:
    """Missed speech, false alarm and confusion in percent of the speech scored."""
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.add_subplot()
    for place, own in enumerate(scored.values()):
        bottom = 0.0
        for kind, colour in KIND_COLOURS.items():
            height = 100 * (mean([part_of_der(one["overall"], kind) for one in own]) or 0.0)
            label = kind.replace("_", " ") if place == 0 else None
            axes.bar(place, height, 0.6, bottom=bottom, color=colour, label=label)
            bottom += height
    axes.set_xticks(range(len(scored)), [name.replace(", ", ",\n") for name in scored])
    axes.set(xlabel=title, ylabel="DER (%)")
    figure.legend(loc="outside upper center", ncols=len(KIND_COLOURS), frameon=False)
    return figure
