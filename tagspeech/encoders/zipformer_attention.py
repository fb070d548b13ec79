"""The attention of a Zipformer layer (arXiv 2310.11230, section 3.2): one set of weights.

Tensor names end in their axes:
    B batch   T frames of the stack's own rate   D channels   E hidden channels
    H heads   K channels of one head   R = 2T - 1 relative offsets
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WHOLE, PIECE = 4096, 1024  # frames; 4096 are 82 s at 50 Hz
MASKED = -1000.0  # a score whose softmax is exactly 0; finite, for items without frames


def scaled_linear(inputs: int, outputs: int, scale: float, bias: bool = True) -> nn.Linear:
    """A linear layer with the default initial weights times `scale`, and a small bias."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        layer.weight.mul_(scale)
        if bias:
            layer.bias.uniform_(-0.1 * scale, 0.1 * scale)
    return layer


def relative_positions(num_frames: int, dim: int, like: Tensor) -> Tensor:
    """Encodings of the offsets -(T-1) .. T-1, shape (R, dim), in the dtype and device of `like`.

    Offsets are compressed by a logarithm, mapped to an angle by atan and encoded by `dim / 2`
    cosines and sines; the last channel is 1 (section 3.2: fine near zero, coarse far away).
    """
    offset_R = torch.arange(1 - num_frames, num_frames, device=like.device, dtype=torch.float32)
    width = math.sqrt(dim)
    log_R = offset_R.sign() * width * ((offset_R.abs() + width).log() - math.log(width))
    angle_R = (log_R * (2.0 * math.pi / dim)).atan()
    phase_RF = angle_R[:, None] * torch.arange(1, dim // 2 + 1, device=like.device)
    code_RD = torch.stack((phase_RF.cos(), phase_RF.sin()), dim=-1).flatten(1)
    code_RD[:, -1] = 1.0
    return code_RD.to(like.dtype)


def window_of_offsets(x_BHTR: Tensor) -> Tensor:
    """The view (B, H, T, T') of relative offsets, T' = R + 1 - T, in which the last of the T rows
    has the first T' offsets: with R = 2T - 1, row t has offsets -t .. T-1-t.

    It is a window of the last axis that moves one place to the left from row to row.
    """
    num_rows = x_BHTR.shape[2]
    batch, head, row, column = x_BHTR.stride()
    return x_BHTR.as_strided(
        (*x_BHTR.shape[:3], x_BHTR.shape[3] + 1 - num_rows),
        (batch, head, row - column, column),
        x_BHTR.storage_offset() + (num_rows - 1) * column,
    )


class _Weights(torch.autograd.Function):
    """softmax(query key^T + window(where offsets^T)), and a copy of its first head.

    Written by hand because tensors (B, H, T, T) are most of the work at 50 Hz, and plain autograd
    would touch far more of them. The first head is a separate tensor, since the gradient of a slice
    of all heads would fill a whole tensor with zeros.
    """

    @staticmethod
    def forward(
        ctx: Any, query_BHTK: Tensor, key_BHTK: Tensor, where_BHTK: Tensor, offsets_HRK: Tensor
    ) -> tuple[Tensor, Tensor]:
        score_BHTT = _offset_scores(where_BHTK, offsets_HRK)
        score_BHTT.flatten(0, 1).baddbmm_(
            query_BHTK.flatten(0, 1), key_BHTK.flatten(0, 1).transpose(1, 2)
        )
        weights_BHTT = torch.softmax(score_BHTT, dim=-1, out=score_BHTT)
        ctx.save_for_backward(query_BHTK, key_BHTK, where_BHTK, offsets_HRK, weights_BHTT)
        return weights_BHTT, weights_BHTT[:, 0].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        query_BHTK, key_BHTK, where_BHTK, offsets_HRK, weights_BHTT = ctx.saved_tensors
        score_BHTT = _softmax_grad(grads[0], weights_BHTT)
        score_BHTT[:, 0] += _softmax_grad(grads[1], weights_BHTT[:, 0])
        position_BHTR = score_BHTT.new_zeros(*score_BHTT.shape[:3], offsets_HRK.shape[1])
        window_of_offsets(position_BHTR).copy_(score_BHTT)
        return (
            score_BHTT @ key_BHTK,
            score_BHTT.transpose(2, 3) @ query_BHTK,
            position_BHTR @ offsets_HRK,
            (position_BHTR.transpose(2, 3) @ where_BHTK).sum(dim=0),
        )


def _offset_scores(where_BHTK: Tensor, offsets_HRK: Tensor) -> Tensor:
    """Scores (B, H, T, T) of relative offsets.

    The products of all rows with all offsets take twice the memory of the scores. Of more than
    `WHOLE` frames, they are computed for `PIECE` rows at a time, with the offsets that these have.
    """
    batch, heads, num_frames, _ = where_BHTK.shape
    if num_frames <= WHOLE:
        return window_of_offsets(where_BHTK @ offsets_HRK.transpose(1, 2)).contiguous()
    score_BHTT = where_BHTK.new_empty(batch, heads, num_frames, num_frames)
    for start in range(0, num_frames, PIECE):
        end = min(start + PIECE, num_frames)
        own_HRK = offsets_HRK[:, num_frames - end : 2 * num_frames - 1 - start]
        products_BHTR = where_BHTK[:, :, start:end] @ own_HRK.transpose(1, 2)
        score_BHTT[:, :, start:end] = window_of_offsets(products_BHTR)
    return score_BHTT


def _softmax_grad(grad: Tensor, output: Tensor) -> Tensor:
    return torch.ops.aten._softmax_backward_data(grad, output, -1, output.dtype)


class AttentionWeights(nn.Module):
    """Multi-head attention weights with relative positions, computed once for a whole layer."""

    def __init__(
        self, dim: int, pos_dim: int, num_heads: int, query_head_dim: int, pos_head_dim: int
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dims = (query_head_dim, query_head_dim, pos_head_dim)
        # Queries and keys share the usual 1 / sqrt(head dim) as part of their initial weights.
        self.in_proj = scaled_linear(dim, sum(self.head_dims) * num_heads, query_head_dim**-0.25)
        self.linear_pos = scaled_linear(pos_dim, num_heads * pos_head_dim, 0.05, bias=False)

    def forward(
        self, x_BTD: Tensor, positions_RD: Tensor, valid_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weights (B, H, T, T), and those of the first head, (B, T, T).

        Row t sums to 1 over the source frames of the item; weights of padding are exactly 0.
        """
        sizes = [dim * self.num_heads for dim in self.head_dims]
        query_BHTK, key_BHTK, where_BHTK = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in self.in_proj(x_BTD).split(sizes, dim=-1)
        )
        offsets_RHK = self.linear_pos(positions_RD).unflatten(-1, (self.num_heads, -1))
        # Padding is masked inside the product, by one more key channel whose query is 1.
        mask_BHT1 = key_BHTK.new_zeros(valid_BT.shape).masked_fill(~valid_BT, MASKED)
        mask_BHT1 = mask_BHT1[:, None, :, None].expand(-1, self.num_heads, -1, -1)
        return _Weights.apply(
            F.pad(query_BHTK, (0, 1), value=1.0),
            torch.cat((key_BHTK, mask_BHT1), dim=-1),
            where_BHTK,
            offsets_RHK.transpose(0, 1),
        )


class SelfAttention(nn.Module):
    """Values summed with given weights."""

    def __init__(self, dim: int, num_heads: int, value_head_dim: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, num_heads * value_head_dim)
        self.out_proj = scaled_linear(num_heads * value_head_dim, dim, 0.05)

    def forward(self, x_BTD: Tensor, weights_BHTT: Tensor) -> Tensor:
        value_BTHK = self.in_proj(x_BTD).unflatten(-1, (weights_BHTT.shape[1], -1))
        mixed_BHTK = weights_BHTT @ value_BTHK.transpose(1, 2)
        return self.out_proj(mixed_BHTK.transpose(1, 2).flatten(2))


class NonlinAttention(nn.Module):
    """Attention by the first head between two gates: a * W(tanh(s) * x)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = 3 * dim // 4
        self.in_proj = nn.Linear(dim, 3 * hidden)
        self.out_proj = scaled_linear(hidden, dim, 0.05)

    def forward(self, x_BTD: Tensor, weights_BTT: Tensor) -> Tensor:
        gate_BTE, value_BTE, after_BTE = self.in_proj(x_BTD).chunk(3, dim=-1)
        return self.out_proj((weights_BTT @ (gate_BTE.tanh() * value_BTE)) * after_BTE)
