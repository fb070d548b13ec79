"""What every encoder of a stream has in common; `encoders.build` has the tables of encoders.

Shape suffixes: B batch, T feature frames, T' encoder frames, F bins, D encoder channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tagspeech.config import EncoderConfig
from tagspeech.data.pooling import Region, pool_regions


class StreamEncoder(nn.Module):
    """Base of the encoders: features (B, T, F) and lengths (B,) to frames (B, T', D) and lengths.

    It is built from its section of the configuration, which has bins, channels and frame rate.
    What lies after the end of an item must not change the item's frames.

    Attributes:
        model_type: `model_type` of a config.json that describes such an encoder.
    """

    model_type = ""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self, features_BTF: Tensor, feature_lens_B: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def vectors(self, frames_BTD: Tensor, lens_B: Tensor, regions: list[Region]) -> Tensor:
        """The voice vector of each region, (N, V), whose cosine tells speakers apart.

        This is the mean frame unless an encoder has a better one; V is then D.

        Args:
            frames_BTD: What `forward` gave.
            lens_B: Valid frames of each item.
            regions: Item, any number, and frame indices, of which there is at least one; those past
                the end mean the last frame.
        """
        return pool_regions(frames_BTD, lens_B, regions)

    def load_weights(self, path: Path) -> None:
        """Copies the encoder's weights from a file, which may hold a decoder as well.

        Raises:
            InputError: A weight is missing, unexpected or of another shape.
        """
        raise NotImplementedError

    def train_only_adapters(self) -> None:
        """Turns off the gradients of weights that adapters stand in for; most have none."""

    @classmethod
    def config_from(cls, tree: dict[str, Any], where: str, current: EncoderConfig) -> EncoderConfig:
        """The section that the config.json next to pretrained weights stands for.

        Args:
            tree: The content of config.json.
            where: Its path, for error messages.
            current: The section in use, for what config.json does not say.
        """
        raise NotImplementedError
