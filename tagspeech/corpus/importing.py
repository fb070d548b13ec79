"""`tagspeech import`: a corpus as people have it to Lhotse manifests, as stage 2 reads them.

    OUTPUT/{train,dev,test}_{recordings,supervisions}.jsonl.gz
    OUTPUT/rejected.jsonl    segments that cannot be used, each with its reason
    OUTPUT/audio             see tagspeech.corpus.recordings

What is wrong with a recording stops the import, and so does a name that audio and segments do not
share: these are mistakes in paths and names, and what follows would be wrong. All of one kind are
counted, the first is named. What is wrong with a segment is listed, unless this happens to more
than a share of them.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

from tagspeech.corpus.kaldi import read_genders, read_kaldi
from tagspeech.corpus.layouts import EACH, LHOTSE_GENDERS, MIX, Corpus, read_files, refuse
from tagspeech.corpus.manifests import write_manifest
from tagspeech.corpus.recordings import each_channel, make_recordings
from tagspeech.corpus.splits import SPLITS, by_folder, by_lists, by_shares
from tagspeech.errors import InputError
from tagspeech.files import write_text
from tagspeech.options import ImportConfig

log = logging.getLogger(__name__)

CHANNEL_IS = "must be mix, each or a number from 0"
END_TOLERANCE = 0.001  # seconds past the end of a recording that rounding explains


def import_corpus(output: Path, config: ImportConfig) -> None:
    """Writes the manifests of all splits to the folder `output`.

    Segments keep their times, words and speakers; one that reaches past the end of its recording
    ends with it. Raises `InputError` as the module says, and where a split would be empty.
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
    for one in corpus.supervisions:
        if one.recording_id in recordings:
            end = recordings[one.recording_id].duration
            if reason := _reason_against(one, end):
                corpus.rejected.append((reason, one))
            else:
                kept[splits[one.recording_id]].append(_finished(one, end, config, genders))
    whole = len(corpus.rejected) + sum(map(len, kept.values()))
    _write_rejected(output / "rejected.jsonl", corpus, config.max_rejected * whole)
    _warn_of(corpus, recordings, kept)
    for split in SPLITS:
        own = [one for name, one in recordings.items() if splits[name] == split]
        if not kept[split]:
            raise InputError(f"split {split} has {len(own)} recordings and no segment in them")
        _write_manifests(output, split, own, kept[split])


def _genders(config: ImportConfig, corpus: Corpus) -> dict[str, str]:
    """The genders of a list of its own; says where it names nobody's."""
    if config.genders is None:
        return {}
    genders = read_genders(config.genders)
    known = {one.speaker for one in corpus.supervisions}
    known |= {f"{one.recording_id}-{one.speaker}" for one in corpus.supervisions}
    if strangers := [name for name in genders if name not in known]:
        log.warning(
            "%s: %d of %d speakers are those of no segment (the first: %s)",
            *(config.genders, len(strangers), len(genders), strangers[0]),
        )
    return genders


def _read(config: ImportConfig) -> Corpus:
    if config.kaldi is None:
        if config.audio is None or config.words is None:
            raise InputError("wants --audio with --words, or --kaldi")
        return read_files(config.audio, config.words, config.speakers, config.channel)
    if config.audio or config.words or config.speakers:
        raise InputError("wants --audio with --words, or --kaldi, not both")
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
            f"--split-by {config.split_by}: wants folder, shares, or lists together with --lists"
        )
    return by_lists(corpus.audio, config.lists)


def _matched(corpus: Corpus, splits: dict[str, str], config: ImportConfig) -> dict[str, str]:
    """`splits` of the recordings that have segments.

    Raises `InputError` where names are only on one side, unless these are to be left out.
    """
    told = {one.recording_id for one in corpus.supervisions}
    silent = [name for name in splits if name not in told]
    unheard = sorted(told - corpus.audio.keys())
    problems = [
        f"{len(names)} of {count} {what} (the first: {names[0]})"
        for names, count, what in (
            (silent, len(splits), "recordings have no segments"),
            (unheard, len(told), "sessions with segments have no recording"),
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
    return {name: split for name, split in splits.items() if name in told}


def _reason_against(one: SupervisionSegment, end: float) -> str:
    """Why a segment of a recording that lasts `end` seconds cannot be used; empty when it can."""
    if not 0 <= one.start < end:
        return "it starts outside its recording"
    if one.duration <= 0:
        return "it has zero duration"
    return "" if one.speaker else "it has no speaker"


def _finished(
    one: SupervisionSegment, end: float, config: ImportConfig, genders: Mapping[str, str]
) -> SupervisionSegment:
    """The segment as it stands in the manifest."""
    speaker = f"{one.recording_id}-{one.speaker}" if config.local_speakers else one.speaker
    gender = one.gender or LHOTSE_GENDERS[genders.get(one.speaker, genders.get(speaker, "u"))]
    duration = min(one.duration, round(end - one.start, 7))
    return replace(one, duration=duration, speaker=speaker, gender=gender)


def _write_rejected(path: Path, corpus: Corpus, most: float) -> None:
    """The list of rejected segments. Raises `InputError` where it is longer than `most`."""
    rows = [{"reason": reason, **one.to_dict()} for reason, one in corpus.rejected]
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    reasons = Counter(reason for reason, _ in corpus.rejected)
    for reason, count in reasons.most_common():
        log.warning("%d segments rejected: %s; see %s", count, reason, path)
    if len(rows) > most:
        reason, count = reasons.most_common(1)[0]
        raise InputError(
            f"{len(rows)} segments are rejected, {count} of them because {reason}; {path} lists "
            "them: mend them, or allow more with --max-rejected"
        )


def _warn_of(
    corpus: Corpus,
    recordings: Mapping[str, Recording],
    kept: Mapping[str, Sequence[SupervisionSegment]],
) -> None:
    """Says what is allowed, yet may not be meant."""
    ends = {name: one.duration for name, one in recordings.items()}
    longer = [
        one
        for one in corpus.supervisions
        if 0 <= one.start < ends.get(one.recording_id, 0)
        and ends[one.recording_id] + END_TOLERANCE < one.end < float("inf")
    ]
    if longer:
        log.warning(
            "%d segments reach past the end of their recording and now end with it (the first: %s)",
            *(len(longer), longer[0].id),
        )
    known = {one.speaker for one in kept["train"]}
    for split in SPLITS[1:]:
        speakers = {one.speaker for one in kept[split]}
        if speakers & known:
            log.warning(
                "%d of %d speakers of %s are in train too",
                len(speakers & known),
                len(speakers),
                split,
            )


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
        *(split, len(recordings), sum(one.duration for one in recordings) / 3600),
        *(len(supervisions), len({one.speaker for one in supervisions})),
        len({one.speaker for one in supervisions if one.gender}),
    )
