"""All metrics of a test set: every session is scored, then the sessions are added up."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from meeteval.wer.wer.error_rate import ErrorRate
from tqdm import tqdm

from tagspeech import formats
from tagspeech.errors import InputError
from tagspeech.files import read_journal, write_json
from tagspeech.scoring.diarization import Diarization, diarization, matched_gender, turns
from tagspeech.scoring.words import quiet_meeteval, word_error_rates
from tagspeech.segments import Segment

log = logging.getLogger(__name__)

PROTOCOL = (0.5, 80.0)  # seconds of the utterance groups that the paper scores (PAPER, unit)
DER_COLLARS = {"der": 0.0, "der_collar_025": 0.25}  # seconds on each side of a boundary


@dataclass(frozen=True)
class _Session:
    """What one session adds to the sums."""

    malformed: bool
    empty: bool
    words: dict[str, ErrorRate]
    diarization: dict[str, Diarization]
    ref_speakers: int
    hyp_speakers: int
    gender_correct: float
    gender_matched: float
    ref_self_overlaps: int
    hyp_self_overlaps: int


def score(
    ref: Sequence[Segment],
    hyp: Sequence[Segment],
    *,
    sessions: Sequence[str] | None = None,
    malformed: Collection[str] = (),
    protocol: Collection[str] | None = None,
    language: str = "en",
    collar: float = 5.0,
) -> dict[str, Any]:
    """Scores `hyp` against `ref`: {"overall": metrics, "sessions": {session: metrics}}.

    The sessions are those listed in `sessions` (which may have an empty reference) and those of
    `ref`, in this order. One without a hypothesis counts as deletions and missed speech; one in
    `malformed` is scored on the segments given and counted in "malformed_rate". Where `protocol`
    names some of the sessions and not all, "protocol" has the metrics of these. `collar` is
    tcpWER's, in seconds. All rates are fractions; a rate without any reference to divide by is
    None, a gender accuracy without any matched speech 0.

    Raises `InputError` when there is no session, or when `hyp` or `malformed` name one that is
    neither in `ref` nor in `sessions`.
    """
    names = list(dict.fromkeys([*(sessions or ()), *(s.session for s in ref)]))
    if not names:
        raise InputError("reference: has no session, so there is nothing to score")
    strangers = sorted({*(s.session for s in hyp), *malformed} - set(names))
    if strangers:
        raise InputError(
            f"hypothesis: session {strangers[0]!r} ({len(strangers)} such) is not in the "
            "reference; score it against the reference of the same test set"
        )
    ref_by, hyp_by = _by_session(ref), _by_session(hyp)
    with quiet_meeteval():
        results = {
            name: _score_session(
                ref_by[name], hyp_by[name], name in malformed, language=language, collar=collar
            )
            for name in tqdm(names, desc="score", unit="session", disable=None)
        }
    scores = {"overall": {"language": language, **_metrics(list(results.values()), collar)}}
    within = [result for name, result in results.items() if protocol is None or name in protocol]
    if not within:
        log.warning(
            "no group lasts %g-%g s: there are no scores by the paper's protocol", *PROTOCOL
        )
    elif len(within) < len(results):
        scores["protocol"] = {"language": language, **_metrics(within, collar)}
    scores["sessions"] = {name: _metrics([result], collar) for name, result in results.items()}
    return scores


def _by_session(segments: Sequence[Segment]) -> defaultdict[str, list[Segment]]:
    grouped: defaultdict[str, list[Segment]] = defaultdict(list)
    for segment in segments:
        grouped[segment.session].append(segment)
    return grouped


def _score_session(
    ref: list[Segment], hyp: list[Segment], malformed: bool, *, language: str, collar: float
) -> _Session:
    ref_turns, ref_overlaps = turns(ref)
    hyp_turns, hyp_overlaps = turns(hyp)
    parts = {key: diarization(ref_turns, hyp_turns, c) for key, c in DER_COLLARS.items()}
    correct, matched = matched_gender(ref, hyp, parts["der"].mapping)
    return _Session(
        malformed=malformed,
        empty=not hyp,
        words=word_error_rates(ref, hyp, language=language, collar=collar),
        diarization=parts,
        ref_speakers=len({segment.speaker for segment in ref}),
        hyp_speakers=len({segment.speaker for segment in hyp}),
        gender_correct=correct,
        gender_matched=matched,
        ref_self_overlaps=ref_overlaps,
        hyp_self_overlaps=hyp_overlaps,
    )


def _metrics(results: list[_Session], collar: float) -> dict[str, Any]:
    """The metrics of some sessions: errors and lengths are added up, then divided."""
    count = len(results)
    words = {
        key: _word_rate(sum(result.words[key] for result in results))
        for key in ("wer", "cpwer", "tcpwer")
    }
    words["tcpwer"]["collar"] = collar
    difference = [abs(result.ref_speakers - result.hyp_speakers) for result in results]
    matched = sum(result.gender_matched for result in results)
    correct = sum(result.gender_correct for result in results)
    return {
        "sessions": count,
        "malformed_rate": sum(result.malformed for result in results) / count,
        "empty_rate": sum(result.empty for result in results) / count,
        **words,
        **{
            key: {
                **_diarization_rate(reduce(add, (result.diarization[key] for result in results))),
                "collar": der_collar,
            }
            for key, der_collar in DER_COLLARS.items()
        },
        "speaker_count_accuracy": difference.count(0) / count,
        "speaker_count_mean_absolute_error": sum(difference) / count,
        "gender_accuracy": {
            "accuracy": correct / matched if matched else 0.0,
            "matched_seconds": round(matched, 6),
        },
        "self_overlaps": {
            "ref": sum(result.ref_self_overlaps for result in results),
            "hyp": sum(result.hyp_self_overlaps for result in results),
        },
    }


def _word_rate(rate: ErrorRate) -> dict[str, Any]:
    keys = ("error_rate", "errors", "length", "insertions", "deletions", "substitutions")
    return {key: getattr(rate, key) for key in keys}


def _diarization_rate(parts: Diarization) -> dict[str, Any]:
    errors = parts.missed + parts.false_alarm + parts.confusion
    return {
        "error_rate": errors / parts.scored if parts.scored else None,
        **{
            key: round(getattr(parts, key), 6)
            for key in ("missed", "false_alarm", "confusion", "scored")
        },
    }


def score_files(
    ref: str | Path,
    hyp: str | Path,
    raw: str | Path | None = None,
    language: str = "en",
    collar: float = 5.0,
    groups: str | Path | None = None,
    output: str | Path | None = None,
) -> dict[str, Any]:
    """`tagspeech score`: prints the overall metrics as JSON, writes all to `output` if given.

    `ref` and `hyp` are segments in any format that can be read. `raw` is the journal of decoding,
    rows of {"session", "malformed", ...}: it names sessions with an empty hypothesis or reference,
    and the malformed ones; the last row of a session counts. `groups` are the Lhotse cuts of the
    test set: each is a session, and those that last as long as `PROTOCOL` says are scored apart.
    """
    malformed = _read_malformed(raw) if raw is not None else {}
    durations = _read_durations(groups) if groups is not None else {}
    shortest, longest = PROTOCOL
    protocol = {name for name, seconds in durations.items() if shortest <= seconds <= longest}
    scores = score(
        formats.read(ref),
        formats.read(hyp),
        sessions=[*malformed, *durations],
        malformed={session for session, is_malformed in malformed.items() if is_malformed},
        protocol=protocol if groups is not None else None,
        language=language,
        collar=collar,
    )
    if output is not None:
        write_json(output, scores)
    print(json.dumps(scores["overall"], indent=2, ensure_ascii=False))
    return scores


def _read_malformed(path: str | Path) -> dict[str, bool]:
    if not Path(path).exists():
        raise InputError(f"{path}: does not exist; decode first, or score without --raw")
    rows = read_journal(path)
    for number, row in enumerate(rows, 1):
        if "session" not in row or not isinstance(row.get("malformed"), bool):
            raise InputError(f'{path}, line {number}: wants "session" and a boolean "malformed"')
    return {row["session"]: row["malformed"] for row in rows}


def _read_durations(path: str | Path) -> dict[str, float]:
    """The seconds of each utterance group, without Lhotse, which would load torch."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        return {row["id"]: row["duration"] for row in rows}
    except (OSError, EOFError, zlib.error, ValueError, KeyError) as error:
        raise InputError(f"{path}: is no list of utterance groups: {error}") from error
