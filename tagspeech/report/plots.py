"""Plots scores and segments as SVG and PNG, for papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tagspeech import formats
from tagspeech.errors import InputError
from tagspeech.files import atomic_path
from tagspeech.report.examples import read_scores
from tagspeech.report.table import MAIN_RATES
from tagspeech.scoring.alignment import align
from tagspeech.scoring.files import folded
from tagspeech.segments import Segment, composed

IMAGE_FORMATS = ("svg", "png")
# Text stays text in an SVG, and the output is deterministic.
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "tagspeech", "font.size": 9}
WIDTH = 6.3  # inches, the text width of a one-column page
KIND_COLOURS = {"missed": "#4477aa", "false_alarm": "#ccbb44", "confusion": "#ee6677"}
COLOURS = {"cpwer": "#4477aa", "wer": "#66ccee", "der": "#ee6677"}
SPEAKER_COLOURS = (
    "#9ecbff",
    "#ffd8a8",
    "#b2f2bb",
    "#fcc2d7",
    "#d0bfff",
    "#ffec99",
    "#99e9f2",
    "#ced4da",
)
BREAKDOWNS = {"by_duration": "duration (s)", "by_speakers": "speakers in the reference"}


def write_plots(
    scores_path: str | Path,
    ref_path: str | Path,
    hyp_path: str | Path,
    output: str | Path,
    session: str | None = None,
) -> None:
    """Writes three plots as .svg and .png to a folder, which is replaced (`tagspeech plot`).

    timeline     reference above hypothesis of `session`, by default that with the most errors
    breakdown    error rates by duration and by number of speakers, with confidence intervals
    diarization  the parts of DER: all, overlapped, not overlapped, with a collar

    Raises:
        InputError: The scores have no such session.
    """
    scores = read_scores(scores_path)
    sessions = scores["sessions"]
    if session is None:
        session = max(sessions, key=lambda name: sessions[name]["cpwer"]["errors"])
    session = composed(session)
    if session not in sessions:
        raise InputError(f"{scores_path}: has no session {session!r}; its names are in 'sessions'")
    ref, hyp = (
        [segment for segment in formats.read(path) if segment.session == session]
        for path in (ref_path, hyp_path)
    )
    if scores["overall"].get("folded"):
        ref, hyp = folded(ref), folded(hyp)
    with rc_context(STYLE), atomic_path(output) as folder:
        folder.mkdir()
        for name, figure in (
            ("timeline", timeline(ref, hyp, scores["overall"]["language"], session)),
            ("breakdown", breakdown(scores)),
            ("diarization", diarization_parts(scores["overall"])),
        ):
            for format in IMAGE_FORMATS:
                save_figure(figure, folder / f"{name}.{format}", format)


def save_figure(figure: Figure, path: Path, format: str) -> None:
    """Writes a figure drawn in `STYLE`, without a date."""
    FigureCanvasAgg(figure)
    metadata = {"Date": None} if format == "svg" else {}
    figure.savefig(path, format=format, dpi=200, metadata=metadata)


def timeline(ref: Sequence[Segment], hyp: Sequence[Segment], language: str, title: str) -> Figure:
    """A lane of segments for each speaker; speakers paired by cpWER have the same colour."""
    pairs = align(ref, hyp, language)
    lanes = [
        (side, speaker, segments, SPEAKER_COLOURS[number % len(SPEAKER_COLOURS)])
        for side, segments in (("ref", ref), ("hyp", hyp))
        for number, pair in enumerate(pairs)
        if (speaker := getattr(pair, side)) is not None
    ]
    figure = Figure(figsize=(WIDTH, 0.9 + 0.32 * max(len(lanes), 1)), layout="constrained")
    axes = figure.add_subplot()
    for place, (_, speaker, segments, colour) in enumerate(lanes):
        for segment in (segment for segment in segments if segment.speaker == speaker):
            axes.barh(
                *(place, segment.duration), left=segment.start, color=colour, edgecolor="black"
            )
            text = axes.text(segment.start, place, f" {segment.words}", va="center", fontsize=5)
            text.set(clip_on=True, clip_path=axes.patches[-1])  # cut off at the segment's end
    axes.set_yticks(range(len(lanes)), [f"{side} {speaker}" for side, speaker, *_ in lanes])
    axes.invert_yaxis()
    axes.set(xlabel="seconds", title=title, xlim=(0, None))
    return figure


def breakdown(scores: dict[str, Any]) -> Figure:
    """cpWER, WER and DER by duration and number of speakers, as bars with intervals."""
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    for axes, (key, label) in zip(both, BREAKDOWNS.items(), strict=True):
        parts = scores[key]
        for number, rate in enumerate(COLOURS):
            _bars(axes, rate, number, list(parts.values()))
        ticks = [f"{name}\n({part['sessions']})" for name, part in parts.items()]
        axes.set_xticks(range(len(parts)), ticks)
        axes.set_xlabel(f"{label} (sessions)")
    figure.axes[0].set_ylabel("%")
    handles, labels = both[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(COLOURS), frameon=False)
    return figure


def _bars(axes: Axes, rate: str, number: int, parts: Sequence[dict[str, Any]]) -> None:
    width = 0.8 / len(COLOURS)
    for place, part in enumerate(parts):
        value = part[rate]["error_rate"]
        if value is None:  # empty reference
            continue
        low, high = part.get("intervals", {}).get(rate) or (value, value)
        axes.bar(
            *(place + (number - 1) * width, 100 * value, width),
            yerr=[[100 * max(value - low, 0)], [100 * max(high - value, 0)]],
            error_kw={"linewidth": 0.8},
            color=COLOURS[rate],
            label=MAIN_RATES[rate] if place == 0 else None,
        )


def diarization_parts(overall: dict[str, Any]) -> Figure:
    """The parts of DER by region and collar."""
    names = {
        "der": "all",
        "der_overlap": "overlapped",
        "der_nonoverlap": "not overlapped",
        "der_collar_025": "collar 0.25 s",
    }
    figure = Figure(figsize=(WIDTH * 0.75, 2.6), layout="constrained")
    bars = {
        name: {
            kind: overall[key][kind] / (overall[key]["scored"] or float("inf"))
            for kind in KIND_COLOURS
        }
        for key, name in names.items()
    }
    stack_der(figure, bars)
    return figure


def stack_der(figure: Figure, bars: Mapping[str, Mapping[str, float]]) -> Axes:
    """Draws stacked bars in percent from each bar's fractions of `KIND_COLOURS`."""
    axes = figure.add_subplot()
    for place, parts in enumerate(bars.values()):
        bottom = 0.0
        for kind, colour in KIND_COLOURS.items():
            height = 100 * parts[kind]
            label = kind.replace("_", " ") if place == 0 else None
            axes.bar(place, height, 0.6, bottom=bottom, color=colour, label=label)
            bottom += height
    axes.set_xticks(range(len(bars)), list(bars))
    axes.set_ylabel("DER (%)")
    figure.legend(loc="outside upper center", ncols=len(KIND_COLOURS), frameon=False)
    return axes
