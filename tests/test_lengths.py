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

from tagspeech.config import Config, DecodeConfig
from tagspeech.data.batches import read_groups
from tagspeech.data.groups import make_groups
from tagspeech.decoding.decode import decode
from tagspeech.models.zipformer import Zipformer
from tagspeech.scoring import score_files
from tagspeech.training.checkpoint import save, seed_everything
from tagspeech.training.embed import embed
from tagspeech.training.encoders import SotTask, VoiceTask
from tagspeech.training.tagspeech import TagSpeechTask

# Too short for a frame of features' context, for an encoder frame, for a projected frame; usual;
# longer than the paper's
SECONDS = (0.02, 0.05, 0.12, 2.0, 90.0)


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Groups of these lengths in test; dev has the shortest alone."""
    folder = tmp_path_factory.mktemp("lengths")
    starts = np.cumsum([1.0, *(seconds + 1.0 for seconds in SECONDS)])
    noise = np.random.default_rng(1).standard_normal(int(starts[-1] * 16000)) / 20
    soundfile.write(folder / "meeting.wav", noise, 16000)
    recordings = RecordingSet.from_recordings([Recording.from_file(folder / "meeting.wav")])
    segments = [
        SupervisionSegment(f"s{n}", "meeting", start, seconds, text="yes", speaker=f"a{n % 2}")
        for n, (start, seconds) in enumerate(zip(starts, SECONDS, strict=False))
    ]
    for split, own in (("dev", segments[:2]), ("test", segments)):
        recordings.to_file(folder / f"{split}_recordings.jsonl.gz")
        SupervisionSet.from_segments(own).to_file(folder / f"{split}_supervisions.jsonl.gz")
    options = {"splits": ("dev", "test"), "max_pause": 0.0, "language": "en"}
    make_groups(folder, folder / "groups", rejected=folder / "rejected.jsonl", **options)
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
    )
    assert scores["sessions"].keys() == names
    assert (scores["overall"]["sessions"], scores["protocol"]["sessions"]) == (len(names), 1)


def test_encoders_and_tagspeech_are_validated_on_all(
    groups: Path, tmp_path: Path, tiny_config: Config, tiny_model_folder: Path
) -> None:
    seed_everything(1)
    for part in ("semantic", "voice"):
        encoder = Zipformer(getattr(tiny_config, part).encoder)
        save(tmp_path / f"{part}.pt", {"model": encoder.state_dict()})
    embed(
        *(tiny_config, groups, tmp_path / "semantic.pt", tmp_path / "voice.pt"),
        *(tmp_path / "embeddings", ("dev", "test")),
    )
