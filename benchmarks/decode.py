"""Cost of decoding: sixteen groups of 2-30 s, one CPU thread.

    python benchmarks/decode.py [--llm FOLDER] [--dtype bfloat16]

measures, each in a separate process, (a) `generate` of `transformers` on padded prompts, as the
released system decodes, (b) ours, constrained to the output format, and (c) vLLM without a grammar,
where an environment has it. All have the same prompts and weights: a random Qwen2 of 45 M, or those
of `--llm`. (a) and (b) start from frames and end with token ids. Such an LLM would write no target
text, so the tokens that it chooses are replaced by given target texts of 68 to 402 tokens; (c)
writes as many tokens of its own. The last line is JSON: the processor, CPU seconds, forward passes,
tokens and peak memory above the loaded model, each the median of three runs, and the ratios (b) /
(a) as `time_ratio` and `memory_ratio`, of seconds (b) / (c) as `vllm_ratio`. Needs Linux: /proc has
the peak.

    python benchmarks/decode.py --model egs/mini/exp/tagspeech/pretrained --set target.time_grid=0.1

uses the LLM and the projectors of a trained model.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from train_step import GIB, VOCABULARY, WORDS, make_model, memory

ROOT = Path(__file__).resolve().parent.parent
SECONDS = [2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 23, 26, 30]
FEWEST, MOST = 74, 404  # tokens of the shortest and of the longest output


def make_target(model: Any, seconds: float, tokens: int, rng: random.Random) -> str:
    """A target text of up to three speakers with about `tokens` tokens."""
    from tagspeech.segments import Segment
    from tagspeech.serialize import to_target

    grid = model.config.target.time_grid
    lines, words = max(1, min(round(tokens / 45), round(seconds / 0.8))), 1
    length = int(seconds / lines / grid) * grid

    def text(words: int) -> str:
        chosen = random.Random(tokens)
        segments = []
        for n, speaker in enumerate(speakers):
            sentence = " ".join(chosen.choices(WORDS, k=words // lines + (n < words % lines)))
            start, end = n * length, (n + 1) * length
            segments.append(Segment("group", speaker, start, end, sentence, "f"))
        return to_target(segments, grid)

    speakers = [rng.choice("abc") for _ in range(lines)]
    while len(model.target_ids(text(words + 1))) <= tokens and words < 6 * seconds:
        words += 1
    return text(words)


def load(args: argparse.Namespace) -> Any:
    from tagspeech.checkpoints.native import load_pretrained
    from tagspeech.config_file import load_config
    from tagspeech.llm.load import DTYPES, load_llm
    from tagspeech.model.tagspeech import TagSpeechModel

    if args.model:
        model = load_pretrained(TagSpeechModel, args.model)
    elif args.llm:
        config = load_config(os.devnull, [*args.set, f"llm.name={args.llm}"])
        model = TagSpeechModel(config, *load_llm(config.llm))
    else:
        model = make_model(args.vocabulary, args.set)
    model.llm.to(DTYPES[args.dtype])
    return model.eval()


def make_batch(model: Any) -> tuple[Any, list[list[int]]]:
    """Stored frames, and the token ids to write."""
    import torch

    from tagspeech.model.frames import Frames

    rng = random.Random(1)
    counts = [round(FEWEST + (MOST - FEWEST) * n / (len(SECONDS) - 1)) for n in range(len(SECONDS))]
    targets = [
        make_target(model, seconds, count, rng)
        for seconds, count in zip(SECONDS, counts, strict=True)
    ]
    end = model.prompt.ending[0]
    ids = [model.target_ids(target) for target in targets]
    torch.manual_seed(1)
    lens_B = torch.tensor([25 * seconds for seconds in SECONDS])
    frames = [
        torch.randn(len(SECONDS), int(lens_B.max()), size)
        for size in (model.config.semantic.output_dim, model.config.voice.encoder.output_dim)
    ]
    return Frames(frames[0], lens_B, frames[1], lens_B), [row[: row.index(end)] for row in ids]


def padded(model: Any, frames: Any, wanted: list[list[int]]) -> tuple[list[list[int]], int]:
    """(a): the ids of each item, and the number of forward passes."""
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    end, passes = model.prompt.ending[0], 0

    def choose(ids_BN: Any, scores_BV: Any) -> Any:
        nonlocal passes
        passes += 1
        for row, ids in enumerate(wanted):
            done = ids_BN.shape[1]
            scores_BV[row, ids[done] if done < len(ids) else end] = 1e4
        return scores_BV

    with torch.inference_mode():
        prompts = model.prompts(model.add_anchors(model.project(frames)))
        longest = max(map(len, prompts))
        inputs_BLH = prompts[0].new_zeros(len(prompts), longest, prompts[0].shape[1])
        mask_BL = torch.zeros(len(prompts), longest, dtype=torch.long)
        for item, prompt in enumerate(prompts):
            inputs_BLH[item, longest - len(prompt) :] = prompt
            mask_BL[item, longest - len(prompt) :] = 1
        ids_BN = model.llm.generate(
            inputs_embeds=inputs_BLH,
            attention_mask=mask_BL,
            logits_processor=LogitsProcessorList([choose]),
            generation_config=GenerationConfig(
                max_new_tokens=1000, do_sample=False, eos_token_id=end, pad_token_id=end
            ),
        )
    return [row[: row.index(end)] for row in ids_BN.tolist()], passes


def ours(model: Any, frames: Any, wanted: list[list[int]]) -> tuple[list[list[int]], int]:
    """(b): the ids of each item, and the number of forward passes."""
    from unittest.mock import patch

    from tagspeech.inference import generate as generating

    passes, choose, step = 0, generating._Writer.choose, generating._step
    texts: dict[int, list[int]] = {}

    def forced(writer: Any, token: int, log_prob: float) -> None:
        """Replaces the token that the LLM chose."""
        ids = texts.setdefault(id(writer), wanted[writer.row])  # rows move when others end
        choose(writer, ids[len(writer.output.ids)], log_prob)

    def counted(*args: Any) -> Any:
        nonlocal passes
        passes += 1
        return step(*args)

    with (
        patch.object(generating._Writer, "choose", forced),
        # The likeliest token of a trained LLM is nearly always valid, that of a random LLM never.
        patch.object(generating.Constraint, "fits", lambda _, token: True),
        patch.object(generating, "_step", counted),
    ):
        seconds = [float(length) for length in SECONDS[: len(wanted)]]
        outputs = generating.generate(model, frames, 1000, seconds)
    return [output.ids for output in outputs], passes


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Measures one side in this process."""
    import torch

    torch.set_num_threads(1)
    model = load(args)
    frames, wanted = make_batch(model)
    write = padded if args.side == "plain" else ours
    with torch.inference_mode():  # warm up
        write(model, type(frames)(*(part[:1] for part in frames)), wanted[:1])
    gc.collect()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    began = time.process_time()
    written, passes = write(model, frames, wanted)
    seconds = time.process_time() - began
    if written != wanted:
        raise SystemExit(f"{args.side}: the output is not the given target text")
    return {
        "seconds": round(seconds, 2),
        "passes": passes,
        "tokens": sum(map(len, wanted)),
        "shortest": min(map(len, wanted)),
        "longest": max(map(len, wanted)),
        "gib": round((memory("VmHWM") - before) / GIB, 3),
    }


def vllm_prompts(args: argparse.Namespace, folder: Path) -> None:
    """Writes what (c) reads: the LLM, the prompts and the lengths of the outputs."""
    import torch

    model = load(args)
    frames, wanted = make_batch(model)
    with torch.inference_mode():
        prompts = model.prompts(model.add_anchors(model.project(frames)))
    model.llm.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    torch.save({"prompts": prompts, "lengths": list(map(len, wanted))}, folder / "prompts.pt")


def processor() -> str:
    """The name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    amx = "amx_bf16" in next(line for line in lines if line.startswith("flags")).split()
    return next(names, "unknown") + (" with AMX" if amx else "")


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Measures the sides in turn; returns the median of each figure, and their ratios."""
    measured: dict[str, list[float]] = defaultdict(list)
    own = [sys.executable, __file__, *sys.argv[1:], "--side"]
    commands = {"plain": [*own, "plain"], "ours": [*own, "ours"]}
    with TemporaryDirectory() as folder:
        if args.vllm.exists():
            vllm_prompts(args, Path(folder))
            script = Path(__file__).with_name("decode_vllm.py")
            commands["vllm"] = [str(args.vllm), str(script), folder, args.dtype]
        else:
            print(f"vllm: not installed: there is no {args.vllm}", flush=True)
        for side, command in list(commands.items()) * args.repeats:
            env = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=env)
            result = json.loads(done.stdout.splitlines()[-1])
            print(f"{side}: {result}", flush=True)
            for name, value in result.items():
                measured[f"{side}_{name}"].append(value)
    figures = {name: median(values) for name, values in measured.items()}
    figures["time_ratio"] = round(figures["ours_seconds"] / figures["plain_seconds"], 3)
    figures["memory_ratio"] = round(figures["ours_gib"] / figures["plain_gib"], 3)
    if "vllm" in commands:
        figures["vllm_ratio"] = round(figures["ours_seconds"] / figures["vllm_seconds"], 3)
    return {"processor": processor(), "dtype": args.dtype, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", choices=("both", "plain", "ours"), default="both")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--model", type=Path, help="folder of a trained model")
    parser.add_argument("--llm", type=Path, help="folder of an LLM, with new projectors")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--vllm", type=Path, default=ROOT / ".venv-vllm/bin/python", help="a Python with vLLM"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    print(json.dumps(compare(args) if args.side == "both" else measure(args)))


if __name__ == "__main__":
    main()
