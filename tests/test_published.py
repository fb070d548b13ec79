"""The published layout: read strictly, written back; pickles refused; the Hub and its absence."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tagspeech import TagSpeech
from tagspeech.checkpoints.published import AUDIO_TOKEN, load_projectors, save_released
from tagspeech.cli import main
from tagspeech.config import Config, ZipformerConfig
from tagspeech.encoders.zipformer import read_zipformer_state
from tagspeech.errors import InputError
from tagspeech.llm.load import load_llm
from tagspeech.weights import read_pt

FEATURES = torch.randn(1, 200, 80, generator=torch.Generator().manual_seed(1))
LENS = torch.tensor([200])


@pytest.fixture
def released(shared: Path, tmp_path: Path) -> Path:
    """A copy of the published model that may be broken."""
    checkpoint = shared / "golden/checkpoint"
    if not checkpoint.is_dir():
        pytest.skip(f"{checkpoint} is absent")
    folder = tmp_path / "released"
    shutil.copytree(checkpoint, folder, copy_function=shutil.copyfile)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        TagSpeech.from_pretrained(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


# Reading


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "projectors.pt", "llm", "llm/config.json", "llm/model.safetensors"),
        *("audio_encoder/config.json", "audio_encoder/model.safetensors"),
        *("voice_encoder/config.json", "voice_encoder/model.safetensors"),
    ],
)
def test_absent_file_is_named(released: Path, name: str) -> None:
    path = released / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert str(path.parent if path.parent.name == "llm" else path) in refusal(released)


def test_absent_tokenizer_is_named(released: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        (released / name).unlink()
    (released / "added_tokens.json").unlink()
    (released / "special_tokens_map.json").unlink()
    assert str(released) in refusal(released)


def test_digits_are_optional(released: Path) -> None:
    (released / "digit_embeddings.pt").unlink()
    TagSpeech.from_pretrained(released)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("rotary", True, "unknown key 'rotary'"),
        ("voice_anchor_interval", None, "has no voice_anchor_interval"),
        ("voice_anchor_interval", "8", "voice_anchor_interval: must be int, got '8'"),
        ("insert_anchors_at_ends", False, "insert_anchors_at_ends is False, only True"),
        ("tag_audio_boundary", True, "tag_audio_boundary is True, only False"),
        ("audio_token", "<|SOUND|>", "lacks <|SOUND|>"),
        ("semantic_projector_ds_rate", 5, "projectors.pt: semantic_projector.linear1.weight"),
    ],
)
def test_config_that_does_not_fit_is_named(
    released: Path, key: str, value: Any, words: str
) -> None:
    path = released / "config.json"
    tree = {**json.loads(path.read_text()), key: value}
    path.write_text(json.dumps({name: one for name, one in tree.items() if one is not None}))
    message = refusal(released)
    assert words in message
    assert str(released) in message


def test_two_configs_of_an_encoder_must_agree(released: Path) -> None:
    path = released / "voice_encoder/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_heads": [4, 4, 4]}))
    assert f"{path}: differs from voice_encoder_config" in refusal(released)


def pop(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.pop(name)


def put(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({name: value})


NORM = "encoder.encoders.0.layers.0.norm.bias"


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("audio_encoder/model.safetensors", pop(NORM), f"lacks weight {NORM}"),
        ("voice_encoder/model.safetensors", put("more", torch.ones(1)), "holds 'more'"),
        ("voice_encoder/model.safetensors", put(NORM, torch.ones(1)), f"{NORM} has shape (1,)"),
        ("llm/model.safetensors", pop("model.norm.weight"), "lack model.norm.weight"),
        ("llm/model.safetensors", put("more", torch.ones(1)), "unexpected more"),
        ("projectors.pt", pop("voice_projector.linear1.bias"), "lacks weight voice_projector"),
        ("projectors.pt", put("more", torch.ones(1)), "unexpected weight more"),
        ("projectors.pt", put("step", 7), "is not a dictionary of tensors"),
        ("projectors.pt", put("voice_projector.linear1.bias", torch.ones(1)), "has shape (1,)"),
        ("digit_embeddings.pt", put("token_ids", list(range(10))), "token_ids is not that"),
        ("digit_embeddings.pt", put("embeddings", torch.ones(10, 64)), "are not the rows"),
        ("digit_embeddings.pt", pop("embeddings"), "has no tensor 'embeddings'"),
    ],
)
def test_wrong_tensor_is_named_with_its_file(
    released: Path, file: str, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    path = released / file
    if path.suffix == ".pt":
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)
    else:
        state = load_file(path)
        change(state)
        save_file(state, path, metadata={"format": "pt"})
    message = refusal(released)
    assert words in message
    assert str(path.parent if path.parent.name == "llm" else path) in message


# Pickles


class Evil:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("plain", [False, True], ids=["torch", "pickle"])
def test_malicious_pickle_is_refused_and_does_not_run(
    tmp_path: Path, tiny_model_folder: Path, plain: bool
) -> None:
    trap, path = tmp_path / "trap", tmp_path / "epoch-1.pt"
    state = {"model": {"encoder.weight": torch.zeros(1)}, "sampler": Evil(trap)}
    if plain:
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path)
    model = TagSpeech.from_pretrained(tiny_model_folder)
    for read in (read_zipformer_state, model.load_projectors):
        with pytest.raises(InputError, match=r"epoch-1\.pt: is refused") as error:
            read(path)
        assert "\n" not in str(error.value)
    assert not trap.exists()
    torch.load(path, weights_only=False) if not plain else pickle.loads(path.read_bytes())
    assert trap.exists(), "the trap must be one"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_pickle_is_read_or_refused(tmp_path: Path, zipped: bool) -> None:
    path, draw = tmp_path / "a.pt", random.Random(1)
    state = {"model": {"weight": torch.zeros(2)}, "steps": [1, 2]}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(whole[: draw.choice((len(whole), draw.randrange(len(whole))))])
        for _ in range(3):
            place = draw.randrange(len(damaged) + 1)
            damaged[place : place + draw.choice((0, 1))] = bytes(
                [draw.choice(b".0(]})tRbsuaeh\x80")]
            )
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            read_pt(path)


@pytest.mark.parametrize("name", ["projectors.pt", "digit_embeddings.pt"])
def test_malicious_pickle_in_a_model_is_refused(released: Path, name: str, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({"tokens": Evil(trap)}, released / name)
    assert f"{released / name}: is refused" in refusal(released)
    assert not trap.exists()


# Writing


def test_written_as_it_was_read(released: Path, tmp_path: Path) -> None:
    args = ["--model", str(released), "--output", str(tmp_path / "b")]
    assert main(["export", "released", *args]) == 0
    ours, theirs = TagSpeech.from_pretrained(tmp_path / "b"), TagSpeech.from_pretrained(released)
    state = theirs.state_dict()
    assert state.keys() == ours.state_dict().keys()
    assert all(torch.equal(state[name], one) for name, one in ours.state_dict().items())
    assert ours.prompt == theirs.prompt
    for name in ("config.json", "llm/config.json"):
        tree, wanted = (json.loads((one / name).read_text()) for one in (tmp_path / "b", released))
        assert wanted.keys() - tree.keys() <= {
            *("use_flash_attn", "audio_encoder_projector_ds_rate", "exclude_from_checkpoint"),
            *("bos_token_id", "initializer_range"),
        }
        # What transformers 4, on which the authors' code runs, reads under these names only.
        for key in ("rope_theta", "rope_scaling", "torch_dtype"):
            assert tree.get(key) == wanted.get(key)
    tree, wanted = (
        json.loads((one / "tokenizer_config.json").read_text())
        for one in (tmp_path / "b", released)
    )
    for key in ("additional_special_tokens", "tokenizer_class", "eos_token", "pad_token"):
        assert tree[key] == wanted[key]
    assert not tree.get("extra_special_tokens")
    digits = torch.load(tmp_path / "b/digit_embeddings.pt", weights_only=True)
    wanted = torch.load(released / "digit_embeddings.pt", weights_only=True)
    assert torch.equal(digits.pop("embeddings"), wanted.pop("embeddings"))
    assert digits == {key: wanted[key] for key in ("tokens", "token_ids")}


def test_released_model_in_our_layout(released: Path, tmp_path: Path) -> None:
    theirs = TagSpeech.from_pretrained(released)
    theirs.save_pretrained(tmp_path / "ours")
    shutil.rmtree(released)
    ours = TagSpeech.from_pretrained(tmp_path / "ours")
    assert (tmp_path / "ours/model.safetensors").exists()
    assert replace(ours.config, llm=theirs.config.llm) == theirs.config
    wanted = theirs.loss(FEATURES, LENS, ["<text>"])
    assert torch.equal(ours.loss(FEATURES, LENS, ["<text>"]).loss, wanted.loss)


def test_model_of_ours_in_the_released_layout(tiny_config: Config, tmp_path: Path) -> None:
    """Its tokenizer knows no placeholder of a stream, and its LLM has no row to spare."""
    channels = ZipformerConfig.embed_channels
    config = replace(
        tiny_config,
        semantic=replace(
            tiny_config.semantic,
            encoder=replace(tiny_config.semantic.encoder, embed_channels=channels, dropout=0.1),
        ),
        voice=replace(
            tiny_config.voice,
            encoder=replace(tiny_config.voice.encoder, embed_channels=channels, dropout=0.1),
        ),
    )
    torch.manual_seed(1)
    model = TagSpeech(config, *load_llm(config.llm)).eval()
    rows, words = model.llm.config.vocab_size, len(model.tokenizer)
    save_released(model, tmp_path / "released")
    assert (model.llm.config.vocab_size, len(model.tokenizer)) == (rows, words)
    again = TagSpeech.from_pretrained(tmp_path / "released")
    assert AUDIO_TOKEN in again.tokenizer.get_added_vocab()
    tree = json.loads((tmp_path / "released/tokenizer_config.json").read_text())
    assert tree["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert again.llm.get_input_embeddings().num_embeddings >= len(again.tokenizer) == words + 1
    assert again.prompt == model.prompt
    model.llm.half().float()
    assert torch.equal(again.streams(FEATURES, LENS).voice, model.streams(FEATURES, LENS).voice)
    assert again.generate(FEATURES, LENS, 60) == model.generate(FEATURES, LENS, 60)


def test_what_the_released_layout_cannot_hold(tiny_model_folder: Path, tmp_path: Path) -> None:
    model = TagSpeech.from_pretrained(tiny_model_folder)
    with pytest.raises(InputError, match=r"semantic\.encoder\.embed_channels: .*8, 32, 128"):
        save_released(model, tmp_path / "released")
    assert list(tmp_path.iterdir()) == []


# The Hub


def cached(tmp_path: Path, model: Path) -> Path:
    """A Hub cache that holds the model as org/name."""
    repository = tmp_path / "hub/models--org--name"
    shutil.copytree(model, repository / "snapshots" / ("1" * 40))
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("1" * 40)
    return tmp_path / "hub"


def test_offline_takes_what_is_in_the_cache(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_CACHE", cached(tmp_path, tiny_model_folder)
    )
    model = TagSpeech.from_pretrained("org/name", offline=True)
    assert torch.equal(
        model.streams(FEATURES, LENS).voice,
        TagSpeech.from_pretrained(tiny_model_folder).streams(FEATURES, LENS).voice,
    )
    with pytest.raises(InputError, match=r"org/other: .*not in the cache"):
        TagSpeech.from_pretrained("org/other", offline=True)
    with pytest.raises(InputError, match=r"--revision v1"):
        TagSpeech.from_pretrained("org/name", revision="v1", offline=True)
    with pytest.raises(InputError, match="a revision belongs to a Hub id"):
        TagSpeech.from_pretrained(tiny_model_folder, revision="v1")


def test_load_projectors_wants_projectors(tiny_model_folder: Path, tmp_path: Path) -> None:
    model = TagSpeech.from_pretrained(tiny_model_folder)
    torch.save({"model": {}}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"a\.pt: lacks weight semantic_projector\.linear1\.bias"):
        load_projectors(model, tmp_path / "a.pt")
