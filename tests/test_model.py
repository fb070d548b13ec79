"""TagSpeech as a whole on random weights: anchors, prompt, loss, tokenizer, saved folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_zipformer import tiny_config as random_encoder
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers import decoders as token_decoders
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tagspeech.checkpoints.native import load_pretrained, save_pretrained
from tagspeech.config import (
    Config,
    DropConfig,
    FeatureConfig,
    LLMConfig,
    SemanticConfig,
    VoiceConfig,
    ZipformerConfig,
)
from tagspeech.errors import InputError
from tagspeech.llm.load import load_llm
from tagspeech.llm.new import new_tokenizer
from tagspeech.llm.prompt import Prompt, build_prompt, encode_text
from tagspeech.model.anchors import (
    Anchors,
    AnchorSetup,
    EmbeddingRows,
    anchor_layout,
    build_anchors,
)
from tagspeech.model.projector import PROJECTORS, StackProjector, build_projector, project
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.segments import Segment
from tagspeech.serialize import to_target
from tagspeech.training.dropped_streams import StreamDrops

PADDING = -23.02585  # log(1e-10), what features are padded with
LENS = (180, 97, 30)  # feature frames: 7, 4 and 0 or 1 projected ones


@pytest.fixture
def model(tiny_model_folder: Path) -> TagSpeechModel:
    return load_pretrained(TagSpeechModel, tiny_model_folder)


@pytest.fixture(scope="module")
def features() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(length, 80, generator=generator) for length in LENS]


@pytest.fixture(scope="module")
def targets(tiny_segments: list[Segment]) -> list[str]:
    """Targets of three lengths."""
    return [to_target(tiny_segments[:count], 0.1) for count in (3, 2, 1)]


# Anchors and projectors


def numeric(interval: int) -> Anchors:
    setup = AnchorSetup(interval, 0.16, 0.01, 1, None, range(10))
    return build_anchors("numeric", setup)


def insert_numbers(frames_PH: Tensor, interval: int, digits_10H: Tensor) -> Tensor:
    return numeric(interval).insert(frames_PH, EmbeddingRows(digits_10H, digits_10H.__getitem__))


@pytest.mark.parametrize(
    ("frames", "layout"),
    [
        (16, [1, (0, 8), 2, (8, 16), 3]),
        (9, [1, (0, 8), 2, (8, 9), 3]),
        (1, [1, (0, 1), 2]),
        (0, []),
    ],
)
def test_anchor_layout_of_the_paper(frames: int, layout: list[Any]) -> None:
    assert anchor_layout(frames, 8) == layout


@given(st.integers(0, 700), st.integers(1, 12))
def test_anchors_count_up_and_every_frame_stays(frames: int, interval: int) -> None:
    layout = anchor_layout(frames, interval)
    anchors = [piece for piece in layout if isinstance(piece, int)]
    pieces = [piece for piece in layout if not isinstance(piece, int)]
    assert anchors == list(range(1, len(anchors) + 1))
    assert layout[::2] == anchors
    assert [frame for piece in pieces for frame in range(*piece)] == list(range(frames))
    assert all(stop - start == interval for start, stop in pieces[:-1])
    if frames:
        assert len(anchors) == len(pieces) + 1


@given(st.integers(0, 90), st.integers(1, 8))
def test_stream_is_frames_and_digits_in_order(frames: int, interval: int) -> None:
    """Rows name themselves: frame n is n + 1, digit d is -1 - d; anchor 10 is two rows."""
    stream_SH = insert_numbers(
        torch.arange(1.0, frames + 1)[:, None], interval, -torch.arange(1.0, 11)[:, None]
    )
    expected: list[float] = []
    for piece in anchor_layout(frames, interval):
        if isinstance(piece, int):
            expected += [-1.0 - int(digit) for digit in str(piece)]
        else:
            expected += range(piece[0] + 1, piece[1] + 1)
    assert stream_SH[:, 0].tolist() == expected


def test_anchor_ten_is_two_digits() -> None:
    stream_SH = insert_numbers(torch.zeros(80, 1), 8, torch.arange(10.0)[:, None] + 100)
    # |9| 8 frames |1||0| 8 frames |1||1|
    expected = [109, *8 * [0], 101, 100, *8 * [0], 101, 101]
    assert stream_SH[-21:, 0].tolist() == expected


@given(st.integers(0, 70), st.integers(1, 9))
def test_positions_of_frames_in_a_stream(frames: int, interval: int) -> None:
    numbered_PH = torch.arange(frames, dtype=torch.float)[:, None]
    stream_SH = insert_numbers(numbered_PH, interval, -torch.ones(10, 1))
    positions = numeric(interval).positions(frames)
    assert stream_SH[positions, 0].tolist() == list(range(frames))
    assert (stream_SH >= 0).sum() == frames


def test_projector_stacks_frames_and_drops_the_rest() -> None:
    encoder = ZipformerConfig(encoder_dim=(2,))
    projector = StackProjector(VoiceConfig(encoder=encoder, stack=4), hidden_size=3)
    frames_BTD = torch.randn(1, 11, 2)
    projected_BPH = projector(frames_BTD)
    assert projected_BPH.shape == (1, 2, 3)
    stacked = torch.cat(list(frames_BTD[0, 4:8]))
    second_H = projector.linear2(projector.linear1(stacked).relu())
    torch.testing.assert_close(projected_BPH[0, 1], second_H)
    assert projector(frames_BTD[:, :3]).shape == (1, 0, 3)


@pytest.mark.parametrize("name", PROJECTORS)
def test_projected_frames_do_not_depend_on_the_batch(name: str) -> None:
    encoder = ZipformerConfig(encoder_dim=(2,))
    projector = build_projector(VoiceConfig(encoder=encoder, stack=4, projector=name), 3)
    frames_BTD, lens_B = torch.randn(3, 30, 2), torch.tensor([11, 30, 16])
    together_BPH, lens = project(projector, frames_BTD, lens_B)
    for item, length in enumerate(lens_B.tolist()):
        alone_BPH, (alone,) = project(
            projector, frames_BTD[item, None, :length], lens_B[item, None]
        )
        assert alone == lens[item] == length // 4
        torch.testing.assert_close(together_BPH[item, :alone], alone_BPH[0])


# Loss


def test_batch_of_mixed_lengths_is_one_by_one(
    model: TagSpeechModel, features: list[Tensor], targets: list[str]
) -> None:
    batch_BTF = pad_sequence(features, batch_first=True, padding_value=PADDING)
    lens_B = torch.tensor(LENS)
    with torch.no_grad():
        together = model.loss(batch_BTF, lens_B, targets, return_logits=True)
        streams = model.streams(batch_BTF, lens_B)
        tokens, total = 0, 0.0
        for item, (one_TF, target) in enumerate(zip(features, targets, strict=True)):
            own_lens = torch.tensor([len(one_TF)])
            alone = model.loss(one_TF[None], own_lens, [target], return_logits=True)
            own = model.streams(one_TF[None], own_lens)
            theirs = together.logits[tokens : tokens + alone.tokens]
            torch.testing.assert_close(alone.logits, theirs, rtol=1e-4, atol=1e-4)
            for ours, ours_len, batch_BSH, batch_len in (
                (own.semantic, own.semantic_lens, streams.semantic, streams.semantic_lens[item]),
                (own.voice, own.voice_lens, streams.voice, streams.voice_lens[item]),
            ):
                assert ours_len.item() == batch_len
                torch.testing.assert_close(
                    ours[0], batch_BSH[item, :batch_len], rtol=1e-4, atol=1e-4
                )
                assert not batch_BSH[item, batch_len:].any()
            tokens += alone.tokens
            total += alone.terms["target"].item() * alone.tokens
    assert together.tokens == tokens
    assert together.terms["target"].item() == pytest.approx(total / tokens, abs=1e-4)


@pytest.mark.parametrize(
    ("stacks", "interval", "stack", "hidden"),
    [(2, 1, 4, 32), (3, 16, 1, 48), (4, 5, 3, 16), (5, 8, 2, 64), (6, 13, 4, 24)],
)
def test_batch_of_any_shape_is_one_by_one(
    tiny_config: Config, stacks: int, interval: int, stack: int, hidden: int
) -> None:
    """Eight lengths, of 2 to 6 stacks, anchor intervals 1 to 16 and LLMs of several widths."""
    features = FeatureConfig(num_mel_bins=20)
    semantic = SemanticConfig(random_encoder(stacks, stacks), stack, interval)
    voice = VoiceConfig(random_encoder(stacks, stacks + 10), stack, 17 - interval)
    tokenizer = load_llm(tiny_config.llm)[1]
    torch.manual_seed(stacks)
    sizes = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "vocab_size": len(tokenizer)}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    llm = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads))
    model = TagSpeechModel(
        Config(features=features, semantic=semantic, voice=voice), llm, tokenizer
    )
    with torch.no_grad():
        for weight in model.parameters():  # large enough for every branch to matter
            weight.add_(0.1 * torch.randn_like(weight))
    lens = [9, 24, 47, 61, 98, 120, 163, 250]
    batch_BTF = torch.full((8, 250, 20), PADDING)
    for item, length in enumerate(lens):
        batch_BTF[item, :length] = torch.randn(length, 20)
    targets = [f"<text>\n0.00-1.00>{'lamp ' * item}</text>" for item in range(8)]
    with torch.no_grad():
        together = model.streams(batch_BTF, torch.tensor(lens))
        rows = model.loss(batch_BTF, torch.tensor(lens), targets, return_logits=True).logits
        for item, length in enumerate(lens):
            one = (batch_BTF[item : item + 1, :length], torch.tensor([length]))
            alone = model.streams(*one)
            own = model.loss(*one, targets[item : item + 1], return_logits=True).logits
            theirs, rows = rows[: len(own)], rows[len(own) :]
            torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-4)
            for ours, batch, count in (
                (alone.semantic, together.semantic, together.semantic_lens[item]),
                (alone.voice, together.voice, together.voice_lens[item]),
            ):
                assert ours.shape[1] == count
                torch.testing.assert_close(ours[0], batch[item, :count], rtol=1e-4, atol=1e-4)
    assert len(rows) == 0


def test_loss_is_that_of_a_plain_llm_with_the_prompt_masked(
    model: TagSpeechModel, features: list[Tensor], targets: list[str]
) -> None:
    """Only target positions are scored: every other label is -100, which is ignored."""
    with torch.no_grad():
        lens_B = torch.tensor([LENS[0]])
        output = model.loss(features[0][None], lens_B, targets[:1])
        pairs = model.add_anchors(model.project(model.encode(features[0][None], lens_B)))
        prompt_LH = model.prompts(pairs)[0]
        ids = model.target_ids(targets[0])
        plain = model.llm(
            inputs_embeds=torch.cat([prompt_LH, model.embed(ids)])[None],
            labels=torch.tensor([[-100] * len(prompt_LH) + ids]),
        )
    assert output.tokens == len(ids)
    assert output.terms["target"].item() == pytest.approx(plain.loss.item(), abs=1e-4)
    best = plain.logits[0, len(prompt_LH) - 1 : -1].argmax(-1)
    right = (best == torch.tensor(ids)).float().mean()
    assert output.correct.item() == pytest.approx(right.item())


def test_weighted_terms_add_up(
    model: TagSpeechModel, features: list[Tensor], targets: list[str]
) -> None:
    with torch.no_grad():
        output = model.loss(features[0][None], torch.tensor([LENS[0]]), targets[:1])
    assert set(output.terms) == {"target", "semantic_ctc"}
    weighted = output.terms["target"] + 0.3 * output.terms["semantic_ctc"]
    assert output.loss.item() == pytest.approx(weighted.item())


def test_too_short_for_a_frame_still_has_a_loss(model: TagSpeechModel, targets: list[str]) -> None:
    output = model.loss(torch.randn(1, 8, 80), torch.tensor([8]), targets[:1])
    assert output.loss.isfinite()
    output.loss.backward()


def test_gradients_reach_what_learns_and_nothing_else(
    model: TagSpeechModel, features: list[Tensor], targets: list[str]
) -> None:
    model.train()
    model.loss(features[0][None], torch.tensor([LENS[0]]), targets[:1]).loss.backward()
    for name, weight in model.named_parameters():
        frozen = name.startswith(("semantic_encoder", "voice_encoder"))
        assert weight.requires_grad is not frozen, name
        assert (weight.grad is None) is frozen, name


@pytest.mark.parametrize(
    ("drop", "kept"),
    [
        (DropConfig(), (8, 8)),
        (DropConfig(anchors=1.0), (6, 6)),  # two anchors: one before, one behind the frames
        (DropConfig(semantic=1.0), (0, 8)),
        (DropConfig(voice=1.0), (8, 0)),
    ],
)
def test_what_is_dropped_in_training(
    model: TagSpeechModel, drop: DropConfig, kept: tuple[int, int]
) -> None:
    hidden = model.llm.config.hidden_size
    projected = [(torch.randn(6, hidden), torch.randn(6, hidden))]

    def lengths(pairs: list[tuple[Tensor, Tensor]]) -> tuple[int, ...]:
        return tuple(len(stream) for stream in pairs[0])

    assert lengths(model.add_anchors(projected)) == (8, 8)  # whoever does not train drops nothing
    assert lengths(model.add_anchors(*StreamDrops(drop)(projected))) == kept


@pytest.mark.parametrize(("trainable", "llm_learns"), [("full", True), ("none", False)])
def test_frozen_parts_stay_in_eval_mode(
    tiny_config: Config, trainable: str, llm_learns: bool
) -> None:
    config = replace(tiny_config, llm=replace(tiny_config.llm, trainable=trainable))
    model = TagSpeechModel(config, *load_llm(config.llm))
    model.train()
    assert not any(one.training for one in model.semantic_encoder.modules())
    assert not any(one.training for one in model.voice_encoder.modules())
    assert model.llm.training is llm_learns
    assert model.semantic_projector.training
    assert any(weight.requires_grad for weight in model.llm.parameters()) is llm_learns
    model.eval()
    assert not any(one.training for one in model.modules())


def test_unknown_trainable_is_named(tiny_config: Config) -> None:
    config = replace(tiny_config, llm=replace(tiny_config.llm, trainable="some"))
    with pytest.raises(InputError, match=r"llm\.trainable: must be none or full, got some"):
        TagSpeechModel(config, *load_llm(config.llm))


# Prompt and tokenizer


def spelt(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


TRICKY = "the <|im_start|>user\n tag<|im_end|>\n and <|endoftext|> are </text> words & <b>"


def test_text_like_special_tokens_is_text(model: TagSpeechModel) -> None:
    ids = model.target_ids(TRICKY)
    ending = model.prompt.ending
    assert ids[-len(ending) :] == ending
    assert not set(ids[: -len(ending)]) & set(model.tokenizer.all_special_ids)
    assert ids.count(ending[0]) == 1
    assert spelt(model.tokenizer, ids[: -len(ending)]) == TRICKY


def test_prompt_of_qwen(model: TagSpeechModel) -> None:
    prompt, tokenizer = model.prompt, model.tokenizer
    assert spelt(tokenizer, prompt.before) == "<|im_start|>user\n<text>"
    assert spelt(tokenizer, prompt.between) == "</text>\n<speaker>"
    after = "</speaker><|im_end|>\n<|im_start|>assistant\n"
    assert spelt(tokenizer, prompt.after) == after
    assert spelt(tokenizer, prompt.ending) == "<|im_end|>\n"
    assert [spelt(tokenizer, [one]) for one in prompt.digits] == list("0123456789")


def byte_tokenizer(*markers: str, drop: str = "") -> PreTrainedTokenizerFast:
    """One token a byte, and `markers`."""
    alphabet = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(drop))
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = token_decoders.ByteLevel()
    tokenizer.add_special_tokens(list(markers))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=list(markers)
    )


LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
GEMMA = ("<bos>", "<start_of_turn>", "<end_of_turn>")


@pytest.mark.parametrize(
    ("markers", "before", "after", "ending"),
    [
        (
            LLAMA,
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<text>",
            "</speaker><|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            "<|eot_id|>",
        ),
        (
            GEMMA,
            "<bos><start_of_turn>user\n<text>",
            "</speaker><end_of_turn>\n<start_of_turn>model\n",
            "<end_of_turn>\n",
        ),
    ],
)
def test_prompt_of_other_families(
    markers: tuple[str, ...], before: str, after: str, ending: str
) -> None:
    tokenizer = byte_tokenizer(*markers)
    prompt = build_prompt(tokenizer)
    assert isinstance(prompt, Prompt)
    assert spelt(tokenizer, prompt.before) == before
    assert spelt(tokenizer, prompt.between) == "</text>\n<speaker>"
    assert spelt(tokenizer, prompt.after) == after
    assert spelt(tokenizer, prompt.ending) == ending
    marked = {tokenizer.convert_tokens_to_ids(marker) for marker in markers}
    assert prompt.ending[0] in marked
    assert sum(one in marked for one in prompt.before + prompt.after) == sum(
        (before + after).count(marker) for marker in markers
    )
    text = "".join(markers)
    assert not marked & set(encode_text(tokenizer, text))
    assert spelt(tokenizer, encode_text(tokenizer, text)) == text


def test_tokenizer_without_markers_or_digits_is_named() -> None:
    with pytest.raises(InputError, match=r"end-of-turn tokens .*llm\.name"):
        build_prompt(byte_tokenizer("<eos>"))
    with pytest.raises(InputError, match="no token for '7'"):
        build_prompt(byte_tokenizer(*GEMMA, drop="7"))


TIMES = [f"{step / 10:.2f}" for step in range(121)]
STARTS = [f"{time}-" for time in TIMES]
TOKENIZER = new_tokenizer(["<text>\n0.30-1.20>set the lamp\n</text>", *TIMES * 2, *STARTS * 2], 900)


@given(st.text() | st.text(alphabet="<|im_startend>/ \n\t0123456789.\"'=é字"))
def test_any_text_survives_the_new_tokenizer(text: str) -> None:
    assert spelt(TOKENIZER, encode_text(TOKENIZER, text)) == text


@pytest.mark.parametrize("reloaded", [False, True])
def test_new_tokenizer_has_times_digits_and_words(tiny_config: Config, reloaded: bool) -> None:
    """Also when loaded again: the class that transformers guesses would split otherwise."""
    tokenizer = load_llm(tiny_config.llm)[1] if reloaded else TOKENIZER
    for text in (*TIMES, *STARTS, *"0123456789", " lamp"):
        assert len(encode_text(tokenizer, text)) == 1, text
    line = encode_text(tokenizer, "0.30-11.70>set the lamp")
    assert [spelt(tokenizer, [one]) for one in line] == [
        *("0.30-", "11.70", ">", "set", " the", " lamp")
    ]
    assert spelt(tokenizer, encode_text(tokenizer, TRICKY)) == TRICKY


def test_new_llm_has_the_same_bits_again(
    tiny_config: Config, tiny_segments: list[Segment], tmp_path: Path
) -> None:
    from tagspeech.llm.new import make_llm

    make_llm(tiny_config.llm.new, [to_target(tiny_segments, 0.1)], 0.1, 12.0, tmp_path / "llm")
    for name in ("model.safetensors", "tokenizer.json"):
        ours = (tmp_path / "llm" / name).read_bytes()
        assert ours == (Path(tiny_config.llm.name) / name).read_bytes(), name


# Saved folders


def test_saved_model_gives_the_same_loss(
    model: TagSpeechModel, features: list[Tensor], targets: list[str], tmp_path: Path
) -> None:
    save_pretrained(model, tmp_path / "copy")
    again = load_pretrained(TagSpeechModel, tmp_path / "copy")
    assert not again.training
    inputs = (features[0][None], torch.tensor([LENS[0]]), targets[:1])
    with torch.no_grad():
        assert again.loss(*inputs).loss.equal(model.loss(*inputs).loss)


def test_saved_folder_can_be_moved_and_replaced(tiny_model_folder: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(tiny_model_folder, tmp_path / "moved"))
    model = load_pretrained(TagSpeechModel, moved)
    assert model.config.llm.name == "./llm"
    save_pretrained(model, moved)
    load_pretrained(TagSpeechModel, moved)
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]


def drop_one(weights: dict[str, Tensor]) -> None:
    del weights["voice_projector.linear2.bias"]


def add_one(weights: dict[str, Tensor]) -> None:
    weights["voice_projector.linear3.bias"] = torch.zeros(3)


def reshape_one(weights: dict[str, Tensor]) -> None:
    weights["voice_projector.linear2.bias"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_one, ["lacks weight voice_projector.linear2.bias"]),
        (add_one, ["unexpected weight voice_projector.linear3.bias"]),
        (reshape_one, ["voice_projector.linear2.bias has shape (3,)"]),
    ],
)
def test_wrong_weights_name_file_and_tensor(
    tiny_model_folder: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], None],
    words: list[str],
) -> None:
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    with pytest.raises(InputError) as error:
        load_pretrained(TagSpeechModel, folder)
    for word in (str(path), *words):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "llm/model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"cut off"])
def test_broken_file_is_named(
    tiny_model_folder: Path, tmp_path: Path, name: str, content: bytes | None
) -> None:
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        load_pretrained(TagSpeechModel, folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop("model.norm.weight"), r"lack model\.norm\.weight"),
        (
            lambda weights: weights.update({"model.norm.more": torch.zeros(3)}),
            r"unexpected model\.norm\.more",
        ),
        (
            lambda weights: weights.update({"model.norm.weight": torch.zeros(3)}),
            r"model\.norm\.weight must have shape \(32,\), got \(3,\)",
        ),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_llm_tensor_that_is_wrong_is_named(
    tiny_model_folder: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], None],
    words: str,
) -> None:
    """transformers alone would fill a gap with random weights, and go on."""
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))
    path = folder / "llm/model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=words) as error:
        load_pretrained(TagSpeechModel, folder)
    assert str(folder) in str(error.value)


def test_config_of_another_kind_is_named(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))
    tree = json.loads((folder / "config.json").read_text())
    for change, words in (
        ({"model_type": "qwen2"}, "model_type is not tagspeech"),
        ({"depth": 3}, "unknown key 'depth'"),
    ):
        (folder / "config.json").write_text(json.dumps({**tree, **change}))
        with pytest.raises(InputError, match=words):
            load_pretrained(TagSpeechModel, folder)


def test_llm_that_cannot_be_had_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"llm\.name: .*its folder"):
        load_llm(LLMConfig(name=str(tmp_path / "nothing")))
