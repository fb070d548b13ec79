"""Batches that memory does not suffice for: bounded, encoded in halves or pieces, or refused."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from tagspeech.checkpoints.native import load_pretrained
from tagspeech.config import Config
from tagspeech.config_file import load_config
from tagspeech.data.batches import read_groups
from tagspeech.encoders import zipformer_attention
from tagspeech.encoders.zipformer_attention import AttentionWeights, relative_positions
from tagspeech.errors import InputError
from tagspeech.inference.recognizer import Recognizer
from tagspeech.llm.size import default_positions
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.report.plan import plan
from tagspeech.training.embed import embed
from tagspeech.training.tagspeech import TagSpeechTask


def limited(encoder: Any, seconds: float, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets an encoder run out of memory above so many seconds, and counts items that it encodes."""
    original, sizes = encoder.forward, list[int]()

    def forward(features_BTF: Tensor, lens_B: Tensor) -> Any:
        if features_BTF.shape[0] * features_BTF.shape[1] > 100 * seconds:
            raise RuntimeError("CUDA out of memory. Tried to allocate 29 GiB")
        sizes.append(len(lens_B))
        return original(features_BTF, lens_B)

    monkeypatch.setattr(encoder, "forward", forward)
    return sizes


def test_a_batch_is_encoded_in_halves(
    tiny_model_folder: Path,
    tiny_groups: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recognizer = Recognizer(load_pretrained(TagSpeechModel, tiny_model_folder))
    groups = sorted(read_groups(tiny_groups / "test.jsonl.gz"), key=lambda cut: -cut.duration)[:4]
    features = recognizer.reader(groups_of(groups))
    with torch.inference_mode():
        whole = recognizer.model.encode(*features)
        padded = groups[0].duration * 4
        sizes = limited(recognizer.model.semantic_encoder, 0.6 * padded, monkeypatch)
        halves = recognizer.model.encode(*features)
    assert sizes == [2, 2]
    assert "out of memory encoding 4 items at a time; continuing with 2" in caplog.text
    for ours, theirs in zip(halves, whole, strict=True):
        if ours.dim() == 1:
            assert ours.equal(theirs)
    for item, length in enumerate(whole.semantic_lens):
        torch.testing.assert_close(halves.semantic[item, :length], whole.semantic[item, :length])


def groups_of(cuts: list[Any]) -> Any:
    from lhotse import CutSet

    return CutSet.from_cuts(cuts)


def test_a_group_that_is_too_long_is_refused_by_name(
    tiny_model_folder: Path, tiny_groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = Recognizer(load_pretrained(TagSpeechModel, tiny_model_folder))
    (longest, *_) = sorted(read_groups(tiny_groups / "test.jsonl.gz"), key=lambda c: -c.duration)
    limited(recognizer.model.voice_encoder, 0.1, monkeypatch)
    refused = rf"{re.escape(longest.id)}: \d+ s at once take more memory than cpu has"
    with pytest.raises(InputError, match=refused):
        recognizer.recognize_groups(groups_of([longest]))


def test_stage_5_encodes_in_halves_too(
    tiny_base: Path, tiny_groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tagspeech.training import embed as module

    encoders = module.load_encoders(tiny_base / "model")
    sizes = limited(encoders[1], 30.0, monkeypatch)
    monkeypatch.setattr(module, "load_encoders", lambda _: encoders)
    embed(Config(), tiny_groups, None, None, tmp_path, ("dev",), init_from=tiny_base / "model")
    assert sum(sizes) == 10
    assert len(sizes) > 1


def test_attention_over_many_frames_is_computed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same scores and gradients, without the products of all frames with all offsets."""
    torch.manual_seed(1)
    attention = AttentionWeights(24, 8, 2, 4, 2)
    x_BTD, positions_RD = torch.randn(2, 37, 24), relative_positions(37, 8, torch.empty(0))
    valid_BT = torch.arange(37) < torch.tensor([[37], [30]])
    factors = torch.randn(2, 2, 37, 37)
    whole, gradients = [], []
    for most in (4096, 8):
        monkeypatch.setattr(zipformer_attention, "WHOLE", most)
        monkeypatch.setattr(zipformer_attention, "PIECE", 10)
        weights, _ = attention(x_BTD, positions_RD, valid_BT)
        attention.zero_grad()
        (weights * factors).sum().backward()
        whole.append(weights)
        gradients.append(attention.linear_pos.weight.grad.clone())
    torch.testing.assert_close(*whole)
    torch.testing.assert_close(*gradients)


def test_positions_of_a_batch_are_bounded_by_default(
    root: Path, tiny_base: Path, tiny_yaml: Path
) -> None:
    """At the paper's size to what a GPU of 80 GB has; --set train.max_positions=0 takes it away."""
    assert default_positions(28, 3584) == pytest.approx(9000, rel=0.01)
    paper = load_config(root / "egs/ami/conf/paper.yaml")
    assert paper.train.max_positions == -1
    boundless = replace(paper, train=replace(paper.train, max_positions=0))
    bounded, most = (plan(one, 8, 66.0, test_hours=7.3)[6].memory for one in (paper, boundless))
    assert bounded < 62e9 < most
    model = load_pretrained(TagSpeechModel, tiny_base / "model")
    groups = read_groups(tiny_base / "embeddings/dev.jsonl.gz")
    for option, bound in (("-1", default_positions(2, 32)), ("0", 0), ("70", 70)):
        config = load_config(tiny_yaml, [f"train.max_positions={option}"])
        assert TagSpeechTask(config, model, groups, groups).train.max_positions == bound


READ = """
import re, sys
from pathlib import Path
import torch
from tagspeech.config import LLMConfig
from tagspeech.llm.load import load_llm
import transformers.models.qwen2.modeling_qwen2

def own():
    return int(re.search(r"Private_Dirty: +(\\d+)", Path("/proc/self/smaps_rollup").read_text())[1])

before = own()
llm, _ = load_llm(LLMConfig(name=sys.argv[1]), torch.bfloat16)
size = sum(weight.numel() * weight.element_size() for weight in llm.parameters()) // 1024
print(size, own() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="this is not Linux")
def test_processes_of_a_machine_read_the_weights_of_an_llm_once(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    """In the type of its file, an LLM is a mapping of the file, whose pages processes share."""
    import shutil

    from transformers import AutoModelForCausalLM, Qwen2Config

    folder = Path(shutil.copytree(tiny_model_folder / "llm", tmp_path / "llm"))
    small = Qwen2Config.from_pretrained(folder)
    config = Qwen2Config(**{**small.to_dict(), "intermediate_size": 400_000})
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    said = subprocess.run(
        [sys.executable, "-c", READ, folder], capture_output=True, text=True, check=True
    )
    size, own = map(int, said.stdout.split())
    assert size > 100_000  # kB
    assert own < size / 2
