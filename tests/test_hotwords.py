"""Hotwords: terms that decoding favours."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import numpy as np
import soundfile
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tagspeech.checkpoints.native import load_pretrained
from tagspeech.config import DecodeConfig
from tagspeech.errors import InputError
from tagspeech.files import read_terms
from tagspeech.inference.decode import decode
from tagspeech.inference.generate import generate, spell
from tagspeech.inference.hotwords import Hotwords
from tagspeech.llm.prompt import encode_text
from tagspeech.model.frames import Frames
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.options import TranscribeOptions
from tagspeech.serialize import parse_target

SECONDS = [2.0, 1.5]


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> TagSpeechModel:
    return load_pretrained(TagSpeechModel, tiny_model_folder)


@pytest.fixture(scope="module")
def frames(model: TagSpeechModel) -> Frames:
    torch.manual_seed(0)
    with torch.inference_mode():
        return model.encode(torch.randn(2, 200, 80), torch.tensor([200, 150]))


def favoured(hotwords: Hotwords, written: list[int], size: int) -> set[int]:
    """The tokens with a bonus after some others."""
    bias = hotwords.follow()
    bias.add(written)
    return set(bias.biased(torch.zeros(size)).nonzero().flatten().tolist())


def test_a_term_is_favoured_token_by_token(model: TagSpeechModel) -> None:
    tokenizer = model.tokenizer
    size = len(tokenizer)
    hotwords = Hotwords(["Zoltan"], 1.0, tokenizer, "en")
    line = encode_text(tokenizer, "0.00-1.00>")
    for term in ("Zoltan", "zoltan"):  # as given, and as normalised
        whole = encode_text(tokenizer, f"0.00-1.00>{term}")
        assert len(whole) > len(line) + 1, "the test needs a word of several tokens"
        for place in range(len(line), len(whole)):
            assert whole[place] in favoured(hotwords, whole[:place], size)
        spaced = encode_text(tokenizer, f"0.00-1.00>see {term}")
        see = encode_text(tokenizer, "0.00-1.00>see")
        for place in range(len(see), len(spaced)):
            assert spaced[place] in favoured(hotwords, spaced[:place], size)
    first = encode_text(tokenizer, "0.00-1.00>zoltan")[len(line)]
    assert first not in favoured(hotwords, see, size)  # the middle of a word is no beginning


@pytest.mark.parametrize("grammar", [True, False])
def test_strong_hotwords_are_written(model: TagSpeechModel, frames: Frames, grammar: bool) -> None:
    """With the grammar, outputs still parse whole."""
    durations = SECONDS if grammar else None
    hotwords = Hotwords(["zoltan"], 1000.0, model.tokenizer, "en")
    outputs = generate(model, frames, 120, durations, hotwords)
    for text in spell(model, [output.ids for output in outputs]):
        assert "zoltan" in text
        assert not grammar or not parse_target(text, "s").problems
    assert all(value <= 0 for output in outputs for value in output.log_probs)


def test_terms_that_never_come_up_change_nothing(model: TagSpeechModel, frames: Frames) -> None:
    """A bonus that is too small to win leaves the outputs and their confidences as they were."""
    plain = generate(model, frames, 120, SECONDS)
    weak = generate(model, frames, 120, SECONDS, Hotwords(["zoltan"], 1e-9, model.tokenizer))
    assert [output.ids for output in weak] == [output.ids for output in plain]
    assert [output.log_probs for output in weak] == [output.log_probs for output in plain]


def test_what_the_tokenizer_cannot_write_is_said(caplog: pytest.LogCaptureFixture) -> None:
    pieces = {"?": 0, "0.00-1.00>": 1, "a": 2, "anna": 3}
    inner = Tokenizer(models.WordLevel(pieces, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    with caplog.at_level(logging.WARNING):
        Hotwords(["anna", "好"], 1.0, tokenizer, "en")
    assert "1 of 2 are left out" in caplog.text or "2 of 2 are left out" in caplog.text
    assert "'好'" in caplog.text


def test_lists_and_files_of_terms(tmp_path: Path) -> None:
    assert TranscribeOptions(hotwords="anna,ben").hotwords == ("anna", "ben")  # type: ignore[arg-type]
    path = tmp_path / "names"
    path.write_text("Anna Maria\n\nben \nBen\n")
    assert read_terms(str(path)) == ("Anna Maria", "ben", "Ben")
    assert read_terms("new  york, ben,,ben") == ("new york", "ben")
    many = tuple(f"name {number}" for number in range(1000))
    assert read_terms(",".join(many)) == many
    for missing in ("names.txt", "folder/names"):
        with pytest.raises(InputError, match=missing):
            read_terms(missing)
    with pytest.raises(InputError, match="has no term"):
        read_terms(" , ")


def test_decoding_with_hotwords_resumes(
    tiny_model_folder: Path, tiny_groups: Path, tmp_path: Path
) -> None:
    """The journal is that of the same hotwords, and refuses others."""
    groups = tiny_groups / "test.jsonl.gz"
    config = DecodeConfig(max_new_tokens=60, hotwords=("zoltan",))
    for _ in range(2):
        decode(tiny_model_folder, groups, tmp_path, config)
    with pytest.raises(InputError, match="hotwords"):
        decode(tiny_model_folder, groups, tmp_path, replace(config, hotwords=("anna",)))


def test_command_line(tiny_model_folder: Path, tmp_path: Path) -> None:
    wav, names = tmp_path / "talk.wav", tmp_path / "names.txt"
    noise = np.random.default_rng(1).normal(0, 0.1, 2 * 16000)
    soundfile.write(wav, noise.astype(np.float32), 16000)
    names.write_text("zoltan\n")

    def transcribe(*options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tagspeech", "transcribe", "--format", "stm"]
        command += map(str, ["--model", tiny_model_folder, *options, wav])
        return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))

    found = transcribe("--hotwords", names, "--hotword-strength", 1000)
    assert found.returncode == 0, found.stderr
    assert "zoltan" in found.stdout
    refused = transcribe("--hotwords", tmp_path / "none.txt")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "none.txt: No such file" in refused.stderr


def test_a_strength_without_hotwords_is_refused() -> None:
    with pytest.raises(InputError, match="hotword_strength: has no effect without hotwords"):
        TranscribeOptions(hotword_strength=2.0).resolved(DecodeConfig())
    assert TranscribeOptions(hotword_strength=2.0, hotwords=("anna",)).resolved(DecodeConfig())
