"""The semantic encoder with its CTC output, as Serialized Output Training trains it.

`encoders.transducer` has the other output that it can have.

Transcripts of a group in order of start time, joined by the speaker-change token
(docs/paper.md). Shape suffixes: B batch, T frames, F mel bins, D encoder channels, V units, S
speakers at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tagspeech.config import ZipformerConfig
from tagspeech.encoders.zipformer import Zipformer
from tagspeech.errors import InputError
from tagspeech.weights import read_model


class AlignedEncoder(Zipformer):
    """A Zipformer that can also be told which units are spoken at each frame."""

    alignment_output: nn.Linear  # to the units of up to two speakers

    def alignment_loss(self, encoded_BTD: Tensor, units_BTS: Tensor) -> Tensor:
        """Cross entropy of the units that up to two speakers say at each frame; -1 does not count.

        units_BTS  (B, T, 2): who of those talking began first, who began next; 0 for silence

        Where word times are known it teaches the encoder in the minutes in which CTC alone would
        still look for an alignment, and to hear both where two talk at once. The sum of both means;
        0 where nothing counts.
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


class SotModel(AlignedEncoder):
    """A Zipformer whose state dict has icefall's names, `ctc_output.1` included."""

    def __init__(self, config: ZipformerConfig, vocab_size: int) -> None:
        super().__init__(config)
        self.ctc_output = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(config.output_dim, vocab_size)
        )
        self.alignment_output = nn.Linear(config.output_dim, 2 * vocab_size)

    @torch.no_grad()
    def load_ctc_output(self, path: Path, num_units: int) -> None:
        """Takes over the CTC output of a trained model (see `read_model`).

        num_units  units of that model: the first ones here

        A unit that is new here, the speaker change, gets the mean row of the old ones without the
        blank: it begins as an ordinary unit. Raises `InputError` where the file has no such output
        or one of another size.
        """
        state = read_model(path)
        for name, weight in self.ctc_output[1].named_parameters():
            full_name = f"ctc_output.1.{name}"
            if full_name not in state:
                raise InputError(
                    f"{path}: has no {full_name}: its units are of no use here; leave "
                    "semantic_units empty, and its encoder alone is taken"
                )
            given, wanted = state[full_name], (num_units, *weight.shape[1:])
            if given.shape != wanted:
                raise InputError(
                    f"{path}: {full_name} has shape {tuple(given.shape)}, its units and the "
                    f"encoder want {wanted}"
                )
            weight[:num_units] = given
            weight[num_units:] = given[1:].float().mean(0)

    def losses(
        self, encoded_BTD: Tensor, lens_B: Tensor, units: Sequence[Sequence[int]], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss per unit at a step of the training, and figures to log."""
        ctc = self.ctc_loss(encoded_BTD, lens_B, units)
        return ctc, {"ctc": ctc.detach()}

    def ctc_loss(
        self, encoded_BTD: Tensor, encoded_lens_B: Tensor, units: Sequence[Sequence[int]]
    ) -> Tensor:
        """CTC loss per unit, over serialized transcripts; unit 0 is the blank.

        A transcript too long for its frames counts as zero: there is no alignment to learn from.
        """
        log_probs_BTV = self.ctc_output(encoded_BTD).float().log_softmax(-1)
        loss = nn.functional.ctc_loss(
            log_probs_BTV.transpose(0, 1),
            torch.tensor(
                [unit for one in units for unit in one], dtype=torch.long, device=encoded_BTD.device
            ),
            encoded_lens_B,
            torch.tensor([len(one) for one in units]),
            reduction="sum",
            zero_infinity=True,
        )
        return loss / max(1, sum(map(len, units)))

    @torch.no_grad()
    def greedy(self, features_BTF: Tensor, lens_B: Tensor) -> list[list[int]]:
        """Best units frame by frame, repeats and blanks removed."""
        encoded_BTD, encoded_lens_B = self(features_BTF, lens_B)
        best_BT = self.ctc_output(encoded_BTD).argmax(-1)
        return [
            [int(unit) for unit in torch.unique_consecutive(best[:length]) if unit]
            for best, length in zip(best_BT, encoded_lens_B.tolist(), strict=True)
        ]
