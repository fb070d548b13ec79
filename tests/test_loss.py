"""The loss of a training step: exact in chunks, packed or padded, and without what it can spare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tagspeech.checkpoints.native import load_pretrained
from tagspeech.config import LossConfig
from tagspeech.errors import InputError
from tagspeech.llm import packing
from tagspeech.model.frames import Frames
from tagspeech.model.loss import target_cross_entropy
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.segments import Segment
from tagspeech.serialize import to_target

LENS = (45, 31, 12, 40)  # encoder frames


def gradients(loss: Tensor, weights: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, weights))


@pytest.mark.parametrize("chunk", [1, 90, 10**6], ids=["one position", "three", "all"])
@pytest.mark.parametrize("learns", [True, False], ids=["head learns", "head frozen"])
def test_chunks_are_exact(chunk: int, learns: bool) -> None:
    """Loss, token accuracy and gradients are those of torch's cross entropy over all logits."""
    torch.manual_seed(1)
    head = nn.Linear(8, 30).requires_grad_(learns)
    hidden_NH = (40 * torch.randn(10, 8)).requires_grad_()  # some scores underflow
    labels_N = torch.randint(0, 30, (10,))
    with torch.no_grad():
        labels_N[:4] = head(hidden_NH[:4]).argmax(1)
    weights = [hidden_NH, *(head.parameters() if learns else ())]
    loss, correct = target_cross_entropy(head, hidden_NH, labels_N, chunk)
    logits_NV = head(hidden_NH)
    wanted = nn.functional.cross_entropy(logits_NV, labels_N, reduction="sum")
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=0)
    assert correct.item() == (logits_NV.argmax(1) == labels_N).sum().item() >= 4
    pairs = zip(gradients(loss / 7, weights), gradients(wanted / 7, weights), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    with torch.inference_mode():
        assert target_cross_entropy(head, hidden_NH, labels_N, chunk)[0] == loss


def test_bfloat16_is_that_of_autocast() -> None:
    torch.manual_seed(1)
    head = nn.Linear(64, 300, bias=False)
    hidden_NH = torch.randn(20, 64).requires_grad_()
    labels_N = torch.randint(0, 300, (20,))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = target_cross_entropy(head, hidden_NH, labels_N, 1500)
        wanted = nn.functional.cross_entropy(head(hidden_NH).float(), labels_N, reduction="sum")
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=0)
    weights = [hidden_NH, head.weight]
    for ours, theirs in zip(gradients(loss, weights), gradients(wanted, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.01)


# Layouts of a batch


@pytest.fixture
def model(tiny_model_folder: Path) -> TagSpeechModel:
    """Only the projectors learn, as in the paper."""
    model = load_pretrained(TagSpeechModel, tiny_model_folder)
    llm = replace(model.config.llm, trainable="none", attention="sdpa")
    model.llm.set_attn_implementation("sdpa")
    model.config = replace(model.config, llm=llm, loss=LossConfig())
    model.freeze()
    return model.train()


@pytest.fixture
def batch(model: TagSpeechModel, tiny_segments: list[Segment]) -> tuple[Frames, list[str]]:
    torch.manual_seed(1)
    config, lens_B = model.config, torch.tensor(LENS)
    semantic = torch.randn(len(LENS), max(LENS), config.semantic.output_dim)
    voice = torch.randn(len(LENS), max(LENS), config.voice.encoder.output_dim)
    targets = [to_target(tiny_segments[:count], 0.1) for count in (3, 2, 1, 3)]
    return Frames(semantic, lens_B, voice, lens_B), targets


def learnt(model: TagSpeechModel, loss: Tensor) -> Tensor:
    """Gradients of the projectors, in one vector."""
    weights = [one for one in model.parameters() if one.requires_grad]
    assert len(weights) == 8
    return torch.cat([one.flatten() for one in gradients(loss, weights)])


def plain(model: TagSpeechModel, frames: Frames, targets: list[str]) -> Tensor:
    """The loss of `transformers`: padded, with a mask, labels of -100 where nothing is scored."""
    prompts = model.prompts(model.add_anchors(model.project(frames)))
    ids = [torch.tensor(model.target_ids(one)) for one in targets]
    pairs = list(zip(prompts, ids, strict=True))
    inputs = [torch.cat([prompt, model.embed(one.tolist())]) for prompt, one in pairs]
    labels = [torch.cat([one.new_full((len(prompt),), -100), one]) for prompt, one in pairs]
    return model.llm(
        inputs_embeds=pad_sequence(inputs, batch_first=True),
        attention_mask=pad_sequence([torch.ones(len(one)) for one in inputs], batch_first=True),
        labels=pad_sequence(labels, batch_first=True, padding_value=-100),
    ).loss


def one_by_one(model: TagSpeechModel, frames: Frames, targets: list[str]) -> Tensor:
    """The mean over tokens of the losses of single groups."""
    outputs = [
        model.loss_from_frames(Frames(*(part[item : item + 1] for part in frames)), [target])
        for item, target in enumerate(targets)
    ]
    return sum(one.loss * one.tokens for one in outputs) / sum(one.tokens for one in outputs)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layout", [*packing.LAYOUTS, "one by one"])
def test_every_layout_learns_what_a_plain_llm_does(
    model: TagSpeechModel,
    batch: tuple[Frames, list[str]],
    layout: str,
    attention: str,
    checkpointing: bool,
) -> None:
    wanted = plain(model, *batch)
    wanted_gradient = learnt(model, wanted)
    llm = replace(model.config.llm, gradient_checkpointing=checkpointing)
    if layout in packing.LAYOUTS:
        llm = replace(llm, layout=layout)
    model.config = replace(model.config, llm=llm)
    model.llm.set_attn_implementation(attention)
    model.train()
    loss = (
        one_by_one(model, *batch) if layout == "one by one" else model.loss_from_frames(*batch).loss
    )
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    difference = learnt(model, loss) - wanted_gradient
    assert difference.norm() < 1e-5 * wanted_gradient.norm()


def test_unknown_layout_is_named(model: TagSpeechModel, batch: tuple[Frames, list[str]]) -> None:
    model.config = replace(model.config, llm=replace(model.config.llm, layout="dense"))
    with pytest.raises(
        InputError, match=r"llm\.layout: must be one of auto, runs, packed, padded, got"
    ):
        model.loss_from_frames(*batch)


def test_runs_are_of_similar_lengths() -> None:
    assert packing.similar([10, 100, 95, 9, 79, 81]) == [[1, 2, 5], [4], [0, 3]]


def test_checkpointing_keeps_less(model: TagSpeechModel, batch: tuple[Frames, list[str]]) -> None:
    """Fewer numbers wait for the backward pass; the frozen LLM is without dropout all the same."""

    def kept(checkpointing: bool) -> int:
        llm = replace(model.config.llm, gradient_checkpointing=checkpointing)
        model.config = replace(model.config, llm=llm)
        model.train()
        assert not any(one.training for one in model.llm.modules() if isinstance(one, nn.Linear))
        sizes: list[int] = []

        def keep(one: Tensor) -> Tensor:
            sizes.append(one.numel())
            return one

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
            model.loss_from_frames(*batch)
        return sum(sizes)

    without = kept(checkpointing=False)
    assert kept(checkpointing=True) < without / 2
