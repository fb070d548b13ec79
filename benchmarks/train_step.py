"""Cost of a training step: seven groups of 24-3 s, a random Qwen2 of 45 M, one CPU thread.

    python benchmarks/train_step.py

measures, each in a separate process, (a) padded forward and backward passes of `transformers` with
labels, as the released system trains, and (b) ours. Both start from stored frames, end with the
gradients of the projectors and have the same weights; encoders are not included. The last line is
JSON: CPU seconds, peak memory above the loaded model, scored tokens per second, and the ratios
(b) / (a) as `time_ratio` and `memory_ratio`. Needs Linux: /proc has the peak.

    python benchmarks/train_step.py --plot train_step.svg

plots time and memory of (b) by length of the audio, batch size and size of the vocabulary.
`--side ours` skips (a), which needs 13 GiB; `--set KEY=VALUE` changes the configuration.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SECONDS = (24.0, 18.0, 13.0, 10.0, 7.0, 5.0, 3.0)
VOCABULARY = 151_936
WORDS_PER_SECOND, SECONDS_PER_SEGMENT = 3.5, 2.5
WORDS = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in ("", "n", "r", "st")]
GIB = 2**30


def make_target(seconds: float, rng: random.Random) -> str:
    """The target text of a group of two speakers."""
    from tagspeech.segments import Segment
    from tagspeech.serialize import to_target

    count = max(1, round(seconds / SECONDS_PER_SEGMENT))
    length = seconds / count
    segments = [
        Segment(
            *("group", rng.choice("ab"), number * length, (number + 1) * length),
            *(" ".join(rng.choices(WORDS, k=round(length * WORDS_PER_SECOND))), "f"),
        )
        for number in range(count)
    ]
    return to_target(segments, 0.01)


def make_model(vocabulary: int, sets: list[str]) -> Any:
    """A model with random weights. Digits are single tokens, as in Qwen2; so is each word."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from tagspeech.config_file import load_config
    from tagspeech.llm.new import new_tokenizer
    from tagspeech.model.tagspeech import TagSpeechModel

    rng = random.Random(1)
    without_times = [re.sub(r"\d", "", make_target(60, rng)) for _ in range(20)]
    torch.manual_seed(1)
    config = load_config(os.devnull, sets)
    sizes = {"vocab_size": vocabulary, "hidden_size": 256, "intermediate_size": 1024}
    heads = {"num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2}
    llm = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, tie_word_embeddings=True))
    llm.set_attn_implementation(config.llm.attention)
    return TagSpeechModel(config, llm, new_tokenizer(without_times, 1000)).train()


def make_batch(model: Any, seconds: list[float]) -> tuple[Any, list[str]]:
    """Stored frames and target texts."""
    import torch

    from tagspeech.model.frames import Frames

    rng = random.Random(1)
    targets = [make_target(length, rng) for length in seconds]
    torch.manual_seed(1)
    lens_B = torch.tensor([round(25 * length) for length in seconds])
    frames_BTD = torch.randn(len(seconds), int(lens_B.max()), model.config.semantic.output_dim)
    return Frames(frames_BTD, lens_B, frames_BTD.flip(0), lens_B), targets


def padded_loss(model: Any, frames: Any, targets: list[str]) -> Any:
    """(a): a padded forward pass with labels; -100 marks positions that are not scored."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    prompts = model.prompts(model.add_anchors(model.project(frames)))
    ids = [torch.tensor(model.target_ids(target)) for target in targets]
    pairs = list(zip(prompts, ids, strict=True))
    inputs = [torch.cat([prompt, model.embed(ids_N.tolist())]) for prompt, ids_N in pairs]
    labels = [torch.cat([ids_N.new_full((len(prompt),), -100), ids_N]) for prompt, ids_N in pairs]
    lens_B = torch.tensor([len(input_LH) for input_LH in inputs])
    return model.llm(
        inputs_embeds=pad_sequence(inputs, batch_first=True),
        attention_mask=(torch.arange(int(lens_B.max())) < lens_B[:, None]).long(),
        labels=pad_sequence(labels, batch_first=True, padding_value=-100),
        use_cache=False,
    ).loss


def our_loss(model: Any, frames: Any, targets: list[str]) -> Any:
    """(b): our loss."""
    return model.loss_from_frames(frames, targets).loss


def memory(field: str) -> int:
    """Memory of this process in bytes: now (VmRSS) or at its peak (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", status)[1])


class LayersClock:
    """Measures CPU seconds and positions of the forward pass of the LLM's layers."""

    def __init__(self, decoder: Any) -> None:
        self.seconds, self.positions = 0.0, 0
        decoder.register_forward_pre_hook(self.begin, with_kwargs=True)
        decoder.register_forward_hook(self.end)

    def begin(self, _: Any, args: Any, kwargs: Any) -> None:
        self.positions += kwargs["inputs_embeds"].shape[:2].numel()
        self.seconds -= time.process_time()

    def end(self, *_: Any) -> None:
        self.seconds += time.process_time()


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Measures steps of one side in this process: the fastest step and the highest peak."""
    import torch

    torch.set_num_threads(1)
    model = make_model(args.vocabulary, args.set)
    frames, targets = make_batch(model, args.seconds)
    loss_of = padded_loss if args.side == "plain" else our_loss
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bfloat16")
    with autocast:
        loss_of(model, *make_batch(model, [0.5])).backward()  # warm up
    gc.collect()
    before, steps = memory("VmRSS"), []
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    for _ in range(args.repeats):
        model.zero_grad()
        layers = LayersClock(model.llm.get_decoder())
        began, system = time.process_time(), os.times().system
        with autocast:
            loss = loss_of(model, frames, targets)
        forward = time.process_time()
        loss.backward()
        figures = {
            "seconds": time.process_time() - began,
            "system_seconds": os.times().system - system,  # part of it: the kernel allocates memory
            "layers_forward_seconds": layers.seconds,
            "loss_seconds": forward - began - layers.seconds,  # (b): including its gradient
            "backward_seconds": time.process_time() - forward,
        }
        steps.append({name: round(value, 2) for name, value in figures.items()})
    if args.gradients:
        gradients = [p.grad.flatten() for p in model.parameters() if p.requires_grad]
        torch.save(torch.cat(gradients), args.gradients)
    step = min(steps, key=lambda step: step["seconds"])
    tokens = sum(len(model.target_ids(target)) for target in targets)
    return {
        **step,
        "gib": round((memory("VmHWM") - before) / GIB, 3),
        "positions": layers.positions,
        "tokens": tokens,
        "tokens_per_second": round(tokens / step["seconds"], 1),
        "loss": loss.item(),
    }


def in_process(args: argparse.Namespace, **changed: Any) -> dict[str, float]:
    """The figures of one side, from a separate process."""
    options = {**vars(args), **changed}
    command = [sys.executable, __file__, "--here", "--side", options["side"]]
    command += ["--vocabulary", str(options["vocabulary"]), "--repeats", str(options["repeats"])]
    command += ["--precision", options["precision"], "--seconds", *map(str, options["seconds"])]
    for assignment in options["set"]:
        command += ["--set", assignment]
    if options["gradients"]:
        command += ["--gradients", options["gradients"]]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(args: argparse.Namespace) -> dict[str, float]:
    """Figures of both sides, their ratios and the difference of gradients; or of one side."""
    sides = ["plain", "ours"] if args.side == "both" else [args.side]
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in sides:
            result = in_process(args, side=side, gradients=f"{folder}/{side}.pt")
            print(f"{side}: {result}", flush=True)
            figures |= {f"{side}_{name}": value for name, value in result.items()}
        if args.side == "both":
            import torch

            plain, ours = (torch.load(f"{folder}/{side}.pt") for side in sides)
            figures["gradient_difference"] = ((ours - plain).norm() / plain.norm()).item()
            figures["time_ratio"] = round(figures["ours_seconds"] / figures["plain_seconds"], 3)
            figures["memory_ratio"] = round(figures["ours_gib"] / figures["plain_gib"], 3)
    return figures


def plot(args: argparse.Namespace) -> dict[str, list[list[float]]]:
    """Plots the cost of (b); returns the points as [x, CPU seconds, GiB]."""
    from matplotlib.figure import Figure

    panels: dict[str, list[tuple[float, dict[str, Any]]]] = {
        "seconds of one group": [(n, {"seconds": [n]}) for n in (10, 20, 40, 80)],
        "groups of 10 s": [(n, {"seconds": [10.0] * n}) for n in (1, 2, 4, 8)],
        "vocabulary, in thousands": [
            (n / 1000, {"vocabulary": n}) for n in (4000, 32_000, 80_000, VOCABULARY)
        ],
    }
    figure = Figure(figsize=(10, 3), layout="constrained")
    points: dict[str, list[list[float]]] = {}
    for axes, (label, runs) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        points[label] = []
        for place, changed in runs:
            result = in_process(args, side="ours", **changed)
            points[label].append([place, result["seconds"], result["gib"]])
            print(f"{label} {place}: {result}", flush=True)
        places, seconds, gib = zip(*points[label], strict=True)
        axes.plot(places, seconds, "o-", color="C0")
        axes.set(xlabel=label, ylabel="CPU seconds", xlim=(0, None), ylim=(0, None))
        axes.yaxis.label.set_color("C0")
        other = axes.twinx()
        other.plot(places, gib, "s--", color="C1")
        other.set(ylabel="GiB above the model", ylim=(0, None))
        other.yaxis.label.set_color("C1")
    figure.savefig(args.plot)
    return points


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", choices=("both", "plain", "ours"), default="both")
    parser.add_argument("--seconds", type=float, nargs="+", default=list(SECONDS))
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=1, help="steps; the fastest one counts")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    parser.add_argument("--gradients", help=argparse.SUPPRESS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    run = plot if args.plot else measure if args.here else compare
    print(json.dumps(run(args)))


if __name__ == "__main__":
    main()
