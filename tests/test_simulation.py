"""Simulated meetings: exact times, disjoint splits, reproducible bytes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lhotse")

import itertools

from lhotse import CutSet, RecordingSet, SupervisionSegment, SupervisionSet

from tagspeech.errors import InputError
from tagspeech.simulation.conversation import (
    SAMPLING_RATE,
    GroupShape,
    Utterance,
    draw_group,
    utter,
)
from tagspeech.simulation.espeak import Espeak
from tagspeech.simulation.sentences import DIGITS, VOCABULARY, draw_sentence, split_of
from tagspeech.simulation.sessions import make_sessions
from tagspeech.simulation.simulate import SIMULATED_SPLITS, SimulateConfig, simulate
from tagspeech.simulation.voices import VARIANTS, Voice, voices

TINY = SimulateConfig(
    train_groups=30, dev_groups=0, test_groups=10, meetings=1, meeting_minutes=0.5
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 groups of train; 20 of dev and of test; a meeting of one minute."""
    output = tmp_path_factory.mktemp("simulate") / "corpus"
    simulate(output, SimulateConfig(100, 20, 20, 1, 1.0), jobs=1)
    return output


def supervisions(output: Path, split: str) -> list[SupervisionSegment]:
    return list(SupervisionSet.from_file(output / f"{split}_supervisions.jsonl.gz"))


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_bytes_by_one_or_two_processes_and_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for name in ("one", "two", "killed"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if name == "killed":
            make_sessions(Path("corpus"), TINY, [("train", 1), ("meetings", 0), ("train", 2)])
            Path("corpus/train/sim-train-00003.json").unlink()  # killed between wav and json
            Path("corpus/train/.sim-train-00001.wav.partial-1").write_bytes(b"RIFF")
        simulate("corpus", TINY, jobs=2 if name == "two" else 1)
        made.append(contents(tmp_path / name))
    assert made[0] == made[1] == made[2]


def test_changed_parameters_replace_sessions_and_surplus_is_removed(tmp_path: Path) -> None:
    small = SimulateConfig(20, 0, 10, 0, seed=1)
    simulate(tmp_path / "corpus", small, jobs=1)
    before = contents(tmp_path / "corpus" / "train")
    changed = SimulateConfig(10, 0, 10, 0, seed=2)
    simulate(tmp_path / "corpus", changed, jobs=1)
    after = contents(tmp_path / "corpus" / "train")
    assert sorted(after) == ["sim-train-00001.json", "sim-train-00001.wav"]
    assert after["sim-train-00001.wav"] != before["sim-train-00001.wav"]


def test_second_run_changes_nothing(corpus: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in corpus.glob("*/*.wav")}
    before = contents(corpus)
    simulate(corpus, SimulateConfig(100, 20, 20, 1, 1.0), jobs=1)
    assert {path: path.stat().st_mtime_ns for path in corpus.glob("*/*.wav")} == times
    assert contents(corpus) == before


@pytest.mark.parametrize("split", SIMULATED_SPLITS)
def test_lhotse_recovers_the_groups(corpus: Path, split: str) -> None:
    recordings = RecordingSet.from_file(corpus / f"{split}_recordings.jsonl.gz")
    cuts = CutSet.from_manifests(
        recordings=recordings,
        supervisions=SupervisionSet.from_segments(supervisions(corpus, split)),
    )
    made = defaultdict(set)
    for supervision in supervisions(corpus, split):
        made[supervision.id.rsplit("-", 1)[0]].add(supervision.id)
    recovered = [
        {supervision.id for supervision in cut.supervisions}
        for cut in cuts.trim_to_supervision_groups(max_pause=1.0)
    ]
    assert sorted(map(sorted, recovered)) == sorted(map(sorted, made.values()))
    if split == "meetings":
        assert all(recording.duration >= 60 for recording in recordings)
    else:
        assert len(made) == {"train": 100, "dev": 20, "test": 20}[split]


def test_groups_have_the_documented_sizes_and_overlap(corpus: Path) -> None:
    groups = defaultdict(list)
    for supervision in supervisions(corpus, "train"):
        groups[supervision.id.rsplit("-", 1)[0]].append(supervision)
    speakers = [len({segment.speaker for segment in group}) for group in groups.values()]
    assert {1, 2, 3} == set(speakers)
    assert min(map(speakers.count, (1, 2, 3))) > 15
    speech = overlapped = 0.0
    for group in groups.values():
        start, end = min(s.start for s in group), max(s.end for s in group)
        assert 1 <= len(group) <= 5
        assert end - start <= 12.0
        active = np.zeros(round((end - start) * 1000) + 1, int)
        for segment in group:
            active[round((segment.start - start) * 1000) : round((segment.end - start) * 1000)] += 1
        speech, overlapped = speech + (active > 0).sum(), overlapped + (active > 1).sum()
        for speaker in {segment.speaker for segment in group}:
            own = sorted((s.start, s.end) for s in group if s.speaker == speaker)
            assert all(later[0] - one[1] >= 0.1999 for one, later in itertools.pairwise(own))
    assert overlapped / speech >= 0.10


@pytest.mark.parametrize("split", SIMULATED_SPLITS)
def test_audio_and_word_times(corpus: Path, split: str) -> None:
    recordings = RecordingSet.from_file(corpus / f"{split}_recordings.jsonl.gz")
    by_session = {r.id: r.load_audio()[0] for r in recordings}
    for recording in recordings:
        audio = by_session[recording.id]
        assert recording.sampling_rate == SAMPLING_RATE
        assert len(audio) == recording.num_samples
        assert 0.05 < np.abs(audio).max() < 0.96
    for segment in supervisions(corpus, split):
        words = segment.alignment["word"]
        assert segment.text == " ".join(word.symbol for word in words)
        assert words[0].start == pytest.approx(segment.start, abs=1e-6)
        assert words[-1].end == pytest.approx(segment.end, abs=1e-6)
        assert all(word.duration > 0.01 for word in words)
        ends = [word.end for word in words[:-1]]
        assert ends == pytest.approx([word.start for word in words[1:]], abs=1e-6)
        audio = by_session[segment.recording_id]
        inside = audio[round(segment.start * SAMPLING_RATE) : round(segment.end * SAMPLING_RATE)]
        before = audio[: SAMPLING_RATE // 2]  # no session begins with speech before 0.5 s
        assert np.mean(inside**2) > 4 * np.mean(before**2)
        assert segment.end <= len(audio) / SAMPLING_RATE


def test_splits_share_neither_voices_nor_sentences(corpus: Path) -> None:
    said = {split: supervisions(corpus, split) for split in SIMULATED_SPLITS}
    heard = {split: {s.speaker for s in said[split]} for split in SIMULATED_SPLITS}
    texts = {
        split: {s.text for s in said[split] if len(s.text.split()) > 2}
        for split in SIMULATED_SPLITS
    }
    for kind in (heard, texts):
        assert not kind["train"] & (kind["dev"] | kind["test"] | kind["meetings"])
        assert not kind["dev"] & (kind["test"] | kind["meetings"])
    inventory = {split: {voice.name for voice in voices(split)} for split in VARIANTS}
    assert heard["train"] <= inventory["train"]
    assert heard["meetings"] <= inventory["test"]


def test_pretrain_shares_voices_and_sentences_with_no_other_split(tmp_path: Path) -> None:
    sound = {split: {replace(voice, name="") for voice in voices(split)} for split in VARIANTS}
    for split in ("train", "dev", "test"):
        assert not sound["pretrain"] & sound[split]
    config = SimulateConfig(20, 0, 0, 0, train_from="pretrain")
    simulate(tmp_path / "corpus", config, jobs=1)
    said = supervisions(tmp_path / "corpus", "train")
    assert {one.speaker for one in said} <= {voice.name for voice in voices("pretrain")}
    assert {split_of(one.text) for one in said} <= {"pretrain", "any"}


def test_voices() -> None:
    splits = [VARIANTS[split] for split in ("train", "dev", "test")]
    variants = [v for split in splits for gender in split.values() for v in gender]
    assert len(variants) == len(set(variants))
    for split, least in (("train", 240), ("dev", 12), ("test", 24)):
        genders = [voice.gender for voice in voices(split)]
        assert len({voice.name for voice in voices(split)}) == len(genders) >= least
        assert genders.count("F") == genders.count("M")


def test_every_word_has_sentences_in_every_split() -> None:
    assert len(VOCABULARY) >= 100
    assert set(DIGITS) <= set(VOCABULARY)
    rng = np.random.default_rng(0)
    for split in VARIANTS:
        for word in VOCABULARY:
            sentence = draw_sentence(rng, split, word)
            assert word in sentence.split()
            assert split_of(sentence) in (split, "any")
            assert len(sentence.split()) <= 9
            assert all(w in VOCABULARY for w in sentence.split())


def test_every_word_occurs_if_there_are_as_many_groups_as_words(tmp_path: Path) -> None:
    groups = -(-len(VOCABULARY) // 10) * 10
    simulate(tmp_path / "corpus", SimulateConfig(0, groups, 0, 0), jobs=1)
    said = {word for s in supervisions(tmp_path / "corpus", "dev") for word in s.text.split()}
    assert said == set(VOCABULARY)


def test_utterance_depends_only_on_utterances_since_loading() -> None:
    voice, other = voices("train")[0], voices("train")[-1]
    with Espeak() as espeak:
        first = utter(espeak, voice, "let's move the meeting to room three")
        utter(espeak, other, "is it ready")
    with Espeak() as espeak:
        again = utter(espeak, voice, "let's move the meeting to room three")
    assert np.array_equal(first.samples, again.samples)
    assert first.words == again.words


def test_overlap_share_0_has_no_overlap(tmp_path: Path) -> None:
    simulate(tmp_path, SimulateConfig(20, 0, 0, 0, overlap_share=0.0), jobs=1)
    spoken = sorted(supervisions(tmp_path, "train"), key=lambda one: (one.recording_id, one.start))
    pairs = [(a, b) for a, b in itertools.pairwise(spoken) if a.recording_id == b.recording_id]
    assert all(later.start >= one.end for one, later in pairs)
    assert any(later.speaker != one.speaker for one, later in pairs)


def test_long_utterances_make_short_groups_and_no_endless_search() -> None:
    pool = voices("train")[:3]
    samples = np.ones(7 * SAMPLING_RATE, np.float32)

    def say(voice: Voice, is_first: bool) -> Utterance:
        return Utterance(voice, "a b c d", samples, (("a", 0.0, 7.0),) * 4)

    shape = GroupShape(0.65, (0.3, 2.0), 20.0)
    for seed in range(20):
        group = draw_group(np.random.default_rng(seed), pool, 3, say, shape)
        assert 1 <= len(group) <= 3
        assert max(item.end for item in group) <= 20 * SAMPLING_RATE
    with pytest.raises(ValueError, match="no utterance is shorter than 6 s"):
        draw_group(np.random.default_rng(0), pool, 3, say, GroupShape(0.65, (0.3, 2.0), 6))


def test_invalid_sizes_are_named() -> None:
    sizes = {"train_groups": -1, "max_speakers": 0, "meeting_minutes": 0.0, "overlap_share": 1.1}
    for name, value in sizes.items():
        wrong: dict[str, Any] = {name: value}
        with pytest.raises(InputError, match=next(iter(wrong))):
            SimulateConfig(**wrong)
    with Espeak() as espeak, pytest.raises(InputError, match="no voice"):
        espeak.speak("okay", "xx-none")
