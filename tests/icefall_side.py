"""The side of icefall, in a process of its own.

Usage: icefall_side.py CHECKOUT load|train FOLDER [OPTION...], with options of its train.py

    load   loads FOLDER/pretrained.pt as its pretrained.py does, but strictly, and writes to
           FOLDER/icefall.pt what the model makes of random features
    train  takes a step of a new model and writes FOLDER/epoch-1.pt as its train.py does, and
           FOLDER/icefall.pt as above

Packages that are not installed have stand-ins; of k2 only the activations are computed.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class StandIn(types.ModuleType):
    """A module in which any name is a class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def swoosh(shift: float, offset: float) -> Any:
    """An activation of the Zipformer (arXiv 2310.11230, section 3.4)."""

    def activation(x: Tensor) -> Tensor:
        return torch.logaddexp(torch.zeros_like(x), x - shift) - 0.08 * x - offset

    return activation


def stand_in(name: str, **members: Any) -> None:
    parent = name.partition(".")[0]
    if parent in sys.modules and not isinstance(sys.modules[parent], StandIn):
        return
    if parent not in sys.modules and importlib.util.find_spec(parent):
        return
    sys.modules[name] = module = StandIn(name)
    module.__path__ = []
    module.__file__ = "stand-in"
    vars(module).update(members)
    above, _, last = name.rpartition(".")
    if above:
        setattr(sys.modules[above], last, module)


def stand_in_for_packages() -> None:
    left, right = swoosh(4.0, 0.035), swoosh(1.0, 0.313261687)
    versions = {f"__{name}__": "0" for name in ("version", "build_type", "git_sha1", "git_date")}
    stand_in(
        "k2",
        swoosh_l=left,
        swoosh_l_forward=left,
        swoosh_r=right,
        swoosh_r_forward=right,
        with_cuda=False,
    )
    for name in ("k2.version", "k2.ragged", "kaldifst", "kaldifeat"):
        stand_in(name, **(versions if name == "k2.version" else {}))
    for name in ("pypinyin", "pypinyin.contrib", "pypinyin.contrib.tone_convert"):
        stand_in(name)


def main(what: str, folder: Path, options: list[str]) -> None:
    import sentencepiece
    from icefall.utils import AttributeDict
    from optim import Eden, ScaledAdam
    from train import add_model_arguments, get_model, get_params, save_checkpoint

    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    parser.add_argument("--context-size", type=int, default=2)
    params = get_params()
    params.update(vars(parser.parse_args(options)))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "bpe.model"))
    params.blank_id = pieces.piece_to_id("<blk>")
    params.unk_id = pieces.piece_to_id("<unk>")
    params.vocab_size = pieces.get_piece_size()
    torch.manual_seed(1)
    model = get_model(params)
    if what == "load":
        checkpoint = torch.load(folder / "pretrained.pt", map_location="cpu", weights_only=False)
        model.load_state_dict(checkpoint["model"], strict=True)
    else:
        params.update(exp_dir=folder, cur_epoch=1, dtype=torch.float16, use_autocast=True)
        optimizer = ScaledAdam(
            [{"named_params": list(model.named_parameters())}], lr=0.045, clipping_scale=2.0
        )
        scheduler = Eden(optimizer, 7500, 3.5)
        for weight in model.parameters():
            weight.grad = torch.randn_like(weight)
        optimizer.step()
        save_checkpoint(
            AttributeDict(params),
            model=model,
            model_avg=get_model(params),
            optimizer=optimizer,
            scheduler=scheduler,
            scaler=torch.amp.GradScaler("cpu", enabled=True, init_scale=1.0),
        )
    save_outputs(model, params, folder / "icefall.pt")


def save_outputs(model: Any, params: Any, path: Path) -> None:
    """What a model makes of random features, and these."""
    model.eval()
    features_BTF = torch.randn(2, 150, 80, generator=torch.Generator().manual_seed(1))
    lens_B = torch.tensor([150, 120])
    with torch.no_grad():
        encoded_BTD, encoded_lens_B = model.forward_encoder(features_BTF, lens_B)
        held = {"features": features_BTF, "lens": lens_B, "encoded": encoded_BTD}
        if params.use_ctc:
            held["ctc"] = model.ctc_output(encoded_BTD)
        if params.use_transducer:
            units_BU = torch.tensor([[params.blank_id, 3], [4, 5]])
            decoded_BUK = model.joiner.decoder_proj(model.decoder(units_BU, need_pad=False))
            held["joined"] = model.joiner(
                model.joiner.encoder_proj(encoded_BTD[:, :1]), decoded_BUK, project_input=False
            )
    torch.save({**held, "encoded_lens": encoded_lens_B}, path)
    assert math.isfinite(encoded_BTD.sum().item())


if __name__ == "__main__":
    sys.path[:0] = [f"{sys.argv[1]}/egs/librispeech/ASR/zipformer", sys.argv[1]]
    stand_in_for_packages()
    main(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
