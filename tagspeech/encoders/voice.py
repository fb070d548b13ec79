"""The voice encoder in its training, which classifies speaker and gender of stretches of speech.

Shape suffixes: N stretches of speech, D encoder channels, S speakers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tagspeech.config import VoiceConfig
from tagspeech.encoders.zipformer import Zipformer

GENDER_CLASSES = ("F", "M")


class VoiceModel(Zipformer):
    """A Zipformer with a cosine classifier of speakers and a linear one of genders."""

    def __init__(self, config: VoiceConfig, num_speakers: int) -> None:
        super().__init__(config.encoder)
        self.margin, self.scale = config.margin, config.scale
        dim = config.encoder.output_dim
        self.speaker_output = nn.Parameter(torch.randn(num_speakers, dim) * dim**-0.5)
        self.gender_output = nn.Linear(dim, len(GENDER_CLASSES))

    def losses(
        self, pooled_ND: Tensor, speakers_N: Tensor, genders_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Speaker loss and gender loss of pooled stretches; an unknown gender is -1.

        The speaker loss is softmax over cosines with an additive margin (arXiv 1801.05599).
        """
        cosines_NS = (
            functional.normalize(pooled_ND, dim=-1)
            @ functional.normalize(self.speaker_output, dim=-1).T
        )
        labels_NS = functional.one_hot(speakers_N, cosines_NS.shape[1])
        speaker = functional.cross_entropy(
            self.scale * (cosines_NS - self.margin * labels_NS), speakers_N
        )
        if bool((genders_N < 0).all()):
            return speaker, torch.zeros_like(speaker)
        gender = functional.cross_entropy(self.gender_output(pooled_ND), genders_N, ignore_index=-1)
        return speaker, gender
