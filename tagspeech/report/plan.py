"""What a recipe takes on GPUs, reckoned from its configuration before anything runs (docs/plan.md).

Nothing here is measured on the machine at hand: constants are of an H100 with 80 GB and of one CPU
core, and the formulas are those that docs/plan.md explains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tagspeech.config import Config, StreamConfig, TrainConfig, ZipformerConfig
from tagspeech.data.batches import read_groups
from tagspeech.encoders.build import build_encoder
from tagspeech.errors import InputError
from tagspeech.llm.size import ACTIVATION, default_positions, llm_shape, llm_weights
from tagspeech.report.examples import columns

GPU_LLM, GPU_ENCODER, CPU = 375e12, 50e12, 50e9  # useful operations a second; CPU: of a core
PASS = 0.07  # seconds of a forward pass of 28 layers that decodes, whatever its rows
FILTER_BANK = 0.00049  # seconds of a core for a second of audio
STORE = 0.001  # seconds of a process to store the frames of a second of audio
DOWNLOAD = 2e6  # bytes a second
ANCHOR, TARGET = 6, 14.4  # tokens of an anchor; of the target text of a second of audio
SHORT = 141  # LLM positions of a second of audio in a batch of the shortest groups
HEARD = 0.05e9  # bytes that the training of an encoder keeps for a second of audio
RECORDED, SPLIT, GROUP = 1.25, 0.11, 8.6  # recordings to groups; dev or test to train; seconds
PUBLISHED_ENCODER = (153e6, 768, 25.0)  # weights, channels, frames a second
PUBLISHED_LLMS = {
    "Qwen/Qwen2.5-7B-Instruct": {
        **{"hidden_size": 3584, "num_hidden_layers": 28, "intermediate_size": 18944},
        **{"vocab_size": 152064, "num_attention_heads": 28, "num_key_value_heads": 4},
    }
}
GB = 1e9


@dataclass(frozen=True)
class StagePlan:
    """What a stage takes: hours, bytes on disk, bytes of memory of a device at most."""

    number: int
    title: str
    device: str = "CPU"
    hours: float = 0.0
    disk: float = 0.0
    memory: float = 0.0
    others: str = ""  # what the other GPUs do meanwhile
    skipped: str = ""  # why it does not run

    def line(self) -> str:
        """Device, time, disk and memory in words."""
        _, device, time, disk, memory, others = self.cells()
        if self.skipped:
            return f"nothing: {self.skipped}"
        words = [device, time, f"disk {disk}", f"memory {memory}"]
        return ", ".join([*words, *([f"other GPUs: {others}"] if others else [])])

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        if self.skipped:
            return (f"{self.number} {self.title}", "-", "-", "-", "-", self.skipped)
        return (
            f"{self.number} {self.title}",
            *(self.device, _hours(self.hours), _size(self.disk), _size(self.memory)),
            self.others,
        )


@dataclass(frozen=True)
class Sizes:
    """What the formulas need of a configuration.

    Attributes:
        llm: Weights of the LLM.
        tables: Those of its embeddings, which take no operations.
        layers: Of the LLM.
        width: Channels of the LLM.
        cache: Bytes that decoding keeps for a position.
        encoders: Weights, channels and frames a second of the semantic and the voice encoder.
    """

    llm: float
    tables: float
    layers: int
    width: int
    cache: float
    encoders: tuple[tuple[float, int, float], ...]


def plan(
    config: Config, gpus: int, hours: float, *, dev_hours: float | None = None, test_hours: float
) -> list[StagePlan]:
    """The plan of all stages.

    Args:
        config: The configuration of the recipe.
        gpus: GPUs of the machine; 0: a CPU, of which a core is used.
        hours: Hours of the groups in train.
        dev_hours, test_hours: The same of dev (None: as test) and test.
    """
    sizes = sizes_of(config)
    dev = test_hours if dev_hours is None else dev_hours
    recorded = RECORDED * (hours + dev + test_hours)
    audio = recorded * 3600 * 16000 * 2  # one channel
    rest = "idle" if gpus > 1 else ""
    decode = config.decode
    return [
        StagePlan(0, "download", hours=audio / DOWNLOAD / 3600, disk=audio, others=rest),
        StagePlan(1, "manifests", hours=recorded / 1200, disk=1e8, memory=1e9, others=rest),
        StagePlan(2, "groups", hours=recorded / 1200, disk=1e8, memory=1e9, others=rest),
        _encoder_stage(config, gpus, hours, "semantic", sizes),
        _encoder_stage(config, gpus, hours, "voice", sizes),
        _embed_stage(config, gpus, hours + dev, sizes),
        _train_stage(config, gpus, hours, sizes),
        _decode_stage(7, "decode", config, sizes, gpus, test_hours, decode.max_duration / GROUP),
        StagePlan(8, "score", hours=0.1, memory=1e9, others=rest),
        StagePlan(9, "report", hours=0.02, memory=1e9, others=rest),
        _decode_stage(
            *(10, "whole meetings", config, sizes, gpus, (1 + RECORDED) * test_hours),
            max(1, int(decode.max_duration / decode.max_window)),
        ),
    ]


def hours_of(groups: Path) -> dict[str, float]:
    """The hours of the groups of each split in a folder."""
    return {
        split: sum(cut.duration for cut in read_groups(groups / f"{split}.jsonl.gz")) / 3600
        for split in ("train", "dev", "test")
    }


def sizes_of(config: Config) -> Sizes:
    """The sizes of LLM and encoders; nothing is downloaded.

    Raises:
        InputError: The shape of the LLM is not known here.
    """
    shape: Mapping[str, Any] | None = llm_shape(config.llm, offline=True)
    if not config.llm.name:
        new = config.llm.new
        shape = {**vars(new), "tie_word_embeddings": True}
    shape = shape or PUBLISHED_LLMS.get(config.llm.name)
    weights = shape and llm_weights(shape)
    if not shape or not weights:
        raise InputError(
            f"llm.name: {config.llm.name}: its config.json is not on this machine; download it, or "
            "name a folder: --set llm.name=FOLDER"
        )
    width, heads = shape["hidden_size"], shape["num_attention_heads"]
    narrow = (shape.get("num_key_value_heads") or heads) * (shape.get("head_dim") or width // heads)
    tables = shape["vocab_size"] * width * (1 if shape.get("tie_word_embeddings") else 2)
    layers = shape["num_hidden_layers"]
    encoders = tuple(_encoder_size(config, name) for name in ("semantic", "voice"))
    return Sizes(weights, tables, layers, width, 2 * layers * narrow * 2, encoders)


def _encoder_size(config: Config, name: str) -> tuple[float, int, float]:
    """Weights, channels and frames a second; one of the Hub is taken to be the published shape."""
    stream: StreamConfig = getattr(config, name)
    names = [getattr(config.parts, f"{name}_{kind}").name for kind in ("encoder", "init")]
    is_default = stream.encoder_config == ZipformerConfig()
    if is_default and any(part and not Path(part).exists() for part in names):
        return PUBLISHED_ENCODER
    with torch.device("meta"):
        encoder = build_encoder(config, name)
    weights = sum(weight.numel() for weight in encoder.parameters())
    return weights, stream.output_dim, stream.frames_per_second


def _encoder_stage(config: Config, gpus: int, hours: float, name: str, sizes: Sizes) -> StagePlan:
    number = 3 if name == "semantic" else 4
    stage = StagePlan(number, f"{name} encoder", _device(gpus))
    if part := getattr(config.parts, f"{name}_encoder").name:
        return replace(stage, skipped=f"{part} takes its place")
    train = getattr(config, name).train
    weights = sizes.encoders[number - 3][0]
    step = 6 * weights * 25 * train.max_duration / (GPU_ENCODER if gpus else CPU)
    step = max(step, FILTER_BANK * train.max_duration / 8)
    return replace(
        stage,
        hours=_steps(train, gpus, hours) * step / 3600,
        disk=train.average * 12 * weights,
        memory=16 * weights + HEARD * train.max_duration,
        others=_together(gpus, train.max_duration * train.accumulate),
    )


def _embed_stage(config: Config, gpus: int, hours: float, sizes: Sizes) -> StagePlan:
    stage = StagePlan(5, "embeddings", _device(gpus))
    if config.train.from_audio:
        return replace(stage, skipped="stage 6 hears the audio (train.from_audio)")
    both = sum(weights for weights, _, _ in sizes.encoders)
    seconds = max(2 * both * 25 / GPU_ENCODER, STORE) if gpus else 2 * both * 25 / CPU * 0.33
    return replace(
        stage,
        hours=hours * seconds / max(gpus, 1),
        disk=hours * 3600 * sum(2 * rate * channels for _, channels, rate in sizes.encoders),
        memory=4 * both + 2e9,
        others="share the work" if gpus > 1 else "",
    )


def _positions(config: Config) -> float:
    """LLM positions of a second of audio."""
    streams = (config.semantic, config.voice)
    return TARGET + sum(
        stream.projected_frames_per_second * (1 + ANCHOR / stream.anchor_interval)
        for stream in streams
    )


def _steps(train: TrainConfig, gpus: int, hours: float) -> float:
    """Batches that a GPU computes one after the other, of groups of `hours` in all."""
    length = (train.max_hours or train.max_epochs * hours) * 3600 / train.max_duration
    return length / max(gpus, 1) or train.max_steps * train.accumulate


def _train_stage(config: Config, gpus: int, hours: float, sizes: Sizes) -> StagePlan:
    train, positions = config.train, _positions(config) * config.train.max_duration
    bound: float = default_positions(sizes.layers, sizes.width)
    bound = bound if train.max_positions < 0 else train.max_positions or math.inf
    largest = min(SHORT * train.max_duration, bound)
    learns = config.llm.trainable == "full"
    speeds = (GPU_LLM, GPU_ENCODER) if gpus else (CPU, CPU)
    step = (6 if learns else 4) * (sizes.llm - sizes.tables) * positions / speeds[0]
    encoders = sum(weights for weights, _, _ in sizes.encoders)
    if train.from_audio:
        step += 2 * encoders * 25 * train.max_duration / speeds[1]
    projectors = sum(
        stream.stack * channels * sizes.width + sizes.width**2
        for stream, (_, channels, _) in zip(
            (config.semantic, config.voice), sizes.encoders, strict=True
        )
    )
    trained = projectors + (sizes.llm if learns else 0)
    memory = sizes.llm * (2 if gpus and not learns else 4) + 4 * encoders + 12 * trained
    return StagePlan(
        *(6, "TagSpeech", _device(gpus)),
        hours=_steps(train, gpus, hours) * step / 3600,
        disk=train.average * 12 * trained + 2 * sizes.llm,
        memory=memory + ACTIVATION * sizes.layers * sizes.width * largest,
        others=_together(gpus, train.max_duration * train.accumulate),
    )


def _decode_stage(
    number: int, title: str, config: Config, sizes: Sizes, gpus: int, hours: float, rows: float
) -> StagePlan:
    """Each pass gives a token to each of `rows` groups or windows."""
    tokens = hours * 3600 * TARGET
    seconds = PASS * sizes.layers / 28 / rows if gpus else 2 * sizes.llm / CPU
    return StagePlan(
        *(number, title, _device(gpus)),
        hours=tokens * seconds / 3600 / max(gpus, 1),
        disk=1e8,
        memory=sizes.llm * (2 if gpus else 4)
        + 4 * sum(weights for weights, _, _ in sizes.encoders)
        + sizes.cache * _positions(config) * config.decode.max_duration,
        others="share the work" if gpus > 1 else "",
    )


def _device(gpus: int) -> str:
    return "CPU" if not gpus else f"{gpus} GPU{'s' if gpus > 1 else ''}"


def _together(gpus: int, seconds: float) -> str:
    return f"train together: {gpus} x {seconds:g} s of audio a step" if gpus > 1 else ""


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours / 24:.1f} d" if hours >= 48 else f"{hours:.1f} h"
    return f"{hours * 60:.0f} min" if hours >= 1 / 60 else "<1 min"


def _size(count: float) -> str:
    text = f"{count / GB:.{0 if count >= 0.95 * GB else 1}f} GB"
    return "-" if not count else "<0.1 GB" if count < 0.1 * GB else text


def render(stages: list[StagePlan], gpus: int, is_markdown: bool = False) -> str:
    """The table, with the sum of the hours."""
    rows: list[tuple[str, ...]] = [("stage", "device", "time", "disk", "memory", "the other GPUs")]
    rows += [stage.cells() for stage in stages]
    done = [stage for stage in stages if not stage.skipped]
    hours, disk = (sum(getattr(stage, name) for stage in done) for name in ("hours", "disk"))
    rows.append(("all", _device(gpus), _hours(hours), _size(disk), "", ""))
    if is_markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines.insert(1, "| --- " * len(rows[0]) + "|")
        return "\n".join(lines)
    return columns(rows)
