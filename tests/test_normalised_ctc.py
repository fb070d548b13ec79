"""Normalised projected frames, and the first phase of training: CTC through the embedding."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from lhotse import CutSet

from tagspeech.checkpoints.native import load_pretrained, save_pretrained
from tagspeech.config import Config, LossConfig
from tagspeech.config_file import load_config
from tagspeech.corpus.groups import group_targets
from tagspeech.data.batches import read_groups
from tagspeech.llm.load import load_llm
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.training.tagspeech import TagSpeechTask, train_tagspeech
from tagspeech.weights import read_safetensors

NORMALISED = ("semantic.normalise=true", "voice.normalise=true")


def make(tiny_base: Path, tiny_yaml: Path, *sets: str) -> TagSpeechModel:
    config = load_config(tiny_yaml, [f"llm.name={tiny_base / 'llm'}", *sets])
    torch.manual_seed(1)
    return TagSpeechModel(config, *load_llm(config.llm))


def stored(tiny_base: Path, count: int = 6) -> CutSet:
    return read_groups(tiny_base / "embeddings/train.jsonl.gz").subset(first=count)


@torch.no_grad()
def test_frames_have_the_mean_norm_of_the_embeddings_also_when_loaded(
    tiny_base: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    model = make(tiny_base, tiny_yaml, *NORMALISED)
    groups = stored(tiny_base)
    save_pretrained(model, tmp_path / "model")
    loaded = load_pretrained(TagSpeechModel, tmp_path / "model")
    norm = model.llm.get_input_embeddings().weight.norm(dim=-1).mean().item()
    for one in (model, loaded):
        task = TagSpeechTask(one.config, one, groups, groups)
        for semantic_PH, voice_PH in one.project(task.frames(task.batch(groups))):
            for frames_PH in (semantic_PH, voice_PH):
                assert frames_PH.norm(dim=-1).tolist() == pytest.approx(
                    [norm] * len(frames_PH), rel=1e-4
                )


@torch.no_grad()
def test_a_limit_that_excludes_nothing_changes_nothing(tiny_base: Path, tiny_yaml: Path) -> None:
    model = make(tiny_base, tiny_yaml, *NORMALISED, "loss.semantic_ctc=0.3")
    groups = stored(tiny_base)
    task = TagSpeechTask(model.config, model, groups, groups)
    assert model.ctc.vocabulary is not None
    assert len(model.ctc.vocabulary) < len(model.llm.get_input_embeddings().weight)
    projected = model.project(task.frames(task.batch(groups)))
    targets = group_targets(groups, 0.1)
    limited, count = model.semantic_ctc(projected, targets)
    model.ctc.vocabulary = torch.arange(len(model.llm.get_input_embeddings().weight))
    whole, same_count = model.semantic_ctc(projected, targets)
    model.ctc.vocabulary = None
    unlimited, _ = model.semantic_ctc(projected, targets)
    torch.testing.assert_close(whole, unlimited)
    assert count == same_count
    assert limited < whole  # fewer tokens to tell apart


def test_the_first_phase_moves_the_semantic_projector_alone(
    tiny_base: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    def train(name: str, *sets: str) -> dict[str, torch.Tensor]:
        config = config_of(tiny_base, tiny_yaml, *sets)
        train_tagspeech(
            config, tiny_base / "embeddings", None, None, tmp_path / name, tiny_base / "model"
        )
        return read_safetensors(tmp_path / name / "pretrained/model.safetensors")

    before = read_safetensors(tiny_base / "model/model.safetensors")
    after = train("first", "loss.semantic_ctc_steps=9", "train.max_steps=9", "train.lr=3e-3")
    moved = {name.partition(".")[0] for name in before if not after[name].equal(before[name])}
    assert moved == {"semantic_projector"}
    rows = (tmp_path / "first/curve.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows][-1] == 9


def test_the_loss_at_frames_scores_both_speakers_and_silence(
    tiny_base: Path, tiny_yaml: Path
) -> None:
    model = make(tiny_base, tiny_yaml, *NORMALISED, "loss.semantic_frames=1")
    blank = model.ctc.blank
    model.ctc.vocabulary = torch.tensor(sorted({11, 12, blank}))
    columns = {token: place for place, token in enumerate(sorted({11, 12, blank}))}
    logits_BPV = torch.randn(1, 5, 3)
    # one speaker, both, silence, a token that the targets do not have, three speakers
    spoken_BPS = torch.tensor([[[11, 0], [11, 12], [0, 0], [13, 0], [-1, -1]]])
    scored = [(0, 11), (1, 11), (1, 12), (2, blank)]
    scores_PV = logits_BPV[0].log_softmax(-1)
    expected = -sum(scores_PV[place, columns[token]] for place, token in scored) / len(scored)
    loss = model.ctc.frame_loss(logits_BPV, spoken_BPS)
    torch.testing.assert_close(loss, torch.as_tensor(expected))
    nothing = model.ctc.frame_loss(logits_BPV, torch.full_like(spoken_BPS, -1))
    assert nothing == 0


def test_word_times_teach_the_first_phase(tiny_base: Path, tiny_yaml: Path) -> None:
    model = make(tiny_base, tiny_yaml, *NORMALISED, "loss.semantic_frames=1")
    groups = stored(tiny_base)
    task = TagSpeechTask(
        replace(model.config, loss=LossConfig(semantic_ctc_steps=9, semantic_frames=1)),
        *(model, groups, groups),
    )
    loss, _, figures = task.loss(task.read(groups, 0, random.Random(1)), 0)
    assert loss == figures["semantic_ctc"] + figures["semantic_frames"]
    assert figures["semantic_frames"] > 0
    assert "semantic_frames" not in task.loss(task.read(groups, 9, random.Random(1)), 9)[2]


def config_of(tiny_base: Path, tiny_yaml: Path, *sets: str) -> Config:
    more = ("train.simple_steps=0", "train.max_duration=30", "train.valid_every=9")
    return load_config(tiny_yaml, [f"llm.name={tiny_base / 'llm'}", *more, *sets])


def test_rare_words_are_spelt_in_frequent_pieces(tiny_base: Path, tiny_yaml: Path) -> None:
    few = make(tiny_base, tiny_yaml, *NORMALISED, "loss.semantic_merges=5")
    model = make(tiny_base, tiny_yaml, *NORMALISED)
    words = "seven green apples"
    target = f"<text>\n0.0-1.0>{words}\n</text>"
    pieces, tokens = few.ctc.word_ids(target), model.ctc.word_ids(target)
    assert len(pieces) > len(tokens)
    assert few.tokenizer.decode(pieces) == model.tokenizer.decode(tokens) == words
