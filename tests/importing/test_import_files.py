"""Audio with files of segments: each layout in, Lhotse manifests with its content out."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpora import NAMES, Source, append, imported, manifests, noise, rejected, segments_of, take
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import RecordingSet, SupervisionSet
from lhotse.qa import validate_recordings_and_supervisions

from tagspeech.corpus.importing import ImportConfig, import_corpus
from tagspeech.corpus.layouts import read_files
from tagspeech.formats import write
from tagspeech.segments import Segment


@pytest.mark.parametrize(
    ("words", "speakers", "knows_gender"),
    [
        ("all.stm", None, False),
        ("all.seglst.json", None, True),
        ("words", None, False),  # TextGrid
        ("audio", None, True),  # JSON
        ("anonymous.stm", "all.rttm", False),
    ],
)
def test_audio_with_files_of_segments(
    corpus: Path,
    source: Source,
    tmp_path: Path,
    words: str,
    speakers: str | None,
    knows_gender: bool,
) -> None:
    rttm = corpus / speakers if speakers else None
    import_corpus(tmp_path, ImportConfig(corpus / "audio", corpus / words, rttm))
    wanted = source.segments
    if not knows_gender:
        wanted = [replace(one, gender="u") for one in wanted]
    assert imported(tmp_path, source) == wanted
    assert (tmp_path / "rejected.jsonl").read_text() == ""
    assert not (tmp_path / "audio").exists()  # what is a file of one channel stays where it is


def test_words_of_a_ctm_go_to_the_turns_of_an_rttm(
    corpus: Path, source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = ImportConfig(corpus / "audio", corpus / "all.ctm", corpus / "all.rttm")
    import_corpus(tmp_path, config)
    found, wanted = imported(tmp_path, source), source.segments
    assert [replace(one, words="", gender="u") for one in wanted] == [
        replace(one, words="") for one in found
    ]
    assert "are in turns of several speakers" in caplog.text
    all_words = [Counter(word for one in s for word in one.words.split()) for s in (wanted, found)]
    assert all_words[0] == all_words[1]
    alone = 0
    for one, told in zip(wanted, found, strict=True):
        others = [o for o in wanted if o.session == one.session and o is not one]
        if all(o.end <= one.start or one.end <= o.start for o in others):
            assert told.words == one.words
            alone += 1
    assert alone > 10
    supervision = manifests(tmp_path, "test")[1][0]
    truth = next(one for one in source.supervisions if one.recording_id == supervision.recording_id)
    assert supervision.alignment["word"][0].start == pytest.approx(
        truth.alignment["word"][0].start, abs=1e-3
    )


def test_short_segments_within_a_longer_turn_keep_their_speaker(small: Path) -> None:
    """An STM has two decimals, an RTTM three: the own turn may overlap a little less."""
    turns = [("anna", 0.0, 2.0), ("bert", 0.803, 0.894)]
    (small / "turns.rttm").write_text(
        "".join(
            f"SPEAKER {name} 1 {start} {duration} <NA> <NA> {who} <NA> <NA>\n"
            for name in NAMES.values()
            for who, start, duration in turns
        )
    )
    for supervisions in take(small, speakers=small / "turns.rttm").values():
        assert [one.speaker for one in supervisions] == ["anna", "bert"]


def test_labels_and_gaps_of_an_stm(small: Path) -> None:
    (small / "all.stm").write_text(
        "a 1 anna 0.1 0.9 <o,f0,female> yes\na 1 bert 0.8 1.7 <na> <laughs> no\n"
        "a 1 inter_segment_gap 1.7 1.8 ignore_time_segment_in_scoring\n"
        "b 1 anna 0.1 0.9 yes\nc 1 anna 0.1 0.9 yes\n"
    )
    told = [(one.speaker, one.gender, one.text) for one in take(small)["train"]]
    assert told == [("anna", "F", "yes"), ("bert", None, "<laughs> no")]


def test_words_of_zero_duration_go_to_the_turn_around_them(small: Path) -> None:
    turns = [f"SPEAKER {name} 1 0.0 1.0 <NA> <NA> carla <NA> <NA>\n" for name in NAMES.values()]
    (small / "all.rttm").write_text("".join(turns) + "SPEAKER a 1 1.5 0.2 <NA> <NA> dora <NA>\n")
    words = [f"{name} 1 0.5 0.0 oh\n{name} 1 0.5 0.1 yes\n" for name in NAMES.values()]
    (small / "all.ctm").write_text("".join(words) + "a 1 1.6 0 no\n")
    found = take(small, words=small / "all.ctm", speakers=small / "all.rttm")
    assert [one.text for one in found["train"]] == ["oh yes", "no"]
    assert [item.duration for item in found["dev"][0].alignment["word"]] == [0.0, 0.1]


def test_segments_of_zero_duration_are_rejected(small: Path) -> None:
    append(small / "all.stm", "a 1 anna 1.8 1.8 gone\n")
    assert "gone" not in [one.text for one in take(small, max_rejected=0.2)["train"]]
    assert rejected(small) == [("it has zero duration", "gone")]


def test_an_object_with_segments(small: Path) -> None:
    (small / "words").mkdir()
    rows = [{"start": 0.1, "end": 0.9, "text": " yes", "speaker": "SPEAKER_00", "words": []}]
    for name in NAMES.values():
        (small / f"words/{name}.json").write_text(json.dumps({"segments": rows}))
    found = take(small, words=small / "words")
    assert [(one.speaker, one.text) for one in found["test"]] == [("SPEAKER_00", "yes")]


def test_names_are_one_in_both_spellings(small: Path) -> None:
    (small / "audio/train/a.wav").rename(small / "audio/train/u\u0308ber.wav")  # as macOS writes ü
    text = (small / "all.stm").read_text().replace("a 1 ", "\u00fcber 1 ")
    (small / "all.stm").write_text(text, encoding="utf-8")
    assert {one.recording_id for one in take(small)["train"]} == {"\u00fcber"}
    (lists := small / "lists").mkdir()
    for split, name in {**NAMES, "train": "u\u0308ber"}.items():
        (lists / f"{split}.txt").write_text(name, encoding="utf-8")
    found = take(small, split_by="lists", lists=lists)
    assert found["train"][0].recording_id == unicodedata.normalize("NFC", "u\u0308ber")


def test_genders_and_local_speakers(small: Path) -> None:
    (small / "genders").write_text("anna f\nbert M\nsomebody u\n")
    found = take(small, genders=small / "genders", local_speakers=True)
    told = [(one.speaker, one.gender) for one in found["dev"]]
    assert told == [("b-anna", "F"), ("b-bert", "M")]


def test_speakers_of_train_in_test_are_warned_about(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    take(small)
    assert "2 of 2 speakers of test are in train too" in caplog.text
    caplog.clear()
    take(small, local_speakers=True)
    assert caplog.text == ""


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_one_channel_of_an_array(small: Path, subtype: str) -> None:
    samples = noise(small / "audio/train/a.wav", channels=3)
    stored = samples / 32768 if subtype == "FLOAT" else samples
    soundfile.write(small / "audio/train/a.wav", stored, 8000, subtype=subtype)
    for split, name in list(NAMES.items())[1:]:
        noise(small / f"audio/{split}/{name}.wav", channels=2)
    take(small, channel=1)
    recordings, supervisions = manifests(small / "out", "train")
    validate_recordings_and_supervisions(
        RecordingSet.from_recordings(recordings),
        SupervisionSet.from_segments(supervisions),
        read_data=True,
    )
    assert recordings[0].num_channels == 1
    assert np.array_equal(recordings[0].load_audio()[0] * 32768, samples[:, 1])


LETTERS = st.text("abcxyzäß世 '%()", min_size=1, max_size=8).map(str.strip).filter(bool)
SEGMENTS = st.lists(
    st.builds(
        lambda session, speaker, start, length, words, gender: Segment(
            session, speaker, start / 1000, (start + length) / 1000, " ".join(words.split()), gender
        ),
        st.sampled_from("abc"),
        LETTERS,
        st.integers(0, 20000),
        st.integers(1, 9000),
        LETTERS,
        st.sampled_from("mfu"),
    ),
    max_size=12,
)


@settings(max_examples=25)
@given(SEGMENTS)
def test_any_segments_come_in_unchanged(
    tmp_path_factory: pytest.TempPathFactory, segments: list[Segment]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "audio").mkdir()
    (folder / "audio/a.wav").touch()
    write(segments, folder / "all.seglst.json")
    write(segments, folder / "all.stm")
    for name in "abc":
        write([one for one in segments if one.session == name], folder / f"grids/{name}.TextGrid")
    rows = [
        {"session": one.session, "speaker": one.speaker, "start": one.start, "end": one.end}
        | {"text": one.words, "gender": one.gender}
        for one in segments
    ]
    (folder / "all.json").write_text(json.dumps(rows))
    for words, knows_gender in (
        ("all.seglst.json", True),
        ("all.json", True),
        ("all.stm", False),
        ("grids", False),
    ):
        wanted = [one if knows_gender else replace(one, gender="u") for one in segments]
        found = read_files(folder / "audio", folder / words, None)
        assert Counter(segments_of(found.supervisions)) == Counter(wanted), words
        assert found.rejected == []
