"""The training loss: the cross entropy of the target text, and further terms.

`model.speaker_heads` has the terms that need weights of their own.

The cross entropy is computed without the logits of all target tokens at once: with a vocabulary of
151,936 the logits of each position take 600 kB, and softmax and its gradient as much again. Chunks
of positions go one after the other to their loss and back to the gradient of their hidden states;
logits become their gradient in place. The product with the vocabulary is computed twice in all;
recomputing the logits in the backward pass would make it three times.

Shape suffixes: B batch, P projected frames, N scored positions, M those of a chunk, H hidden size,
V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tagspeech.config import LossConfig
from tagspeech.data.transfer import on_its_way
from tagspeech.llm.pieces import piece_encoder
from tagspeech.llm.prompt import Prompt, encode_text

log = logging.getLogger(__name__)

IGNORED = -100  # the label of a token that is not scored


class LossOutput(NamedTuple):
    """Loss of a batch.

    Attributes:
        loss: Mean cross entropy over the scored tokens of the whole batch, plus weighted terms.
        correct: Share of scored tokens whose greedy prediction is right.
        tokens: Number of scored tokens.
        terms: Each unweighted term by name, the cross entropy as "target".
        logits: (N, V) at the scored positions of all items in order, or None.
    """

    loss: Tensor
    correct: Tensor
    tokens: int
    terms: dict[str, Tensor]
    logits: Tensor | None


def warn_of_no_effect(config: LossConfig) -> None:
    """Logs a warning for each option that is set, but needs another one."""
    ctc, steps = config.semantic_ctc, config.semantic_ctc_steps
    if config.semantic_frames and not steps:
        log.warning("loss.semantic_frames: has no effect without loss.semantic_ctc_steps")
    if config.semantic_merges and not (ctc or steps):
        log.warning(
            "loss.semantic_merges: has no effect without loss.semantic_ctc or semantic_ctc_steps"
        )


def total_loss(
    config: LossConfig,
    head: nn.Module,
    hidden_NH: Tensor,
    labels_N: Tensor,
    others: dict[str, Tensor],
) -> LossOutput:
    """The cross entropy of target ids given hidden states, plus weighted terms.

    Args:
        config: Has the weights of the terms.
        head: The LLM's output embedding.
        hidden_NH: States at the scored positions of all items in order.
        labels_N: The token ids to be written there.
        others: Unweighted terms, each by its name in `LossConfig`.
    """
    total, right = target_cross_entropy(head, hidden_NH, labels_N)
    target = loss = total / len(labels_N)
    for name, term in others.items():
        loss = loss + getattr(config, name) * term
    terms = {"target": target, **others}
    return LossOutput(loss, right / len(labels_N), len(labels_N), terms, None)


class EmbeddingCtc:
    """CTC of the words on projected semantic frames, through the LLM's output embedding.

    It teaches the projector early which frame belongs to which word (loss.semantic_ctc). The blank
    is the end of the turn.

    Args:
        llm: The LLM.
        tokenizer: Its tokenizer.
        prompt: Has the end of the turn.
        merges: If not 0, words are in short pieces: `llm.pieces.piece_encoder`.
    """

    def __init__(self, llm: Any, tokenizer: Any, prompt: Prompt, merges: int = 0) -> None:
        self.llm, self.tokenizer = llm, tokenizer
        self.encode = (
            piece_encoder(tokenizer, merges) if merges else partial(encode_text, tokenizer)
        )
        self.blank = prompt.ending[0]
        self.vocabulary: Tensor | None = None  # stays on the CPU, where targets are looked up

    def limit(self, targets: Sequence[str]) -> None:
        """Limits the softmax to the tokens of these targets, which saves most of the cost."""
        known = {token for target in targets for token in self.word_ids(target)}
        self.vocabulary = torch.tensor(sorted({*known, self.blank}))

    def logits(self, frames_BPH: Tensor, scale: Tensor | float = 1.0) -> Tensor:
        """Logits (B, P, V) of projected semantic frames, V the vocabulary.

        Args:
            frames_BPH: The frames.
            scale: What the products of frames and embeddings are multiplied by.
        """
        output = self.llm.get_output_embeddings()
        frames_BPH = frames_BPH.to(output.weight.dtype)
        if self.vocabulary is None:
            logits_BPV: Tensor = output(frames_BPH)
        else:
            rows_VH = output.weight[on_its_way(self.vocabulary, frames_BPH.device)]
            logits_BPV = nn.functional.linear(frames_BPH, rows_VH)
        return logits_BPV.float() * scale

    def _in_vocabulary(self, ids: list[int]) -> Tensor:
        tokens = torch.tensor(ids, dtype=torch.long)
        if self.vocabulary is None:
            return tokens
        return torch.searchsorted(self.vocabulary, tokens)

    def loss(
        self, logits_BPV: Tensor, lens: list[int], targets: Sequence[str]
    ) -> tuple[Tensor, int]:
        """The mean loss over the words' tokens, and their number.

        A target too long for its frames has loss 0.

        Args:
            logits_BPV: Output of `logits`.
            lens: Number of frames of each item.
            targets: Target text of each item.
        """
        ids = [self.word_ids(target) for target in targets]
        tokens = max(1, sum(map(len, ids)))
        if not any(lens):  # torch refuses a batch without frames
            return logits_BPV.sum() * 0.0, tokens
        loss = nn.functional.ctc_loss(
            logits_BPV.log_softmax(-1).transpose(0, 1),
            on_its_way(self._in_vocabulary(list(chain.from_iterable(ids))), logits_BPV.device),
            torch.tensor(lens),
            torch.tensor(list(map(len, ids))),
            blank=int(self._in_vocabulary([self.blank])),
            reduction="sum",
            zero_infinity=True,
        )
        return loss / tokens, tokens

    def frame_loss(self, logits_BPV: Tensor, spoken_BPS: Tensor) -> Tensor:
        """The mean cross entropy of the tokens spoken at each frame, 0 if there are none.

        It says where the words are while CTC still searches for that.

        Args:
            logits_BPV: Output of `logits`.
            spoken_BPS: Token ids of up to two speakers, `data.pooling.frame_units`, on the CPU: 0
                where nobody speaks, -1 where nothing is scored. Frames that have no logits are left
                out.
        """
        spoken_BPS = spoken_BPS[:, : logits_BPV.shape[1]]
        first_BP = spoken_BPS[..., :1]
        silent_BPS = torch.cat([first_BP == 0, torch.zeros_like(spoken_BPS[..., 1:]) > 0], -1)
        ids_BPS = spoken_BPS.masked_fill(silent_BPS, self.blank)
        kept_BPS = (spoken_BPS > 0) | silent_BPS
        if self.vocabulary is not None:  # the first token of a word may differ within a text
            known_BPS = torch.searchsorted(self.vocabulary, ids_BPS)
            known_BPS.clamp_(max=len(self.vocabulary) - 1)
            kept_BPS &= self.vocabulary[known_BPS] == ids_BPS
            ids_BPS = known_BPS
        if not kept_BPS.any():
            return logits_BPV.sum() * 0.0
        items_N, places_N, _ = kept_BPS.nonzero(as_tuple=True)
        rows_N = on_its_way(items_N * logits_BPV.shape[1] + places_N, logits_BPV.device)
        labels_N = on_its_way(ids_BPS[kept_BPS], logits_BPV.device)
        scored_NV = logits_BPV.flatten(0, 1).index_select(0, rows_N)
        return nn.functional.cross_entropy(scored_NV, labels_N)

    def word_ids(self, target: str) -> list[int]:
        """The tokens of the words of a target text, without times and speakers."""
        words = (line.partition(">")[2] for line in target.splitlines() if line[:1].isdigit())
        return self.encode(" ".join(words))

    @torch.no_grad()
    def texts(self, frames_BPH: Tensor, lens: list[int]) -> list[str]:
        """The words of the best token at each frame, without repeats and blanks."""
        if not any(lens):
            return [""] * len(lens)
        best_BP = self.logits(frames_BPH).argmax(-1).cpu()
        if self.vocabulary is not None:
            best_BP = self.vocabulary[best_BP]
        rows = [
            torch.unique_consecutive(best_P[:length]).tolist()
            for best_P, length in zip(best_BP, lens, strict=True)
        ]
        kept = [[token for token in row if token != self.blank] for row in rows]
        texts: list[str] = self.tokenizer.batch_decode(kept)
        return texts


CHUNK = 2**25  # logits at a time: 128 MiB in float32, about 200 positions of 151,936


def target_cross_entropy(
    head: Any, hidden_NH: Tensor, labels_N: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Summed cross entropy of `labels_N`, and how many of them are the most likely token.

    Args:
        head: The LLM's output embedding, (M, H) to (M, V).
        hidden_NH: States at the scored positions.
        labels_N: Token ids.
        chunk: Logits at a time.
    """
    weights = [weight for weight in head.parameters() if weight.requires_grad]
    if torch.is_grad_enabled() and (hidden_NH.requires_grad or weights):
        loss, correct = _ChunkedLoss.apply(head, labels_N, chunk, hidden_NH, *weights)
        return loss, correct
    loss, correct, _ = _in_chunks(head, labels_N, chunk, hidden_NH, None)
    return loss, correct


class _ChunkedLoss(torch.autograd.Function):
    """Gradients are computed in the forward pass, and scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, head: Any, labels_N: Tensor, chunk: int, hidden_NH: Tensor, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        loss, correct, gradients = _in_chunks(head, labels_N, chunk, hidden_NH, weights)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *(saved * gradient for saved in ctx.saved_tensors)


def _in_chunks(
    head: Any,
    labels_N: Tensor,
    chunk: int,
    hidden_NH: Tensor,
    weights: tuple[Tensor, ...] | None,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Summed loss, number of right predictions, gradients of `hidden_NH` and `weights`.

    No gradients are computed if `weights` is None.
    """
    loss = torch.zeros((), device=hidden_NH.device)
    correct = torch.zeros((), dtype=torch.long, device=hidden_NH.device)
    sums = [torch.zeros_like(tensor) for tensor in (hidden_NH, *(weights or ()))]
    rows = max(1, chunk // head.weight.shape[0])
    for start in range(0, len(labels_N), rows):
        labels_M1 = labels_N[start : start + rows, None]
        hidden_MH = hidden_NH[start : start + rows].detach()
        with torch.set_grad_enabled(weights is not None):
            raw_MV = head(hidden_MH.requires_grad_(weights is not None))
        logits_MV = raw_MV.detach().float()
        target_M1 = logits_MV.gather(1, labels_M1)
        best_M1, guess_M1 = logits_MV.max(1, keepdim=True)
        scores_MV = logits_MV.sub_(best_M1).exp_()  # in place of the logits
        total_M1 = scores_MV.sum(1, keepdim=True)
        loss += (total_M1.log() + best_M1 - target_M1).sum()
        correct += (guess_M1 == labels_M1).sum()
        if weights is None:
            continue
        gradient_MV = scores_MV.div_(total_M1)
        gradient_MV.scatter_add_(1, labels_M1, gradient_MV.new_full(labels_M1.shape, -1.0))
        of_hidden, *of_weights = torch.autograd.grad(
            raw_MV, (hidden_MH, *weights), gradient_MV.to(raw_MV.dtype)
        )
        sums[0][start : start + rows] = of_hidden
        for total, gradient in zip(sums[1:], of_weights, strict=True):
            total += gradient
    return loss, correct, sums
