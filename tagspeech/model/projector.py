"""The projectors: encoder frames to frames in the LLM's hidden size.

Shape suffixes: B batch, T encoder frames, P projected frames, D encoder channels, H hidden size of
the LLM.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tagspeech.config import StreamConfig
from tagspeech.data.transfer import on_its_way
from tagspeech.errors import InputError

COSINE_SCALE = 8.0  # of a frame of norm 1 times an embedding, where training starts


class Projector(nn.Module):
    """Base of the projectors: one projected frame for every `config.stack` encoder frames.

    `forward` maps frames (B, T, D), T > 0, to (B, P, H). Frames after the end of an item are zero.
    The model normalises the result where the section says `normalise`.

    Args:
        config: The stream's section; a projector reads its own fields there.
        hidden_size: H.
    """

    norm: Tensor
    ctc_scale: Tensor

    def __init__(self, config: StreamConfig, hidden_size: int) -> None:
        super().__init__()
        self.stack, self.hidden_size = config.stack, hidden_size
        if config.normalise:
            # The mean norm of the LLM's embeddings, and what a product of a frame with them is
            # multiplied by to be a logit of `loss.semantic_ctc`; both are saved with the model.
            self.register_buffer("norm", torch.ones(()))
            self.ctc_scale = nn.Parameter(torch.tensor(COSINE_SCALE))

    def normalised(self, projected_BPH: Tensor) -> Tensor:
        """Frames of the norm of the LLM's embeddings, where `normalise` is set."""
        if not hasattr(self, "norm"):
            return projected_BPH
        return functional.normalize(projected_BPH.float(), dim=-1) * self.norm

    def output_lens(self, frame_lens_B: Tensor) -> Tensor:
        """Valid projected frames of items with so many encoder frames, both (B,)."""
        return frame_lens_B // self.stack


class StackProjector(Projector):
    """Stack frames, Linear, ReLU, Linear; an incomplete stack is cut (arXiv 2601.06896)."""

    def __init__(self, config: StreamConfig, hidden_size: int) -> None:
        super().__init__(config, hidden_size)
        self.linear1 = nn.Linear(config.output_dim * config.stack, hidden_size)
        self.linear2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, frames_BTD: Tensor) -> Tensor:
        return self.linear2(torch.relu(self.linear1(stacked(frames_BTD, self.stack))))


class ConvProjector(Projector):
    """Stack frames, Linear, ReLU, convolution over the neighbours, ReLU, Linear.

    Where people talk fast or at once, a frame of a few dozen milliseconds may hold more than one
    word; the convolution can spread the words over its neighbours.
    """

    def __init__(self, config: StreamConfig, hidden_size: int) -> None:
        super().__init__(config, hidden_size)
        # Without a bias, so that the zeros behind an item stay zeros.
        self.linear1 = nn.Linear(config.output_dim * config.stack, hidden_size, bias=False)
        self.conv = nn.Conv1d(hidden_size, hidden_size, kernel_size=3, padding=1)
        self.linear2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, frames_BTD: Tensor) -> Tensor:
        hidden_BPH = torch.relu(self.linear1(stacked(frames_BTD, self.stack)))
        near_BPH = self.conv(hidden_BPH.transpose(1, 2)).transpose(1, 2)
        return self.linear2(torch.relu(near_BPH))


def stacked(frames_BTD: Tensor, stack: int) -> Tensor:
    """Frames (B, T, D) to (B, T // stack, D * stack); an incomplete stack is cut."""
    batch, frames, channels = frames_BTD.shape
    count = frames // stack
    return frames_BTD[:, : count * stack].reshape(batch, count, channels * stack)


PROJECTORS: dict[str, type[Projector]] = {"stack": StackProjector, "conv": ConvProjector}


def build_projector(config: StreamConfig, hidden_size: int) -> Projector:
    """The projector that the section of a stream names.

    Raises:
        InputError: `projector` is not a row of `PROJECTORS`.
        ValueError: The projector has another rate than one frame for every `stack` frames, from
            which the times of anchors are computed.
    """
    if config.projector not in PROJECTORS:
        choices = ", ".join(PROJECTORS)
        raise InputError(f"projector: must be one of {choices}, got {config.projector!r}")
    projector = PROJECTORS[config.projector](config, hidden_size)
    frames = 1000
    length = int(projector.output_lens(torch.tensor([frames * config.stack])))
    if abs(length - frames) > 0.02 * frames:
        raise ValueError(
            f"projector {config.projector}: gives {length} frames for {frames} times {config.stack}"
        )
    return projector


def project(projector: Projector, frames_BTD: Tensor, lens_B: Tensor) -> tuple[Tensor, list[int]]:
    """Projected frames (B, P, H) and their valid lengths.

    The projector sees zeros after the last stack of an item.
    """
    output_lens_B = projector.output_lens(lens_B)
    lens = output_lens_B.tolist()
    if not any(lens):
        return frames_BTD.new_zeros(len(lens), 0, projector.hidden_size), lens
    ends_B = torch.minimum(lens_B, output_lens_B * projector.stack)
    after_BT = torch.arange(frames_BTD.shape[1], device=lens_B.device) >= ends_B[:, None]
    after_BT1 = on_its_way(after_BT, frames_BTD.device)[..., None]
    projected_BPH = projector(frames_BTD.masked_fill(after_BT1, 0))
    if projected_BPH.shape[1] < max(lens):
        raise ValueError(f"a projector gives {projected_BPH.shape[1]} frames of {max(lens)}")
    return projector.normalised(projected_BPH), lens
