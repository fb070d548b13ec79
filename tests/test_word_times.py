"""Word times that are measured: alignment, the files that hold them, and the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

import numpy as np
import soundfile
import torch

from tagspeech.checkpoints.native import load_pretrained, save_pretrained
from tagspeech.config import SotConfig
from tagspeech.config_file import load_config
from tagspeech.data.units import SPEAKER_CHANGE, Units, train_units
from tagspeech.encoders.aligner import WordAligner, best_path
from tagspeech.encoders.voice import VoiceModel
from tagspeech.errors import InputError
from tagspeech.formats import read, render
from tagspeech.inference.recognizer import WindowResult
from tagspeech.inference.stitching import join, mend
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.segments import Segment, word_times
from tagspeech.training.checkpoint import load, save
from tagspeech.training.embed import embed
from tagspeech.training.encoders import train_semantic
from tagspeech.training.tagspeech import train_tagspeech

RATE = 25.0
MEASURED = [
    Segment("talk", "1", 0.5, 2.0, "so big <b>", word_spans=((0.5, 0.8), (0.9, 1.2), (1.2, 1.95))),
    Segment("talk", "1", 2.0, 3.0, "yes", word_spans=((2.1, 2.5),)),
    Segment("talk", "1", 2.5, 3.5, "yes", word_spans=((2.6, 2.9),)),
    Segment("talk", "1 (words)", 1.0, 1.5, "no", word_spans=((1.1, 1.5),)),
]


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Units:
    path = tmp_path_factory.mktemp("units") / "units.model"
    words = ["one two three", f"four five {SPEAKER_CHANGE} six", "one two three four five six"]
    train_units(words * 5, SotConfig(units="word", vocab_size=12), path)
    return Units(path)


def said(units: Units, *words: str) -> list[int]:
    """The unit of each frame; "-" is silence."""
    return [0 if word == "-" else units.encode(word)[0] for word in words]


def frames_of(units: Units, *speakers: list[int]) -> torch.Tensor:
    """Frames that are the outputs themselves, (T, speakers x units): sure of the given units."""
    frames = torch.zeros(len(speakers[0]), len(speakers), len(units))
    for place, row in enumerate(speakers):
        frames[torch.arange(len(row)), place, row] = 12.0
    return frames.flatten(1)


def aligner_of(units: Units, kind: str) -> WordAligner:
    size = len(units) * (2 if kind == "frames" else 1)
    weights = {f"{kind}.weight": torch.eye(size), f"{kind}.bias": torch.zeros(size)}
    return WordAligner(weights, units, RATE, Path("weights"))


def test_best_path_stays_goes_on_and_skips_blanks() -> None:
    """a a b: the equal units need the blank between them, the different ones do not."""
    states = np.array([0, 1, 0, 1, 0, 2, 0])
    sure = np.full((4, 3), -9.0, dtype=np.float32)
    sure[[0, 1, 2, 3], [1, 1, 1, 2]] = 0.0
    path = best_path(sure[:, states], states)
    assert path is not None
    assert path.tolist() == [1, 2, 3, 5]
    assert best_path(sure[:3, states], states) is None  # a, blank, a, b need four frames


def test_words_get_their_frames_also_beside_another_speaker(units: Units) -> None:
    first = said(units, "-", "one", "one", "two", "-", "-", "three", "three", "-", "-")
    other = said(units, "-", "-", "-", "-", "four", "four", "five", "-", "-", "-")
    segments = [
        Segment("s", "1", 0.0, 0.4, "one two three"),
        Segment("s", "2", 0.16, 0.28, "Four five"),
    ]
    found = aligner_of(units, "frames").align(frames_of(units, first, other), segments)
    assert found[0].word_spans == ((0.04, 0.12), (0.12, 0.16), (0.24, 0.32))
    assert found[1].word_spans == ((0.16, 0.24), (0.24, 0.28))


def test_unknown_words_take_what_is_no_silence(units: Units) -> None:
    frames = frames_of(units, said(units, "-", "one", "six", "six", "-"), [0] * 5)
    segment = Segment("s", "1", 0.0, 0.2, "one unheard")
    (found,) = aligner_of(units, "frames").align(frames, [segment])
    assert found.word_spans == ((0.04, 0.08), (0.08, 0.16))


def test_too_few_frames_leave_word_times_estimated(units: Units) -> None:
    frames = frames_of(units, said(units, "one", "two"), [0, 0])
    segments = [Segment("s", "1", 0.0, 0.08, "one two three"), Segment("s", "1", 5.0, 6.0, "one")]
    found = aligner_of(units, "frames").align(frames, segments)
    assert [item.word_spans for item in found] == [None, None]
    assert len(word_times(found[0])) == 3


def test_ctc_places_words_around_their_peaks(units: Units) -> None:
    frames = frames_of(units, said(units, *"----", "one", *"-----", "two", *"---------"))
    (found,) = aligner_of(units, "ctc").align(frames, [Segment("s", "1", 0.0, 0.8, "one two")])
    assert found.word_spans is not None
    (a, b), (c, d) = found.word_spans
    assert a <= 0.16 < b <= c <= 0.4 < d <= 0.8


def test_aligner_is_saved_with_its_model(
    tiny_model_folder: Path, units: Units, tmp_path: Path
) -> None:
    model = load_pretrained(TagSpeechModel, tiny_model_folder)
    assert model.aligner is None
    model.aligner = random_aligner(units, model)
    save_pretrained(model, tmp_path / "model")
    again = load_pretrained(TagSpeechModel, tmp_path / "model").aligner
    assert again is not None
    assert again.weights["frames.bias"].tolist() == pytest.approx(
        model.aligner.weights["frames.bias"].tolist(), abs=1e-3
    )
    assert again.units.encode("two one") == units.encode("two one")


def random_aligner(units: Units, model: TagSpeechModel) -> WordAligner:
    size = 2 * len(units), model.config.semantic.output_dim
    weights = {"frames.weight": torch.randn(size), "frames.bias": torch.randn(size[0])}
    return WordAligner(weights, units, model.config.semantic.frames_per_second, Path("weights"))


def test_outputs_and_units_must_match(units: Units) -> None:
    weights = {"ctc.weight": torch.eye(5), "ctc.bias": torch.zeros(5)}
    with pytest.raises(InputError, match="has 5 rows, but by the units beside it must have"):
        WordAligner(weights, units, RATE, Path("final.pt"))


@pytest.mark.parametrize("format", ["seglst", "textgrid"])
def test_word_times_are_read_back(tmp_path: Path, format: str) -> None:
    path = tmp_path / "talk.x"
    path.write_text(render(MEASURED, format))
    found = read(path, format, "talk")
    key = [(item.start, item.end, item.speaker, item.words, item.word_spans) for item in found]
    assert sorted(key) == sorted(
        (item.start, item.end, item.speaker, item.words, item.word_spans) for item in MEASURED
    )


def test_ctm_says_what_its_times_are() -> None:
    lines = render(MEASURED[:2], "ctm").splitlines()
    assert lines[0] == ";; word_times: aligned"
    assert lines[1:] == [
        "talk 1 0.500 0.300 so",
        "talk 1 0.900 0.300 big",
        "talk 1 1.200 0.750 <b>",
        "talk 1 2.100 0.400 yes",
    ]
    mixed = render([*MEASURED[:2], Segment("talk", "2", 4.0, 5.0, "well")], "ctm")
    assert mixed.startswith(";; word_times: aligned, but estimated for 1 of 3 segments\n")


@pytest.mark.parametrize("readable", [False, True])
def test_vtt_has_time_stamps_and_repeated_words_survive(tmp_path: Path, readable: bool) -> None:
    """The stamps are not taken for those of rolling captions, whose repetitions are dropped."""
    path = tmp_path / "talk.vtt"
    path.write_text(render(MEASURED[:3], "vtt", readable=readable))
    assert "NOTE word_times: aligned" in path.read_text()
    assert "so <00:00:00.900>big <00:00:01.200>&lt;b&gt;" in path.read_text()
    assert [item.words for item in read(path)] == ["so big <b>", "yes", "yes"]


def test_spans_out_of_order_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    row = {"session_id": "s", "speaker": "1", "start_time": 0, "end_time": 1, "words": "a b"}
    path.write_text(json.dumps([{**row, "word_spans": [[0.5, 0.6], [0.1, 0.2]]}]))
    with pytest.raises(InputError, match=r"entry 1: word_spans: .* in order and within"):
        read(path)


def test_seams_cut_measured_words() -> None:
    """Two windows share "two"; the mended segment has the time of every word once."""
    zero = np.zeros((1, 1), dtype=np.float32)
    first = Segment("s", "1", 0.0, 4.0, "one two", word_spans=((0.1, 1.0), (3.0, 3.5)))
    second = Segment("s", "1", 3.0, 6.0, "two three", word_spans=((3.1, 3.5), (5.0, 5.9)))
    windows = [WindowResult(0.0, 4.0, (first,), zero), WindowResult(3.0, 6.0, (second,), zero)]
    again = [WindowResult.from_row(json.loads(json.dumps(row.to_row()))) for row in windows]
    (whole,) = mend([item for window in join(again) for item in window.segments])
    assert whole.words == "one two three"
    assert whole.word_spans is not None
    assert [round(start, 2) for start, _ in whole.word_spans] == [0.1, 3.1, 5.0]


@pytest.mark.parametrize(
    ("alignment", "tune_lr", "kind"),
    [(1.0, 0.0, "frames"), (0.0, 0.0, "ctc"), (1.0, 1e-4, None)],
)
def test_trained_model_keeps_the_outputs_of_its_encoder(
    tiny_groups: Path,
    tiny_base: Path,
    tiny_yaml: Path,
    tmp_path: Path,
    alignment: float,
    tune_lr: float,
    kind: str | None,
) -> None:
    """Outputs that were never trained are not kept, nor those of an encoder that moves away."""
    sets = [f"llm.name={tiny_base / 'llm'}", "semantic.train.max_steps=2", "train.max_steps=2"]
    sets += [f"semantic.sot.alignment={alignment}", f"semantic.tune_lr={tune_lr}"]
    config = load_config(tiny_yaml, sets)
    train_semantic(config, tiny_groups, tmp_path / "semantic")
    semantic, voice = tmp_path / "semantic" / "final.pt", tmp_path / "voice.pt"
    state = load(semantic)["model"]
    assert ("alignment_output.weight" in state) == bool(alignment)
    save(voice, {"model": VoiceModel(config.voice, 3).state_dict()})
    groups = tiny_groups
    if not tune_lr:
        groups = tmp_path / "embeddings"
        embed(config, tiny_groups, semantic, voice, groups, ("train", "dev"))
    train_tagspeech(config, groups, semantic, voice, tmp_path / "run")
    aligner = load_pretrained(TagSpeechModel, tmp_path / "run" / "pretrained").aligner
    assert (aligner and aligner.kind) == kind


def run(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tagspeech", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))


def test_command_line(tiny_model_folder: Path, units: Units, tmp_path: Path) -> None:
    """A model without such an output says so; one with it measures, in every format."""
    wav = tmp_path / "talk.wav"
    noise = np.random.default_rng(1).normal(0, 0.1, 3 * 16000)
    soundfile.write(wav, noise.astype(np.float32), 16000)
    known, other = Path(shutil.copytree(tiny_model_folder, tmp_path / "known")), tiny_model_folder
    model = load_pretrained(TagSpeechModel, known)
    random_aligner(units, model).save(known)
    formats = ("--format", "seglst,ctm,textgrid,vtt")
    measured = run("transcribe", "--model", known, *formats, "--output", tmp_path / "out", wav)
    assert measured.returncode == 0, measured.stderr
    assert "word times" not in measured.stderr
    rows = json.loads((tmp_path / "out" / "talk.seglst.json").read_text())
    spoken = [row for row in rows if row["words"]]
    assert spoken, "the tiny model writes no word"
    for row in spoken:
        assert row["word_times"] == "aligned"
        assert len(row["word_spans"]) == len(row["words"].split())
    assert (tmp_path / "out" / "talk.ctm").read_text().startswith(";; word_times: aligned")
    assert "(words)" in (tmp_path / "out" / "talk.TextGrid").read_text()

    estimated = run("transcribe", "--model", other, "--format", "ctm", wav)
    assert estimated.returncode == 0, estimated.stderr
    assert estimated.stderr.count("word times are estimated: the model has no output") == 1
    assert estimated.stdout.startswith(";; word_times: estimated")
    asked = ("--word-times", "estimated", "--format", "ctm")
    assert "word times" not in run("transcribe", "--model", other, *asked, wav).stderr
    refused = run("transcribe", "--model", other, "--word-times", "aligned", wav)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--word-times aligned: the model has no output" in refused.stderr.splitlines()[-1]
