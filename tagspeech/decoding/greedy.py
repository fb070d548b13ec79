"""Greedy generation of target texts (PAPER, decoding).

Shape suffixes: B batch, L positions of the prompt, H hidden size of the LLM, N new tokens,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from tagspeech.errors import InputError
from tagspeech.models.tagspeech import Frames, TagSpeechModel


@torch.inference_mode()
def generate_ids(model: TagSpeechModel, frames: Frames, max_new_tokens: int) -> list[list[int]]:
    """Token ids that the LLM writes for each item, without the end of the turn.

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
    ids_BN = model.llm.generate(
        inputs_embeds=inputs_BLH,
        attention_mask=mask_BL,
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
        logits_processor=LogitsProcessorList([_Finite(inputs_BLH.dtype)]),
    )
    return [row[: row.index(end)] if end in row else row for row in ids_BN.tolist()]


def generate_texts(model: TagSpeechModel, frames: Frames, max_new_tokens: int) -> list[str]:
    """The target text that the LLM writes for each item."""
    return spell(model, generate_ids(model, frames, max_new_tokens))


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
