"""Errors of word times: aligned by the semantic encoder, and estimated from segments.

    python benchmarks/word_times.py --config egs/mini/conf/tagspeech.yaml \
        --semantic egs/mini/exp/semantic/final.pt --groups egs/mini/data/groups/test.jsonl.gz

aligns the reference words of each group within their segments, whose times are rounded to
`--grid` seconds as the LLM writes them, and compares starts and ends with the word times of the
corpus. With `--hyp decoded/test.hyp.seglst.json`, the words that were recognized right are compared
instead, with the word times in that file. With `--fit N`, the outputs that align are not those of
`--semantic`, which may have none: they are fitted to its frames of N groups in `--train`.

A word counts as overlapped where another speaker talks during it.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import kaldialign
import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from tagspeech import formats
from tagspeech.config import Config
from tagspeech.config_file import load_config
from tagspeech.corpus.groups import group_segments
from tagspeech.data.batches import FeatureReader
from tagspeech.data.pooling import frame_units
from tagspeech.data.units import Units, train_units
from tagspeech.encoders.aligner import OUTPUTS, WordAligner
from tagspeech.encoders.build import build_encoder
from tagspeech.pairing import nearest_pairs
from tagspeech.segments import Segment, word_times
from tagspeech.training.encoders import sot_transcript

GAP = ""
STEPS = 150  # of --fit

Frames = Callable[[Cut], torch.Tensor]


class Error(NamedTuple):
    """Seconds by which the start and the end of a word are off."""

    start: float
    end: float
    is_overlapped: bool


def exact_spans(cut: Cut) -> dict[tuple[float, str], list[tuple[float, float]]]:
    """The word times of each segment, by its rounded start and its speaker."""
    return {
        (max(0.0, round(item.start, 3)), item.speaker): [
            (word.start, word.end) for word in (item.alignment or {}).get("word", [])
        ]
        for item in cut.supervisions
    }


def errors_of(
    ref: Segment, exact: list[tuple[float, float]], hyp: Segment, others: list[Segment]
) -> Iterator[Error]:
    """The errors of the words that `hyp` has in common with `ref`."""
    found = word_times(hyp)
    pairs = kaldialign.align(ref.words.split(), hyp.words.split(), GAP)
    place = [0, 0]
    for word, other in pairs:
        if word == other:
            (start, end), (a, b) = exact[place[0]], found[place[1]]
            overlapped = any(item.start < end and start < item.end for item in others)
            yield Error(a - start, b - end, overlapped)
        place[0] += word != GAP
        place[1] += other != GAP


def on_grid(segment: Segment, grid: float) -> Segment:
    start = round(round(segment.start / grid) * grid, 3)
    return replace(
        segment, start=start, end=max(start + grid, round(round(segment.end / grid) * grid, 3))
    )


def show(name: str, errors: list[Error]) -> None:
    for kind, chosen in (
        ("all", errors),
        ("alone", [error for error in errors if not error.is_overlapped]),
        ("overlapped", [error for error in errors if error.is_overlapped]),
    ):
        if not chosen:
            continue
        starts = 1000 * np.abs([error.start for error in chosen])
        ends = 1000 * np.abs([error.end for error in chosen])
        bias = [1000 * float(np.median([e[n] for e in chosen])) for n in (0, 1)]
        print(
            f"{name:9} {kind:10} {len(chosen):6} words; start: median {np.median(starts):4.0f} ms, "
            f"90 % under {np.quantile(starts, 0.9):4.0f} ms, bias {bias[0]:+4.0f}; "
            f"end: median {np.median(ends):4.0f} ms, 90 % under {np.quantile(ends, 0.9):4.0f} ms, "
            f"bias {bias[1]:+4.0f}"
        )


def fitted(args: argparse.Namespace, config: Config, frames: Frames) -> WordAligner:
    """Both outputs, trained on the frozen encoder's frames as stage 3 trains them."""
    torch.manual_seed(1)
    draw = random.Random(1)
    cuts = draw.sample(list(CutSet.from_file(args.train)), args.fit)
    heard = {cut.id: frames(cut) for cut in cuts}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "units.model"
        train_units([sot_transcript(cut) for cut in cuts], config.semantic.sot, path)
        units = Units(path)
    width = config.semantic.output_dim
    outputs = {"ctc": nn.Linear(width, len(units)), "frames": nn.Linear(width, 2 * len(units))}
    weights = [weight for output in outputs.values() for weight in output.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        batch = CutSet.from_cuts(draw.sample(cuts, min(24, len(cuts))))
        frames_BTD = pad_sequence([heard[cut.id] for cut in batch], batch_first=True)
        loss = _loss(config, outputs, units, batch, frames_BTD, [len(heard[c.id]) for c in batch])
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    tensors = {
        f"{kind}.{part}": weight.detach()
        for kind, output in outputs.items()
        for part, weight in output.named_parameters()
    }
    return WordAligner(tensors, units, config.semantic.frames_per_second, args.semantic)


def _loss(
    config: Config,
    outputs: dict[str, nn.Linear],
    units: Units,
    batch: CutSet,
    frames_BTD: torch.Tensor,
    lens: list[int],
) -> torch.Tensor:
    rate = config.semantic.frames_per_second
    units_BTS = frame_units(batch, frames_BTD.shape[1], rate, units.encode)
    logits_BTSV = outputs["frames"](frames_BTD).unflatten(-1, (2, -1))
    losses_2N = nn.functional.cross_entropy(
        logits_BTSV.permute(2, 3, 0, 1).flatten(2),
        units_BTS.permute(2, 0, 1).flatten(1),
        ignore_index=-1,
        reduction="none",
    )
    targets = [units.encode(sot_transcript(cut)) for cut in batch]
    ctc = nn.functional.ctc_loss(
        outputs["ctc"](frames_BTD).log_softmax(-1).transpose(0, 1),
        torch.tensor(list(chain.from_iterable(targets))),
        torch.tensor(lens),
        torch.tensor(list(map(len, targets))),
        reduction="sum",
        zero_infinity=True,
    )
    frame_loss = (losses_2N.sum(1) / (units_BTS >= 0).sum((0, 1))).sum()
    return frame_loss + ctc / sum(map(len, targets))


def by_reference(args: argparse.Namespace, groups: CutSet) -> None:
    config = load_config(args.config, args.overrides)
    encoder = build_encoder(config, "semantic").eval()
    encoder.load_weights(args.semantic)
    reader = FeatureReader.of_encoder(config.features, config.semantic.encoder_config)

    @torch.inference_mode()
    def frames(cut: Cut) -> torch.Tensor:
        frames_BTD, lens_B = encoder(*reader(CutSet.from_cuts([cut])))
        return frames_BTD[0, : int(lens_B[0])].clone()

    aligner: WordAligner | None
    if args.fit:
        aligner = fitted(args, config, lambda cut: torch.tensor(frames(cut).numpy()))
    else:
        aligner = WordAligner.of_encoder(args.semantic, config.semantic.frames_per_second)
    if aligner is None:
        raise SystemExit(f"{args.semantic}: has no output over units, or no units beside it")
    kinds = [kind for kind in OUTPUTS if f"{kind}.weight" in aligner.weights]
    errors: dict[str, list[Error]] = defaultdict(list)
    for cut in groups:
        frames_TD = frames(cut)
        refs, exact = group_segments(cut), exact_spans(cut)
        heard = [on_grid(item, args.grid) for item in refs]
        aligned = {"estimated": heard}
        for aligner.kind in kinds:
            aligned[aligner.kind] = aligner.align(frames_TD, heard)
        for kind, items in aligned.items():
            for ref, item in zip(refs, items, strict=True):
                others = [other for other in refs if other.speaker != ref.speaker]
                errors[kind] += errors_of(ref, exact[ref.start, ref.speaker], item, others)
    for name, values in errors.items():
        show(name, values)


def by_hypothesis(args: argparse.Namespace, groups: CutSet) -> None:
    hyps = defaultdict(list)
    for segment in formats.read(args.hyp):
        hyps[segment.session].append(segment)
    errors: dict[str, list[Error]] = defaultdict(list)
    for cut in groups:
        refs, exact, found = group_segments(cut), exact_spans(cut), hyps[cut.id]
        ours, theirs = ([(item.start, item.end) for item in side] for side in (refs, found))
        for r, h in nearest_pairs(ours, theirs, 0.5):
            ref, hyp = refs[r], found[h]
            others = [item for item in refs if item.speaker != ref.speaker]
            spans = exact[ref.start, ref.speaker]
            errors["estimated"] += errors_of(ref, spans, replace(hyp, word_spans=None), others)
            errors["aligned"] += errors_of(ref, spans, hyp, others)
    for name, values in errors.items():
        show(name, values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--groups", type=Path, required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--semantic", type=Path, help="final.pt of the semantic encoder")
    parser.add_argument("--hyp", type=Path, help="decoded SegLST with word_spans")
    parser.add_argument("--fit", type=int, default=0, help="groups; 0: the encoder's own outputs")
    parser.add_argument("--train", type=Path, help="groups that --fit takes from")
    parser.add_argument("--grid", type=float, default=0.1, help="seconds")
    parser.add_argument("--draw", type=int, default=0, help="as many groups, drawn; 0: all")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    args = parser.parse_args()
    groups = CutSet.from_file(args.groups)
    if args.draw:
        groups = CutSet.from_cuts(random.Random(1).sample(list(groups), args.draw))
    (by_hypothesis if args.hyp else by_reference)(args, groups)


if __name__ == "__main__":
    main()
