"""Greedy generation of target texts (PAPER, decoding).

Shape suffixes: B batch, L positions of the prompt, H hidden size of the LLM, N new tokens,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from tagspeech.errors import InputError
from tagspeech.models.tagspeech import Frames, TagSpeechModel
from tagspeech.wellformed import goes_on, is_whole


class WellFormed(LogitsProcessor):
    """Leaves to each row the likeliest token with which its output still becomes a target text.

    The end of the turn is that token where the output is whole, and nowhere else.
    """

    def __init__(self, tokenizer: Any, end: int) -> None:
        self.tokenizer, self.end = tokenizer, end
        self.special = set(tokenizer.all_special_ids)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        ruled_BV = torch.full_like(scores, -torch.inf)
        for row, ids in enumerate(input_ids.tolist()):
            token = self.end if self.end in ids else self.best(ids, scores[row])
            ruled_BV[row, token] = 0.0
        return ruled_BV

    def best(self, ids: list[int], scores_V: Tensor) -> int:
        """The likeliest token that `ids` can go on with."""
        if is_whole(self.text(ids)):
            return self.end
        likely = int(scores_V.argmax())  # nearly always it fits, and nothing has to be sorted
        if self.fits(ids, likely):
            return likely
        ranked = scores_V.argsort(descending=True).tolist()
        return next((token for token in ranked if self.fits(ids, token)), self.end)

    def fits(self, ids: list[int], token: int) -> bool:
        """Whether `token` may follow `ids`."""
        return token not in self.special and goes_on(self.text([*ids, token]))

    def text(self, ids: list[int]) -> str:
        """What the token ids spell."""
        text: str = self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return text


@torch.inference_mode()
def generate_ids(
    model: TagSpeechModel, frames: Frames, max_new_tokens: int, *, well_formed: bool = False
) -> list[list[int]]:
    """Token ids that the LLM writes for each item, without the end of the turn.

    well_formed  only target texts can be written, as long as `max_new_tokens` suffice

    Prompts are padded on the left, so that every row goes on from its own last position. Raises
    `InputError` where the LLM computes something that is no number: half precision overflowed.
    """
    prompts = model.prompts(model.add_anchors(model.project(frames)))
    longest = max(map(len, prompts))
    inputs_BLH = prompts[0].new_zeros(len(prompts), longest, prompts[0].shape[1])
    mask_BL = torch.zeros(len(prompts), longest, dtype=torch.long, device=inputs_BLH.device)
    for item, prompt in enumerate(prompts):
        inputs_BLH[item, longest - len(prompt) :] = prompt
        mask_BL[item, longest - len(prompt) :] = 1
    end = model.prompt.ending[0]
    rules: list[LogitsProcessor] = [_Finite(inputs_BLH.dtype)]
    if well_formed:
        rules.append(WellFormed(model.tokenizer, end))
    ids_BN = model.llm.generate(
        inputs_embeds=inputs_BLH,
        attention_mask=mask_BL,
        logits_processor=LogitsProcessorList(rules),
        # In full: an LLM's own generation_config may add sampling and penalties.
        generation_config=GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            eos_token_id=end,
            pad_token_id=end,
        ),
    )
    return [row[: row.index(end)] if end in row else row for row in ids_BN.tolist()]


def generate_texts(
    model: TagSpeechModel, frames: Frames, max_new_tokens: int, *, well_formed: bool = False
) -> list[str]:
    """The target text that the LLM writes for each item; arguments as of `generate_ids`."""
    return spell(model, generate_ids(model, frames, max_new_tokens, well_formed=well_formed))


def spell(model: TagSpeechModel, rows: Sequence[Sequence[int]]) -> list[str]:
    """The text of each row of token ids, special tokens as they are written."""
    return [
        model.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for ids in rows
    ]


class _Finite(LogitsProcessor):
    """Refuses logits that are no numbers: their best token would be a text from nowhere."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Both (B, N or V); the scores as they are."""
        if not scores.isfinite().all():
            name = str(self.dtype).removeprefix("torch.")
            raise InputError(
                f"the LLM overflows in {name}: its output is no number; "
                "use bfloat16 or float32 (--dtype, or from_pretrained(..., dtype=...))"
            )
        return scores
