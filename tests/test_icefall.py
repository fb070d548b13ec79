"""Encoders from icefall and to it; against its code where ICEFALL_ROOT names a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from tagspeech.checkpoints.icefall import export_icefall, shape_of_training
from tagspeech.checkpoints.starting_points import find_parts
from tagspeech.cli import main
from tagspeech.config import Config, TransducerConfig, ZipformerConfig
from tagspeech.config_file import load_config, to_yaml
from tagspeech.data.units import Units, grow_units, train_units
from tagspeech.encoders.sot import SotModel
from tagspeech.encoders.transducer import TransducerModel
from tagspeech.encoders.zipformer import load_zipformer
from tagspeech.errors import InputError
from tagspeech.weights import copy_weights, read_model

SHAPE = ZipformerConfig(
    num_encoder_layers=(1, 1),
    downsampling_factor=(1, 2),
    encoder_dim=(16, 24),
    feedforward_dim=(32,),
    num_heads=(2,),
    query_head_dim=(4,),
    value_head_dim=(4,),
    pos_head_dim=(2,),
    pos_dim=8,
    cnn_module_kernel=(5,),
)
TRANSDUCER = TransducerConfig(decoder_dim=32, joiner_dim=32)
# As its train.py stores them in epoch-N.pt, beside many other things.
STORED = {
    "num_encoder_layers": "1,1",
    "downsampling_factor": "1,2",
    "encoder_dim": "16,24",
    "feedforward_dim": "32",
    "num_heads": "2",
    "query_head_dim": "4",
    "value_head_dim": "4",
    "pos_head_dim": "2",
    "pos_dim": 8,
    "cnn_module_kernel": "5",
    "causal": False,
}


def train_some_units(path: Path) -> Path:
    train_units(["the cat sat on the mat", "a dog ran fast"] * 20, Config().semantic.sot, path)
    return path


def stage_3(folder: Path, loss: str = "ctc", **shape: Any) -> torch.nn.Module:
    """A folder as stage 3 writes it, with random weights; gives the model."""
    folder.mkdir(exist_ok=True)
    config = Config()
    sot = replace(config.semantic.sot, loss=loss, transducer=TRANSDUCER)
    semantic = replace(config.semantic, sot=sot, encoder=replace(SHAPE, **shape))
    (folder / "config.yaml").write_text(to_yaml(replace(config, semantic=semantic)))
    count = len(Units(train_some_units(folder / "units.model")))
    torch.manual_seed(3)
    encoder = semantic.encoder
    model: Any = SotModel(encoder, count)
    if loss == "pruned_transducer":
        model = TransducerModel(encoder, TRANSDUCER, count)
    del model.alignment_output
    torch.save({"model": model.state_dict()}, folder / "final.pt")
    return model.eval()


def export(folder: Path, output: Path) -> str:
    """The options that the command prints."""
    command = [sys.executable, "-m", "tagspeech", "export", "icefall", "--semantic", str(folder)]
    command += ["--output", str(output)]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "no <sos/eos>, which icefall's export.py looks for" in told.stderr
    return told.stdout


def test_an_encoder_is_exported_with_units_and_options(tmp_path: Path) -> None:
    model = stage_3(tmp_path / "semantic")
    options = export(tmp_path / "semantic", tmp_path / "icefall")
    for words in ("--encoder-dim 16,24 ", "--num-heads 2 ", "--use-ctc 1 --use-transducer 0"):
        assert words in options
    assert (tmp_path / "icefall/options.txt").read_text() == options
    state = read_model(tmp_path / "icefall/pretrained.pt")
    assert state.keys() == model.state_dict().keys()
    units = (tmp_path / "semantic/units.model").read_bytes()
    assert (tmp_path / "icefall/bpe.model").read_bytes() == units
    tokens = (tmp_path / "icefall/tokens.txt").read_text().splitlines()
    assert tokens[:3] == ["<blk> 0", "<unk> 1", "<sc> 2"]


def test_what_icefall_cannot_load_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config\.yaml; name a folder that stage 3 wrote"):
        export_icefall(tmp_path, tmp_path / "out")
    stage_3(tmp_path / "narrow", embed_channels=(8, 16, 16))
    with pytest.raises(InputError, match=r"embed_channels: must be \(8, 32, 128\)"):
        export_icefall(tmp_path / "narrow", tmp_path / "out")
    stage_3(tmp_path / "other")
    torch.save({"model": SotModel(SHAPE, 9).state_dict()}, tmp_path / "other/final.pt")
    assert main(["export", "icefall", "--semantic", str(tmp_path / "other"), "--output", "x"]) == 2
    assert not (tmp_path / "out").exists()


def test_the_shape_of_an_epoch_is_read_from_it(tmp_path: Path, tiny_yaml: Path) -> None:
    """And replaces that of the configuration, as a config.json does."""
    path = tmp_path / "epoch-3.pt"
    held = {"model": SotModel(SHAPE, 7).state_dict(), **STORED, "exp_dir": tmp_path}
    torch.save(held, path)
    config = load_config(tiny_yaml, [f"parts.semantic_init.name={path}"])
    found = json.loads(find_parts(config, tmp_path / "parts.json")["semantic.encoder"])
    assert found["encoder_dim"] == [16, 24]
    assert found["embed_channels"] == [8, 32, 128]
    torch.save({**held, "causal": True}, path)
    with pytest.raises(InputError, match=r"epoch-3\.pt: causal is True"):
        find_parts(config, tmp_path / "parts.json")
    torch.save({**held, "num_heads": "many"}, path)
    with pytest.raises(InputError, match=r"epoch-3\.pt: num_heads must be numbers"):
        find_parts(config, tmp_path / "parts.json")
    torch.save({"model": held["model"]}, tmp_path / "pretrained.pt")
    assert shape_of_training(tmp_path / "pretrained.pt") == {}


def icefall(what: str, folder: Path, options: str) -> dict[str, torch.Tensor]:
    """What icefall's own code makes in `folder`; see icefall_side.py."""
    root = os.environ.get("ICEFALL_ROOT")
    if not root:
        pytest.skip("ICEFALL_ROOT is not set: no checkout of icefall to compare with")
    script = Path(__file__).with_name("icefall_side.py")
    command = [sys.executable, str(script), root, what, str(folder), *options.split()]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    held: dict[str, torch.Tensor] = torch.load(folder / "icefall.pt")
    return held


@pytest.mark.parametrize("loss", ["ctc", "pruned_transducer"])
def test_icefall_computes_the_same_with_an_exported_encoder(tmp_path: Path, loss: str) -> None:
    model: Any = stage_3(tmp_path / "semantic", loss)
    theirs = icefall(
        "load", tmp_path / "icefall", export(tmp_path / "semantic", tmp_path / "icefall")
    )
    with torch.no_grad():
        encoded_BTD, lens_B = model(theirs["features"], theirs["lens"])
        assert lens_B.equal(theirs["encoded_lens"])
        for item, length in enumerate(lens_B):
            ours, others = encoded_BTD[item, :length], theirs["encoded"][item, :length]
            torch.testing.assert_close(ours, others, rtol=1e-4, atol=1e-3)
        frames = theirs["encoded"]
        if loss == "ctc":
            outputs = model.ctc_output(frames).log_softmax(-1)
            torch.testing.assert_close(outputs, theirs["ctc"])
        else:
            units_BU = torch.tensor([[0, 3], [4, 5]])
            decoded = model.joiner.decoder_proj(model.decoder(units_BU)[:, -1:])
            joined = model.joiner(model.joiner.encoder_proj(frames[:, :1]), decoded)
            torch.testing.assert_close(joined, theirs["joined"])


def test_an_epoch_of_icefall_starts_stage_3(tmp_path: Path, tiny_yaml: Path) -> None:
    """With the state of its optimizer, scheduler and settings beside the weights."""
    grow_units(train_some_units(tmp_path / "units.model"), tmp_path / "bpe.model")
    options = "--use-ctc 1 --decoder-dim 32 --joiner-dim 32 --encoder-unmasked-dim 16"
    for name, value in STORED.items():
        options += f" --{name.replace('_', '-')} {int(value) if name == 'causal' else value}"
    theirs = icefall("train", tmp_path, options)
    path = tmp_path / "epoch-1.pt"
    parts = [
        f"parts.semantic_init.name={path}",
        f"parts.semantic_units.name={tmp_path / 'bpe.model'}",
    ]
    found = find_parts(load_config(tiny_yaml, parts), tmp_path / "parts.json")
    assert json.loads(found["semantic.encoder"])["encoder_dim"] == [16, 24]
    count = len(Units(tmp_path / "bpe.model"))
    model = SotModel(SHAPE, count)
    load_zipformer(model, path)
    model.load_ctc_output(path, count)
    both = TransducerModel(SHAPE, TRANSDUCER, count)
    del both.alignment_output
    read = read_model(path)
    state = {name: read[name] for name in read if not name.startswith("ctc_output")}
    copy_weights(both, state, path)  # every name is known
    with torch.no_grad():
        encoded_BTD, lens_B = model.eval()(theirs["features"], theirs["lens"])
    for item, length in enumerate(lens_B):
        ours, others = encoded_BTD[item, :length], theirs["encoded"][item, :length]
        torch.testing.assert_close(ours, others, rtol=1e-4, atol=1e-3)
