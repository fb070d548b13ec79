"""Trained parts for other runs to start from: two encoders and an LLM, in half precision."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tagspeech.encoders.zipformer import read_zipformer_state
from tagspeech.files import atomic_path, write_checksums

log = logging.getLogger(__name__)


def export_parts(semantic: Path, voice: Path, llm: Path, output: Path) -> None:
    """Writes `output/{semantic,voice}.safetensors`, `output/llm` and `output/SHA256SUMS`.

    Weights become float16; training and decoding load them as float32.

    Args:
        semantic: Weights of a Zipformer, a .pt or .safetensors.
        voice: The same.
        llm: Folder of the LLM.
        output: The folder to write.

    Raises:
        InputError: A file does not have the weights of a Zipformer.
    """
    output.mkdir(parents=True, exist_ok=True)
    for name, path in (("semantic", semantic), ("voice", voice)):
        state = read_zipformer_state(path)
        with atomic_path(output / f"{name}.safetensors") as temporary:
            save_file({key: weight.half().contiguous() for key, weight in state.items()}, temporary)
    with atomic_path(output / "llm") as temporary:
        shutil.copytree(llm, temporary)
        weights = temporary / "model.safetensors"
        half = {key: weight.to(torch.float16) for key, weight in load_file(weights).items()}
        save_file(half, weights, metadata={"format": "pt"})
    write_checksums(output)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    log.info("%s: %.1f MB", output, size / 1e6)
