"""The semantic encoder with a CTC output, for Serialized Output Training.

Targets are the transcripts of a group in order of start time, joined by the speaker-change token
(arXiv 2601.06896, semantic stream). `encoders.transducer` has the other output.

Shape suffixes: B batch, T frames, F mel bins, D encoder channels, V units, S speakers at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tagspeech.config import EncoderConfig, WhisperEncoderConfig
from tagspeech.data.transfer import int_tensors
from tagspeech.encoders.stream import StreamEncoder
from tagspeech.encoders.whisper import WhisperStream
from tagspeech.encoders.zipformer import Zipformer
from tagspeech.errors import InputError
from tagspeech.weights import read_model


class AlignedEncoder(StreamEncoder):
    """Base of an encoder with an output that predicts the units spoken at each frame."""

    alignment_output: nn.Linear  # to the units of up to two speakers

    def alignment_loss(self, encoded_BTD: Tensor, units_BTS: Tensor) -> Tensor:
        """Cross entropy of the units that up to two speakers say at each frame.

        For corpora with word times: it teaches the encoder while CTC alone still searches for an
        alignment, and to recognize both of two overlapping speakers.

        Args:
            encoded_BTD: Encoder frames.
            units_BTS: (B, T, 2), of the speaker who began first and of the next; 0 is silence, -1
                is not scored.

        Returns:
            The sum of the two means; 0 if nothing is scored.
        """
        logits_BTSV = self.alignment_output(encoded_BTD).float().unflatten(-1, (2, -1))
        losses_2N = nn.functional.cross_entropy(
            logits_BTSV.permute(2, 3, 0, 1).flatten(2),
            units_BTS.permute(2, 0, 1).flatten(1),
            ignore_index=-1,
            reduction="none",
        )
        counts_2 = (units_BTS >= 0).sum(dim=(0, 1)).clamp(min=1)
        return (losses_2N.sum(dim=1) / counts_2).sum()


class CtcEncoder(AlignedEncoder):
    """Base of an encoder with a CTC output, `ctc_output.1` in icefall's state dicts.

    It comes before the encoder among the bases of a class, so that it is built behind it.
    """

    def __init__(self, config: Any, vocab_size: int) -> None:
        super().__init__(config)
        self.ctc_output = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(config.output_dim, vocab_size)
        )
        self.alignment_output = nn.Linear(config.output_dim, 2 * vocab_size)

    @torch.no_grad()
    def load_ctc_output(self, path: Path, num_units: int) -> None:
        """Copies the CTC output of a trained model (see `read_model`).

        A new unit, the speaker change, gets the mean row of the others without the blank, as an
        ordinary unit.

        Args:
            path: The weights.
            num_units: Units of that model, which come first here.

        Raises:
            InputError: The file has no such output, or one of another size.
        """
        state = read_model(path)
        for name, weight in self.ctc_output[1].named_parameters():
            full_name = f"ctc_output.1.{name}"
            if full_name not in state:
                raise InputError(
                    f"{path}: has no {full_name}, so its units cannot be used; leave "
                    "semantic_units empty to use only the encoder"
                )
            given, shape = state[full_name], (num_units, *weight.shape[1:])
            if given.shape != shape:
                raise InputError(
                    f"{path}: {full_name} has shape {tuple(given.shape)}, but by its units and the "
                    f"encoder it must be {shape}"
                )
            weight[:num_units] = given
            weight[num_units:] = given[1:].float().mean(0)

    def losses(
        self, encoded_BTD: Tensor, lens_B: Tensor, units: Sequence[Sequence[int]], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss per unit at a training step, and figures to log."""
        ctc = self.ctc_loss(encoded_BTD, lens_B, units)
        return ctc, {"ctc": ctc.detach()}

    def ctc_loss(
        self, encoded_BTD: Tensor, encoded_lens_B: Tensor, units: Sequence[Sequence[int]]
    ) -> Tensor:
        """CTC loss per unit, over serialized transcripts; unit 0 is the blank.

        A transcript too long for its frames has no alignment; its loss is 0.
        """
        log_probs_BTV = self.ctc_output(encoded_BTD).float().log_softmax(-1)
        (units_N,) = int_tensors(encoded_BTD.device, chain.from_iterable(units))
        loss = nn.functional.ctc_loss(
            log_probs_BTV.transpose(0, 1),
            units_N,
            encoded_lens_B,
            torch.tensor(list(map(len, units))),
            reduction="sum",
            zero_infinity=True,
        )
        return loss / max(1, sum(map(len, units)))

    @torch.no_grad()
    def greedy(self, features_BTF: Tensor, lens_B: Tensor) -> list[list[int]]:
        """The best unit of each frame, without repeats and blanks."""
        encoded_BTD, encoded_lens_B = self(features_BTF, lens_B)
        best_BT = self.ctc_output(encoded_BTD).argmax(-1)
        return [
            [int(unit) for unit in torch.unique_consecutive(best[:length]) if unit]
            for best, length in zip(best_BT, encoded_lens_B.tolist(), strict=True)
        ]


class SotModel(CtcEncoder, Zipformer):
    """A Zipformer with a CTC output."""


class WhisperSotModel(CtcEncoder, WhisperStream):
    """Whisper's encoder with a CTC output."""


def build_sot_model(config: EncoderConfig, vocab_size: int) -> CtcEncoder:
    """The encoder of a section with a CTC output of so many units."""
    if isinstance(config, WhisperEncoderConfig):
        return WhisperSotModel(config, vocab_size)
    return SotModel(config, vocab_size)
