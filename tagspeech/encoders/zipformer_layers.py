"""The front end and the layer of a Zipformer (arXiv 2310.11230, section 3), non-causal.

Tensor names end in their axes:
    B batch   T frames of the stack's own rate   D channels   E hidden channels
    C image channels   F frequency bins   H heads   R = 2T - 1 relative offsets

Frames after an item's end hold arbitrary finite values. `valid_BT` keeps them out of every sum over
time, so an item's valid frames do not depend on the rest of the batch. Attribute names are those of
the published state dicts. Initial values follow icefall: every projection that ends a residual
branch starts small, bypass scales start at one half. The regularizers of icefall (balancers,
whitening, layer skipping) are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagspeech.encoders.zipformer_attention import (
    AttentionWeights,
    NonlinAttention,
    SelfAttention,
    scaled_linear,
)


class _Swoosh(torch.autograd.Function):
    """softplus(x - shift) - 0.08 x - offset, with one tensor kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: float, offset: float) -> Tensor:
        shifted = x - shift
        ctx.save_for_backward(shifted)
        return F.softplus(shifted).add_(shifted, alpha=-0.08).sub_(offset + 0.08 * shift)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (shifted,) = ctx.saved_tensors
        return torch.sigmoid(shifted).sub_(0.08).mul_(grads[0]), None, None


def swoosh_l(x: Tensor) -> Tensor:
    """SwooshL, log(1 + exp(x - 4)) - 0.08 x - 0.035: for branches that are normally off."""
    return _Swoosh.apply(x, 4.0, 0.035)


def swoosh_r(x: Tensor) -> Tensor:
    """SwooshR, log(1 + exp(x - 1)) - 0.08 x - 0.313261687: zero at zero, for convolutions."""
    return _Swoosh.apply(x, 1.0, 0.313261687)


def time_dropout(x_BTE: Tensor, p: float, training: bool) -> Tensor:
    """Dropout that drops a channel in all frames of an item at once."""
    if not training or p == 0.0:
        return x_BTE
    return x_BTE * F.dropout(x_BTE.new_ones(x_BTE.shape[0], 1, x_BTE.shape[2]), p)


class BiasNorm(nn.Module):
    """x exp(log_scale) / RMS(x - bias) (section 3.3): bounds the length of x."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.randn(dim) * 1e-4)

    def forward(self, x_BTD: Tensor) -> Tensor:
        norm_BT1 = torch.linalg.vector_norm(x_BTD - self.bias, dim=-1, keepdim=True)
        return x_BTD * (self.log_scale.exp() * math.sqrt(x_BTD.shape[-1]) / norm_BT1)


class Bypass(nn.Module):
    """A learned interpolation, for each channel, between a module's input and its output."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bypass_scale = nn.Parameter(torch.full((dim,), 0.5))

    def forward(self, start_BTD: Tensor, end_BTD: Tensor) -> Tensor:
        return torch.lerp(start_BTD, end_BTD, self.bypass_scale)


class ConvNeXt(nn.Module):
    """A residual 7x7 depthwise convolution, followed by a wide pointwise pair."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise_conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.pointwise_conv1 = nn.Conv2d(channels, 3 * channels, 1)
        self.pointwise_conv2 = nn.Conv2d(3 * channels, channels, 1)
        with torch.no_grad():
            for parameter in self.pointwise_conv2.parameters():
                parameter.mul_(0.01)

    def forward(self, x_BCTF: Tensor) -> Tensor:
        # The 1x1 convolutions run as linear layers: their kernels have no memory format, so as
        # convolutions they would return gradients in the slow format.
        first, second = self.pointwise_conv1, self.pointwise_conv2
        x_BTFC = self.depthwise_conv(x_BCTF).permute(0, 2, 3, 1)
        hidden_BTFC = swoosh_l(F.linear(x_BTFC, first.weight[:, :, 0, 0], first.bias))
        x_BTFC = F.linear(hidden_BTFC, second.weight[:, :, 0, 0], second.bias)
        return x_BCTF + x_BTFC.permute(0, 3, 1, 2)


class FrontEnd(nn.Module):
    """Three convolutions and a ConvNeXt: (B, T, F) at 100 Hz to (B, (T-7)//2, D) at 50 Hz."""

    def __init__(self, feature_dim: int, channels: Sequence[int], dim: int, dropout: float) -> None:
        super().__init__()
        first, second, third = channels
        self.conv = nn.ModuleDict(  # the names are indices of a published nn.Sequential
            {
                "0": nn.Conv2d(1, first, 3, padding=(0, 1)),
                "4": nn.Conv2d(first, second, 3, stride=2),
                "7": nn.Conv2d(second, third, 3, stride=(1, 2)),
            }
        )
        self.convnext = ConvNeXt(third)
        self.out = nn.Linear(((feature_dim - 1) // 2 - 1) // 2 * third, dim)
        self.out_norm = BiasNorm(dim)
        self.dropout = dropout

    def forward(self, features_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """`valid_BT` marks the frames of the result, (B, (T-7)//2)."""
        x_BCTF = self.conv["0"](features_BTF[:, None])
        # Channels last halves the CPU time of all following layers. An image of one channel has no
        # such format, so the convolution above does not produce it.
        x_BCTF = swoosh_r(x_BCTF.contiguous(memory_format=torch.channels_last))
        x_BCTF = swoosh_r(self.conv["4"](x_BCTF))
        x_BCTF = swoosh_r(self.conv["7"](x_BCTF))
        # From here on frames look past their item's end, where an item alone has zeros.
        # (A product, since masked_fill would lose the memory format.)
        x_BCTF = self.convnext(x_BCTF * valid_BT[:, None, :, None])
        x_BTD = self.out_norm(self.out(x_BCTF.transpose(1, 2).flatten(2)))
        return time_dropout(x_BTD, self.dropout, self.training)


class FeedForward(nn.Module):
    """Linear, SwooshL, dropout, linear."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, hidden)
        self.out_proj = scaled_linear(hidden, dim, 0.1)
        self.dropout = dropout

    def forward(self, x_BTD: Tensor) -> Tensor:
        hidden_BTE = swoosh_l(self.in_proj(x_BTD))
        return self.out_proj(time_dropout(hidden_BTE, self.dropout, self.training))


class ConvModule(nn.Module):
    """Gated linear unit, depthwise convolution over time, SwooshR, linear."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, 2 * dim)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel, groups=dim, padding=kernel // 2)
        self.out_proj = scaled_linear(dim, dim, 0.05)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        gated_BTD = F.glu(self.in_proj(x_BTD), dim=-1).masked_fill(~valid_BT[..., None], 0.0)
        # (B, T, D) is the channels-last memory of an image (B, D, 1, T); as such the convolution
        # needs no transposed copy and is several times faster on a CPU than conv1d.
        conv = self.depthwise_conv
        image_BD1T = F.conv2d(
            gated_BTD.transpose(1, 2)[:, :, None],
            conv.weight[:, :, None],
            conv.bias,
            padding=(0, conv.kernel_size[0] // 2),
            groups=conv.groups,
        )
        return self.out_proj(swoosh_r(image_BD1T[:, :, 0].transpose(1, 2)))


class ZipformerLayer(nn.Module):
    """One layer (section 3.1): attention weights once, used three times, between feed-forwards."""

    bypass_scale: Tensor

    def __init__(
        self,
        dim: int,
        *,
        feedforward_dim: int,
        num_heads: int,
        query_head_dim: int,
        value_head_dim: int,
        pos_head_dim: int,
        pos_dim: int,
        kernel: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.self_attn_weights = AttentionWeights(
            dim, pos_dim, num_heads, query_head_dim, pos_head_dim
        )
        self.self_attn1 = SelfAttention(dim, num_heads, value_head_dim)
        self.self_attn2 = SelfAttention(dim, num_heads, value_head_dim)
        self.feed_forward1 = FeedForward(dim, feedforward_dim * 3 // 4, dropout)
        self.feed_forward2 = FeedForward(dim, feedforward_dim, dropout)
        self.feed_forward3 = FeedForward(dim, feedforward_dim * 5 // 4, dropout)
        self.nonlin_attention = NonlinAttention(dim)
        self.conv_module1 = ConvModule(dim, kernel)
        self.conv_module2 = ConvModule(dim, kernel)
        self.norm = BiasNorm(dim)
        self.bypass_mid = Bypass(dim)
        self.bypass = Bypass(dim)
        # Published state dicts have this vector; the published forward pass never reads it.
        self.register_buffer("bypass_scale", torch.full((dim,), 0.5))

    def forward(self, x_BTD: Tensor, positions_RD: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D); `positions_RD` from `relative_positions`."""
        start_BTD = x_BTD
        weights_BHTT, first_BTT = self.self_attn_weights(x_BTD, positions_RD, valid_BT)
        x_BTD = x_BTD + self.feed_forward1(x_BTD)
        x_BTD = x_BTD + self.nonlin_attention(x_BTD, first_BTT)
        x_BTD = x_BTD + self.self_attn1(x_BTD, weights_BHTT)
        x_BTD = x_BTD + self.conv_module1(x_BTD, valid_BT)
        x_BTD = x_BTD + self.feed_forward2(x_BTD)
        x_BTD = self.bypass_mid(start_BTD, x_BTD)
        x_BTD = x_BTD + self.self_attn2(x_BTD, weights_BHTT)
        x_BTD = x_BTD + self.conv_module2(x_BTD, valid_BT)
        x_BTD = x_BTD + self.feed_forward3(x_BTD)
        return self.bypass(start_BTD, self.norm(x_BTD))
