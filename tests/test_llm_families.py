"""Any causal LM: random tiny models of several families, from a training step to a folder."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_model import GEMMA, LLAMA, byte_tokenizer
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from tagspeech import TagSpeech
from tagspeech.config import Config
from tagspeech.errors import InputError
from tagspeech.llm.load import check_llm, load_llm
from tagspeech.segments import Segment
from tagspeech.serialize import to_target

QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLMS: dict[str, tuple[type[PretrainedConfig], tuple[str, ...], dict[str, object]]] = {
    "qwen2": (Qwen2Config, QWEN, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, QWEN, {"head_dim": 12}),
    "llama": (LlamaConfig, LLAMA, {"rope_theta": 5e5}),
    "gemma": (GemmaConfig, GEMMA, {"head_dim": 16}),
}
CAPPED = {"gemma2": (Gemma2Config, GEMMA, {"head_dim": 16})}
LENS = (180, 97)


def make(kind: str, folder: Path, markers: tuple[str, ...] | None = None) -> Path:
    """A random LLM as it lies in a folder of the Hub."""
    config_class, own_markers, more = LLMS[kind]
    tokenizer = byte_tokenizer(*(markers or own_markers))
    torch.manual_seed(1)
    config = config_class(
        vocab_size=len(tokenizer) + 5,  # as Qwen's, which has more rows than tokens
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **more,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("trainable", ["none", "full"])
@pytest.mark.parametrize("kind", LLMS)
def test_trains_decodes_and_comes_back(
    kind: str, trainable: str, tmp_path: Path, tiny_config: Config, tiny_segments: list[Segment]
) -> None:
    folder = make(kind, tmp_path / "llm")
    check_llm(folder)
    named = replace(tiny_config.llm, name=str(folder), trainable=trainable)
    config = replace(tiny_config, llm=named)
    model = TagSpeech(config, *load_llm(config.llm))
    assert type(model.llm).__name__.lower() == f"{kind}forcausallm"
    features_BTF, lens_B = torch.randn(2, LENS[0], 80), torch.tensor(LENS)
    targets = [to_target(tiny_segments[:count], 0.1) for count in (3, 1)]
    before = model.loss(features_BTF, lens_B, targets).loss

    model.train()
    learns = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learns, lr=1e-2)
    model.loss(features_BTF, lens_B, targets).loss.backward()
    assert all(weight.grad is not None for weight in learns)
    optimizer.step()
    model.eval()
    after = model.loss(features_BTF, lens_B, targets).loss
    assert after < before

    together = model.generate(features_BTF, lens_B, max_new_tokens=60)
    alone = model.generate(features_BTF[1:, : LENS[1]], lens_B[1:], max_new_tokens=60)
    assert together[1:] == alone
    model.save_pretrained(tmp_path / "saved")
    again = TagSpeech.from_pretrained(tmp_path / "saved")
    assert again.loss(features_BTF, lens_B, targets).loss.equal(after)
    assert again.generate(features_BTF, lens_B, max_new_tokens=60) == together
    assert again.prompt == model.prompt


def test_llm_without_turns_is_refused(tmp_path: Path) -> None:
    """A Llama of before turn markers: what closes an answer would be ours to invent."""
    folder = make("llama", tmp_path / "llm", ("<s>", "</s>"))
    with pytest.raises(InputError, match=r"has none of the end-of-turn tokens .*chat model"):
        check_llm(folder)


def test_llm_that_caps_its_logits_is_refused(
    tmp_path: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma 2 does: loss and confidence are of logits without a cap."""
    monkeypatch.setattr(sys.modules[__name__], "LLMS", CAPPED)
    folder = make("gemma2", tmp_path / "llm")
    with pytest.raises(InputError, match=r"final_logit_softcapping .* choose an LLM without"):
        load_llm(replace(tiny_config.llm, name=str(folder)))
