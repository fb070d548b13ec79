"""The Zipformer: published numbers, independence of batch mates, gradients, files."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import GOLDEN
from torch.nn.functional import cross_entropy

from tagspeech.config import ZipformerConfig
from tagspeech.encoders.zipformer import (
    Zipformer,
    encoded_lens,
    read_zipformer_state,
    zipformer_config_from_released,
)
from tagspeech.encoders.zipformer_attention import MASKED, AttentionWeights, relative_positions
from tagspeech.encoders.zipformer_layers import swoosh_l, swoosh_r
from tagspeech.errors import InputError

PADDING = -23.02585  # log(1e-10), as the released code pads

needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden data beside the checkout")


def tiny_config(num_stacks: int = 3, seed: int = 0) -> ZipformerConfig:
    """A random Zipformer of a few thousand parameters."""
    draw = random.Random(seed)

    def each(*choices: int) -> tuple[int, ...]:
        return tuple(draw.choice(choices) for _ in range(num_stacks))

    return ZipformerConfig(
        feature_dim=20,
        embed_channels=(2, 3, 4),
        num_encoder_layers=each(1, 2),
        downsampling_factor=each(1, 2, 3, 4, 8),
        encoder_dim=each(8, 12, 16),
        feedforward_dim=each(16, 24),
        num_heads=each(1, 2, 4),
        query_head_dim=(4,),
        value_head_dim=each(2, 3),
        pos_head_dim=(2,),
        pos_dim=8,
        cnn_module_kernel=each(3, 5, 7),
    )


def tiny_zipformer(config: ZipformerConfig, seed: int = 0) -> Zipformer:
    """Random weights large enough for every branch to matter."""
    torch.manual_seed(seed)
    model = Zipformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "golden.npz") as arrays:
        names = [name for name in arrays.files if "fbank" in name or name.endswith("_enc")]
        return {name: torch.from_numpy(arrays[name]) for name in names}


@needs_golden
@pytest.mark.parametrize(("folder", "short"), [("audio_encoder", "sem"), ("voice_encoder", "voi")])
def test_golden(golden: dict[str, torch.Tensor], folder: str, short: str) -> None:
    folder_path = GOLDEN / "checkpoint" / folder
    released = json.loads((folder_path / "config.json").read_text())
    model = Zipformer(zipformer_config_from_released(released)).eval()
    model.load_state_dict(read_zipformer_state(folder_path / "model.safetensors"))
    fbank_BTF, lens_B = golden["fbank"], golden["fbank_lens"]
    with torch.inference_mode():
        batch_BTD, batch_lens_B = model(fbank_BTF, lens_B)
        for item, length in enumerate(lens_B.tolist()):
            alone_1TD, alone_lens_1 = model(fbank_BTF[item : item + 1, :length], lens_B[[item]])
            wanted_TD = golden[f"single{item}_{short}_enc"][0]
            assert alone_lens_1.tolist() == [len(wanted_TD)] == [batch_lens_B[item]]
            tolerance = 1e-4 * wanted_TD.abs().max()
            assert (alone_1TD[0] - wanted_TD).abs().max() < tolerance
            assert (batch_BTD[item, : len(wanted_TD)] - wanted_TD).abs().max() < tolerance


@pytest.mark.parametrize("num_stacks", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_batch_mates_do_not_matter(num_stacks: int, seed: int) -> None:
    model = tiny_zipformer(tiny_config(num_stacks, seed), seed)
    lens = [9, 10, 11, 26, 41, 59, 83, 118 + seed]
    features_BTF = torch.randn(8, 130, 20)
    for features_TF, length in zip(features_BTF, lens, strict=True):
        features_TF[length:] = PADDING
    with torch.inference_mode():
        batch_BTD, batch_lens_B = model(features_BTF, torch.tensor(lens))
        assert batch_BTD.shape[1] == max(batch_lens_B)
        for item, length in enumerate(lens):
            alone_1TD, (alone_len,) = model(
                features_BTF[item : item + 1, :length], torch.tensor([length])
            )
            assert alone_len == batch_lens_B[item] == alone_1TD.shape[1] == encoded_lens(length)
            torch.testing.assert_close(
                batch_BTD[item, :alone_len], alone_1TD[0], rtol=1e-4, atol=1e-4
            )


def test_items_without_a_frame() -> None:
    model = tiny_zipformer(tiny_config())
    features_BTF = torch.randn(4, 50, 20)
    encoded_BTD, lens_B = model(features_BTF, torch.tensor([50, 0, 8, 30]))
    assert lens_B.tolist() == [11, 0, 0, 6]
    alone_1TD, _ = model(features_BTF[:1], torch.tensor([50]))
    torch.testing.assert_close(encoded_BTD[:1], alone_1TD, rtol=1e-4, atol=1e-4)
    (encoded_BTD[0].sum() + encoded_BTD[3, :6].sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    encoded_BTD, lens_B = model(features_BTF[:, :8], torch.tensor([8, 3, 0, 1]))
    assert encoded_BTD.shape == (4, 0, model.config.output_dim)
    assert lens_B.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("frames", "encoded"), [(0, 0), (8, 0), (9, 1), (10, 1), (11, 1), (13, 2), (899, 223)]
)
def test_encoded_lens(frames: int, encoded: int) -> None:
    assert encoded_lens(frames) == encoded
    assert encoded_lens(torch.tensor([frames])).tolist() == [encoded]


def test_attention_weights_are_the_formula() -> None:
    """Values and gradients of the fused attention against the definition, offset by offset."""
    torch.manual_seed(0)
    module = AttentionWeights(6, 8, num_heads=2, query_head_dim=3, pos_head_dim=2).double()
    x_BTD = torch.randn(2, 5, 6, dtype=torch.double, requires_grad=True)
    valid_BT = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    positions_RD = relative_positions(5, 8, x_BTD)

    def by_definition() -> torch.Tensor:
        query, key, where = module.in_proj(x_BTD).split([6, 6, 4], dim=-1)
        score = torch.einsum("bthk,bshk->bhts", query.view(2, 5, 2, 3), key.view(2, 5, 2, 3))
        offset_TT = torch.arange(5) - torch.arange(5)[:, None] + 4
        table = module.linear_pos(positions_RD)[offset_TT].view(5, 5, 2, 2)
        score = score + torch.einsum("bthk,tshk->bhts", where.view(2, 5, 2, 2), table)
        return score.masked_fill(~valid_BT[:, None, None], MASKED).softmax(dim=-1)

    weights_BHTT, first_BTT = module(x_BTD, positions_RD, valid_BT)
    wanted_BHTT = by_definition()
    torch.testing.assert_close(weights_BHTT, wanted_BHTT)
    torch.testing.assert_close(first_BTT, wanted_BHTT[:, 0])
    assert (weights_BHTT[1, ..., 3:] == 0.0).all()

    inputs = [x_BTD, *module.parameters()]
    pull_BHTT, pull_BTT = torch.randn_like(wanted_BHTT), torch.randn_like(first_BTT)
    loss = (weights_BHTT * pull_BHTT).sum() + (first_BTT * pull_BTT).sum()
    wanted_loss = (wanted_BHTT * pull_BHTT).sum() + (wanted_BHTT[:, 0] * pull_BTT).sum()
    found = torch.autograd.grad(loss, inputs)
    for one, wanted in zip(found, torch.autograd.grad(wanted_loss, inputs), strict=True):
        torch.testing.assert_close(one, wanted)


def test_swoosh() -> None:
    x = torch.linspace(-29.7, 60.3, 91, dtype=torch.double, requires_grad=True)
    torch.testing.assert_close(swoosh_l(x), (x - 4).exp().log1p() - 0.08 * x - 0.035)
    torch.testing.assert_close(swoosh_r(x), (x - 1).exp().log1p() - 0.08 * x - 0.313261687)
    assert torch.autograd.gradcheck(swoosh_l, x)
    assert torch.autograd.gradcheck(swoosh_r, x)


def test_adamw_trains_it_from_scratch() -> None:
    """Names the tone before the one that sounds: needs the front end, the layers and context."""
    torch.manual_seed(0)
    config = dataclasses.replace(
        tiny_config(),
        embed_channels=(4, 8, 8),
        num_encoder_layers=(1,),
        downsampling_factor=(1, 2, 4),
        encoder_dim=(32, 48, 32),
        feedforward_dim=(64,),
        num_heads=(4,),
        cnn_module_kernel=(7,),
    )
    model, head = Zipformer(config).train(), torch.nn.Linear(48, 4)
    tones_NF = 2.0 * torch.randn(4, 20)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=3e-3)
    losses = []
    for _ in range(80):
        tone_BN = torch.randint(0, 4, (8, 6))
        features_BTF = tones_NF[tone_BN].repeat_interleave(16, dim=1)
        features_BTF = features_BTF + torch.randn_like(features_BTF)
        encoded_BTD, lens_B = model(features_BTF, torch.full((8,), 96))
        sounding_T = (torch.arange(int(lens_B[0])) * 4 + 6) // 16
        target_BT = tone_BN[:, (sounding_T - 1).clamp(min=0)]
        loss = cross_entropy(head(encoded_BTD).flatten(0, 1), target_BT.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[:5]) > 1.2
    assert np.mean(losses[-5:]) < 0.4
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_dropout_is_for_training_only() -> None:
    model = tiny_zipformer(tiny_config())
    features_BTF, lens_B = torch.randn(2, 40, 20), torch.tensor([40, 40])
    quiet = [model(features_BTF, lens_B)[0] for _ in range(2)]
    assert torch.equal(*quiet)
    model.train()
    noisy = [model(features_BTF, lens_B)[0] for _ in range(2)]
    assert not torch.equal(*noisy)


def test_icefall_checkpoint(tmp_path: Path) -> None:
    model = tiny_zipformer(tiny_config())
    state = model.state_dict()
    checkpoint = {
        "model": {**state, "joiner.output_linear.bias": torch.zeros(3)},
        "model_avg": None,
        "exp_dir": Path("exp"),
    }
    torch.save(checkpoint, tmp_path / "epoch-1.pt")
    read = read_zipformer_state(tmp_path / "epoch-1.pt")
    assert read.keys() == state.keys()
    other = tiny_zipformer(tiny_config(), seed=1)
    other.load_state_dict(read)
    assert all(torch.equal(state[key], value) for key, value in other.state_dict().items())


def test_unreadable_weights(tmp_path: Path) -> None:
    for name in ("model.safetensors", "epoch-1.pt"):
        with pytest.raises(InputError, match=name):
            read_zipformer_state(tmp_path / name)
        (tmp_path / name).write_bytes(b"not weights at all")
        with pytest.raises(InputError, match=name):
            read_zipformer_state(tmp_path / name)
    torch.save({"weights": {}}, tmp_path / "epoch-1.pt")
    with pytest.raises(InputError, match="model"):
        read_zipformer_state(tmp_path / "epoch-1.pt")


def test_released_config() -> None:
    released = {**dataclasses.asdict(ZipformerConfig()), "dropout": None, "causal": False}
    del released["embed_channels"]
    harmless = {"model_type": "zipformer", "warmup_batches": 4000.0, "chunk_size": [16, -1]}
    assert zipformer_config_from_released({**released, **harmless}) == ZipformerConfig()
    for bad in ({"causal": True}, {"model_type": "whisper"}, {"rotary": True}, {"pos_dim": "48"}):
        with pytest.raises(InputError, match=next(iter(bad))):
            zipformer_config_from_released({**released, **bad})
    del released["pos_dim"]
    with pytest.raises(InputError, match="pos_dim"):
        zipformer_config_from_released(released)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_heads", (4, 4)), ("cnn_module_kernel", (4,)), ("output_downsampling_factor", 1)],
)
def test_impossible_config(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        Zipformer(dataclasses.replace(tiny_config(), **{field: value}))
