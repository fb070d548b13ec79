"""Decodes and scores whole meetings of a corpus, and measures the cost of cutting and linking.

    groups   oracle utterance groups, each scored separately
    linked   the same output with speakers linked over each meeting
    whole    recordings cut into windows as in `tagspeech transcribe`, with speakers linked

The step from `groups` to `linked` is the cost of linking, from `linked` to `whole` of cutting.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tagspeech.audio.sources import RecordingAudio, Span
from tagspeech.checkpoints.native import load_on
from tagspeech.config import Config
from tagspeech.corpus.groups import audio_end, group_segments, make_groups
from tagspeech.corpus.manifests import read_manifest
from tagspeech.data.batches import read_groups
from tagspeech.errors import InputError
from tagspeech.files import write_json
from tagspeech.formats import write
from tagspeech.inference.linking import Voices, link
from tagspeech.inference.meeting import cut_windows
from tagspeech.inference.recognizer import Recognizer
from tagspeech.inference.resumable import Meeting, recognize_meetings
from tagspeech.inference.stitching import join, mend
from tagspeech.llm.place import Place, find_place, note_places
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.options import TranscribeOptions
from tagspeech.parallel import gather, rank, wait_for_all, world_size
from tagspeech.report.examples import columns, percent
from tagspeech.report.page import write_page
from tagspeech.report.table import TIME_RATES, TITLES, WORD_RATES, rates_of
from tagspeech.scoring import score
from tagspeech.segments import Segment, by_time

log = logging.getLogger(__name__)

ROWS = "groups", "linked", "whole"


@dataclass
class _Sides:
    """Reference and hypothesis of a row of the table."""

    ref: list[Segment] = field(default_factory=list)
    hyp: list[Segment] = field(default_factory=list)


def evaluate_meetings(
    model_dir: Path,
    manifests: Path,
    output: Path,
    config: Config,
    *,
    max_pause: float,
    options: TranscribeOptions,
    allow_commands: bool = False,
    place: Place | None = None,
) -> None:
    """Decodes and scores the recordings of a manifest and prints a table.

    Writes `ref`, `hyp` and `scores` of each row (suffix `-groups`, `-linked`, none for whole
    meetings), `results.json` and `report.html`. Journals in `output/heard` make a killed run
    resumable. Processes that `parallel.launch` started share the recordings; the first one writes.
    The model receives the mean of the channels that the groups of a recording have.

    Args:
        model_dir: A trained model.
        manifests: PATH of PATH_{recordings,supervisions}.jsonl.gz.
        output: A folder.
        config: `language` and `decode` are used.
        max_pause: Longest pause within an oracle group in seconds, as in stage 2.
        options: How to cut windows; `decode.max_duration` sets the batch size.
        allow_commands: Whether to run the commands that recordings come from.
        place: Where the model runs; None: where `find_place` finds. results.json has it.

    Raises:
        InputError: The manifests have no recording, or no usable supervision.
    """
    if rank() == 0:
        _make_groups(manifests, output, max_pause, config.language, allow_commands)
    wait_for_all()
    groups = _groups(manifests, output)
    place = place or find_place()
    order = sorted(range(len(groups)), key=lambda n: (-groups[n][0].recording.duration, n))
    own = order[rank() :: world_size()]
    heard: dict[int, dict[str, _Sides]] = {}
    computing = [name for name in gather(str(place) if own else "") if name]
    places = note_places(output / "places.json", computing) if rank() == 0 else []
    if own:
        recognizer = _recognizer(model_dir, config, options, place)
        for number in tqdm(own, "whole meetings", unit=" meetings", disable=rank() > 0):
            heard[number] = _evaluate(recognizer, groups[number], output / "heard")
    shares = gather(heard)
    if rank() > 0:
        return
    rows = {name: _Sides() for name in ROWS}
    for _, sides in sorted(chain.from_iterable(share.items() for share in shares)):
        for name in ROWS:
            rows[name].ref += sides[name].ref
            rows[name].hyp += sides[name].hyp
    scores = {}
    for name, row in rows.items():
        suffix = "" if name == "whole" else f"-{name}"
        write(row.ref, output / f"ref{suffix}.seglst.json", "seglst")
        write(row.hyp, output / f"hyp{suffix}.seglst.json", "seglst")
        scores[name] = score(row.ref, row.hyp, language=config.language, intervals=True)
        write_json(output / f"scores{suffix}.json", scores[name])
    results = {name: rates_of(metrics["overall"]) for name, metrics in scores.items()}
    write_json(output / "results.json", {**results, "computed_on": places})
    write_page(
        output / "report.html",
        f"Whole meetings of {manifests}",
        {name: scores[name] for name in reversed(ROWS)},
        rows["whole"].ref,
        rows["whole"].hyp,
        recordings={cuts[0].recording_id: _file(cuts) for cuts in groups},
    )
    print(_table(results))


def _recognizer(
    model_dir: Path, config: Config, options: TranscribeOptions, place: Place
) -> Recognizer:
    """The model on its device, with batches of windows as long as those of stage 7."""
    model = load_on(TagSpeechModel, model_dir, place)
    model.config = replace(model.config, decode=config.decode)
    longest = options.max_window or config.decode.max_window
    options = replace(
        options,
        batch_size=max(1, int(config.decode.max_duration / longest)),
        max_duration=config.decode.max_duration,  # a group may be longer than a window
    )
    return Recognizer(model, options)


def _make_groups(
    manifests: Path, output: Path, max_pause: float, language: str, allow_commands: bool
) -> None:
    """Writes the oracle groups, and a warning for each recording without any."""
    split = manifests.name
    recordings = manifests.with_name(f"{split}_recordings.jsonl.gz")
    found = read_manifest(recordings, allow_commands=allow_commands)
    names = [recording.id for recording in found]
    if not names:
        raise InputError(f"{recordings}: has no recording; name another set (run.sh: --whole NAME)")
    make_groups(
        *(manifests.parent, output / "groups"),
        rejected=output / "rejected.jsonl",
        splits=(split,),
        max_pause=max_pause,
        language=language,
        max_rejected=1.0,  # already checked in stage 2
        allow_commands=allow_commands,
    )
    usable = {cut.recording_id for cut in read_groups(output / "groups" / f"{split}.jsonl.gz")}
    for name in names:
        if name not in usable:
            log.warning("%s: has no usable speech and is not scored", name)


def _groups(manifests: Path, output: Path) -> list[list[Any]]:
    """The oracle groups (cuts) of each recording, in order."""
    by_recording: dict[str, list[Any]] = defaultdict(list)
    for cut in read_groups(output / "groups" / f"{manifests.name}.jsonl.gz"):
        by_recording[cut.recording_id].append(cut)
    return [sorted(cuts, key=lambda cut: cut.start) for cuts in by_recording.values()]


def _channels(groups: Sequence[Any]) -> tuple[int, ...]:
    """The channels that the groups of a recording have."""
    found = [[cut.channel] if isinstance(cut.channel, int) else cut.channel for cut in groups]
    return tuple(sorted({channel for channels in found for channel in channels}))


def _file(groups: Sequence[Any]) -> str:
    """The audio file of the first of these channels."""
    first = _channels(groups)[0]
    found: str = next(s.source for s in groups[0].recording.sources if first in s.channels)
    return found


def _audio(groups: Sequence[Any]) -> RecordingAudio:
    """The recording of groups in these channels, cut to the length of its audio."""
    recording = groups[0].recording
    end = audio_end(recording)
    samples = int(end * recording.sampling_rate)
    return RecordingAudio(replace(recording, duration=end, num_samples=samples), _channels(groups))


def _evaluate(recognizer: Recognizer, groups: Sequence[Any], journals: Path) -> dict[str, _Sides]:
    """What a meeting adds to each row."""
    rows = {name: _Sides() for name in ROWS}
    name, audio, options = groups[0].recording_id, _audio(groups), recognizer.options
    voices = Voices(recognizer.model.config.decode.link_threshold)
    cuts = {round(cut.start, 3): cut for cut in groups}
    spans = [Span(start, round(cut.end, 3)) for start, cut in cuts.items()]
    (oracle,) = recognize_meetings(
        recognizer,
        [
            Meeting(
                audio, lambda: spans, f"oracle groups {spans}", journals / f"{name}.groups.jsonl"
            )
        ],
    )
    (windows,) = recognize_meetings(
        recognizer,
        [Meeting(audio, lambda: cut_windows(audio, options), "", journals / f"{name}.jsonl")],
    )
    for window in oracle:
        cut = cuts[window.start]
        rows["groups"].hyp += [
            replace(segment.moved(-window.start), session=cut.id) for segment in window.segments
        ]
    rows["linked"].hyp += link(oracle, voices)
    rows["whole"].hyp += by_time(mend(link(join(windows), voices)))
    for cut in groups:
        segments = group_segments(cut)
        rows["groups"].ref += segments
        for row in (rows["linked"], rows["whole"]):
            row.ref += [replace(segment.moved(cut.start), session=name) for segment in segments]
    return rows


def _table(results: dict[str, dict[str, Any]]) -> str:
    """The table in percent, with a column for each of `ROWS`."""
    names = {**WORD_RATES, **TIME_RATES, "der_collar_025": "DER, collar 0.25 s"}
    names["speaker_count_accuracy"] = "speaker count right"
    rows = [("%", *(TITLES[row] for row in ROWS))]
    rows += [(name, *(percent(results[row][key]) for row in ROWS)) for key, name in names.items()]
    return columns(rows)
