"""A corpus to import: a folder of audio, and files that say who spoke what and when.

Audio is WAV or FLAC, words are STM, CTM, SegLST, TextGrid or lists in JSON, speakers those of the
words or of an RTTM. Audio is not opened here. Kaldi's layout: `tagspeech.corpus.kaldi`.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lhotse.supervision import AlignmentItem, SupervisionSegment

from tagspeech.corpus import channels
from tagspeech.corpus.files import WORDS, find_audio, find_files
from tagspeech.errors import InputError
from tagspeech.files import check_id, read_text
from tagspeech.formats import nist, read, split_name
from tagspeech.segments import Segment, by_start, composed
from tagspeech.serialize import UNKNOWN_SPEAKER

log = logging.getLogger(__name__)

LHOTSE_GENDERS = {"m": "M", "f": "F", "u": None}
MIX, EACH = "mix", "each"  # of several channels: their mean; each as a recording of its own
_NIST = {"stm": nist.parse_stm, "ctm": nist.parse_ctm, "rttm": nist.parse_rttm}


@dataclass(frozen=True)
class RecordingSource:
    """Where a recording is heard.

    source      a file; or a shell command that prints one, as Kaldi has it, then `is_command`
    channel     the one taken, from 0; "mix": the mean of all; None: the mean of two, and of more,
                which are one array, the first
    mono_is_it  whether a file of one channel is this channel already
    folder      of a corpus split by folders: the one it lies in
    """

    source: str
    channel: int | str | None = None
    is_command: bool = False
    mono_is_it: bool = False
    folder: str = ""


@dataclass
class Corpus:
    """Recordings by name, and what is said in them; what is unusable, with the reason."""

    audio: dict[str, RecordingSource]
    supervisions: list[SupervisionSegment]
    rejected: list[tuple[str, SupervisionSegment]] = field(default_factory=list)


def read_files(
    audio: Path, words: Path, speakers: Path | None, channel: int | str | None = None
) -> Corpus:
    """Recording NAME is NAME.wav or NAME.flac somewhere in the folder `audio`.

    words     a file of one of `WORDS` or a JSON list, or a folder with files of one of these; where
              the format names no session, the recording is the one with the file's name
    speakers  RTTM, a file or a folder; without it, `words` says who speaks
    channel   that of each `RecordingSource`. With "each", sessions are those of
    `tagspeech.corpus.channels`

    With `speakers`, each word of a CTM goes to the turn that it overlaps most, and the turns are
    the segments; a segment of another format keeps its times and takes the speaker of that turn.
    What overlaps with no turn is rejected. Raises `InputError` when files are missing, unreadable
    or of an unknown format.
    """
    recordings = _find_audio(audio, channel)
    each = channel == EACH
    format, segments = read_words(words, each)
    if speakers is None:
        if format == "ctm":
            raise InputError(f"{words}: CTM has no speakers; --speakers wants an RTTM that has")
        return Corpus(recordings, supervisions_of([(one, []) for one in segments]))
    turns = [one for path in find_files(speakers, ("rttm",)) for one in _read(path, "rttm", each)]
    owned: list[list[Segment]] = [[] for _ in turns]
    lost: list[tuple[Segment, list[Segment]]] = []
    for one, owner in zip(segments, _owners(segments, turns), strict=True):
        lost.append((one, [])) if owner is None else owned[owner].append(one)
    if format == "ctm":
        found = [
            (replace(turn, words=" ".join(word.words for word in own)), own)
            for turn, own in zip(turns, map(by_start, owned), strict=True)
        ]
    else:
        found = [
            (replace(one, speaker=turn.speaker), [])
            for turn, own in zip(turns, owned, strict=True)
            for one in own
        ]
        empty = [turn for turn, own in zip(turns, owned, strict=True) if not own]
        if empty:
            log.warning(
                "%s: %d of %d turns have no words and are left out (the first: %s, %g-%g s)",
                *(speakers, len(empty), len(turns)),
                *(empty[0].session, empty[0].start, empty[0].end),
            )
    reason = f"{speakers} has no turn at its time"
    rejected = [(reason, one) for one in supervisions_of(lost, "rejected-")]
    return Corpus(recordings, supervisions_of(found), rejected)


def read_words(path: Path, each: bool = False) -> tuple[str, list[Segment]]:
    """The format of a file or of all files in a folder, and their segments.

    each  whether sessions are those of channels (`tagspeech.corpus.channels`)
    """
    paths = find_files(path, WORDS)
    formats = Counter(split_name(one)[1] or "" for one in paths)
    if len(formats) > 1:
        raise InputError(
            f"{path}: holds {' and '.join(f'{n} files of {name}' for name, n in formats.items())}; "
            "give a folder with one format, or one file"
        )
    (format,) = formats
    return format, [segment for one in paths for segment in _read(one, format, each)]


def _read(path: Path, format: str, each: bool) -> list[Segment]:
    if each and format in channels.FIELDS:
        text = channels.name_sides(read_text(path), format)
        return by_start(_NIST[format](text, str(path), ""))
    return read(path)


def supervisions_of(
    segments: Iterable[tuple[Segment, Sequence[Segment]]], prefix: str = ""
) -> list[SupervisionSegment]:
    """Segments and their words with times, as Lhotse has them; named by recording and number."""
    counts: Counter[str] = Counter()
    found = []
    for one, words in sorted(segments, key=lambda item: (item[0].session, item[0].start)):
        items = [AlignmentItem(w.words, w.start, round(w.duration, 7)) for w in words]
        found.append(
            SupervisionSegment(
                id=f"{prefix}{one.session}-{counts[one.session]:05d}",
                recording_id=one.session,
                start=one.start,
                duration=round(one.duration, 7),
                text=one.words,
                speaker="" if one.speaker == UNKNOWN_SPEAKER else one.speaker,
                gender=LHOTSE_GENDERS[one.gender],
                alignment={"word": items} if items else None,
            )
        )
        counts[one.session] += 1
    return found


def _owners(segments: Sequence[Segment], turns: Sequence[Segment]) -> list[int | None]:
    """For each segment the turn of its session that it overlaps most, by number.

    Of several that it overlaps as much, the one that begins last: who speaks up while another
    speaks. A segment of zero duration goes to the turn that is on at its time.
    """
    by_session: defaultdict[str, list[int]] = defaultdict(list)
    for number in sorted(range(len(turns)), key=lambda number: turns[number].start):
        if turns[number].duration:
            by_session[turns[number].session].append(number)
    starts = {name: [turns[n].start for n in own] for name, own in by_session.items()}
    longest = {name: max(turns[n].duration for n in own) for name, own in by_session.items()}
    owners: list[int | None] = []
    doubtful = 0
    for one in segments:
        near: list[int] = []
        if own := by_session.get(one.session):
            first = bisect_left(starts[one.session], one.start - longest[one.session])
            near = own[first : bisect_right(starts[one.session], one.end)]
        overlaps = [
            round(min(one.end, turns[n].end) - max(one.start, turns[n].start), 6) for n in near
        ]
        most = max(overlaps, default=0.0)
        has_owner = most > 0 or (most == 0 and one.start == one.end)
        best = [
            n for n, overlap in zip(near, overlaps, strict=True) if overlap == most and has_owner
        ]
        owners.append(best[-1] if best else None)
        doubtful += len({turns[n].speaker for n in best}) > 1
    if doubtful:
        log.warning(
            "%d of %d words or segments lie in turns of several speakers; they went to the turn "
            "that begins last",
            *(doubtful, len(segments)),
        )
    return owners


def _find_audio(folder: Path, channel: int | str | None) -> dict[str, RecordingSource]:
    """The audio files in `folder`, in whatever folder of it, by name."""
    found: dict[str, RecordingSource] = {}
    for path in find_audio(folder):
        name = composed(path.stem)
        check_id(name, str(path))
        if name in found:
            raise InputError(
                f"{found[name].source} and {path} would both be recording {name}: rename one"
            )
        inner = path.relative_to(folder).parts
        found[name] = RecordingSource(str(path), channel, folder=inner[0] if inner[1:] else "")
    return found


def refuse(what: str, names: Sequence[str], remedy: str) -> None:
    """Raises `InputError` that counts `names` and gives the first, where there are any."""
    if names:
        raise InputError(f"{len(names)} {what} (the first: {names[0]}); {remedy}")
