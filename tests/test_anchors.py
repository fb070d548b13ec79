"""What the paper compares: forms of anchors, one stream, a semantic encoder without SOT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tagspeech.checkpoints.native import load_pretrained, save_pretrained
from tagspeech.config import Config, PromptConfig
from tagspeech.corpus.groups import group_segments
from tagspeech.data.batches import read_groups
from tagspeech.data.single_speaker import segments_alone
from tagspeech.errors import InputError
from tagspeech.llm.load import load_llm
from tagspeech.llm.prompt import encode_text
from tagspeech.model.anchors import ANCHORS, sinusoids
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.training.encoders import train_semantic


def with_prompt(config: Config, prompt: PromptConfig) -> TagSpeechModel:
    torch.manual_seed(1)
    return TagSpeechModel(replace(config, prompt=prompt), *load_llm(config.llm))


def streams(model: TagSpeechModel) -> tuple[Tensor, Tensor]:
    """Of 11 projected frames of ones; anchors stand before 1, 9, and behind 11."""
    frames_PH = torch.ones(11, model.llm.config.hidden_size)
    with torch.no_grad():
        ((semantic, voice),) = model.add_anchors([(frames_PH, frames_PH)])
    return semantic, voice


@pytest.mark.parametrize(
    ("form", "anchors"),
    [
        ("numeric", ("1", "2", "3")),
        ("text", ("0.00", "1.30", "1.80")),  # 8 and 11 times 0.16 s, on a grid of 0.1 s
        ("placeholder", (".", ".", ".")),
        ("none", ("", "", "")),
    ],
)
def test_anchors_are_rows_of_the_llm(
    tiny_config: Config, form: str, anchors: tuple[str, ...]
) -> None:
    model = with_prompt(tiny_config, PromptConfig(anchors=form))
    rows = [model.embed(encode_text(model.tokenizer, text)) for text in anchors]
    ones_PH = torch.ones(11, rows[0].shape[1])
    expected = torch.cat([rows[0], ones_PH[:8], rows[1], ones_PH[8:], rows[2]])
    for stream_SH in streams(model):
        assert stream_SH.equal(expected)
    for place, frame in zip(model.voice_anchors.positions(11), ones_PH, strict=True):
        assert expected[place].equal(frame)


def test_sinusoids_tell_frames_apart_and_are_as_loud_as_numbers(tiny_config: Config) -> None:
    model = with_prompt(tiny_config, PromptConfig(anchors="sinusoidal"))
    semantic, voice = streams(model)
    assert semantic.equal(voice)
    assert semantic.shape == (11, model.llm.config.hidden_size)
    assert len(semantic.unique(dim=0)) == 11
    digits = model.embed(model.prompt.digits)
    assert (semantic - 1).square().mean().item() == pytest.approx(
        digits.square().mean().item(), rel=0.05
    )
    waves_PH = sinusoids(5, 6)
    assert waves_PH[3, 0].item() == pytest.approx(torch.tensor(3.0).sin().item())
    assert waves_PH[3, 3].item() == pytest.approx(torch.tensor(3 / 10000 ** (2 / 6)).cos().item())
    assert sinusoids(5, 5).shape == (5, 5)


@pytest.mark.parametrize("form", ANCHORS)
def test_each_form_learns_and_is_saved(tiny_config: Config, tmp_path: Path, form: str) -> None:
    model = with_prompt(tiny_config, PromptConfig(anchors=form))
    model.train()
    target = "<text>\n0.00-1.20>so\n</text>\n<speaker>\n</speaker>"
    features = (torch.randn(1, 200, 80), torch.tensor([200]))
    model.loss(*features, [target]).loss.backward()
    assert all(one.grad is not None for one in model.parameters() if one.requires_grad)
    save_pretrained(model, tmp_path / "saved")
    again = load_pretrained(TagSpeechModel, tmp_path / "saved")
    model.eval()
    with torch.no_grad():
        assert again.loss(*features, [target]).loss == model.loss(*features, [target]).loss


def test_unknown_form_is_named(tiny_config: Config) -> None:
    with pytest.raises(InputError, match=r"prompt\.anchors: must be one of .*, got 'roman'"):
        with_prompt(tiny_config, PromptConfig(anchors="roman"))


def test_one_stream_has_no_voice_in_the_prompt(tiny_config: Config) -> None:
    model = with_prompt(tiny_config, PromptConfig(voice=False))
    assert model.tokenizer.decode(model.prompt.before + model.prompt.after) == (
        "<|im_start|>user\n<text></text><|im_end|>\n<|im_start|>assistant\n"
    )
    features = (torch.randn(1, 200, 80), torch.tensor([200]))
    with torch.no_grad():
        heard = model.streams(*features)
        assert heard.voice_lens.tolist() == [0]
        before = model.prompts([(heard.semantic[0], heard.voice[0])])[0]
    constant = len(model.prompt.before) + len(model.prompt.after)
    assert len(before) == constant + heard.semantic_lens.item()


def test_segments_alone_are_those_that_overlap_none(tiny_groups: Path) -> None:
    groups = read_groups(tiny_groups / "train.jsonl.gz")
    found = segments_alone(groups)
    expected = []
    for cut in groups:
        segments = group_segments(cut)
        for one in segments:
            if not any(one.start < o.end and o.start < one.end for o in segments if o is not one):
                expected.append((cut.start + one.start, one.words))
    got = [(cut.start, *(one.words for one in group_segments(cut))) for cut in found]
    assert sorted((round(start, 1), *words) for start, *words in got) == sorted(
        (round(start, 1), words) for start, words in expected
    )
    assert len(set(found.ids)) == len(got) < sum(len(cut.supervisions) for cut in groups)
    for cut in found:
        (own,) = cut.supervisions
        times = own.alignment["word"]
        assert own.start == 0 <= times[0].start < times[-1].end <= cut.duration + 0.01


def test_encoder_off_the_shelf_stays_as_it_is(
    tiny_config: Config, tiny_groups: Path, tmp_path: Path
) -> None:
    semantic = tiny_config.semantic
    still = replace(semantic, train=replace(semantic.train, max_steps=0))
    config = replace(tiny_config, semantic=still)
    with pytest.raises(InputError, match=r"semantic\.train\.max_steps: must be above 0 without"):
        train_semantic(config, tiny_groups, tmp_path / "new")
    own = with_prompt(config, PromptConfig()).semantic_encoder.state_dict()
    torch.save({"model": own}, tmp_path / "init.pt")
    train_semantic(config, tiny_groups, tmp_path / "kept", tmp_path / "init.pt")
    kept = torch.load(tmp_path / "kept/final.pt", weights_only=True)["model"]
    assert all(kept[name].equal(weight) for name, weight in own.items())
