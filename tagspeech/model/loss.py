"""What TagSpeech learns by: the cross entropy of the target text, and terms beside it.

`model.speaker_heads` has those terms that need weights of their own.

Shape suffixes: B batch, P projected frames, N scored positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from tagspeech.config import LossConfig
from tagspeech.llm.prompt import Prompt, encode_text
from tagspeech.model.target_loss import target_cross_entropy

IGNORED = -100  # the label of a token that is not scored


class LossOutput(NamedTuple):
    """Loss of a batch.

    loss        mean cross entropy over the scored tokens of the whole batch, plus weighted terms
    correct     share of scored tokens whose greedy guess is right
    tokens      number of scored tokens
    terms       each unweighted term by name, the cross entropy as "target"
    logits      (N, V) at the scored positions of all items in order; None if not asked for
    """

    loss: Tensor
    correct: Tensor
    tokens: int
    terms: dict[str, Tensor]
    logits: Tensor | None


def total_loss(
    config: LossConfig,
    head: nn.Module,
    hidden_NH: Tensor,
    ids: Sequence[Sequence[int]],
    others: dict[str, Tensor],
) -> LossOutput:
    """The cross entropy of target ids given hidden states, plus `others` with their weights.

    head    the LLM's output embedding
    ids     of each item's target; their positions lie behind each other in `hidden_NH`
    others  unweighted terms, each by its name in `LossConfig`
    """
    labels_N = torch.tensor(list(chain.from_iterable(ids)), device=hidden_NH.device)
    total, right = target_cross_entropy(head, hidden_NH, labels_N)
    target = loss = total / len(labels_N)
    for name, term in others.items():
        loss = loss + getattr(config, name) * term
    terms = {"target": target, **others}
    return LossOutput(loss, right / len(labels_N), len(labels_N), terms, None)


def semantic_ctc(
    llm: Any, tokenizer: Any, prompt: Prompt, projected: list[Tensor], targets: Sequence[str]
) -> tuple[Tensor, int]:
    """CTC of the words through the LLM's own output embedding on projected semantic frames.

    Mean over the words' tokens, and their number. It tells the projector early which frame means
    which word (loss.semantic_ctc). The blank is the end of the turn; a target too long for its
    frames adds nothing.

    projected  (P, H) of each item
    """
    words = [
        " ".join(line.partition(">")[2] for line in target.splitlines() if line[:1].isdigit())
        for target in targets
    ]
    ids = [encode_text(tokenizer, text) for text in words]
    tokens = max(1, sum(map(len, ids)))
    lens_B = torch.tensor([len(one) for one in projected])
    if not lens_B.any():  # torch refuses a batch without any frame
        return projected[0].sum(), tokens
    output = llm.get_output_embeddings()
    logits_BPV = output(pad_sequence(projected, batch_first=True).to(output.weight.dtype))
    loss = nn.functional.ctc_loss(
        logits_BPV.float().log_softmax(-1).transpose(0, 1),
        torch.tensor(list(chain.from_iterable(ids)), dtype=torch.long, device=logits_BPV.device),
        lens_B,
        torch.tensor([len(one) for one in ids]),
        blank=prompt.ending[0],
        reduction="sum",
        zero_infinity=True,
    )
    return loss / tokens, tokens
