"""The transducer output of the semantic encoder. k2 is a stand-in: the exact loss, nothing pruned.

Its functions have the names, arguments and shapes of k2's.
"""

from __future__ import annotations

import http.server
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from tagspeech.config import TransducerConfig
from tagspeech.config_file import load_config
from tagspeech.encoders.transducer import TransducerModel
from tagspeech.encoders.zipformer import read_zipformer_state
from tagspeech.errors import InputError
from tagspeech.training.encoders import train_semantic

OWN = TransducerConfig(decoder_dim=16, joiner_dim=16, warm_steps=20)
CHOSEN = "semantic.sot.loss=pruned_transducer"


def exact_loss(log_probs_BTUV: Tensor, symbols_BU: Tensor, boundary_B4: Tensor) -> Tensor:
    """Minus the log probability of all ways through the lattice, summed over the batch."""
    total = log_probs_BTUV.new_zeros(())
    for log_probs, symbols, ends in zip(log_probs_BTUV, symbols_BU, boundary_B4, strict=True):
        units, frames = int(ends[2]), int(ends[3])
        before: list[Tensor] = []
        for t in range(frames):
            here: list[Tensor] = []
            for u in range(units + 1):
                ways = [before[u] + log_probs[t - 1, u, 0]] if t else []
                if u:
                    ways.append(here[u - 1] + log_probs[t, u - 1, symbols[u - 1]])
                here.append(torch.stack(ways).logsumexp(0) if ways else log_probs.new_zeros(()))
            before = here
        total = total - before[units] - log_probs[frames - 1, units, 0]
    return total


def rnnt_loss_smoothed(
    lm: Tensor,
    am: Tensor,
    symbols: Tensor,
    termination_symbol: int,
    lm_only_scale: float = 0.1,
    am_only_scale: float = 0.1,
    boundary: Tensor | None = None,
    rnnt_type: str = "regular",
    delay_penalty: float = 0.0,
    reduction: str = "mean",
    return_grad: bool = False,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Without smoothing and occupations: the ranges of the stand-in want none."""
    assert (termination_symbol, reduction, return_grad) == (0, "sum", True)
    assert boundary is not None
    (B, T, V), S = am.shape, symbols.shape[1]
    assert lm.shape == (B, S + 1, V)
    assert lm.dtype == am.dtype == torch.float32
    loss = exact_loss((am[:, :, None] + lm[:, None]).log_softmax(-1), symbols, boundary)
    return loss, (am.new_zeros(B, S, T + 1), am.new_zeros(B, S + 1, T))


def get_rnnt_prune_ranges(
    px_grad: Tensor, py_grad: Tensor, boundary: Tensor, s_range: int
) -> Tensor:
    B, S1, T = py_grad.shape
    assert px_grad.shape == (B, S1 - 1, T + 1)
    assert boundary.shape == (B, 4)
    assert 2 <= s_range <= S1
    return torch.arange(S1).expand(B, T, S1)


def do_rnnt_pruning(am: Tensor, lm: Tensor, ranges: Tensor) -> tuple[Tensor, Tensor]:
    B, T, R = ranges.shape
    kept = lm[:, None].expand(B, T, R, lm.shape[-1])
    return am[:, :, None].expand(B, T, R, am.shape[-1]), kept


def rnnt_loss_pruned(
    logits: Tensor,
    symbols: Tensor,
    ranges: Tensor,
    termination_symbol: int,
    boundary: Tensor | None = None,
    rnnt_type: str = "regular",
    delay_penalty: float = 0.0,
    reduction: str = "mean",
    use_hat_loss: bool = False,
) -> Tensor:
    assert logits.shape[:3] == ranges.shape
    assert (termination_symbol, reduction) == (0, "sum")
    assert boundary is not None
    return exact_loss(logits.log_softmax(-1), symbols, boundary)


@pytest.fixture
def k2(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("k2")
    for one in (rnnt_loss_smoothed, get_rnnt_prune_ranges, do_rnnt_pruning, rnnt_loss_pruned):
        setattr(module, one.__name__, one)
    monkeypatch.setitem(sys.modules, "k2", module)


@pytest.fixture
def model(tiny_yaml: Path) -> TransducerModel:
    torch.manual_seed(1)
    return TransducerModel(load_config(tiny_yaml).semantic.encoder, OWN, num_units=9)


def test_search_finds_what_was_learnt(k2: None, model: TransducerModel) -> None:
    """Units by heart, one twice in a row; a shorter item, and one without any unit."""
    frames_BTD = torch.randn(3, 8, model.simple_am_proj.in_features)
    lens_B, units = torch.tensor([8, 5, 6]), [[3, 4, 4, 5], [7, 3], []]
    assert model.search(frames_BTD, lens_B) != units
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    seen = []
    for step in range(60):
        optimizer.zero_grad()
        loss, figures = model.losses(frames_BTD, lens_B, units, step)
        loss.backward()
        optimizer.step()
        seen.append(figures)
    assert seen[-1]["pruned"] < 0.1 * seen[0]["pruned"]
    assert seen[-1]["simple"] < seen[0]["simple"]
    assert model.search(frames_BTD, lens_B) == units


def test_loss_is_that_of_its_lattice(k2: None, model: TransducerModel) -> None:
    """Two frames, one unit: said at the first or at the second of them."""
    frames_BTD = torch.randn(1, 2, model.simple_am_proj.in_features)
    pruned = model.transducer_losses(frames_BTD, torch.tensor([2]), [[5]]).pruned
    decoded = model.joiner.decoder_proj(model.decoder(torch.tensor([[0, 5]])))[0]
    frames = model.joiner.encoder_proj(frames_BTD)[0]
    p = [[model.joiner(frame, said).softmax(-1) for said in decoded] for frame in frames]
    first = p[0][0][5] * p[0][1][0] * p[1][1][0]
    second = p[0][0][0] * p[1][0][5] * p[1][1][0]
    torch.testing.assert_close(pruned, -(first + second).log())


def test_decoder_sees_the_last_units_only(model: TransducerModel) -> None:
    units = torch.tensor([[0, 5, 6, 7], [0, 8, 6, 7]])
    one, other = model.decoder(units)
    assert one[3].equal(other[3])
    assert not one[2].equal(other[2])


def test_semantic_encoder_is_trained(
    k2: None, tiny_groups: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    small = [f"semantic.sot.transducer.{name}=16" for name in ("decoder_dim", "joiner_dim")]
    steps = ["semantic.train.max_steps=2", "semantic.train.valid_every=2"]
    steps += ["semantic.train.max_duration=6", "semantic.train.longest=4"]
    config = load_config(tiny_yaml, [CHOSEN, *small, *steps])
    train_semantic(config, tiny_groups, tmp_path)
    row = json.loads((tmp_path / "curve.jsonl").read_text().splitlines()[-1])
    assert 0 < row["wer"] < 9
    saved = torch.load(tmp_path / "final.pt")["model"]
    assert {"decoder.conv.weight", "joiner.output_linear.weight"} < saved.keys()
    assert all(name in saved for name in read_zipformer_state(tmp_path / "final.pt"))


def test_k2_that_is_missing_is_told_before_the_long_work(
    tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "k2", None)
    config = load_config(tiny_yaml, [CHOSEN])
    with pytest.raises(InputError, match=r"pruned_transducer needs k2.*utils/install_k2\.sh"):
        train_semantic(config, tmp_path / "no groups", tmp_path)
    wrong = load_config(tiny_yaml, ["semantic.sot.loss=rnnt"])
    with pytest.raises(InputError, match="must be ctc or pruned_transducer, got 'rnnt'"):
        train_semantic(wrong, tmp_path / "no groups", tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("k2") is not None, reason="k2 is installed")
def test_recipe_without_k2_does_not_begin(root: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    words = ["parts", "--config", str(tiny_yaml), "--set", CHOSEN, "--set", "llm.name=''"]
    command = [sys.executable, "-m", "tagspeech", *words, "--record", str(tmp_path / "parts.json")]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 2
    assert "run utils/install_k2.sh" in told.stderr


# Which wheel

HERE = f"cp{sys.version_info.major}{sys.version_info.minor}"
PLATFORM = "manylinux2014_x86_64.manylinux_2_17_x86_64"


def wheel(version: str, build: str, torch_version: str, python: str = HERE) -> str:
    return f"k2-{version}%2B{build}.torch{torch_version}-{python}-{python}-{PLATFORM}.whl"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    """The address of a page of wheels, as k2's pages are made."""
    names = [
        wheel("1.24.4.dev20251118", "cpu", "2.13.0"),
        wheel("1.24.4.dev20260626", "cpu", "2.13.0"),
        wheel("1.24.4.dev20260626", "cpu", "2.13.0").replace("x86_64", "aarch64"),
        wheel("1.24.4.dev20260626", "cpu", "2.13.0", python="cp39"),
        wheel("1.24.4.dev20260901", "cpu", "2.13.1"),
        wheel("1.24.4.dev20260626", "cuda12.8", "2.13.0"),
        wheel("1.24.3.dev20230101", "cpu", "1.13.0"),
    ]
    links = "".join(f'<a href="cpu/{name}">{name}</a><br/>\n' for name in names)
    (tmp_path / "page.html").write_text(f"<html><body>\n{links}</body></html>\n")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/page.html"
        server.shutdown()


def pick(root: Path, page: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(root / "utils/install_k2.sh"), "--page", page, "--install", "false"]
    here = ["--machine", "x86_64", "--system", "linux"]
    return subprocess.run([*command, *here, *words], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("cuda", "name"),
    [
        ("none", wheel("1.24.4.dev20260626", "cpu", "2.13.0")),
        ("12.8", wheel("1.24.4.dev20260626", "cuda12.8", "2.13.0")),
    ],
)
def test_wheel_that_fits_is_picked(root: Path, page: str, cuda: str, name: str) -> None:
    told = pick(root, page, "--torch", "2.13.0", "--cuda", cuda)
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() == f"{page.rpartition('/')[0]}/cpu/{name}"


def test_no_wheel_fits(root: Path, page: str) -> None:
    told = pick(root, page, "--torch", "2.12.0", "--cuda", "none")
    assert told.returncode == 2
    assert f"no wheel for torch 2.12.0, CPU, {HERE}, linux x86_64" in told.stderr
    assert "there are wheels for torch 2.13.0, 2.13.1" in told.stderr
    told = pick(root, page.replace("page", "gone"), "--torch", "2.13.0", "--cuda", "none")
    assert told.returncode == 2
    assert "gone.html: cannot be read" in told.stderr
