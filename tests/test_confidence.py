"""How sure the LLM was of its words: from its tokens into every file, and back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

import meeteval.io
import torch
from test_model import byte_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from tagspeech.config import DecodeConfig
from tagspeech.errors import InputError
from tagspeech.formats import read, render, write
from tagspeech.inference.confidence import line_confidences, token_spans
from tagspeech.inference.decode import decode
from tagspeech.inference.generate import spell
from tagspeech.segments import Segment
from tagspeech.serialize import parse_target, to_target

SURE = Segment("talk", "1", 0.0, 1.5, "yes we can", "m", (1.0, 0.5, 0.125))
UNKNOWN = Segment("talk", "2", 1.0, 2.0, "no", "f")


def test_a_segment_is_as_sure_as_its_words() -> None:
    assert SURE.confidence == pytest.approx((1.0 * 0.5 * 0.125) ** (1 / 3), abs=1e-3)
    assert replace(SURE, words="yes", word_confidences=(0.0,)).confidence == 0.001
    assert UNKNOWN.confidence is None
    with pytest.raises(ValueError, match="for each word"):
        replace(SURE, words="yes")


def sentence_pieces() -> PreTrainedTokenizerFast:
    """Characters, bytes of others, and a space that decoding drops at the beginning."""
    pieces = ["<unk>", *(f"<0x{n:02X}>" for n in range(256)), "\u2581"]
    pieces += [chr(n) for n in range(33, 127)]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    strip = decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("tokenizer", [byte_tokenizer("<|end|>"), sentence_pieces()])
def test_a_word_has_the_tokens_that_spell_it(tokenizer: Any) -> None:
    """Also where one character is several tokens, all that are not letters of one byte."""
    text = to_target([replace(SURE, words="yes 我们 né", word_confidences=None), UNKNOWN])
    model: Any = SimpleNamespace(tokenizer=tokenizer)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    spans = token_spans(model, ids)
    assert spell(model, [ids]) == [text]
    assert spans[-1][1] == len(text)
    before = text.index("我")
    first = len(ids) - len(text.encode()) + len(text[:before].encode())  # a token is a byte here
    log_probs = [0.0] * len(ids)
    log_probs[first : first + 6] = [math.log(0.5), math.log(0.125)] * 3
    log_probs[first + 9] = math.log(0.01)  # the second byte of the last letter
    confidences = line_confidences(text, spans, log_probs)
    parsed = parse_target(text, "talk", confidences).segments
    assert parsed[0].word_confidences == (1.0, 0.25, pytest.approx(0.01 ** (1 / 3), abs=1e-3))
    assert parsed[1].word_confidences == (1.0,)


def test_files_carry_it(tmp_path: Path) -> None:
    write([SURE, UNKNOWN], tmp_path / "talk.seglst.json")
    rows = json.loads((tmp_path / "talk.seglst.json").read_text())
    assert (rows[0]["confidence"], rows[0]["word_confidences"]) == (0.397, [1.0, 0.5, 0.125])
    assert "confidence" not in rows[1]
    back = read(tmp_path / "talk.seglst.json")
    assert [one.word_confidences for one in back] == [SURE.word_confidences, None]
    meeteval_reads = meeteval.io.asseglst(rows)
    assert [one["words"] for one in meeteval_reads] == ["yes we can", "no"]

    write(back, tmp_path / "talk.ctm")
    lines = (tmp_path / "talk.ctm").read_text().splitlines()[1:]
    assert [line.split()[4:] for line in lines] == [
        *(["yes", "1.000"], ["we", "0.500"], ["can", "0.125"], ["no"]),
    ]
    words = read(tmp_path / "talk.ctm")
    assert [one.confidence for one in words] == [1.0, 0.5, 0.125, None]
    ctm = meeteval.io.CTM.load(tmp_path / "talk.ctm")
    assert [float(line.confidence or 2) for line in ctm] == [1.0, 0.5, 0.125, 2]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        (
            "a.ctm",
            "a 1 0 1 so 1.5",
            "line 1: confidence must be a number from 0 to 1, or NA, got 1.5",
        ),
        (
            "a.ctm",
            "a 1 0 1 so sure",
            "line 1: confidence must be a number from 0 to 1, or NA, got sure",
        ),
        ("a.seglst.json", render([SURE], "seglst").replace("0.125", '"x"'), "entry 1: word_conf"),
        ("a.seglst.json", render([SURE], "seglst").replace(", 0.125", ""), "entry 1: word_conf"),
    ],
)
def test_what_is_no_confidence_is_refused(name: str, text: str, found: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=found):
        read(tmp_path / name)


def test_decoding_writes_it_and_resumes_to_the_same(
    tiny_model_folder: Path, tiny_groups: Path, tmp_path: Path
) -> None:
    """The weights are random, so that no word is sure. A journal may lack confidences."""
    torch.manual_seed(0)
    groups, config = tiny_groups / "test.jsonl.gz", DecodeConfig(120, 12)
    decode(tiny_model_folder, groups, tmp_path / "whole", config)
    hyps = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.hyp*")}
    for name in hyps:
        known = [one for one in read(tmp_path / "whole" / name) if one.words]
        assert known
        for one in known:
            assert one.confidence is not None
            assert 0 < one.confidence < 1

    lines = (tmp_path / "whole/test.raw.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed/test.raw.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:-9])
    decode(tiny_model_folder, groups, tmp_path / "killed", config)
    assert {one.name: one.read_bytes() for one in (tmp_path / "killed").glob("*.hyp*")} == hyps

    rows = [json.loads(line) for line in lines]
    for row in rows:
        del row["word_confidences"]
    (tmp_path / "old").mkdir()
    (tmp_path / "old/test.raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    decode(tiny_model_folder, groups, tmp_path / "old", config)
    old = read(tmp_path / "old/test.hyp.seglst.json")
    assert old == read(tmp_path / "whole/test.hyp.seglst.json")
    assert all(one.confidence is None for one in old)
