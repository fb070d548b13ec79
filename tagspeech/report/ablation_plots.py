"""A plot of an ablation: DER of each variant in its parts, stacked (docs/paper.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from tagspeech.files import atomic_path
from tagspeech.report.ablations import Scores, mean, part_of_der
from tagspeech.report.plots import KINDS, STYLE, WIDTH, save_figure


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
        for kind, colour in KINDS.items():
            height = 100 * (mean([part_of_der(one["overall"], kind) for one in own]) or 0.0)
            label = kind.replace("_", " ") if place == 0 else None
            axes.bar(place, height, 0.6, bottom=bottom, color=colour, label=label)
            bottom += height
    axes.set_xticks(range(len(scored)), [name.replace(", ", ",\n") for name in scored])
    axes.set(xlabel=title, ylabel="DER (%)")
    figure.legend(loc="outside upper center", ncols=len(KINDS), frameon=False)
    return figure
