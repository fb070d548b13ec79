"""Utterance groups and batches."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.audio import AudioSource
from lhotse.supervision import AlignmentItem
from numpy.typing import NDArray

from tagspeech.config import FeatureConfig
from tagspeech.corpus.groups import group_segments, make_groups
from tagspeech.data.batches import FeatureReader, batches_by_duration, read_groups
from tagspeech.data.overlay import Overlay
from tagspeech.data.pooling import clean_regions, frame_units
from tagspeech.errors import InputError


def supervision(number: int, start: float, duration: float, speaker: str, text: str):
    words = text.split()
    part = duration / max(1, len(words))
    items = [AlignmentItem(word, start + i * part, part) for i, word in enumerate(words)]
    return SupervisionSegment(
        id=f"s{number}",
        recording_id="meeting",
        start=start,
        duration=duration,
        text=text,
        speaker=speaker,
        gender="F",
        alignment={"word": items},
    )


def groups_of(
    folder: Path,
    supervisions: list[SupervisionSegment],
    recording: Recording | None = None,
    max_pause: float = 0.5,
    **options: Any,
) -> CutSet:
    recording = recording or Recording("meeting", [], 16000, 160000, 10.0)
    RecordingSet.from_recordings([recording]).to_file(folder / "test_recordings.jsonl.gz")
    SupervisionSet.from_segments(supervisions).to_file(folder / "test_supervisions.jsonl.gz")
    make_groups(
        folder,
        folder / "groups",
        rejected=folder / "rejected.jsonl",
        splits=["test"],
        max_pause=max_pause,
        language="en",
        **{"max_rejected": 1.0, **options},
    )
    return read_groups(folder / "groups/test.jsonl.gz")


def rejected(folder: Path) -> list[tuple[str, str, float]]:
    """The id, reason and lost seconds of speech of each row in the list."""
    rows = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    return [(row["id"], row["reason"], row["seconds"]) for row in rows]


def test_groups_have_stable_ids_normalized_text_and_relative_word_times(tmp_path: Path) -> None:
    groups = groups_of(
        tmp_path,
        [
            supervision(1, 1.0, 1.0, "a", "Hello, there!"),
            supervision(2, 1.8, 1.2, "b", "Yes"),
            supervision(3, 5.0, 2.0, "a", "NO"),
        ],
    )
    assert [cut.id for cut in groups] == ["meeting-0000100-0000300", "meeting-0000500-0000700"]
    first = group_segments(groups[0])
    assert [(s.start, s.end, s.speaker, s.words) for s in first] == [
        (0.0, 1.0, "a", "hello there"),
        (0.8, 2.0, "b", "yes"),
    ]
    words = [(w.symbol, w.start) for s in groups[0].supervisions for w in s.alignment["word"]]
    assert words == [("Hello,", 0.0), ("there!", pytest.approx(0.5)), ("Yes", pytest.approx(0.8))]


def test_rejected_segments_are_listed_with_reasons(tmp_path: Path) -> None:
    groups = groups_of(
        tmp_path,
        [
            supervision(1, 1.0, 1.0, "a", "good"),
            supervision(2, 12.0, 1.0, "a", "behind the end"),
            supervision(3, 9.0, 4.0, "b", "past the end"),
            supervision(4, 4.0, 1.0, "b", ""),
        ],
    )
    assert rejected(tmp_path) == [
        ("s2", "it starts outside its recording", 1.0),
        ("s3", "it extends past the end of its recording", 3.0),
    ]
    segments = [segment for cut in groups for segment in group_segments(cut)]
    assert [(s.duration, s.words) for s in segments] == [
        (1.0, "good"),
        (1.0, ""),  # a segment without words stays
        (1.0, "past the end"),  # cut off at the end of the recording
    ]


def test_each_segment_is_moved_into_its_group_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time for the groups of a meeting is linear in its length, not quadratic."""
    moved: list[str] = []
    with_offset = SupervisionSegment.with_offset

    def count(self: SupervisionSegment, offset: float) -> SupervisionSegment:
        moved.append(self.id)
        return with_offset(self, offset)

    monkeypatch.setattr(SupervisionSegment, "with_offset", count)
    segments = [supervision(number, number / 4, 0.2, "a", "word") for number in range(40)]
    assert len(groups_of(tmp_path, segments, max_pause=0.01)) == 40
    assert len(moved) == 40


def test_a_recording_without_usable_segments_has_no_group(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recordings = [Recording(name, [], 16000, 160000, 10.0) for name in ("meeting", "silent")]
    lost = replace(supervision(2, 11.0, 1.0, "a", "outside"), recording_id="silent")
    RecordingSet.from_recordings(recordings).to_file(tmp_path / "test_recordings.jsonl.gz")
    segments = [supervision(1, 1.0, 1.0, "a", "hello"), lost]
    SupervisionSet.from_segments(segments).to_file(tmp_path / "test_supervisions.jsonl.gz")
    make_groups(
        *(tmp_path, tmp_path / "groups"),
        rejected=tmp_path / "rejected.jsonl",
        splits=["test"],
        max_pause=0.0,
        language="en",
        max_rejected=1.0,
    )
    (group,) = read_groups(tmp_path / "groups/test.jsonl.gz")
    assert group.recording_id == "meeting"
    assert "test: 1 of 2 recordings have no usable segment (the first: silent)" in caplog.text


@pytest.mark.parametrize("name", ["../../../x", "a/b", "..", "a\nb", ""])
def test_recording_id_must_be_a_file_name(tmp_path: Path, name: str) -> None:
    """Files are named after recordings; such a name would be outside of their folder."""
    recording = Recording(name, [], 16000, 160000, 10.0)
    segment = replace(supervision(1, 1.0, 1.0, "a", "hello"), recording_id=name)
    with pytest.raises(InputError) as error:
        groups_of(tmp_path, [segment], recording)
    assert str(error.value) == (
        f"{tmp_path}/test_recordings.jsonl.gz: recording id {name!r} must be usable as a file "
        "name: not empty, without / and control characters; rename the recording"
    )
    assert not (tmp_path / "groups").exists()


def some_are_bad() -> list[SupervisionSegment]:
    """8 s of speech, 2 s of it outside of the recording, and 2 s without words there."""
    return [
        supervision(1, 0.0, 6.0, "a", "good"),
        supervision(2, 11.0, 1.5, "a", "outside"),
        supervision(3, 12.0, 0.5, "b", "this too"),
        supervision(4, 13.0, 2.0, "b", "?"),
    ]


def test_rejections_are_summed_in_a_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = {"split": "test", "reason": "no segment holds it", "seconds": 2.0, "id": "w"}
    (tmp_path / "left_out.jsonl").write_text(json.dumps(row) + "\n")
    groups_of(tmp_path, some_are_bad(), left_out=tmp_path / "left_out.jsonl")
    assert rejected(tmp_path) == [
        ("w", "no segment holds it", 2.0),
        ("s2", "it starts outside its recording", 1.5),
        ("s3", "it starts outside its recording", 0.5),
        ("s4", "it starts outside its recording", 0.0),  # of speech with words
    ]
    table = (tmp_path / "rejected.txt").read_text()
    assert [line.split(maxsplit=4) for line in table.splitlines()[1:]] == [
        ["test", "3", "2.0", "20.00", "it starts outside its recording"],
        ["test", "1", "2.0", "20.00", "no segment holds it"],
        ["all", "4", "4.0", "40.00", "of 10.0 s of speech"],
    ]
    assert table.rstrip() in caplog.text


def test_too_many_rejections_are_an_error_and_listed(tmp_path: Path) -> None:
    assert len(groups_of(tmp_path, some_are_bad(), max_rejected=0.25)) == 1
    (tmp_path / "rejected.txt").unlink()
    with pytest.raises(InputError) as error:
        groups_of(tmp_path, some_are_bad(), max_rejected=0.24)
    assert str(error.value) == (
        f"{tmp_path}/rejected.jsonl: 25.0 % of the speech is rejected, more than 24 %, most of it "
        "because it starts outside its recording; mend the corpus, or allow more with "
        "--max-rejected SHARE"
    )
    assert (tmp_path / "rejected.txt").exists()


def recorded(folder: Path, audio: NDArray[np.float32], samples: int) -> Recording:
    """A recording of `audio` (samples, channels) whose manifest says `samples`."""
    soundfile.write(folder / "meeting.wav", audio, 16000, subtype="FLOAT")
    channels = list(range(audio.shape[1]))
    source = AudioSource("file", channels, str(folder / "meeting.wav"))
    return Recording("meeting", [source], 16000, samples, samples / 16000, channels)


def test_recording_ends_with_its_audio_if_the_manifest_is_longer(tmp_path: Path) -> None:
    recording = recorded(tmp_path, np.full((128000, 1), 0.1, np.float32), samples=160000)
    groups = groups_of(
        tmp_path,
        [
            supervision(1, 1.0, 1.0, "a", "good"),
            supervision(2, 7.0, 2.0, "a", "past the end"),
            supervision(3, 8.5, 1.0, "b", "behind the end"),
        ],
        recording,
    )
    assert rejected(tmp_path) == [
        ("meeting", "its audio ends before its manifest says", 0.0),
        ("s2", "it extends past the end of its recording", 1.0),
        ("s3", "it starts outside its recording", 1.0),
    ]
    assert [cut.duration for cut in groups] == [1.0, 1.0]
    assert all(cut.load_audio().shape == (1, 16000) for cut in groups)


def test_unreadable_recording_is_named(tmp_path: Path) -> None:
    recording = recorded(tmp_path, np.zeros((160000, 1), np.float32), samples=160000)
    (tmp_path / "meeting.wav").write_bytes(b"no audio")
    with pytest.raises(InputError, match=r"meeting\.wav: cannot be read"):
        groups_of(tmp_path, [supervision(1, 1.0, 1.0, "a", "good")], recording)


def two_channels(folder: Path) -> Recording:
    audio = np.stack([np.full(160000, 0.1), np.full(160000, 0.5)], axis=1).astype(np.float32)
    return recorded(folder, audio, samples=160000)


def test_group_has_the_channel_of_its_supervisions(tmp_path: Path) -> None:
    one = replace(supervision(1, 1.0, 1.0, "a", "hello"), channel=1)
    (group,) = groups_of(tmp_path, [one], two_channels(tmp_path))
    assert group.load_audio() == pytest.approx(np.full((1, 16000), 0.5))
    assert [segment.words for segment in group_segments(group)] == ["hello"]


def test_several_channels_are_averaged(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((160000, 2)).astype(np.float32) / 10
    both = replace(supervision(1, 1.0, 1.0, "a", "hello"), channel=[0, 1])
    groups = groups_of(tmp_path, [both], recorded(tmp_path, noise, samples=160000))
    read = FeatureReader(FeatureConfig())
    features, lens = read(groups)
    wanted, _ = read.of_samples([noise[16000:32000].mean(axis=1)])
    assert lens.tolist() == [100]
    torch.testing.assert_close(features, wanted)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"test_recordings\.jsonl\.gz: does not exist"):
        make_groups(
            tmp_path,
            tmp_path,
            rejected=tmp_path / "r",
            splits=["test"],
            max_pause=0.0,
            language="en",
        )


def test_groups_of_a_real_meeting_equal_those_of_lhotse(tmp_path: Path, shared: Path) -> None:
    """ES2011a of AMI: real segments with a silent recording of the right length."""
    supervisions = SupervisionSet.from_file(shared / "data/ami/ES2011a_sups.jsonl.gz")
    seconds = np.ceil(max(one.end for one in supervisions))
    audio = np.zeros((int(seconds * 16000), 1), np.float32)
    recording = replace(recorded(tmp_path, audio, len(audio)), id="ES2011a")
    groups = groups_of(tmp_path, list(supervisions), recording, max_pause=0.0)
    cuts = CutSet.from_manifests(RecordingSet.from_recordings([recording]), supervisions)
    wanted = cuts.trim_to_supervision_groups(max_pause=0.0)
    assert [[s.id for s in cut.supervisions] for cut in groups] == [
        [s.id for s in cut.supervisions] for cut in wanted
    ]
    assert (tmp_path / "rejected.jsonl").read_text() == ""
    assert sum(len(cut.supervisions) for cut in groups) == len(supervisions) == 348
    assert len(groups) == 94
    assert max(cut.duration for cut in groups) == pytest.approx(57.6, abs=0.1)
    assert sum(len({s.speaker for s in cut.supervisions}) > 1 for cut in groups) == 42
    active = np.zeros(int(seconds * 100), int)
    for cut in groups:
        for one in cut.supervisions:
            active[round((cut.start + one.start) * 100) : round((cut.start + one.end) * 100)] += 1
    assert (active > 1).sum() / (active > 0).sum() == pytest.approx(0.140, abs=0.001)


def overlapped() -> CutSet:
    cut = MonoCut("one", 0.0, 4.0, 0, [supervision(1, 0.0, 2.0, "a", "w x")])
    cut.supervisions.append(supervision(2, 1.0, 2.0, "b", "y"))
    cut.supervisions.append(supervision(3, 3.0, 0.8, "a", "z"))
    cut.supervisions[2].alignment = None
    return CutSet.from_cuts([cut])


def test_clean_regions_exclude_overlap() -> None:
    regions = clean_regions(overlapped(), 25.0)
    assert [(item, index, frames[0], frames[-1]) for item, index, frames in regions] == [
        (0, 0, 0, 24),
        (0, 1, 50, 74),
        (0, 2, 75, 94),
    ]


def test_frame_units_of_up_to_two_segments() -> None:
    units = {"w": [2], "x": [3], "y": [4, 5]}
    found = frame_units(overlapped(), 110, 25.0, lambda word: units[word])[0]
    first, second = found.T.tolist()
    assert first[:50] == [2] * 25 + [3] * 25
    assert second[:50] == [0] * 25 + [4] * 25  # both speak in the second half
    assert first[50:75] == [5] * 25  # only b speaks, the rest of y
    assert first[75:95] == [-1] * 20  # no word times
    assert first[95:100] == second[50:75][:5] == [0] * 5
    assert first[100:] == second[100:] == [-1] * 10  # after the end of the group
    cut = MonoCut("three", 0.0, 1.0, 0, [supervision(i, 0.0, 1.0, str(i), "w") for i in range(3)])
    found = frame_units(CutSet.from_cuts([cut]), 25, 25.0, lambda word: units[word])
    assert (found == -1).all()


def test_overlay_adds_another_speaker_inside_a_group(tiny_groups: Path) -> None:
    groups = read_groups(tiny_groups / "train.jsonl.gz")
    assert list(Overlay(groups, 0.0)(groups, random.Random(1))) == list(groups)
    mixed = Overlay(groups, 1.0)(groups, random.Random(1))
    assert [cut.id for cut in mixed] == [cut.id for cut in groups]
    more = [
        (one, two)
        for one, two in zip(groups, mixed, strict=True)
        if len(two.supervisions) > len(one.supervisions)
    ]
    assert len(more) > len(groups) / 2
    for one, two in more:
        assert two.duration == pytest.approx(one.duration)
        names = [{s.speaker for s in cut.supervisions} for cut in (one, two)]
        assert len(names[1]) == len(names[0]) + 1
        assert all(s.start >= 0 and s.end <= two.duration + 0.01 for s in two.supervisions)
        assert np.abs(two.load_audio() - one.load_audio()).max() > 0.01
    one, two = more[0]
    plain, mixed = (FeatureReader(FeatureConfig())(CutSet.from_cuts([cut])) for cut in (one, two))
    assert plain[1].tolist() == mixed[1].tolist()
    assert not torch.equal(plain[0], mixed[0])


def test_batches_by_duration_contain_all_groups_within_the_limit(tiny_groups: Path) -> None:
    groups = read_groups(tiny_groups / "train.jsonl.gz")
    batches = list(batches_by_duration(groups, 30.0))
    assert sum(map(len, batches)) == len(groups)
    for batch in batches:
        assert len(batch) * max(cut.duration for cut in batch) <= 30.0 or len(batch) == 1


def test_features_do_not_depend_on_batch_mates_or_on_the_precision_of_training(
    tiny_groups: Path,
) -> None:
    groups = read_groups(tiny_groups / "test.jsonl.gz")
    reader = FeatureReader(FeatureConfig())
    with torch.autocast("cpu", torch.bfloat16):
        together_BTF, lens_B = reader(groups)
    for item, cut in enumerate(groups):
        alone_BTF, length = reader(CutSet.from_cuts([cut]))
        assert lens_B[item] == length[0]
        assert together_BTF[item, : length[0]].equal(alone_BTF[0])
