"""The cross entropy of target tokens, without the logits of all of them at once.

A vocabulary of 151,936 makes 600 kB of logits a position, and softmax and its gradient as much
again. Chunks of positions go one after the other, each to its loss and at once back to the gradient
of its hidden states: its logits become its gradient in place, and the product with the vocabulary
is computed twice in all. To recompute logits in the backward pass would cost a third.

Shape suffixes: N scored positions, M those of a chunk, H hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2**25  # logits at a time: 128 MiB in float32, some 200 positions of 151,936


def target_cross_entropy(
    head: Any, hidden_NH: Tensor, labels_N: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Summed cross entropy of `labels_N`, and how many of them are the likeliest token.

    head   the LLM's output embedding, (M, H) to (M, V); it learns where its weights want gradients
    chunk  logits at a time
    """
    weights = [one for one in head.parameters() if one.requires_grad]
    if torch.is_grad_enabled() and (hidden_NH.requires_grad or weights):
        loss, correct = _ChunkedLoss.apply(head, labels_N, chunk, hidden_NH, *weights)
        return loss, correct
    loss, correct, _ = _in_chunks(head, labels_N, chunk, hidden_NH, None)
    return loss, correct


class _ChunkedLoss(torch.autograd.Function):
    """Gradients are those of the forward pass, times what comes back to the loss."""

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
        return None, None, None, *(one * gradient for one in ctx.saved_tensors)


def _in_chunks(
    head: Any,
    labels_N: Tensor,
    chunk: int,
    hidden_NH: Tensor,
    weights: tuple[Tensor, ...] | None,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Summed loss, number of right guesses, gradients of `hidden_NH` and `weights`.

    weights  None: no gradients at all
    """
    loss = torch.zeros((), device=hidden_NH.device)
    correct = torch.zeros((), dtype=torch.long, device=hidden_NH.device)
    sums = [torch.zeros_like(one) for one in (hidden_NH, *(weights or ()))]
    rows = max(1, chunk // head.weight.shape[0])
    for start in range(0, len(labels_N), rows):
        labels_M1 = labels_N[start : start + rows, None]
        hidden_MH = hidden_NH[start : start + rows].detach()
        with torch.set_grad_enabled(weights is not None):
            raw_MV = head(hidden_MH.requires_grad_(weights is not None))
        logits_MV = raw_MV.detach().float()
        wanted_M1 = logits_MV.gather(1, labels_M1)
        best_M1, guess_M1 = logits_MV.max(1, keepdim=True)
        scores_MV = logits_MV.sub_(best_M1).exp_()  # in place of the logits
        total_M1 = scores_MV.sum(1, keepdim=True)
        loss += (total_M1.log() + best_M1 - wanted_M1).sum()
        correct += (guess_M1 == labels_M1).sum()
        if weights is None:
            continue
        gradient_MV = scores_MV.div_(total_M1)
        gradient_MV.scatter_add_(1, labels_M1, gradient_MV.new_full(labels_M1.shape, -1.0))
        own = torch.autograd.grad(raw_MV, (hidden_MH, *weights), gradient_MV.to(raw_MV.dtype))
        sums[0][start : start + rows] = own[0]
        for total, one in zip(sums[1:], own[1:], strict=True):
            total += one
    return loss, correct, sums
