"""Example sessions: hypothesis, reference and audio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tagspeech import formats
from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_json, write_text
from tagspeech.segments import Segment, by_time, composed


def choose_examples(sessions: Mapping[str, Mapping[str, Any]], count: int = 3) -> list[str]:
    """Chooses `count` sessions evenly from lowest to highest cpWER: best, median, worst of three.

    `sessions` is that of the scores. Ties are broken by name.
    """
    rated = [name for name in sessions if sessions[name]["cpwer"]["error_rate"] is not None]
    rated.sort(key=lambda name: (sessions[name]["cpwer"]["error_rate"], name))
    steps = max(count - 1, 1)
    return list(dict.fromkeys(rated[(len(rated) - 1) * i // steps] for i in range(count) if rated))


def render_example(name: str, ref: Sequence[Segment], hyp: Sequence[Segment]) -> str:
    """A session's reference, followed by its hypothesis."""
    parts = []
    for side, segments in (("ref", ref), ("hyp", hyp)):
        rows = [
            (side, f"{s.start:.2f}-{s.end:.2f}", f"{s.speaker} ({s.gender})", s.words)
            for s in by_time([segment for segment in segments if segment.session == name])
        ]
        parts.append(columns(rows or [(side, "", "nothing", "")]))
    return "\n".join(parts)


def render_examples(
    ref: Sequence[Segment],
    hyp: Sequence[Segment],
    sessions: Mapping[str, Mapping[str, Any]],
    count: int = 3,
) -> str:
    """The sessions of `choose_examples`, each with its name and cpWER."""
    return "\n\n".join(
        f"{name}: cpWER {percent(sessions[name]['cpwer']['error_rate'])} %\n"
        f"{render_example(name, ref, hyp)}"
        for name in choose_examples(sessions, count)
    )


def write_examples(
    scores_path: Path, groups_path: Path, ref_path: Path, hyp_path: Path, output: Path
) -> None:
    """Writes the sessions of `choose_examples` to a folder (`tagspeech examples`).

    The folder has the audio of each session, NAME.flac, and a README.md. An existing one is
    replaced.

    Raises:
        InputError: A session has no group in `groups_path`.
    """
    from tagspeech.data.batches import read_groups  # imports torch

    sessions = read_scores(scores_path)["sessions"]
    chosen = choose_examples(sessions)
    groups = {composed(group.id): group for group in read_groups(groups_path)}
    missing = [name for name in chosen if name not in groups]
    if missing:
        raise InputError(f"{groups_path}: has no group {missing[0]}, which {scores_path} has")
    ref, hyp = formats.read(ref_path), formats.read(hyp_path)
    parts = [
        "# Three example sessions\n\n"
        "The test sessions with the lowest, the median and the highest cpWER.\n"
    ]
    with atomic_path(output) as temporary:
        temporary.mkdir()
        for title, name in zip(("Lowest", "Median", "Highest"), chosen, strict=False):
            groups[name].save_audio(temporary / f"{name}.flac")
            rate = percent(sessions[name]["cpwer"]["error_rate"])
            parts.append(
                f"\n## {title}: cpWER {rate} %\n\n[{name}.flac]({name}.flac)\n\n"
                f"```text\n{render_example(name, ref, hyp)}\n```\n"
            )
        write_text(temporary / "README.md", "".join(parts))


def read_scores(path: str | Path) -> dict[str, Any]:
    """The content of scores.json. Raises `InputError` if the file has no scores."""
    scores = read_json(path)
    if not isinstance(scores, dict) or not {"overall", "sessions"} <= scores.keys():
        raise InputError(f"{path}: has no scores; write it with `tagspeech score --output`")
    return scores


def percent(fraction: float | None) -> str:
    """A fraction in percent with one decimal; a dash for None."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Aligns rows in columns: the second, which has numbers, to the right, others to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i == 1 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
