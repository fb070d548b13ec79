"""Transcribing real recordings with a model that knows them by heart, and what must not matter."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import meeteval.io
import numpy as np
import pytest
import soundfile
import torch
from lhotse import SupervisionSet
from numpy.typing import NDArray

from tagspeech import Segment, TagSpeech
from tagspeech.audio.sources import Span, open_audio
from tagspeech.cli import main
from tagspeech.errors import InputError
from tagspeech.formats import EXTENSIONS, FORMATS, read
from tagspeech.serialize import parse_target, to_target

NAMES = ("alimeeting/R8009_M8028-11-0-116.wav", "ami/EN2002c-12-0-35.wav")


def read_audio(path: Path, rate: int) -> NDArray[np.float32]:
    (audio,) = open_audio(path)
    return audio.samples(rate, Span(0.0, audio.duration))


@pytest.fixture(scope="module")
def recordings(shared: Path) -> list[Path]:
    paths = [shared / "data" / name for name in NAMES]
    for path in (*paths, shared / "golden/checkpoint"):
        if not path.exists():
            pytest.skip(f"{path} is absent")
    return paths


@pytest.fixture(scope="module")
def told(shared: Path, recordings: list[Path]) -> dict[str, list[Segment]]:
    """What the model has learnt to say about each recording, by session."""
    targets = json.loads((shared / "golden/golden.json").read_text())["target_xml"]
    return {
        path.stem: parse_target(target, path.stem).segments
        for path, target in zip(recordings, targets, strict=True)
    }


@pytest.fixture(scope="module")
def by_heart(
    shared: Path,
    recordings: list[Path],
    told: dict[str, list[Segment]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The published tiny model, its LLM trained until it writes both targets from the audio."""
    from tagspeech.data.batches import FeatureReader

    model = TagSpeech.from_pretrained(shared / "golden/checkpoint")
    model.config = replace(model.config, decode=replace(model.config.decode, max_new_tokens=120))
    reader = FeatureReader(model.config.features)
    frames = model.encode(*reader.of_samples([read_audio(path, 16000) for path in recordings]))
    targets = [to_target(told[path.stem]) for path in recordings]
    model.llm.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.llm.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(100):
        loss = model.loss_from_frames(frames, targets).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.01:
            break
    assert loss.item() < 0.02
    folder = tmp_path_factory.mktemp("by-heart") / "pretrained"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(by_heart: Path) -> TagSpeech:
    return TagSpeech.from_pretrained(by_heart)


@pytest.fixture(scope="module")
def output(
    by_heart: Path, recordings: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Both recordings in every format, from the command line."""
    folder = tmp_path_factory.mktemp("transcripts")
    args = ["--model", by_heart, "--format", ",".join(FORMATS), "--output", folder, *recordings]
    done = subprocess.run(
        [sys.executable, "-m", "tagspeech", "transcribe", *map(str, args)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return folder


def file_of(folder: Path, session: str, format: str) -> str:
    return str(folder / f"{session}.{EXTENSIONS[format]}")


# Every format, read by the library that owns it


def test_our_own_reader_gets_what_was_said(output: Path, told: dict[str, list[Segment]]) -> None:
    assert len(list(output.iterdir())) == len(told) * len(FORMATS)
    for session, segments in told.items():
        for format in ("seglst", "tagged"):
            assert read(file_of(output, session, format)) == segments


def test_meeteval_reads_seglst_stm_and_rttm(output: Path, told: dict[str, list[Segment]]) -> None:
    for session, segments in told.items():
        # SegLST.load wants simplejson, which meeteval does not bring along; the rest is the same.
        rows = json.loads(Path(file_of(output, session, "seglst")).read_text())
        for format, loaded in (
            ("seglst", meeteval.io.asseglst(rows)),
            ("stm", meeteval.io.STM.load(file_of(output, session, "stm")).to_seglst()),
            ("rttm", meeteval.io.RTTM.load(file_of(output, session, "rttm")).to_seglst()),
        ):
            found = [
                (row["session_id"], row["speaker"], float(row["start_time"]), row.get("words"))
                for row in sorted(loaded, key=lambda row: float(row["start_time"]))
            ]
            assert found == [
                (session, one.speaker, one.start, None if format == "rttm" else one.words)
                for one in segments
            ]


def test_meeteval_reads_ctm(output: Path, told: dict[str, list[Segment]]) -> None:
    for session, segments in told.items():
        lines = meeteval.io.CTM.load(file_of(output, session, "ctm")).lines
        words = [word for one in segments for word in one.words.split()]
        assert sorted(line.word for line in lines) == sorted(words)
        assert {line.filename for line in lines} == {session}


def test_lhotse_reads_rttm(output: Path, told: dict[str, list[Segment]]) -> None:
    for session, segments in told.items():
        found = SupervisionSet.from_rttm(file_of(output, session, "rttm"))
        rows = [(one.recording_id, one.speaker, one.start, one.end) for one in found]
        assert sorted(rows, key=lambda row: row[2]) == [
            (session, one.speaker, one.start, one.end) for one in segments
        ]


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_a_subtitle_reader_reads_subtitles(
    output: Path, told: dict[str, list[Segment]], format: str
) -> None:
    pysubs2 = pytest.importorskip("pysubs2")
    for session, segments in told.items():
        events = pysubs2.load(file_of(output, session, format))
        assert [(one.start, one.end) for one in events] == [
            (round(1000 * one.start), round(1000 * one.end)) for one in segments
        ]
        for event, segment in zip(events, segments, strict=True):
            assert event.plaintext.endswith(segment.words)


def test_a_textgrid_reader_reads_textgrids(output: Path, told: dict[str, list[Segment]]) -> None:
    textgrid = pytest.importorskip("praatio.textgrid")
    for session, segments in told.items():
        grid = textgrid.openTextgrid(file_of(output, session, "textgrid"), False)
        found = [
            (speaker, float(one.start), float(one.end), one.label)
            for speaker in grid.tierNames
            for one in grid.getTier(speaker).entries
        ]
        assert sorted(found, key=lambda row: row[1]) == [
            (one.speaker, one.start, one.end, one.words) for one in segments
        ]


# What must not matter, and what is asked for


def test_neither_batch_mates_nor_order_matter(
    model: TagSpeech, recordings: list[Path], told: dict[str, list[Segment]], tmp_path: Path
) -> None:
    short = tmp_path / "short.wav"
    samples, rate = soundfile.read(recordings[1], dtype="float32")
    soundfile.write(short, samples[: 2 * rate], rate)
    alone = {path.stem: model.transcribe([path])[0] for path in (*recordings, short)}
    assert {name: alone[name] for name in told} == told
    for batch_size, paths in ((2, [short, *recordings]), (3, [*reversed(recordings), short])):
        together = model.transcribe(paths, batch_size=batch_size)
        assert dict(zip((path.stem for path in paths), together, strict=True)) == alone


def test_arrays_are_recordings(
    model: TagSpeech, recordings: list[Path], told: dict[str, list[Segment]]
) -> None:
    arrays = [read_audio(path, 16000) for path in recordings]
    segments = model.transcribe(arrays, batch_size=2, device="cpu")
    for place, (found, wanted) in enumerate(zip(segments, told.values(), strict=True)):
        assert found == [replace(one, session=str(place)) for one in wanted]
    for bad, words in (
        (arrays[0], "put it in brackets"),
        ([arrays[0][None]], "one channel"),
        ([(arrays[0] * 32768).astype(np.int16)], "float samples"),
        ([np.full(16000, np.nan, dtype=np.float32)], "no numbers"),
    ):
        with pytest.raises(InputError, match=words):
            model.transcribe(bad)
    with pytest.raises(InputError, match="batch_size: must be 1 or more, got 0"):
        model.transcribe(arrays, batch_size=0)
    with pytest.raises(InputError, match="device abacus: cannot be used here"):
        model.transcribe(arrays, device="abacus")


def test_channel_and_silence(
    by_heart: Path, recordings: list[Path], told: dict[str, list[Segment]], tmp_path: Path
) -> None:
    samples, rate = soundfile.read(recordings[1], dtype="float32")
    path = tmp_path / recordings[1].name
    soundfile.write(path, np.stack([np.zeros_like(samples), samples], 1), rate, subtype="FLOAT")
    for channel, wanted in ((0, []), (1, told[path.stem])):
        args = ("--model", by_heart, "--output", tmp_path, "--channel", channel, path)
        assert main(["transcribe", *map(str, args)]) == 0
        assert read(tmp_path / f"{path.stem}.seglst.json") == wanted
    with pytest.raises(InputError, match="has no channel 2"):
        TagSpeech.from_pretrained(by_heart).transcribe([path], channel=2)


def test_bfloat16(by_heart: Path, recordings: list[Path], told: dict[str, list[Segment]]) -> None:
    half = TagSpeech.from_pretrained(by_heart, dtype=torch.bfloat16)
    assert half.llm.dtype == torch.bfloat16
    assert half.semantic_encoder.encoder.downsample_output.bias.dtype == torch.float32
    assert half.transcribe(recordings) == list(told.values())


def test_overflow_of_half_precision_is_an_error_and_no_text(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = TagSpeech.from_pretrained(tiny_model_folder)
    with torch.no_grad():
        model.voice_projector.linear2.bias.fill_(1e5)  # above 65504, the end of float16
    folder, recording = tmp_path / "model", tmp_path / "a.wav"
    model.save_pretrained(folder)
    soundfile.write(recording, np.random.default_rng(1).normal(0, 0.1, 16000), 16000)
    args = ["transcribe", "--model", str(folder), str(recording)]
    assert main(args) == 0
    capsys.readouterr()
    assert main([*args, "--dtype", "float16"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "overflows in float16" in err
    assert "bfloat16" in err


def test_all_files_are_looked_at_before_work_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model does not even exist; the second recording is what is complained about."""
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    (tmp_path / "b.wav").write_text("no audio")
    args = ["--model", "none", str(tmp_path / "a.wav"), str(tmp_path / "b.wav")]
    assert main(["transcribe", *args]) == 2
    assert f"{tmp_path / 'b.wav'}: cannot be read as audio" in capsys.readouterr().err
