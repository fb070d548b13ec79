"""The loss of a training step: exact in chunks, packed or padded, and without what it can spare."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from tagspeech.models.target_loss import target_cross_entropy


def gradients(loss: Tensor, weights: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, weights))


@pytest.mark.parametrize("chunk", [1, 90, 10**6], ids=["one position", "three", "all"])
@pytest.mark.parametrize("learns", [True, False], ids=["head learns", "head frozen"])
def test_chunks_are_exact(chunk: int, learns: bool) -> None:
    """Loss, token accuracy and gradients are those of torch's cross entropy over all logits."""
    torch.manual_seed(1)
    head = nn.Linear(8, 30).requires_grad_(learns)
    hidden_NH = (40 * torch.randn(10, 8)).requires_grad_()  # some scores underflow
    labels_N = torch.randint(0, 30, (10,))
    with torch.no_grad():
        labels_N[:4] = head(hidden_NH[:4]).argmax(1)
    weights = [hidden_NH, *(head.parameters() if learns else ())]
    loss, correct = target_cross_entropy(head, hidden_NH, labels_N, chunk)
    logits_NV = head(hidden_NH)
    wanted = nn.functional.cross_entropy(logits_NV, labels_N, reduction="sum")
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=0)
    assert correct.item() == (logits_NV.argmax(1) == labels_N).sum().item() >= 4
    pairs = zip(gradients(loss / 7, weights), gradients(wanted / 7, weights), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    with torch.inference_mode():
        assert target_cross_entropy(head, hidden_NH, labels_N, chunk)[0] == loss


def test_bfloat16_is_that_of_autocast() -> None:
    torch.manual_seed(1)
    head = nn.Linear(64, 300, bias=False)
    hidden_NH = torch.randn(20, 64).requires_grad_()
    labels_N = torch.randint(0, 300, (20,))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = target_cross_entropy(head, hidden_NH, labels_N, 1500)
        wanted = nn.functional.cross_entropy(head(hidden_NH).float(), labels_N, reduction="sum")
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=0)
    weights = [hidden_NH, head.weight]
    for ours, theirs in zip(gradients(loss, weights), gradients(wanted, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.01)
