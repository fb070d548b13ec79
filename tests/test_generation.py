"""Generation of target texts: held to the grammar or free, rows of different lengths."""

from __future__ import annotations

import logging
import math
import os
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from operations import Operations
from transformers import GenerationConfig

from tagspeech.checkpoints.native import load_pretrained
from tagspeech.errors import InputError
from tagspeech.grammar import State, begin, is_target
from tagspeech.inference import generate as generating
from tagspeech.inference.constraint import Vocabulary
from tagspeech.inference.generate import generate, generate_texts, spell
from tagspeech.model.frames import Frames
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.segments import Segment
from tagspeech.serialize import parse_target, to_target

SECONDS = [2.0, 1.5, 0.9]


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> TagSpeechModel:
    return load_pretrained(TagSpeechModel, tiny_model_folder)


@pytest.fixture(scope="module")
def frames(model: TagSpeechModel) -> Frames:
    torch.manual_seed(0)
    with torch.inference_mode():
        return model.encode(torch.randn(3, 200, 80), torch.tensor([200, 150, 90]))


def test_any_llm_writes_target_texts(tiny_model_folder: Path) -> None:
    """Random weights would write anything: what comes out parses whole and breaks no rule, however
    sure they are, however short or long the audio and the room for tokens.

    Four outputs a round; DECODES=250 makes a thousand.
    """
    model = load_pretrained(TagSpeechModel, tiny_model_folder)
    size = model.config.semantic.output_dim, model.config.voice.encoder.output_dim
    draw = random.Random(1)
    malformed = 0
    for seed in range(int(os.environ.get("DECODES", "5"))):
        torch.manual_seed(seed)
        with torch.no_grad():
            spread = draw.uniform(0.02, 0.6)
            for weight in model.llm.parameters():
                weight.normal_(0, spread)
        seconds = [math.exp(draw.uniform(math.log(0.1), math.log(90))) for _ in range(4)]
        lens_B = torch.tensor([int(25 * one) for one in seconds])
        frames = Frames(
            *(torch.randn(4, int(lens_B.max()), size[0]), lens_B),
            *(torch.randn(4, int(lens_B.max()), size[1]), lens_B),
        )
        tokens = draw.randint(30, 800)
        free = generate_texts(model, frames, 30)
        malformed += sum(parse_target(text, "").malformed for text in free)
        outputs = generate(model, frames, tokens, seconds)
        texts = spell(model, [output.ids for output in outputs])
        for text, one, output in zip(texts, seconds, outputs, strict=True):
            assert is_target(text, one + model.config.target.time_grid), (seed, text)
            assert not parse_target(text, "").problems, (seed, text)
            assert len(output.ids) <= tokens
            assert len(output.log_probs) == len(output.ids)
            assert output.passes < len(output.ids)
    assert malformed > 0


def test_free_outputs_are_those_of_transformers(model: TagSpeechModel, frames: Frames) -> None:
    """Rows of different lengths, each alone in transformers' own generation."""
    with torch.inference_mode():
        prompts = model.prompts(model.add_anchors(model.project(frames)))
    end = model.prompt.ending[0]
    settings = GenerationConfig(
        max_new_tokens=25, do_sample=False, eos_token_id=end, pad_token_id=end
    )
    for prompt_LH, output in zip(prompts, generate(model, frames, 25), strict=True):
        with torch.inference_mode():
            ids = model.llm.generate(inputs_embeds=prompt_LH[None], generation_config=settings)[0]
        assert output.ids == ids[: len(output.ids)].tolist()
        assert len(output.ids) == 25 or int(ids[len(output.ids)]) == end


def test_what_breaks_no_rule_stays(
    model: TagSpeechModel, tiny_segments: list[Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every prefix of a target its next token is among those that may follow, and what follows
    in any case is cut as the target is."""
    target = to_target(tiny_segments, 0.1)
    ids = model.target_ids(target)
    ids = ids[: ids.index(model.prompt.ending[0])]
    vocabulary = Vocabulary(model.tokenizer, model.llm.get_output_embeddings().weight.shape[0])
    state: State | None = begin(max(one.end for one in tiny_segments))
    line: list[int] = []
    runs = 0
    for place, token in enumerate(ids):
        assert state is not None
        forced = vocabulary.forced(state, line)
        assert forced == ids[place : place + len(forced)]
        runs += len(forced) > 1
        if state.in_words:
            logits_V = torch.zeros(len(vocabulary.pieces))
            logits_V[token] = 1.0
            assert vocabulary.fits(state, token)
            assert not vocabulary.ruled_out([state], logits_V)[0, token]
        else:
            assert token in vocabulary.allowed(state)
        piece = vocabulary.pieces[token]
        line = [] if piece.endswith("\n") else [*line, token]
        state = state.after(piece)
    assert state is not None
    assert state.whole
    assert runs > 3


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_halves_the_batch(
    error: RuntimeError,
    model: TagSpeechModel,
    frames: Frames,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = generate_texts(model, frames, 60, SECONDS)
    step = generating._step

    def small(model: TagSpeechModel, writers: list[generating._Writer]) -> None:
        if len(writers) > 1:
            raise error
        step(model, writers)

    monkeypatch.setattr(generating, "_step", small)
    with caplog.at_level(logging.WARNING):
        assert generate_texts(model, frames, 60, SECONDS) == whole
    assert "out of memory with 3 rows" in caplog.text


@pytest.mark.parametrize("durations", [SECONDS, None], ids=["grammar", "free"])
def test_passes_of_many_rows_have_the_operations_of_few(
    model: TagSpeechModel,
    frames: Frames,
    durations: list[float] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twelve rows are three rows four times, which write the same; no value is read by itself."""
    step, choose = generating._step, generating._choose

    def passes(times: int) -> tuple[list[int], list[list[int]]]:
        counts = []

        def counted(run: Any, *args: Any) -> None:
            with Operations() as ran:
                run(*args)
            counts.append(sum(ran.names.values()))
            assert not ran.reads

        monkeypatch.setattr(generating, "_step", partial(counted, step))
        monkeypatch.setattr(generating, "_choose", partial(counted, choose))
        many = Frames(*(torch.cat([part] * times) for part in frames))
        outputs = generate(model, many, 80, durations and durations * times)
        return counts, [output.ids for output in outputs]

    few, many = passes(1), passes(4)
    both = few[0], many[0]
    assert many[1] == few[1] * 4
    # A product of one row is another call than that of several.
    assert all(abs(of_many - of_few) <= 2 for of_many, of_few in zip(*both, strict=True))
    layers = model.llm.config.num_hidden_layers
    assert max(few[0]) < 150 * layers


def test_too_few_tokens_are_refused(model: TagSpeechModel, frames: Frames) -> None:
    with pytest.raises(InputError, match="max_new_tokens"):
        generate_texts(model, frames, 3, SECONDS)
