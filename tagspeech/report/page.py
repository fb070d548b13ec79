"""The HTML page: scores, training curves, and sessions as lanes of segments with audio."""

from __future__ import annotations

import base64
import io
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tagspeech.config import SemanticConfig
from tagspeech.config_file import from_tree
from tagspeech.errors import InputError
from tagspeech.files import read_journal, read_json, write_text
from tagspeech.report.examples import percent
from tagspeech.report.table import MAIN_RATES, main_figures, metric_tables, rate_charts
from tagspeech.scoring import score
from tagspeech.scoring.alignment import align
from tagspeech.scoring.files import folded, read_side, read_sides
from tagspeech.scoring.normalisers import normaliser_name
from tagspeech.segments import Segment, by_start, composed

UNSURE = 0.5  # the page dims words with lower confidences
SCRIPTS = ("draw.js", "lanes.js", "meeting.js", "page.js")  # in the order in which they run
BREAKDOWNS = {  # title and first column
    "by_duration": ("By duration", "seconds"),
    "by_speakers": ("By number of speakers in the reference", "speakers"),
}


def write_page(
    output: str | Path,
    title: str,
    scores: Mapping[str, Mapping[str, Any]],
    ref: Sequence[Segment],
    hyp: Sequence[Segment],
    *,
    groups: str | Path | None = None,
    recordings: Mapping[str, str] | None = None,
    audio: int = 0,
    experiment: str | Path | None = None,
) -> None:
    """Writes the page, a single file that needs no network, except for linked audio.

    If Chinese was scored with folded characters, the page shows them folded.

    Args:
        output: Path of the page.
        title: Its title.
        scores: As for `tagspeech.report.table.results`; the first are the scores of `hyp`. Empty
            without a reference.
        ref: Reference of all sessions.
        hyp: Hypothesis of all sessions.
        groups: The Lhotse cuts of the test set. The audio of the `audio` worst sessions is
            embedded, the others link to the recording, relative to `output`.
        recordings: The audio file of each session to link to, instead of `groups`.
        audio: The number of sessions with embedded audio.
        experiment: A folder with training curves (FOLDER/curve.jsonl) and the anchor interval
            (tagspeech/pretrained/config.json).

    Raises:
        InputError: A session has no audio in `groups` or `recordings`, or it cannot be read.
    """
    first = next(iter(scores.values()), None)
    is_folded = bool(first and first["overall"].get("folded"))
    if is_folded:
        ref, hyp = folded(ref), folded(hyp)
    rows = _sessions(first, ref, hyp) if first else _unscored(hyp)
    if groups is not None:
        _add_audio(rows, Path(groups), audio, Path(output).parent)
    if recordings is not None:
        recordings = {composed(name): source for name, source in recordings.items()}
        for row in rows:
            name = row["name"]
            if name not in recordings:
                raise InputError(
                    f"{output}: session {name} has no audio; must be one of {[*recordings]}"
                )
            row.update(audio=_link(recordings[name], Path(output).parent), begins=0.0)
    folder = Path(experiment) if experiment is not None else None
    content = {
        "title": title,
        "figures": main_figures(first) if first else [],
        "charts": rate_charts(scores),
        "tables": metric_tables(scores),
        "breakdowns": [_breakdown(first, key) for key in BREAKDOWNS] if first else [],
        "curves": _curves(folder) if folder is not None else [],
        "anchors": _anchor_seconds(folder) if folder is not None else None,
        "folded": is_folded,
        "sessions": rows,
    }
    # "</script>" in a transcript must not end the script element.
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    html, style, *scripts = (
        files("tagspeech.report").joinpath(name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", *SCRIPTS)
    )
    script = "\n".join(scripts)
    for mark, text in (("style", style), ("script", script), ("data", data)):
        html = html.replace(f"{{{{{mark}}}}}", text, 1)
    write_text(output, html)


def write_page_of(
    output: Path,
    hyp: Path,
    ref: Path | None,
    audio: Sequence[Path],
    *,
    language: str = "en",
    subtitle_speakers: str = "auto",
) -> None:
    """Writes the page of files of segments, scored if there is a reference (`tagspeech page`).

    Args:
        output: Path of the page.
        hyp: Hypothesis, a file or folder.
        ref: Reference, a file or folder; None: no reference.
        audio: Recordings named after their sessions; empty: a page without audio.
        language: Language of the scores.
        subtitle_speakers: As for `tagspeech.formats.read`.
    """
    refs: list[Segment] = []
    if ref is None:
        hyps, _ = read_side(hyp, subtitle_speakers=subtitle_speakers)
    else:
        (refs, _), (hyps, _) = read_sides(ref, hyp, subtitle_speakers)
    scores = {"whole": score(refs, hyps, language=language, intervals=True)} if refs else {}
    recordings = {path.stem: str(path) for path in audio} or None
    write_page(output, hyp.name, scores, refs, hyps, recordings=recordings)


def _sessions(
    scores: Mapping[str, Any], ref: Sequence[Segment], hyp: Sequence[Segment]
) -> list[dict[str, Any]]:
    """The content of the page for each session, sorted by cpWER, highest first."""
    by_session: defaultdict[tuple[str, str], list[Segment]] = defaultdict(list)
    for side, segments in (("ref", ref), ("hyp", hyp)):
        for segment in by_start(list(segments)):
            by_session[side, segment.session].append(segment)
    rows = []
    normaliser = normaliser_name(scores["overall"])
    for name, metrics in scores["sessions"].items():
        sides = {side: by_session[side, name] for side in ("ref", "hyp")}
        pairs = align(sides["ref"], sides["hyp"], scores["overall"]["language"], normaliser)
        rows.append(
            {
                "name": name,
                "seconds": metrics["seconds"],
                "malformed": bool(metrics.get("malformed_rate")),
                "errors": metrics["cpwer"]["errors"],
                **{key: metrics[key]["error_rate"] for key in MAIN_RATES},
                **{side: [*map(_segment, segments)] for side, segments in sides.items()},
                "pairs": [[pair.ref, pair.hyp, pair.words] for pair in pairs],
            }
        )
    return sorted(rows, key=_badness)


def _unscored(hyp: Sequence[Segment]) -> list[dict[str, Any]]:
    """The content of the page for sessions without a reference, in order."""
    rows: dict[str, dict[str, Any]] = {}
    for item in by_start(list(hyp)):
        blank = {"name": item.session, "seconds": 0.0, "malformed": False, "ref": [], "hyp": []}
        row = rows.setdefault(item.session, {**blank, "pairs": []})
        row["seconds"] = max(row["seconds"], item.end)
        row["hyp"].append(_segment(item))
        if item.speaker not in (speaker for _, speaker, _ in row["pairs"]):
            row["pairs"].append([None, item.speaker, []])
        words = next(words for _, speaker, words in row["pairs"] if speaker == item.speaker)
        words += [[word, word] for word in item.words.split()]
    return list(rows.values())


def _segment(item: Segment) -> list[Any]:
    """Speaker, start, end, words; if known also the confidence, and, if there are any, the words
    below `UNSURE` with their confidences, and their places in the segment."""
    row: list[Any] = [item.speaker, item.start, item.end, item.words]
    if item.confidence is None or item.word_confidences is None:
        return row
    words = zip(item.words.split(), item.word_confidences, strict=True)
    unsure = {place: [word, sure] for place, (word, sure) in enumerate(words) if sure < UNSURE}
    return [*row, item.confidence, *([[*unsure.values()], [*unsure]] if unsure else [])]


def _link(source: str, folder: Path) -> str:
    """The address of a file, relative to `folder`; characters such as # and ? are encoded."""
    return quote(os.fsencode(Path(os.path.relpath(source, folder)).as_posix()))


def _badness(row: Mapping[str, Any]) -> tuple[float, int, str]:
    """The sort key of sessions; words without any reference are worst."""
    rate = row["cpwer"] if row["cpwer"] is not None else float("inf") if row["errors"] else 0.0
    return (-rate, -row["errors"], row["name"])


def _breakdown(scores: Mapping[str, Any], key: str) -> dict[str, Any]:
    rows = [
        [
            name,
            str(part["sessions"]),
            *(percent(part[rate]["error_rate"]) for rate in MAIN_RATES),
            percent(part["speaker_count_accuracy"]),
        ]
        for name, part in scores[key].items()
    ]
    title, column = BREAKDOWNS[key]
    heads = [column, "sessions", *(f"{name} %" for name in MAIN_RATES.values())]
    return {"title": title, "heads": [*heads, "speaker count right %"], "rows": rows}


def _curves(experiment: Path) -> list[dict[str, Any]]:
    """All logged values of each training by step."""
    curves = []
    for path in sorted(experiment.glob("*/curve.jsonl")):
        figures: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        for row in read_journal(path):
            for key, value in row.items():
                if key not in ("step", "seconds") and isinstance(value, (int, float)):
                    figures[key].append((row["step"], value))
        curves.append({"name": path.parent.name, "figures": figures})
    return curves


def _anchor_seconds(experiment: Path) -> float | None:
    """The anchor interval of the semantic stream in seconds; None without a trained model."""
    path = experiment / "tagspeech/pretrained/config.json"
    if not path.exists():
        return None
    semantic = from_tree(SemanticConfig, read_json(path)["semantic"], f"{path}: semantic")
    return semantic.anchor_interval / semantic.projected_frames_per_second


def _add_audio(rows: list[dict[str, Any]], groups_path: Path, embed: int, folder: Path) -> None:
    """Adds to each session its audio (a URL) and its start there in seconds."""
    from tagspeech.data.batches import read_groups  # imports torch

    groups = {composed(group.id): group for group in read_groups(groups_path)}
    for number, row in enumerate(rows):
        group = groups.get(row["name"])
        if group is None:
            raise InputError(f"{groups_path}: has no group {row['name']}, which the scores have")
        if number < embed:
            row.update(audio=_embedded_audio(group), begins=0.0)
        else:
            source = group.recording.sources[0].source
            row.update(audio=_link(source, folder), begins=group.start)


def _embedded_audio(group: Any) -> str:
    """The audio of a group (mean over channels, FLAC) as a data URL."""
    import soundfile
    from lhotse.audio.utils import AudioLoadingError

    try:
        samples = group.load_audio().mean(axis=0)
    except AudioLoadingError as error:
        raise InputError(
            f"{group.recording.sources[0].source}: the audio of session {group.id} cannot be read; "
            "run from a folder where its path is valid, or write the page with --audio 0"
        ) from error
    file = io.BytesIO()
    soundfile.write(file, samples, group.sampling_rate, format="FLAC")
    return f"data:audio/flac;base64,{base64.b64encode(file.getvalue()).decode()}"
