"""A pruned transducer on encoder frames: stateless decoder, joiner, loss by k2, greedy search.

The decoder sees only the last units (Ghodsi et al., ICASSP 2020: stateless transducer). A simple
joiner, a sum of projections, selects a few units for each frame, and the full joiner is computed
only for them (arXiv 2206.13236). Weights have the names and sizes of icefall's Zipformer recipe,
whose settings are the defaults. Written from k2's sources; not yet run with k2 itself.

Shape suffixes: B batch, T frames, D encoder channels, U units and the start before them, R units
kept for a frame, V units, K channels of decoder or joiner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tagspeech.config import SotConfig, TransducerConfig, ZipformerConfig
from tagspeech.encoders.sot import AlignedEncoder
from tagspeech.encoders.zipformer import Zipformer
from tagspeech.errors import InputError

BLANK_UNIT = 0
_NOTHING = -1  # before the first unit; its embedding is zero


def check_loss(config: SotConfig) -> None:
    """Raises `InputError` if `semantic.sot.loss` is unknown, or needs k2 and k2 is missing."""
    if config.loss not in ("ctc", "pruned_transducer"):
        raise InputError(
            f"semantic.sot.loss: must be ctc or pruned_transducer, got {config.loss!r}"
        )
    if config.loss == "pruned_transducer":
        _k2()


def _k2() -> Any:
    try:
        import k2
    except ImportError as error:
        raise InputError(
            f"semantic.sot.loss: pruned_transducer needs k2, which cannot be imported ({error}); "
            "run utils/install_k2.sh, or set it to ctc"
        ) from error
    return k2


class Decoder(nn.Module):
    """Embeddings of the last `context_size` units, mixed by a convolution."""

    def __init__(self, num_units: int, dim: int, context_size: int) -> None:
        super().__init__()
        self.context_size = context_size
        self.embedding = nn.Embedding(num_units, dim)
        self.conv = nn.Conv1d(dim, dim, context_size, groups=dim // 4, bias=False)

    def forward(self, units_BU: Tensor) -> Tensor:
        """Outputs (B, U, K) for units (B, U), each given those before it; -1 is no unit."""
        embedded_BUK = self.embedding(units_BU.clamp(min=0)) * (units_BU >= 0).unsqueeze(-1)
        padded_BKU = nn.functional.pad(embedded_BUK.transpose(1, 2), (self.context_size - 1, 0))
        return self.conv(padded_BKU).transpose(1, 2).relu()


class Joiner(nn.Module):
    """Scores of units from a frame and a decoder output, both projected before."""

    def __init__(self, encoder_dim: int, decoder_dim: int, dim: int, num_units: int) -> None:
        super().__init__()
        self.encoder_proj = nn.Linear(encoder_dim, dim)
        self.decoder_proj = nn.Linear(decoder_dim, dim)
        self.output_linear = nn.Linear(dim, num_units)
        with torch.no_grad():
            for projection in (self.encoder_proj, self.decoder_proj):
                projection.weight.mul_(0.25)
                projection.bias.mul_(0.25)

    def forward(self, frames: Tensor, decoded: Tensor) -> Tensor:
        """Scores (..., V) of projected frames (..., K) and projected decoder outputs (..., K)."""
        return self.output_linear((frames + decoded).tanh())


class TransducerLosses(NamedTuple):
    """Scalar losses per unit: of the simple joiner, and of the full one on the selected units."""

    simple: Tensor
    pruned: Tensor


class TransducerModel(AlignedEncoder, Zipformer):
    """A Zipformer with decoder, joiner and simple joiner; unit 0 is the blank."""

    def __init__(self, config: ZipformerConfig, settings: TransducerConfig, num_units: int) -> None:
        super().__init__(config)
        if settings.decoder_dim % 4:
            raise InputError(
                "semantic.sot.transducer.decoder_dim: must be a multiple of 4, "
                f"got {settings.decoder_dim}"
            )
        self.settings = settings
        self.decoder = Decoder(num_units, settings.decoder_dim, settings.context_size)
        self.joiner = Joiner(
            config.output_dim, settings.decoder_dim, settings.joiner_dim, num_units
        )
        self.simple_am_proj = nn.Linear(config.output_dim, num_units)
        self.simple_lm_proj = nn.Linear(settings.decoder_dim, num_units)
        self.alignment_output = nn.Linear(config.output_dim, 2 * num_units)

    def losses(
        self, encoded_BTD: Tensor, lens_B: Tensor, units: Sequence[Sequence[int]], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss per unit at a training step, and figures to log.

        The simple loss dominates at first: the full joiner can only learn from a good selection.
        """
        both = self.transducer_losses(encoded_BTD, lens_B, units)
        warm = min(1.0, step / max(1, self.settings.warm_steps))
        simple_scale = 1.0 - warm * (1.0 - self.settings.simple_scale)
        loss = simple_scale * both.simple + (0.1 + 0.9 * warm) * both.pruned
        return loss, {"simple": both.simple.detach(), "pruned": both.pruned.detach()}

    def transducer_losses(
        self, encoded_BTD: Tensor, lens_B: Tensor, units: Sequence[Sequence[int]]
    ) -> TransducerLosses:
        """Both losses of units given encoder frames (B, T, D) of lengths (B,), by k2."""
        k2 = _k2()
        device = encoded_BTD.device
        longest = max(1, *map(len, units))  # k2 needs at least one unit
        symbols_BU = torch.full((len(units), longest), BLANK_UNIT, device=device)
        for item, units_of_item in enumerate(units):
            symbols_BU[item, : len(units_of_item)] = torch.tensor(units_of_item, dtype=torch.long)
        counts_B = torch.tensor(list(map(len, units)), device=device)
        start_B = torch.zeros_like(counts_B)
        boundary_B4 = torch.stack([start_B, start_B, counts_B, lens_B.to(counts_B)], dim=1)
        decoded_BUK = self.decoder(nn.functional.pad(symbols_BU, (1, 0), value=BLANK_UNIT))
        lm_BUV, am_BTV = self.simple_lm_proj(decoded_BUK), self.simple_am_proj(encoded_BTD)
        with torch.autocast(device.type, enabled=False):
            simple, (px_grad, py_grad) = k2.rnnt_loss_smoothed(
                lm=lm_BUV.float(),
                am=am_BTV.float(),
                symbols=symbols_BU,
                termination_symbol=BLANK_UNIT,
                lm_only_scale=self.settings.lm_scale,
                am_only_scale=self.settings.am_scale,
                boundary=boundary_B4,
                reduction="sum",
                return_grad=True,
            )
        ranges_BTR = k2.get_rnnt_prune_ranges(
            px_grad=px_grad,
            py_grad=py_grad,
            boundary=boundary_B4,
            s_range=min(self.settings.prune_range, longest + 1),
        )
        frames_BTRK, kept_BTRK = k2.do_rnnt_pruning(
            am=self.joiner.encoder_proj(encoded_BTD),
            lm=self.joiner.decoder_proj(decoded_BUK),
            ranges=ranges_BTR,
        )
        logits_BTRV = self.joiner(frames_BTRK, kept_BTRK)
        with torch.autocast(device.type, enabled=False):
            pruned = k2.rnnt_loss_pruned(
                logits=logits_BTRV.float(),
                symbols=symbols_BU,
                ranges=ranges_BTR,
                termination_symbol=BLANK_UNIT,
                boundary=boundary_B4,
                reduction="sum",
            )
        count = max(1, sum(map(len, units)))
        return TransducerLosses(simple / count, pruned / count)

    @torch.no_grad()
    def greedy(self, features_BTF: Tensor, lens_B: Tensor) -> list[list[int]]:
        """Best units of features (B, T, F)."""
        return self.search(*self(features_BTF, lens_B))

    @torch.no_grad()
    def search(self, encoded_BTD: Tensor, lens_B: Tensor) -> list[list[int]]:
        """The most likely unit at each encoder frame, at most one, given those before."""
        frames_BTK = self.joiner.encoder_proj(encoded_BTD)
        context_BU = torch.full(
            (len(lens_B), self.decoder.context_size), _NOTHING, device=encoded_BTD.device
        )
        context_BU[:, -1] = BLANK_UNIT
        decoded_BK = self._decoded(context_BU)
        found = []
        for frame in range(encoded_BTD.shape[1]):
            best_B = self.joiner(frames_BTK[:, frame], decoded_BK).argmax(-1)
            best_B = best_B.masked_fill(frame >= lens_B.to(best_B.device), BLANK_UNIT)
            found.append(best_B)
            new_B = best_B != BLANK_UNIT
            if new_B.any():
                longer_BU = torch.cat([context_BU[:, 1:], best_B[:, None]], dim=1)
                context_BU = torch.where(new_B[:, None], longer_BU, context_BU)
                decoded_BK = self._decoded(context_BU)
        units_BT = torch.stack(found, dim=1).tolist()
        return [[unit for unit in units if unit != BLANK_UNIT] for units in units_BT]

    def _decoded(self, context_BU: Tensor) -> Tensor:
        """The projected decoder output after a context (B, U) of `context_size` units, (B, K)."""
        return self.joiner.decoder_proj(self.decoder(context_BU)[:, -1])
