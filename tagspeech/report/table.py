"""Converts scores.json to results.json and to tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tagspeech.report.examples import columns, percent
from tagspeech.scoring.normalisers import OWN, normaliser_name
from tagspeech.scoring.protocols import PROTOCOL

WORD_RATES = {
    "wer": "WER",
    "cpwer": "cpWER",
    "tcpwer": "tcpWER",
    "orcwer": "ORC-WER",
    "tcorcwer": "tcORC-WER",
}
OVERLAP_RATES = {
    "cpwer_overlap": "cpWER, overlapped",
    "cpwer_nonoverlap": "cpWER, not overlapped",
}
TIME_RATES = {
    "der": "DER",
    "der_overlap": "DER, overlapped",
    "der_nonoverlap": "DER, not overlapped",
    "der_collar_025": "DER",
}
MAIN_RATES = {"cpwer": "cpWER", "wer": "WER", "der": "DER"}  # for breakdowns
ERROR_KINDS = ("insertions", "deletions", "substitutions")
TIME_KINDS = ("missed", "false_alarm", "confusion")
TITLES = {
    "test": "speakers by LLM",
    "test_voice": "speakers by voice",
    "groups": "oracle groups, each for itself",
    "linked": "oracle groups, linked",
    "whole": "whole meetings",
}
WITHIN = {"paper": "groups of {:g}-{:g} s".format(*PROTOCOL), "as-authors": "as the authors score"}
NORMALISERS = {
    "en": "lower case, no symbols, words",
    "zh": "no symbols, characters",
    "ja": "no symbols, characters",
    "ko": "no symbols, no spaces, characters",
    "none": "none, words as they stand",
}


def results(
    scores: Mapping[str, Mapping[str, Any]], recipe: str, commit: str, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """The content of results.json: rates as fractions and the seconds of each stage.

    `scores` has the key "test" and optionally "test_voice" (speakers by voice). Both keys have the
    rates of all groups; those of a protocol are added as "test_protocol", "test_voice_protocol",
    and those by the authors' rules as "test_as_authors", "test_voice_as_authors".
    """
    return {
        "recipe": recipe,
        "commit": commit,
        "seconds": dict(seconds),
        **{key: rates_of(metrics) for key, (_, metrics) in _parts(scores).items()},
    }


def _parts(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Title and metrics of each part of the scores, by its key in results.json."""
    parts = {}
    for key, part in scores.items():
        if "all" in part:
            parts[key] = (f"{TITLES[key]}, all groups", part["all"])
            within = WITHIN[part["overall"]["protocol"]]
            parts[f"{key}_protocol"] = (f"{TITLES[key]}, {within}", part["overall"])
        else:
            parts[key] = (TITLES[key], part["overall"])
        if "as_authors" in part:
            parts[f"{key}_as_authors"] = (
                f"{TITLES[key]}, {WITHIN['as-authors']}",
                part["as_authors"],
            )
    return parts


def rates_of(overall: Mapping[str, Any]) -> dict[str, Any]:
    """The rates that results.json lists for a set of sessions."""
    return {
        "sessions": overall["sessions"],
        **{key: overall[key] for key in ("malformed_rate",) if key in overall},
        **{key: overall[key]["error_rate"] for key in (*WORD_RATES, *TIME_RATES)},
        "speaker_count_accuracy": overall["speaker_count_accuracy"],
        "gender_accuracy": overall["gender_accuracy"]["accuracy"],
    }


def render_table(results: Mapping[str, Any], scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables in percent for all parts of `scores`, with collars, counts and the normaliser."""
    overall = scores["test"]["overall"]
    head = (
        f"{results['recipe']} at {results['commit']}: {results['test']['sessions']} sessions, "
        f"normaliser: {_normaliser(overall)}"
    )
    parts = [head, *(columns(rows) for rows in metric_tables(scores))]
    if results["seconds"]:
        stages = [("stage", "seconds")]
        stages += [(stage, f"{spent:.1f}") for stage, spent in results["seconds"].items()]
        stages.append(("total", f"{sum(results['seconds'].values()):.1f}"))
        parts.append(columns(stages))
    return "\n\n".join(parts)


def _normaliser(overall: Mapping[str, Any]) -> str:
    if normaliser_name(overall) == OWN:
        return NORMALISERS[overall["language"]]
    return f"{overall['normaliser']['name']} ({overall['normaliser']['package']})"


def metric_tables(scores: Mapping[str, Mapping[str, Any]]) -> list[list[tuple[str, ...]]]:
    """The rows of a table for each part of `scores`; the first row has the title and the heads."""
    return [_metric_rows(title, rates_of(part), part) for title, part in _parts(scores).values()]


Figure = tuple[str, float | None, Sequence[float] | None]  # name, rate, confidence interval


def rate_charts(scores: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The title and the error rates of each part of `scores`, for a chart."""
    times = {**TIME_RATES, "der_collar_025": "DER, collar 0.25 s"}
    charts = []
    for title, part in _parts(scores).values():
        names = {**_word_rates(part), **times}
        rows = [_figure(name, key, part) for key, name in names.items()]
        charts.append({"title": title, "rows": rows})
    return charts


def _word_rates(overall: Mapping[str, Any]) -> dict[str, str]:
    """The word rates that scores have: older files lack those by overlap."""
    rates: dict[str, str] = {}
    for key, name in WORD_RATES.items():
        rates[key] = name
        if key == "cpwer":
            rates.update({part: words for part, words in OVERLAP_RATES.items() if part in overall})
    return rates


def main_figures(scores: Mapping[str, Any]) -> list[Figure]:
    """The four figures that tell most about a test set."""
    overall = scores["overall"]
    figures = [_figure(name, key, overall) for key, name in MAIN_RATES.items()]
    key = "speaker_count_accuracy"
    ends = overall.get("intervals", {}).get(key)
    return [*figures, ("speaker count right", overall[key], ends)]


def _figure(name: str, key: str, overall: Mapping[str, Any]) -> Figure:
    return name, overall[key]["error_rate"], overall.get("intervals", {}).get(key)


def _metric_rows(
    title: str, rates: Mapping[str, Any], overall: Mapping[str, Any]
) -> list[tuple[str, ...]]:
    sessions = f"{overall['sessions']} sessions"

    def row(name: str, key: str, rate: float | None, measured: str, collar: str = "-") -> None:
        rows.append((name, percent(rate), _interval(overall, key), collar, measured))

    rows: list[tuple[str, ...]] = [(title, "%", "95 % CI", "collar", "measured on")]
    for key, name in _word_rates(overall).items():
        part = overall[key]
        kinds = ", ".join(f"{part[kind]} {kind}" for kind in ERROR_KINDS)
        collar = f"{part['collar']:g} s" if "collar" in part else "-"
        row(name, key, part["error_rate"], f"{part['length']} units: {kinds}", collar)
    for key, name in TIME_RATES.items():
        part = overall[key]
        kinds = ", ".join(f"{part[kind]:.1f} s {kind.replace('_', ' ')}" for kind in TIME_KINDS)
        row(name, key, rates[key], f"{part['scored']:.1f} s: {kinds}", f"{part['collar']:g} s")
    matched = f"{overall['gender_accuracy']['matched_seconds']:.1f} s of matched speakers"
    mean_error = f"{sessions}, off by {overall['speaker_count_mean_absolute_error']:.2f} on average"
    key = "speaker_count_accuracy"
    row("speaker count right", key, rates[key], mean_error)
    row("gender right", "gender_accuracy", rates["gender_accuracy"], matched)
    empty = f"; empty: {percent(overall['empty_rate'])} %"
    if "malformed_rate" in rates:
        row("malformed", "malformed_rate", rates["malformed_rate"], sessions + empty)
    else:
        row("empty", "empty_rate", overall["empty_rate"], sessions)
    return rows


def _interval(overall: Mapping[str, Any], key: str) -> str:
    """The 95 % confidence interval, in percent."""
    ends = overall.get("intervals", {}).get(key)
    return "-" if ends is None else "-".join(percent(end) for end in ends)
