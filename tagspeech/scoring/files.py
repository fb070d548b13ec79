"""Scores files and folders of segments (`tagspeech score`)."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tagspeech import formats
from tagspeech.errors import InputError
from tagspeech.files import read_journal, read_text, write_json
from tagspeech.scoring.normalisers import OWN
from tagspeech.scoring.score import score
from tagspeech.scoring.uem import read_uem
from tagspeech.segments import Segment, by_start, composed
from tagspeech.serialize import parse_target
from tagspeech.text import fold_chinese

log = logging.getLogger(__name__)


def score_files(
    ref: str | Path,
    hyp: str | Path,
    raw: str | Path | None = None,
    language: str = "en",
    collar: float = 5.0,
    normaliser: str = OWN,
    groups: str | Path | None = None,
    protocol: str = "all",
    fold: bool = False,
    uem: str | Path | None = None,
    output: str | Path | None = None,
    subtitle_speakers: str = "auto",
) -> dict[str, Any]:
    """Scores `hyp` against `ref`, prints the overall metrics as JSON and returns all metrics.

    The remaining arguments are those of `tagspeech.scoring.score`.

    Args:
        ref: Reference, as for `read_sides`.
        hyp: Hypothesis, as for `read_sides`.
        raw: The decoder's journal with rows of {"session", "malformed", ...}. It lists all
            sessions, including empty ones; the last row of a session counts.
        groups: Lhotse cuts of the test set, which give the sessions and their durations.
        fold: Convert traditional to simplified Chinese on both sides.
        uem: A UEM file that limits DER and time-constrained word error rates.
        output: Where all metrics are written as JSON; None: nowhere.
        subtitle_speakers: As for `tagspeech.formats.read`.
    """
    (ref_segments, ref_malformed), (hyp_segments, hyp_malformed) = read_sides(
        ref, hyp, subtitle_speakers
    )
    for session, is_malformed in ref_malformed.items():
        if is_malformed:
            log.warning("%s: the target text of session %s is malformed", ref, session)
    if hyp_segments and not any(segment.words for segment in hyp_segments):
        log.warning("%s: has no words; of its scores only DER and speaker count mean anything", hyp)
    decoded = _read_malformed(raw) if raw is not None else {}
    malformed = {**hyp_malformed, **decoded}
    durations = _read_durations(groups) if groups is not None else {}
    if fold:
        ref_segments, hyp_segments = folded(ref_segments), folded(hyp_segments)
    named = [*decoded, *durations, *ref_malformed]
    stretches = None
    if uem is not None:
        sessions = dict.fromkeys([*named, *(segment.session for segment in ref_segments)])
        stretches = read_uem(uem, sessions)
    scores = score(
        ref_segments,
        hyp_segments,
        sessions=named,
        malformed={name for name, is_malformed in malformed.items() if is_malformed}
        if malformed
        else None,
        seconds=durations,
        protocol=protocol,
        language=language,
        normaliser=normaliser,
        collar=collar,
        uem=stretches,
        intervals=True,
    )
    if uem is not None:
        scores["overall"]["uem"] = {"file": str(uem), **scores["overall"]["uem"]}
    scores["overall"]["folded"] = fold
    if output is not None:
        write_json(output, scores)
    print(json.dumps(scores["overall"], indent=2, ensure_ascii=False))
    return scores


def folded(segments: Sequence[Segment]) -> list[Segment]:
    """The segments with simplified Chinese characters instead of traditional ones."""
    return [replace(segment, words=fold_chinese(segment.words)) for segment in segments]


Side = tuple[list[Segment], dict[str, bool]]  # the result of `read_side`


def read_sides(
    ref: str | Path, hyp: str | Path, subtitle_speakers: str = "auto"
) -> tuple[Side, Side]:
    """Reads reference and hypothesis, each a file or a folder of files.

    The session of a hypothesis file that names none is the stem of its name; if neither of two
    files names a session, both have the session of the reference.

    Raises:
        InputError: As for `read_side`, or the stem is not a session of the reference.
    """
    ref_side = read_side(ref, subtitle_speakers=subtitle_speakers)
    if not (Path(ref).is_file() and Path(hyp).is_file()):
        return ref_side, read_side(hyp, subtitle_speakers=subtitle_speakers)
    ref_stem = formats.split_name(ref)[0]
    sessions = {item.session for item in ref_side[0]} | ref_side[1].keys()
    is_nameless = sessions <= {ref_stem}
    hyp_side = read_side(hyp, ref_stem if is_nameless else None, subtitle_speakers)
    stem, format = formats.split_name(hyp)
    if format in formats.SESSIONLESS and not is_nameless and stem not in sessions:
        raise InputError(
            f"{hyp}: names no session, so that it is {stem!r}, which {ref} does not have "
            f"({', '.join(sorted(sessions)[:3])}, ...); name the file after its session"
        )
    return ref_side, hyp_side


def read_side(
    path: str | Path, session: str | None = None, subtitle_speakers: str = "auto"
) -> Side:
    """Reads a file, or all files of a folder.

    Target texts (format `tagged`) never raise; as much as possible is parsed.

    Args:
        path: A file or folder.
        session: The session of files that name none; by default the stem of the file name.
        subtitle_speakers: As for `tagspeech.formats.read`.

    Returns:
        The segments sorted by start, and whether each target text is malformed, by session.

    Raises:
        InputError: A folder has no file of a known format, or two files with the same stem.
    """
    path = Path(path)
    files = _files_in(path) if path.is_dir() else [path]
    segments: list[Segment] = []
    malformed: dict[str, bool] = {}
    for file in files:
        stem, format = formats.split_name(file)
        if format == "tagged":
            name = composed(session or stem)
            parsed = parse_target(read_text(file), name)
            malformed[name] = parsed.malformed
            segments += parsed.segments
        else:
            segments += formats.read(file, session=session, subtitle_speakers=subtitle_speakers)
    return by_start(segments), malformed


def _files_in(folder: Path) -> list[Path]:
    """The files of segments in a folder, without the hidden ones that macOS writes."""
    known = sorted(file for file in folder.iterdir() if formats.split_name(file)[1])
    hidden = [file for file in known if file.name.startswith(".")]
    if hidden:
        log.warning(
            "%s: %d hidden files are left out, as macOS writes them (the first: %s)",
            *(folder, len(hidden), hidden[0].name),
        )
    files = [file for file in known if file not in hidden]
    if not files:
        raise InputError(f"{folder}: has no file of segments ({', '.join(formats.FORMATS)})")
    stem, count = Counter(formats.split_name(file)[0] for file in files).most_common(1)[0]
    if count > 1:
        raise InputError(f"{folder}: has {count} files named {stem}; keep one of each")
    return files


def _read_malformed(path: str | Path) -> dict[str, bool]:
    if not Path(path).exists():
        raise InputError(f"{path}: does not exist; decode first, or score without --raw")
    rows = read_journal(path)
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("session"), str) or not isinstance(row.get("malformed"), bool):
            raise InputError(
                f'{path}, line {number}: must have "session" and a boolean "malformed"'
            )
    return {composed(row["session"]): row["malformed"] for row in rows}


def _read_durations(path: str | Path) -> dict[str, float]:
    """The seconds of each utterance group, read without Lhotse, which imports torch."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        return {composed(row["id"]): float(row["duration"]) for row in rows}
    except (
        *(OSError, EOFError, zlib.error, ValueError, LookupError, TypeError, RecursionError),
        OverflowError,
    ) as error:
        raise InputError(f"{path}: is no list of utterance groups: {error}") from error
