"""A small random Qwen2, with a tokenizer built from target texts.

It is for recipes without a pretrained LLM, and is trained together with the projectors
(`llm.trainable: full`). Every word and every time of the targets is one token; other text is
encoded in bytes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tagspeech.config import NewLLMConfig
from tagspeech.files import atomic_path

log = logging.getLogger(__name__)

# One token each: a start time with its dash, an end time, a tag with its newline, the fixed parts
# of a speaker's line, a word with the space before it. An end then directly follows its start; to
# copy the successor of an earlier token is the first thing a transformer learns.
PIECES = (
    r"\d+\.\d\d-?|</?(?:text|speaker)>\n?|<spk id=\"|\" g=\"|\" t=\"|\"/>\n"
    r"| ?[^\s\d<>\",/=.\-]+|\s|\d|."
)
TIME = re.compile(r"(\d+\.\d\d)-?")


def new_tokenizer(targets: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE with the turn markers of Qwen2, trained on target texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        targets,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=1,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )


def make_llm(
    config: NewLLMConfig, targets: list[str], time_grid: float, longest: float, output: Path
) -> None:
    """Writes a random Qwen2 and its tokenizer as a Hugging Face folder, in one step.

    Args:
        config: Its sizes.
        targets: Target texts, from which the tokenizer is built.
        time_grid: Seconds.
        longest: Seconds; every time on the grid up to it becomes a token.
        output: The folder.
    """
    ends = [f"{step * time_grid:.2f}" for step in range(round(longest / time_grid) + 1)]
    times = [*ends, *(f"{end}-" for end in ends)]
    # Twice each, so that times that no target has are still merged before rare words.
    tokenizer = new_tokenizer([*targets, *times, *times], config.vocab_size)
    torch.manual_seed(config.seed)
    llm = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with torch.no_grad():
        llm.get_input_embeddings().weight.mul_(config.embedding_std / llm.config.initializer_range)
    _smooth_times(llm, tokenizer)
    with atomic_path(output) as temporary:
        llm.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    size = sum(weight.numel() for weight in llm.parameters()) / 1e6
    log.info("%s: a new Qwen2 of %.2f M weights, %d tokens", output, size, len(tokenizer))


@torch.no_grad()
def _smooth_times(llm: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Makes the embeddings of neighbouring times similar: half of each row is sines of the time."""
    rows_VH = llm.get_input_embeddings().weight
    half = rows_VH.shape[1] // 2
    periods = torch.logspace(0, 2, half // 2)  # 1 to 100 seconds
    size = rows_VH.std() * 2**0.5  # computed first: the order of the vocabulary is random
    for token, index in tokenizer.get_vocab().items():
        if time := TIME.fullmatch(token):
            angles = 2 * torch.pi * float(time[1]) / periods
            waves = torch.cat([angles.sin(), angles.cos()])
            rows_VH[index, : len(waves)] = waves * size
