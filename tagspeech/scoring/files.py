"""`tagspeech score`: files of any format, or folders of them, to scores."""

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
    groups: str | Path | None = None,
    protocol: str = "all",
    fold: bool = False,
    uem: str | Path | None = None,
    output: str | Path | None = None,
    subtitle_speakers: str = "auto",
) -> dict[str, Any]:
    """Prints the overall metrics as JSON, writes all to `output` if given.

    ref, hyp  segments in any format that can be read, as `read_sides` takes them
    raw       the journal of decoding, rows of {"session", "malformed", ...}: it names sessions with
              an empty hypothesis or reference, and the malformed ones; the last row counts
    groups    Lhotse cuts of the test set: each is a session, and says how long it is
    fold      traditional Chinese counts as the simplified characters for it, on both sides
    uem       NIST's UEM file: the stretches that DER and time-constrained word rates are of
    subtitle_speakers  as `tagspeech.formats.read` takes it

    The rest is that of `tagspeech.scoring.score`.
    """
    (ref_segments, ref_malformed), (hyp_segments, hyp_malformed) = read_sides(
        ref, hyp, subtitle_speakers
    )
    for session, is_malformed in ref_malformed.items():
        if is_malformed:
            log.warning("%s: the target text of session %s does not parse whole", ref, session)
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
    """The same, with simplified Chinese characters for traditional ones."""
    return [replace(segment, words=fold_chinese(segment.words)) for segment in segments]


Side = tuple[list[Segment], dict[str, bool]]  # as of `read_side`


def read_sides(
    ref: str | Path, hyp: str | Path, subtitle_speakers: str = "auto"
) -> tuple[Side, Side]:
    """Reference and hypothesis: each a file, or a folder of files.

    Where the hypothesis is a file that names no session, its session is the stem of its name. Only
    where the reference names none either, two files are of the same session.

    Raises `InputError` as `read_side` does, and where the stem is no session of the reference.
    """
    said = read_side(ref, subtitle_speakers=subtitle_speakers)
    own = formats.split_name(ref)[0]
    sessions = {item.session for item in said[0]} | said[1].keys()
    if not (Path(ref).is_file() and Path(hyp).is_file()):
        return said, read_side(hyp, subtitle_speakers=subtitle_speakers)
    is_nameless = sessions <= {own}
    heard = read_side(hyp, own if is_nameless else None, subtitle_speakers)
    stem, format = formats.split_name(hyp)
    if format in formats.SESSIONLESS and not is_nameless and stem not in sessions:
        raise InputError(
            f"{hyp}: names no session, so that it is {stem!r}, which {ref} does not have "
            f"({', '.join(sorted(sessions)[:3])}, ...); name the file after its session"
        )
    return said, heard


def read_side(
    path: str | Path, session: str | None = None, subtitle_speakers: str = "auto"
) -> Side:
    """The segments in a file or all files of a folder, and which target texts are malformed.

    A target text (format `tagged`) is never refused: what parses is there, what does not is
    missing. `session` is that of a file that does not name it; without it, the stem of its name.
    Segments that start together keep their order.

    Raises `InputError` for a folder without any file of a known format, and where two files are of
    one session that has no other name than theirs.
    """
    path = Path(path)
    files = _files_in(path) if path.is_dir() else [path]
    segments: list[Segment] = []
    malformed: dict[str, bool] = {}
    for file in files:
        stem, format = formats.split_name(file)
        if format == "tagged":
            own = composed(session or stem)
            parsed = parse_target(read_text(file), own)
            malformed[own] = parsed.malformed
            segments += parsed.segments
        else:
            segments += formats.read(file, session=session, subtitle_speakers=subtitle_speakers)
    return by_start(segments), malformed


def _files_in(folder: Path) -> list[Path]:
    """The files of segments in a folder, without those that macOS hides beside them."""
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
        if "session" not in row or not isinstance(row.get("malformed"), bool):
            raise InputError(f'{path}, line {number}: wants "session" and a boolean "malformed"')
    return {composed(row["session"]): row["malformed"] for row in rows}


def _read_durations(path: str | Path) -> dict[str, float]:
    """The seconds of each utterance group, without Lhotse, which would load torch."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        return {composed(row["id"]): row["duration"] for row in rows}
    except (OSError, EOFError, zlib.error, ValueError, KeyError) as error:
        raise InputError(f"{path}: is no list of utterance groups: {error}") from error
