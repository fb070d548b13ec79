"""CAM++ (arXiv 2303.00332), a speaker verification network, as a frozen voice encoder.

A 2-D convolutional front end shortens the mel axis by eight. Then come densely connected
time-delay layers at 50 Hz, each of which gates its output by the context: the mean over the item
and the mean over the frame's segment of two seconds. The frames are taken before statistics
pooling; `vectors` pools them and applies the last layer, as CAM++ does.

Names of modules are those of the published weights.

Tensor names end in their axes: B batch, T feature or encoder frames, F mel bins, C channels, D
encoder channels, N regions, R frames of a region, V channels of a voice vector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tagspeech.config import CampPlusConfig, EncoderConfig
from tagspeech.config_file import from_tree
from tagspeech.data.pooling import Region, region_frames
from tagspeech.data.transfer import on_its_way
from tagspeech.encoders.campplus_layers import (
    DenseBlock,
    HalvingConvolution,
    MelFrontEnd,
    NormRelu,
    NormReluLinear,
    SegmentContext,
    StatisticsLayer,
)
from tagspeech.encoders.stream import StreamEncoder
from tagspeech.encoders.zipformer import frame_mask
from tagspeech.errors import InputError
from tagspeech.weights import copy_weights, read_model

_FRONT_FRAMES = 16000  # feature frames that go through the front end at once: it takes most memory


class CampPlusStream(StreamEncoder):
    """The filter bank (100 Hz) to frames of 50 Hz; the mean of each bin over an item is removed.

    Batch norm always uses the published statistics, also where the weights are tuned.

    Args:
        config: Its section.

    Raises:
        InputError: `num_layers` and `dilation` differ in length.
    """

    model_type = "campplus"

    def __init__(self, config: CampPlusConfig) -> None:
        super().__init__(config)
        if len(config.num_layers) != len(config.dilation):
            raise InputError(
                "campplus.dilation: must have one value for each of num_layers, got "
                f"{len(config.dilation)} for {len(config.num_layers)}"
            )
        self.head = MelFrontEnd(config)
        self.xvector = nn.ModuleDict()
        channels = config.init_channels
        self.xvector["tdnn"] = HalvingConvolution(self.head.output_dim, channels)
        for number, layers in enumerate(config.num_layers):
            width = channels + layers * config.growth
            self.xvector[f"block{number + 1}"] = DenseBlock(config, number, channels)
            self.xvector[f"transit{number + 1}"] = NormReluLinear(width, width // 2)
            channels = width // 2
        self.xvector["out_nonlinear"] = NormRelu(channels)
        self.xvector["dense"] = StatisticsLayer(2 * channels, config.vector_dim)
        self.train(False)

    def train(self, mode: bool = True) -> CampPlusStream:
        """Stays in eval mode: there is no dropout, and statistics of batch norm are fixed."""
        super().train(False)
        return self

    def forward(self, features_BTF: Tensor, feature_lens_B: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T', D), zeros after the end of an item, and lengths; T' = (T + 1) // 2."""
        if features_BTF.shape[-1] != self.config.feature_dim:
            raise InputError(
                f"features.num_mel_bins: must be {self.config.feature_dim} for voice.campplus, "
                f"got {features_BTF.shape[-1]}"
            )
        lens_B = (feature_lens_B + 1) // 2
        longest = int(feature_lens_B.max()) if len(feature_lens_B) else 0
        if not longest:
            return features_BTF.new_zeros(len(features_BTF), 0, self.config.output_dim), lens_B
        features_BTF, valid_BT = _without_mean(features_BTF[:, :longest], feature_lens_B)
        items = max(1, _FRONT_FRAMES // longest)
        shares = zip(features_BTF.split(items), valid_BT.split(items), strict=True)
        x_BCT = torch.cat([self.head(share_BTF, valid) for share_BTF, valid in shares])
        valid_B1T = valid_BT[:, ::2][:, None].to(x_BCT.dtype)
        x_BCT = self.xvector["tdnn"](x_BCT)
        context = SegmentContext(valid_B1T, self.config.segment)
        for number in range(1, len(self.config.num_layers) + 1):
            x_BCT = self.xvector[f"block{number}"](x_BCT, context)
            x_BCT = self.xvector[f"transit{number}"](x_BCT)
        frames_BCT = self.xvector["out_nonlinear"](x_BCT) * valid_B1T
        return frames_BCT.transpose(1, 2), lens_B

    @torch.no_grad()
    def vectors(self, frames_BTD: Tensor, lens_B: Tensor, regions: list[Region]) -> Tensor:
        """The speaker vector (N, V) of each region: mean and deviation of its frames, then dense.

        The deviation of a single frame is 0. See `StreamEncoder.vectors`.
        """
        pooled = []
        for frames_RD in region_frames(frames_BTD, lens_B, regions):
            mean_D = frames_RD.float().mean(0)
            squares_D = (frames_RD.float() - mean_D).square().sum(0)
            pooled.append(torch.cat([mean_D, (squares_D / max(len(frames_RD) - 1, 1)).sqrt()]))
        if not pooled:
            return frames_BTD.new_zeros(0, self.config.vector_dim)
        vectors_NV: Tensor = self.xvector["dense"](torch.stack(pooled))
        return vectors_NV

    def load_weights(self, path: Path) -> None:
        """Copies the weights of a published CAM++; see `StreamEncoder.load_weights`."""
        copy_weights(self, read_model(path), path)

    @classmethod
    def config_from(cls, tree: dict[str, Any], where: str, current: EncoderConfig) -> EncoderConfig:
        """The section that config.json stands for; what it does not say is as published."""
        shape = {key: value for key, value in tree.items() if key != "model_type"}
        return from_tree(CampPlusConfig, shape, where)


def _without_mean(features_BTF: Tensor, lens_B: Tensor) -> tuple[Tensor, Tensor]:
    """Features less the mean of each bin over the item's frames, zeros after its end; and which
    frames are the item's, (B, T)."""
    lens_B = on_its_way(lens_B, features_BTF.device)
    valid_BT = frame_mask(lens_B, features_BTF.shape[1])
    masked_BTF = features_BTF.float().masked_fill(~valid_BT[..., None], 0.0)
    mean_B1F = masked_BTF.sum(1, keepdim=True) / lens_B.clamp(min=1)[:, None, None]
    return (masked_BTF - mean_B1F).masked_fill(~valid_BT[..., None], 0.0), valid_BT
