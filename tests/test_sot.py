"""SOT of the semantic encoder: its scores, units that grow, and starts from trained encoders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors.torch import save_file
from torch import Tensor

from tagspeech.config import Config
from tagspeech.config_file import load_config
from tagspeech.data.batches import read_groups
from tagspeech.data.units import Units, grow_units
from tagspeech.encoders.sot import SotModel
from tagspeech.encoders.zipformer import read_zipformer_state
from tagspeech.errors import InputError
from tagspeech.training.checkpoint import load
from tagspeech.training.encoders import sot_transcript, train_semantic
from tagspeech.training.sot_scores import SotScores

STILL = [f"semantic.train.{one}" for one in ("max_steps=1", "lr=0", "precision=float32")]


def icefall_units(path: Path, texts: list[str]) -> Path:
    """A bpe.model as icefall's recipes make it: blank, <sos/eos>, unknown, then pieces."""
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=file,
            model_type="unigram",
            vocab_size=40,
            hard_vocab_limit=False,
            character_coverage=1.0,
            user_defined_symbols=["<blk>", "<sos/eos>"],
            unk_id=2,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    return path


@pytest.fixture(scope="module")
def config(tiny_yaml: Path) -> Config:
    return load_config(tiny_yaml, STILL)


@pytest.fixture(scope="module")
def transcripts(tiny_groups: Path) -> list[str]:
    return [sot_transcript(cut) for cut in read_groups(tiny_groups / "train.jsonl.gz")]


@pytest.fixture
def given(tmp_path: Path, config: Config, transcripts: list[str]) -> tuple[Path, Path]:
    """An icefall checkpoint with a CTC output, and its units in capitals."""
    units = icefall_units(tmp_path / "bpe.model", [one.upper() for one in transcripts])
    torch.manual_seed(3)
    model = SotModel(config.semantic.encoder, len(Units(units)))
    state = {name: one for name, one in model.state_dict().items() if "alignment" not in name}
    torch.save({"model": {**state, "joiner.bias": torch.ones(2)}}, tmp_path / "pretrained.pt")
    return tmp_path / "pretrained.pt", units


def test_scores_of_words_and_changes() -> None:
    scores = SotScores("en")
    scores.add("one two <sc> three <sc> four", "one two <sc> three four")  # a change is missing
    scores.add("five six", "five <sc> six")  # one too many
    scores.add("a b c <sc> d", "<sc> a b c d")  # one at the wrong place
    scores.add("so", "so")
    scores.add("yes <sc> no", "yes <sc> now")
    assert scores.figures() == {
        "wer": pytest.approx(1 / 13),
        "change_precision": 2 / 4,
        "change_recall": 2 / 4,
        "changes_right": 3 / 5,
    }


def test_alignment_loss_is_nothing_without_word_times(config: Config) -> None:
    model = SotModel(config.semantic.encoder, 7)
    encoded_BTD = torch.randn(2, 5, config.semantic.encoder.output_dim)
    nothing = torch.full((2, 5, 2), -1)
    assert model.alignment_loss(encoded_BTD, nothing).item() == 0.0
    units_BTS = nothing.clone()
    units_BTS[0, 1, 0] = 3
    logits_V = model.alignment_output(encoded_BTD[0, 1])[:7]  # of who began first
    wanted = -logits_V.log_softmax(-1)[3]
    torch.testing.assert_close(model.alignment_loss(encoded_BTD, units_BTS), wanted)


def test_mandarin_is_scored_by_characters() -> None:
    scores = SotScores("zh")
    scores.add("你好吗 <sc> 好 ok", "你好 <sc> 好 ok")
    assert scores.figures()["wer"] == 1 / 5
    assert scores.figures()["change_recall"] == 1.0
    nothing = SotScores("zh")
    nothing.add("你好", "你好")
    assert nothing.figures()["change_precision"] == nothing.figures()["change_recall"] == 0.0


def test_grown_units_keep_their_ids(tmp_path: Path) -> None:
    given = icefall_units(tmp_path / "bpe.model", ["THE CAT SAT ON THE MAT", "A DOG RAN"] * 9)
    for output in ("once.model", "twice.model"):
        grow_units(given, tmp_path / output)
        given = tmp_path / output
    old, new = Units(tmp_path / "bpe.model"), Units(tmp_path / "twice.model")
    assert len(new) == len(old) + 1
    assert new.encode("the cat ran") == old.encode("the cat ran")
    ids = new.encode("the cat <sc> a dog <sc> ran")
    assert ids.count(len(old)) == 2
    assert 2 not in ids  # nothing is unknown
    assert new.decode(ids).split() == ["the", "cat", "<sc>", "a", "dog", "<sc>", "ran"]


@pytest.mark.parametrize("content", [None, b"", b"no model"])
def test_units_that_are_none_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bpe.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"bpe\.model: cannot be read as a sentencepiece model"):
        grow_units(path, tmp_path / "units.model")


def test_trained_ctc_output_is_kept_and_grows(
    tmp_path: Path, config: Config, tiny_groups: Path, given: tuple[Path, Path]
) -> None:
    """A rate of 0 leaves the weights as they begin."""
    weights, units = given
    train_semantic(config, tiny_groups, tmp_path / "run", weights, units)
    before, after = load(weights)["model"], load(tmp_path / "run/final.pt")["model"]
    count = len(Units(units))
    for name in ("ctc_output.1.weight", "ctc_output.1.bias"):
        assert len(after[name]) == count + 1
        assert after[name][:count].equal(before[name])
        torch.testing.assert_close(after[name][count], before[name][1:].mean(0))
    assert after["encoder.downsample_output.bias"].equal(before["encoder.downsample_output.bias"])
    assert len(Units(tmp_path / "run/units.model")) == count + 1
    curve = [json.loads(line) for line in (tmp_path / "run/curve.jsonl").read_text().splitlines()]
    assert {"wer", "change_precision", "change_recall"} <= curve[-1].keys()


def test_without_units_the_output_is_new(
    tmp_path: Path, config: Config, tiny_groups: Path, given: tuple[Path, Path]
) -> None:
    train_semantic(config, tiny_groups, tmp_path / "run", given[0])
    before, after = load(given[0])["model"], load(tmp_path / "run/final.pt")["model"]
    units = Units(tmp_path / "run/units.model")
    assert not units.capitals
    assert len(after["ctc_output.1.bias"]) == len(units)
    assert after["encoder_embed.out.weight"].equal(before["encoder_embed.out.weight"])


def test_what_does_not_fit_is_named(
    tmp_path: Path, config: Config, tiny_groups: Path, given: tuple[Path, Path]
) -> None:
    weights, units = given
    state = load(weights)["model"]
    chinese = icefall_units(tmp_path / "zh.model", ["你好 我们 他们 不好"] * 9)
    for change, with_units, words in (
        ({}, chinese, r"zh\.model: \d+ % of the training text is unknown"),
        ({"ctc_output.1.bias": None}, units, r"pretrained\.pt: has no ctc_output\.1\.bias"),
        ({"ctc_output.1.bias": torch.ones(7)}, units, r"ctc_output\.1\.bias has shape \(7,\)"),
    ):
        changed = {key: one for key, one in {**state, **change}.items() if one is not None}
        torch.save({"model": changed}, weights)
        with pytest.raises(InputError, match=words):
            train_semantic(config, tiny_groups, tmp_path / "run", weights, with_units)


@pytest.mark.parametrize("name", ["model.safetensors", "pretrained.pt"])
@pytest.mark.parametrize("part", ["encoder.", "speech_encoder."])
def test_encoder_within_a_model_of_auden(
    tmp_path: Path, config: Config, name: str, part: str
) -> None:
    model = SotModel(config.semantic.encoder, 9)
    whole: dict[str, Tensor] = {f"{part}model_batch_count": torch.zeros(1)}
    own = {}
    for key, weight in model.state_dict().items():
        if key.startswith(("encoder.", "encoder_embed.")):
            own[key] = whole[part + key] = weight
        elif key.startswith("ctc_output."):
            whole[key] = weight
    path = tmp_path / name
    save_file(whole, path) if path.suffix == ".safetensors" else torch.save(whole, path)
    read = read_zipformer_state(path)
    assert read.keys() == own.keys()
    assert all(read[key].equal(own[key]) for key in own)
    other = SotModel(config.semantic.encoder, 10)
    other.load_ctc_output(path, 9)
    assert other.ctc_output[1].bias[:9].equal(whole["ctc_output.1.bias"])
