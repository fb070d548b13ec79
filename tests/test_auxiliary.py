"""Guided attention: the right places, heads that learn to look there, nothing outside training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from tagspeech.config import DropConfig, LossConfig
from tagspeech.models.auxiliary import Places, looks_of
from tagspeech.models.pretrained import load_pretrained
from tagspeech.models.tagspeech import TagSpeechModel
from tagspeech.segments import Segment
from tagspeech.serialize import to_target

SEGMENTS = [
    Segment("one", "b", 0.4, 1.6, "set the lamp > to 1.00-2.00", "f"),
    Segment("one", "a", 1.2, 2.0, "she will call", "m"),
    Segment("one", "b", 2.4, 2.8, "three", "f"),
]
TARGET = to_target(SEGMENTS, 0.1)


@pytest.fixture
def model(tiny_model_folder: Path) -> TagSpeechModel:
    torch.manual_seed(1)
    model = load_pretrained(TagSpeechModel, tiny_model_folder)
    loss = LossConfig(guided_attention=1.0, guided_layers=(0, 0, 1))
    model.config = replace(model.config, loss=loss)
    return model.train()


def test_where_each_position_looks(model: TagSpeechModel) -> None:
    ids = model.target_ids(TARGET)
    frames = list(range(15))  # 5 a second
    looks = looks_of(0, Places(frames, frames, 100), TARGET, model.tokenizer, (5.0, 5.0))

    def written(place: int) -> str:
        """The line of the target up to a place, which is what its token ends."""
        return model.tokenizer.decode(ids[: place - 100 + 1]).removesuffix("\n").split("\n")[-1]

    times = [(written(look.query), sorted(set(look.keys))) for look in looks["time"]]
    assert times == [
        ("<text>", [1, 2]),  # 0.2 to 0.6 s
        ("0.40-", [7, 8]),
        ("0.40-1.60>set the lamp > to 1.00-2.00", [5, 6]),
        ("1.20-", [9, 10]),
        ("1.20-2.00>she will call", [11, 12]),
        ("2.40-", [13, 14]),
    ]
    assert [(written(look.query), look.keys) for look in looks["voice"]] == [
        ("0.40-1.60>", [2, 3, 4, 5, 6, 7]),
        ("1.20-2.00>", [6, 7, 8, 9]),
        ("2.40-2.80>", [12, 13]),
    ]
    for name, wanted in (
        ("line", ["0.40-1.60>", "0.40-1.60>", "2.40-2.80>", "1.20-2.00>"]),
        ("next", ["2.40-2.80>", "2.40-2.80>", "2.40-2.80>", "1.20-2.00>"]),
    ):
        queries = [written(look.query).rpartition('t="')[2] for look in looks[name]]
        assert queries == ["0.40-1.60", "0.40-1.60,", "0.40-1.60,2.40-2.80", "1.20-2.00"]
        assert [written(key) for look in looks[name] for key in look.keys] == wanted


@pytest.mark.parametrize(
    "drop", [DropConfig(), DropConfig(anchors=1.0), DropConfig(semantic=1.0), DropConfig(voice=1.0)]
)
def test_places_of_frames(model: TagSpeechModel, drop: DropConfig) -> None:
    model.config = replace(model.config, drop=drop)
    hidden = model.llm.config.hidden_size
    heard = model.drop_streams([(torch.randn(13, hidden), torch.randn(13, hidden))])
    pairs = model.add_anchors(heard)
    (prompt_LH,) = model.prompts(pairs)
    places = model.places(*map(len, pairs[0]), *map(len, heard[0]), target=len(prompt_LH))
    assert prompt_LH[places.semantic].equal(heard[0][0])
    assert prompt_LH[places.voice].equal(heard[0][1])


def terms(model: TagSpeechModel, target: str = TARGET) -> dict[str, Tensor]:
    features_BTF = torch.randn(2, 300, 80, generator=torch.Generator().manual_seed(1))
    return model.loss(features_BTF, torch.tensor([300, 280]), [target, target]).terms


def test_heads_learn_to_look_there(model: TagSpeechModel) -> None:
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=1e-2)
    curve = []
    for _ in range(60):
        attended = {k: v for k, v in terms(model).items() if k.startswith("attend_")}
        assert set(attended) == {"attend_time", "attend_voice", "attend_line", "attend_next"}
        optimizer.zero_grad()
        sum(attended.values(), torch.zeros(())).backward()
        optimizer.step()
        curve.append({name: value.item() for name, value in attended.items()})
    for name, first in curve[0].items():
        assert curve[-1][name] < 0.5 * first, name


def test_a_group_without_lines_or_frames_adds_nothing(model: TagSpeechModel) -> None:
    assert not any(v for k, v in terms(model, to_target([], 0.1)).items() if "attend" in k)
    model.config = replace(model.config, drop=DropConfig(voice=1.0))
    without = terms(model)
    assert without["attend_voice"].item() == 0.0
    assert all(torch.isfinite(value) for value in without.values())


def test_only_in_training(model: TagSpeechModel) -> None:
    assert set(terms(model.eval())) == {"target"}
