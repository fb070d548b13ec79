"""The layers of CAM++ (`encoders.campplus`), whose modules have the names of published weights.

Before each convolution over several frames, what lies after the end of an item is set to zero.

Tensor names end in their axes: B batch, T frames, F mel bins, C channels, S segments, N vectors, V
their channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tagspeech.config import CampPlusConfig


class MelFrontEnd(nn.Module):
    """Two residual stages and a convolution: features (B, T, F) to (B, C * F / 8, T)."""

    def __init__(self, config: CampPlusConfig) -> None:
        super().__init__()
        channels = config.front_channels
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = _stage(channels)
        self.layer2 = _stage(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.output_dim = channels * -(-config.feature_dim // 8)

    def forward(self, features_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        valid_B11T = valid_BT[:, None, None].to(features_BTF.dtype)
        x_BCFT = F.relu(self.bn1(self.conv1(features_BTF.transpose(1, 2)[:, None]))) * valid_B11T
        for block in (*self.layer1, *self.layer2):
            x_BCFT = block(x_BCFT, valid_B11T)
        x_BCFT = F.relu(self.bn2(self.conv2(x_BCFT))) * valid_B11T
        return x_BCFT.flatten(1, 2)


def _stage(channels: int) -> nn.ModuleList:
    """Two residual blocks; the first halves the mel axis."""
    return nn.ModuleList([_ResidualBlock(channels, 2), _ResidualBlock(channels, 1)])


class _ResidualBlock(nn.Module):
    """Two convolutions around which the input passes; `stride` shortens the mel axis."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        strides = (stride, 1)
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=strides, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(nn.Conv2d(channels, channels, 1, stride=strides, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, x_BCFT: Tensor, valid_B11T: Tensor) -> Tensor:
        y_BCFT = F.relu(self.bn1(self.conv1(x_BCFT))) * valid_B11T
        return F.relu(self.bn2(self.conv2(y_BCFT)) + self.shortcut(x_BCFT)) * valid_B11T


class NormRelu(nn.Module):
    """Batch norm and ReLU of (B, C, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.batchnorm = nn.BatchNorm1d(channels)

    def forward(self, x_BCT: Tensor) -> Tensor:
        return F.relu(self.batchnorm(x_BCT))


class NormReluLinear(nn.Module):
    """Batch norm, ReLU, and a linear map of each frame."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.nonlinear = NormRelu(inputs)
        self.linear = nn.Conv1d(inputs, outputs, 1, bias=False)

    def forward(self, x_BCT: Tensor) -> Tensor:
        mapped_BCT: Tensor = self.linear(self.nonlinear(x_BCT))
        return mapped_BCT


class HalvingConvolution(nn.Module):
    """The convolution that halves the frame rate."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(inputs, outputs, 5, stride=2, padding=2, bias=False)
        self.nonlinear = NormRelu(outputs)

    def forward(self, x_BCT: Tensor) -> Tensor:
        started_BCT: Tensor = self.nonlinear(self.linear(x_BCT))
        return started_BCT


class StatisticsLayer(nn.Module):
    """The last layer: statistics (N, 2 D) to vectors (N, V), with batch norm without a scale."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(inputs, outputs, 1, bias=False)
        self.nonlinear = nn.ModuleDict({"batchnorm": nn.BatchNorm1d(outputs, affine=False)})

    def forward(self, pooled_NC: Tensor) -> Tensor:
        normed_NV: Tensor = self.nonlinear["batchnorm"](self.linear(pooled_NC[..., None])[..., 0])
        return normed_NV


class SegmentContext:
    """Means over the valid frames of an item, and of each of its segments.

    Args:
        valid_B1T: 1 where a frame belongs to its item, else 0.
        segment: Frames of a segment; the last one of an item may be shorter.
    """

    def __init__(self, valid_B1T: Tensor, segment: int) -> None:
        self.valid_B1T, self.segment = valid_B1T, segment
        self.num_frames = valid_B1T.shape[-1]
        counts_B1S = self._segments(valid_B1T.float()).sum(-1)
        self.counts_B1S = counts_B1S.clamp(min=1)
        self.count_B11 = counts_B1S.sum(-1, keepdim=True).clamp(min=1)

    def _segments(self, x_BCT: Tensor) -> Tensor:
        """(B, C, T) to (B, C, S, frames of a segment)."""
        missing = -self.num_frames % self.segment
        return F.pad(x_BCT, (0, missing)).unflatten(-1, (-1, self.segment))

    def means(self, x_BCT: Tensor) -> Tensor:
        """The mean of the item plus that of the segment, (B, C, S); `x_BCT` is 0 where invalid."""
        sums_BCS = self._segments(x_BCT).sum(-1)
        mean_BC1 = sums_BCS.sum(-1, keepdim=True) / self.count_B11
        return (sums_BCS / self.counts_B1S + mean_BC1).to(x_BCT.dtype)

    def at_frames(self, x_BCS: Tensor) -> Tensor:
        """Values of segments at their frames, (B, C, T)."""
        return x_BCS.repeat_interleave(self.segment, dim=-1)[..., : self.num_frames]


class _Gate(nn.Module):
    """A dilated convolution, multiplied by a gate that the context decides."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(
            inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.linear1 = nn.Conv1d(inputs, inputs // 2, 1)
        self.linear2 = nn.Conv1d(inputs // 2, outputs, 1)

    def forward(self, x_BCT: Tensor, context: SegmentContext) -> Tensor:
        gate_BCS = self.linear2(F.relu(self.linear1(context.means(x_BCT)))).sigmoid()
        gated_BCT: Tensor = self.linear_local(x_BCT) * context.at_frames(gate_BCS)
        return gated_BCT


class _Layer(nn.Module):
    """A layer of a block: all channels so far (B, C, T) to new ones (B, growth, T)."""

    def __init__(self, config: CampPlusConfig, inputs: int, dilation: int) -> None:
        super().__init__()
        width = config.bottleneck * config.growth
        self.nonlinear1 = NormRelu(inputs)
        self.linear1 = nn.Conv1d(inputs, width, 1, bias=False)
        self.nonlinear2 = NormRelu(width)
        self.cam_layer = _Gate(width, config.growth, dilation)

    def forward(self, x_BCT: Tensor, context: SegmentContext) -> Tensor:
        x_BCT = self.nonlinear2(self.linear1(self.nonlinear1(x_BCT))) * context.valid_B1T
        new_BCT: Tensor = self.cam_layer(x_BCT, context)
        return new_BCT


class DenseBlock(nn.ModuleDict):
    """Layers of which each sees the outputs of all before it."""

    def __init__(self, config: CampPlusConfig, number: int, inputs: int) -> None:
        layers = {
            f"tdnnd{place + 1}": _Layer(
                config, inputs + place * config.growth, config.dilation[number]
            )
            for place in range(config.num_layers[number])
        }
        super().__init__(layers)

    def forward(self, x_BCT: Tensor, context: SegmentContext) -> Tensor:
        for layer in self.values():
            x_BCT = torch.cat([x_BCT, layer(x_BCT, context)], dim=1)
        return x_BCT
