"""`tagspeech import`: a corpus of the user to Lhotse manifests for stage 2.

    OUTPUT/{train,dev,test}_{recordings,supervisions}.jsonl.gz
    OUTPUT/rejected.jsonl    segments that cannot be used, with reasons
    OUTPUT/audio             see tagspeech.corpus.recordings

An error in a recording stops the import, as does a name that only audio or only segments have:
these are mistakes in paths and names. The message has the number of errors of a kind and the first.
Segments with errors are listed; too large a share of them stops the import.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

from tagspeech.corpus.kaldi import read_genders, read_kaldi
from tagspeech.corpus.layouts import EACH, LHOTSE_GENDERS, MIX, Corpus, read_files, refuse
from tagspeech.corpus.manifests import write_manifest
from tagspeech.corpus.recordings import each_channel, make_recordings
from tagspeech.corpus.rejections import OUTSIDE, write_rows
from tagspeech.corpus.splits import SPLITS, by_folder, by_lists, by_shares
from tagspeech.errors import InputError

log = logging.getLogger(__name__)

CHANNEL_IS = "must be mix, each or a number from 0"
END_TOLERANCE = 0.001  # seconds past the end of a recording that rounding explains


@dataclass(frozen=True)
class ImportConfig:
    """Where a corpus is and how it is divided; either `audio` and `words`, or `kaldi`.

    audio, words, speakers  as `tagspeech.corpus.layouts.read_files` takes them
    kaldi, wav_root  a Kaldi data directory, and what relative paths in wav.scp are relative to
    genders          lines of a speaker and m or f, for those whose gender the segments do not tell
    local_speakers   a name means somebody else in each recording: it becomes RECORDING-NAME
    channel          of audio that has several: a number from 0; mix: their mean; each: every one as
                     a recording of its own; None: the mix of two, the first of more (an array)
    split_by         folder: `audio` or `kaldi` has folders train, dev, test
                     lists: train.txt, dev.txt, test.txt in `lists` name recordings, one a line
                     shares: of the number of recordings, drawn with `seed`
    skip_unmatched   leaves out recordings without segments, and segments without a recording
    max_rejected     the largest share of segments that may be rejected
    """

    audio: Path | None = None
    words: Path | None = None
    speakers: Path | None = None
    kaldi: Path | None = None
    wav_root: Path = Path()
    genders: Path | None = None
    local_speakers: bool = False
    channel: int | str | None = None
    split_by: str = "folder"
    lists: Path | None = None
    shares: tuple[float, ...] = (0.8, 0.1, 0.1)
    seed: int = 1
    skip_unmatched: bool = False
    max_rejected: float = 0.1


def import_corpus(output: Path, config: ImportConfig) -> None:
    """Writes the manifests of all splits to the folder `output`.

    Segments keep times, words and speakers; one that extends past the end of its recording is cut.

    Raises:
        InputError: As described in the module, or a split is empty.
    """
    if isinstance(config.channel, str) and config.channel not in (MIX, EACH):
        raise InputError(f"channel {CHANNEL_IS}, got {config.channel!r}")
    corpus = _read(config)
    splits = _split(corpus, config)
    if config.channel == EACH:
        corpus.audio, splits = each_channel(corpus.audio, splits)
    splits = _matched(corpus, splits, config)
    left_out = corpus.audio.keys() - splits.keys()
    corpus.rejected = [row for row in corpus.rejected if row[1].recording_id not in left_out]
    audio = {name: corpus.audio[name] for name in sorted(splits)}
    recordings = make_recordings(audio, output / "audio")
    genders = _genders(config, corpus)
    kept: dict[str, list[SupervisionSegment]] = {split: [] for split in SPLITS}
    for segment in corpus.supervisions:
        if segment.recording_id in recordings:
            end = recordings[segment.recording_id].duration
            if reason := _reason_against(segment, end):
                corpus.rejected.append((reason, segment))
            else:
                kept[splits[segment.recording_id]].append(_finished(segment, end, config, genders))
    whole = len(corpus.rejected) + sum(map(len, kept.values()))
    _write_rejected(output / "rejected.jsonl", corpus, config.max_rejected * whole)
    _warn_of(corpus, recordings, kept)
    for split in SPLITS:
        chosen = [recording for name, recording in recordings.items() if splits[name] == split]
        if not kept[split]:
            raise InputError(f"split {split} has {len(chosen)} recordings and no usable segment")
        _write_manifests(output, split, chosen, kept[split])


def _genders(config: ImportConfig, corpus: Corpus) -> dict[str, str]:
    """The genders in the list, if there is one; warns about unknown speakers."""
    if config.genders is None:
        return {}
    genders = read_genders(config.genders)
    known = {segment.speaker for segment in corpus.supervisions}
    known |= {f"{segment.recording_id}-{segment.speaker}" for segment in corpus.supervisions}
    if unknown := [name for name in genders if name not in known]:
        log.warning(
            "%s: %d of %d speakers have no segments (the first: %s)",
            *(config.genders, len(unknown), len(genders), unknown[0]),
        )
    return genders


def _read(config: ImportConfig) -> Corpus:
    if config.kaldi is None:
        if config.audio is None or config.words is None:
            raise InputError("give --audio with --words, or --kaldi")
        return read_files(config.audio, config.words, config.speakers, config.channel)
    if config.audio or config.words or config.speakers:
        raise InputError("give --audio with --words, or --kaldi, not both")
    if config.split_by != "folder":
        return read_kaldi(config.kaldi, config.wav_root, config.channel)
    whole = Corpus({}, [])
    for split in SPLITS:
        part = read_kaldi(config.kaldi / split, config.wav_root, config.channel, split)
        twice = [name for name in part.audio if name in whole.audio]
        refuse(f"recordings of {split} are in another split too", twice, "leave each in one")
        whole.audio.update(part.audio)
        whole.supervisions += part.supervisions
        whole.rejected += part.rejected
    return whole


def _split(corpus: Corpus, config: ImportConfig) -> dict[str, str]:
    """The split of each recording by name."""
    if config.split_by == "folder":
        return by_folder(corpus.audio)
    if config.split_by == "shares":
        return by_shares(corpus.audio, config.shares, config.seed)
    if config.split_by != "lists" or config.lists is None:
        raise InputError(
            f"--split-by must be folder, shares, or lists together with --lists, "
            f"got {config.split_by}"
        )
    return by_lists(corpus.audio, config.lists)


def _matched(corpus: Corpus, splits: dict[str, str], config: ImportConfig) -> dict[str, str]:
    """`splits` of the recordings that have segments.

    Raises `InputError` for names that only audio or only segments have, unless they are skipped.
    """
    sessions = {segment.recording_id for segment in corpus.supervisions}
    without_segments = [name for name in splits if name not in sessions]
    without_audio = sorted(sessions - corpus.audio.keys())
    problems = [
        f"{len(names)} of {count} {what} (the first: {names[0]})"
        for names, count, what in (
            (without_segments, len(splits), "recordings have no segments"),
            (without_audio, len(sessions), "sessions with segments have no recording"),
        )
        if names
    ]
    if problems and not config.skip_unmatched:
        each = "--channel each makes ID-ch0, ID-ch1, ... of a recording ID with several channels; "
        raise InputError(
            f"{', '.join(problems)}; {each if config.channel == EACH else ''}give them the same "
            "names, or leave them out with --skip-unmatched"
        )
    for problem in problems:
        log.warning("%s: left out", problem)
    return {name: split for name, split in splits.items() if name in sessions}


def _reason_against(segment: SupervisionSegment, end: float) -> str:
    """Why a segment of a recording of `end` seconds cannot be used; empty if it can."""
    if not 0 <= segment.start < end:
        return OUTSIDE
    if segment.duration <= 0:
        return "it has zero duration"
    return "" if segment.speaker else "it has no speaker"


def _finished(
    segment: SupervisionSegment, end: float, config: ImportConfig, genders: Mapping[str, str]
) -> SupervisionSegment:
    """The segment for the manifest."""
    name = segment.speaker
    speaker = f"{segment.recording_id}-{name}" if config.local_speakers else name
    gender = segment.gender or LHOTSE_GENDERS[genders.get(name, genders.get(speaker, "u"))]
    duration = min(segment.duration, round(end - segment.start, 7))
    return replace(segment, duration=duration, speaker=speaker, gender=gender)


def _write_rejected(path: Path, corpus: Corpus, most: float) -> None:
    """Writes the list of rejected segments. Raises `InputError` if it has more than `most`."""
    rows = [{"reason": reason, **segment.to_dict()} for reason, segment in corpus.rejected]
    write_rows(path, rows)
    reasons = Counter(reason for reason, _ in corpus.rejected)
    for reason, count in reasons.most_common():
        log.warning("%d segments rejected: %s; see %s", count, reason, path)
    if len(rows) > most:
        reason, count = reasons.most_common(1)[0]
        raise InputError(
            f"{len(rows)} segments are rejected, {count} of them because {reason}; {path} lists "
            "them; correct them, or allow more with --max-rejected"
        )


def _warn_of(
    corpus: Corpus,
    recordings: Mapping[str, Recording],
    kept: Mapping[str, Sequence[SupervisionSegment]],
) -> None:
    """Warns about what is allowed but may be a mistake."""
    ends = {name: recording.duration for name, recording in recordings.items()}
    longer = [
        segment
        for segment in corpus.supervisions
        if 0 <= segment.start < ends.get(segment.recording_id, 0)
        and ends[segment.recording_id] + END_TOLERANCE < segment.end < float("inf")
    ]
    if longer:
        log.warning(
            "%d segments extend past the end of their recording and are cut (the first: %s)",
            *(len(longer), longer[0].id),
        )
    known = {segment.speaker for segment in kept["train"]}
    for split in SPLITS[1:]:
        speakers = {segment.speaker for segment in kept[split]}
        if speakers & known:
            shared = len(speakers & known)
            log.warning("%d of %d speakers of %s are in train too", shared, len(speakers), split)


def _write_manifests(
    output: Path,
    split: str,
    recordings: Sequence[Recording],
    supervisions: Sequence[SupervisionSegment],
) -> None:
    write_manifest(
        output / f"{split}_recordings.jsonl.gz", RecordingSet.from_recordings(recordings)
    )
    write_manifest(
        output / f"{split}_supervisions.jsonl.gz", SupervisionSet.from_segments(supervisions)
    )
    log.info(
        "%s: %d recordings, %.2f hours, %d segments, %d speakers (%d of known gender)",
        *(split, len(recordings), sum(recording.duration for recording in recordings) / 3600),
        *(len(supervisions), len({segment.speaker for segment in supervisions})),
        len({segment.speaker for segment in supervisions if segment.gender}),
    )
