"""One page to look at and to listen to: scores, training curves, sessions as lanes of segments."""

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

from tagspeech.config import SemanticConfig
from tagspeech.config_file import from_tree
from tagspeech.errors import InputError
from tagspeech.files import read_journal, read_json, write_text
from tagspeech.report.examples import percent
from tagspeech.report.table import MAIN_RATES, metric_tables
from tagspeech.scoring import score
from tagspeech.scoring.alignment import align
from tagspeech.scoring.files import folded, read_side, read_sides
from tagspeech.segments import Segment, by_start, composed

UNSURE = 0.5  # confidence; the page names less
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
    """Writes the page: one file that needs no other and no net, save for linked audio.

    scores      as for `tagspeech.report.table.results`; its first has the scores of `hyp`. Empty
                where there is no reference: the page shows what was heard
    groups      the Lhotse cuts of the test set. The worst `audio` sessions have their audio inside,
                the others link to the recording, relative to `output`
    recordings  instead of groups: the audio file of each session, to which the page links
    experiment  folder whose FOLDER/curve.jsonl are the training curves, and whose
                tagspeech/pretrained/config.json says where anchors stand

    Where Chinese was scored with its characters folded, the page shows them folded.

    Raises `InputError` when a session is in neither, or its audio cannot be read.
    """
    first = next(iter(scores.values()), None)
    is_folded = bool(first and first["overall"].get("folded"))
    if is_folded:
        ref, hyp = folded(ref), folded(hyp)
    rows = _sessions(first, ref, hyp) if first else _heard(hyp)
    if groups is not None:
        _add_audio(rows, Path(groups), audio, Path(output).parent)
    if recordings is not None:
        recordings = {composed(name): source for name, source in recordings.items()}
        for row in rows:
            name = row["name"]
            if name not in recordings:
                raise InputError(f"{output}: no audio of session {name}; there is {[*recordings]}")
            row.update(audio=_link(recordings[name], Path(output).parent), begins=0.0)
    folder = Path(experiment) if experiment is not None else None
    content = {
        "title": title,
        "tables": metric_tables(scores),
        "breakdowns": [_breakdown(first, key) for key in BREAKDOWNS] if first else [],
        "curves": _curves(folder) if folder is not None else [],
        "anchors": _anchor_seconds(folder) if folder is not None else None,
        "folded": is_folded,
        "sessions": rows,
    }
    # "</script>" in a transcript must not end the element that holds it
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    html, style, script = (
        files("tagspeech.report").joinpath(name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", "page.js")
    )
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
    """`tagspeech page`: the page of segments in files, beside a reference where there is one.

    audio  recordings whose stems are the sessions; none: a page without sound
    subtitle_speakers  as `tagspeech.formats.read` takes it
    """
    said: list[Segment] = []
    if ref is None:
        heard, _ = read_side(hyp, subtitle_speakers=subtitle_speakers)
    else:
        (said, _), (heard, _) = read_sides(ref, hyp, subtitle_speakers)
    scores = {"whole": score(said, heard, language=language, intervals=True)} if said else {}
    recordings = {one.stem: str(one) for one in audio} or None
    write_page(output, hyp.name, scores, said, heard, recordings=recordings)


def _sessions(
    scores: Mapping[str, Any], ref: Sequence[Segment], hyp: Sequence[Segment]
) -> list[dict[str, Any]]:
    """What the page shows of each session, those of highest cpWER first."""
    sides: dict[str, defaultdict[str, list[Segment]]] = {
        "ref": defaultdict(list),
        "hyp": defaultdict(list),
    }
    for side, segments in (("ref", ref), ("hyp", hyp)):
        for segment in by_start(list(segments)):
            sides[side][segment.session].append(segment)
    rows = []
    for name, metrics in scores["sessions"].items():
        own = {side: sides[side][name] for side in sides}
        pairs = align(own["ref"], own["hyp"], scores["overall"]["language"])
        rows.append(
            {
                "name": name,
                "seconds": metrics["seconds"],
                "malformed": bool(metrics.get("malformed_rate")),
                "errors": metrics["cpwer"]["errors"],
                **{key: metrics[key]["error_rate"] for key in MAIN_RATES},
                **{side: [_segment(one) for one in segments] for side, segments in own.items()},
                "pairs": [[pair.ref, pair.hyp, pair.words] for pair in pairs],
            }
        )
    return sorted(rows, key=_badness)


def _heard(hyp: Sequence[Segment]) -> list[dict[str, Any]]:
    """What the page shows of each session that has no reference, in order."""
    rows: dict[str, dict[str, Any]] = {}
    for one in by_start(list(hyp)):
        blank = {"name": one.session, "seconds": 0.0, "malformed": False, "ref": [], "hyp": []}
        row = rows.setdefault(one.session, {**blank, "pairs": []})
        row["seconds"] = max(row["seconds"], one.end)
        row["hyp"].append(_segment(one))
        if one.speaker not in (speaker for _, speaker, _ in row["pairs"]):
            row["pairs"].append([None, one.speaker, []])
        words = next(words for _, speaker, words in row["pairs"] if speaker == one.speaker)
        words += [[word, word] for word in one.words.split()]
    return list(rows.values())


def _segment(one: Segment) -> list[Any]:
    """Speaker, start, end, words; confidence and the words below `UNSURE`, where they are known."""
    row: list[Any] = [one.speaker, one.start, one.end, one.words]
    if one.confidence is None or one.word_confidences is None:
        return row
    words = zip(one.words.split(), one.word_confidences, strict=True)
    unsure = [[word, sure] for word, sure in words if sure < UNSURE]
    return [*row, one.confidence, *([unsure] if unsure else [])]


def _link(source: str, folder: Path) -> str:
    return Path(os.path.relpath(source, folder)).as_posix()


def _badness(row: Mapping[str, Any]) -> tuple[float, int, str]:
    """Order of sessions; words where nothing was said are as bad as can be."""
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
    """Every figure of each training over its steps."""
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
    """Seconds between anchors of the semantic stream; None without a trained model."""
    path = experiment / "tagspeech/pretrained/config.json"
    if not path.exists():
        return None
    semantic = from_tree(SemanticConfig, read_json(path)["semantic"], f"{path}: semantic")
    return semantic.anchor_interval / semantic.projected_frames_per_second


def _add_audio(rows: list[dict[str, Any]], groups_path: Path, embed: int, folder: Path) -> None:
    """Adds to each session where its audio is, and the seconds at which it begins there."""
    from tagspeech.data.batches import read_groups  # loads torch, which a page without audio spares

    groups = {composed(group.id): group for group in read_groups(groups_path)}
    for number, row in enumerate(rows):
        group = groups.get(row["name"])
        if group is None:
            raise InputError(f"{groups_path}: has no group {row['name']}, which the scores have")
        if number < embed:
            row.update(audio=_audio_inside(group), begins=0.0)
        else:
            source = group.recording.sources[0].source
            row.update(audio=_link(source, folder), begins=group.start)


def _audio_inside(group: Any) -> str:
    """The audio of a group as a URL that holds it: FLAC, the mean of its channels."""
    import soundfile
    from lhotse.audio.utils import AudioLoadingError

    try:
        samples = group.load_audio().mean(axis=0)
    except AudioLoadingError as error:
        raise InputError(
            f"{group.recording.sources[0].source}: the audio of session {group.id} cannot be read; "
            "start where its path leads to it, or write the page with --audio 0"
        ) from error
    file = io.BytesIO()
    soundfile.write(file, samples, group.sampling_rate, format="FLAC")
    return f"data:audio/flac;base64,{base64.b64encode(file.getvalue()).decode()}"
