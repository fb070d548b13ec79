"""The next token of each row of a batch, for all rows at once.

Shape suffixes: R rows, W those whose likeliest token may not follow, A choices of a row, H hidden
size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor

from tagspeech.data.transfer import int_tensors
from tagspeech.inference.constraint import Constraint
from tagspeech.inference.hotwords import Bias


class Row(Protocol):
    """An output that is being written: the LLM's last state (H,), what may follow, a bonus."""

    hidden: Tensor
    constraint: Constraint | None
    bias: Bias | None


def likeliest(head: Any, rows: Sequence[Row]) -> Tensor:
    """The likeliest token of each row among all that may follow, for rows in words or free ones.

    Returns:
        Token, its log-probability, and the highest one of all tokens, (3, R).
    """
    hidden_RH = torch.stack([row.hidden for row in rows])
    # This order takes half the time of head(hidden_RH) on a CPU, and two rows that of one.
    rows_RH = hidden_RH if len(hidden_RH) > 1 else hidden_RH.repeat(2, 1)
    logits_RV = (head.weight @ rows_RH.T).T[: len(hidden_RH)].contiguous()
    if getattr(head, "bias", None) is not None:
        logits_RV = logits_RV + head.bias
    log_probs_RV = logits_RV.float()
    torch.log_softmax(log_probs_RV, -1, out=log_probs_RV)  # in place: they are large
    scores_RV = log_probs_RV
    if any(row.bias for row in rows):
        pairs = zip(rows, log_probs_RV, strict=True)
        scores_RV = torch.stack(
            [row.bias.biased(of_V) if row.bias else of_V for row, of_V in pairs]
        )
    tokens_R = scores_RV.argmax(-1)
    held = [row.constraint for row in rows if row.constraint is not None]
    if held:
        wrong = list(range(len(held)))
        if hidden_RH.device.type == "cpu":
            # Nearly always the likeliest of all tokens may follow. To find that out takes a wait,
            # which costs nothing here, while ruling out tokens takes as long as finding the best.
            found = zip(held, tokens_R.tolist(), strict=True)
            wrong = [place for place, (row, token) in enumerate(found) if not row.fits(token)]
        if wrong:
            (rows_W,) = int_tensors(hidden_RH.device, wrong)
            ruled_out_WV = held[0].vocabulary.ruled_out(
                [held[place].state for place in wrong], rows_W
            )
            left_WV = scores_RV.index_select(0, rows_W).masked_fill_(ruled_out_WV, -torch.inf)
            tokens_R.index_copy_(0, rows_W, left_WV.argmax(-1))
    return _told(tokens_R, log_probs_RV.gather(1, tokens_R[:, None])[:, 0], log_probs_RV)


def likeliest_of_few(head: Any, rows: Sequence[Row]) -> Tensor:
    """The same for rows of which only few tokens may follow: only their logits are computed."""
    choices = [row.constraint.allowed() for row in rows if row.constraint]
    most = max(map(len, choices))
    hidden_RH = torch.stack([row.hidden for row in rows])
    ids_RA, counts_R = int_tensors(
        hidden_RH.device,
        chain.from_iterable([*ids, *[ids[0]] * (most - len(ids))] for ids in choices),
        map(len, choices),
    )
    ids_RA = ids_RA.view(-1, most)
    logits_RA = torch.bmm(head.weight[ids_RA], hidden_RH[..., None])[..., 0]
    if getattr(head, "bias", None) is not None:
        logits_RA = logits_RA + head.bias[ids_RA]
    no_choice_RA = torch.arange(most, device=ids_RA.device) >= counts_R[:, None]
    log_probs_RA = logits_RA.float().masked_fill_(no_choice_RA, -torch.inf).log_softmax(-1)
    best_R1 = log_probs_RA.argmax(-1, keepdim=True)
    tokens_R1, log_probs_R1 = ids_RA.gather(1, best_R1), log_probs_RA.gather(1, best_R1)
    return _told(tokens_R1[:, 0], log_probs_R1[:, 0], log_probs_RA)


def _told(tokens_R: Tensor, log_probs_R: Tensor, all_RV: Tensor) -> Tensor:
    # float32 has all integers up to 16 million; MPS has no float64.
    return torch.stack([tokens_R.float(), log_probs_R, all_RV.amax(-1)])
