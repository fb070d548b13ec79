"""Utterance groups of any length: none is left out, none stops a stage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

from tagspeech.checkpoints.native import load_pretrained
from tagspeech.config import Config, DecodeConfig
from tagspeech.corpus.groups import make_groups
from tagspeech.data.batches import read_groups
from tagspeech.data.units import train_units
from tagspeech.inference.decode import decode
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.scoring import score_files
from tagspeech.training import embed as embed_module
from tagspeech.training.checkpoint import save, seed_everything
from tagspeech.training.embed import embed
from tagspeech.training.encoders import SotTask, VoiceTask
from tagspeech.training.tagspeech import TagSpeechTask

# Too short for a frame of features' context, for an encoder frame, for a projected frame; usual;
# longer than the paper's
SECONDS = (0.02, 0.05, 0.12, 2.0, 90.0)


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Groups of these lengths."""
    folder = tmp_path_factory.mktemp("lengths")
    starts = np.cumsum([1.0, *(seconds + 1.0 for seconds in SECONDS)])
    noise = np.random.default_rng(1).standard_normal(int(starts[-1] * 16000)) / 20
    soundfile.write(folder / "meeting.wav", noise, 16000)
    recordings = RecordingSet.from_recordings([Recording.from_file(folder / "meeting.wav")])
    segments = [
        SupervisionSegment(f"s{n}", "meeting", start, seconds, text="yes", speaker=f"a{n % 2}")
        for n, (start, seconds) in enumerate(zip(starts, SECONDS, strict=False))
    ]
    recordings.to_file(folder / "test_recordings.jsonl.gz")
    SupervisionSet.from_segments(segments).to_file(folder / "test_supervisions.jsonl.gz")
    make_groups(
        folder,
        folder / "groups",
        rejected=folder / "rejected.jsonl",
        splits=["test"],
        max_pause=0.0,
        language="en",
    )
    assert [cut.duration for cut in read_groups(folder / "groups/test.jsonl.gz")] == list(SECONDS)
    return folder / "groups"


def test_all_are_decoded_and_scored(groups: Path, tmp_path: Path, tiny_model_folder: Path) -> None:
    decode(tiny_model_folder, groups / "test.jsonl.gz", tmp_path, DecodeConfig(max_new_tokens=5))
    rows = [json.loads(line) for line in (tmp_path / "test.raw.jsonl").read_text().splitlines()]
    names = {cut.id for cut in read_groups(groups / "test.jsonl.gz")}
    assert {row["session"] for row in rows} == names
    scores = score_files(
        *(tmp_path / f"test.{side}.seglst.json" for side in ("ref", "hyp")),
        tmp_path / "test.raw.jsonl",
        groups=groups / "test.jsonl.gz",
        protocol="paper",
    )
    assert scores["sessions"].keys() == names
    assert (scores["all"]["sessions"], scores["overall"]["sessions"]) == (len(names), 1)


def test_all_are_embedded_and_validated_on(
    groups: Path,
    tmp_path: Path,
    tiny_config: Config,
    tiny_model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seed_everything(1)
    test = read_groups(groups / "test.jsonl.gz")
    voice = VoiceTask(tiny_config, test, test, ["a0", "a1"])
    train_units(["yes <sc> yes no"], tiny_config.semantic.sot, tmp_path / "units.model")
    semantic = SotTask(tiny_config, test, test, tmp_path / "units.model")
    for part, task in (("voice", voice), ("semantic", semantic)):
        task.model.eval()
        with torch.inference_mode():
            assert all(np.isfinite(one) for one in task.validate().values())
        save(tmp_path / f"{part}.pt", {"model": task.model.state_dict()})

    monkeypatch.setattr(embed_module, "BATCH_SECONDS", 0.01)  # the shortest are among themselves
    paths = (tmp_path / "semantic.pt", tmp_path / "voice.pt")
    embed(tiny_config, groups, *paths, tmp_path / "embeddings", ["test"])
    embedded = read_groups(tmp_path / "embeddings/test.jsonl.gz")
    assert [cut.voice_frames.num_frames for cut in embedded] == [0, 0, 1, 48, 2248]
    told = [cut.supervisions[0].has_custom("speaker_vector") for cut in embedded]
    assert told == [False, False, True, True, True]

    config = replace(tiny_config, train=replace(tiny_config.train, valid_groups=len(SECONDS)))
    model = load_pretrained(TagSpeechModel, tiny_model_folder)
    with torch.inference_mode():
        figures = TagSpeechTask(config, model, embedded, embedded).validate()
    assert all(np.isfinite(one) for one in figures.values())
