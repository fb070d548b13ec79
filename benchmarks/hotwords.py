"""What hotwords do to names: recall of the names, error rate of all other words.

    python benchmarks/hotwords.py --model egs/mini/exp/tagspeech/pretrained \
        --groups egs/mini/data/groups/test.jsonl.gz --strengths 1,2,4

decodes "groups", utterance groups of several speakers in which somebody says a name of mini's
vocabulary, and "rare", sentences of mini's test set in its test voices with names that mini has
never heard. With `--teach N`, the model is first trained for N more batches, its LLM included, on
480 sentences in training voices, in which every second name is one of 40 such names.

Each set is decoded with

    none    no hotwords
    right   the six names that are said
    wrong   six names that nobody says
    many    the six names that are said, and 100 that are not

Recall is the share of the names said that are written, false the number of names and hotwords
written where they were not said, and WER that of all other words.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import kaldialign
import numpy as np
import torch
from lhotse import CutSet
from torch.nn.utils.rnn import pad_sequence

from tagspeech.checkpoints.native import load_pretrained
from tagspeech.corpus.groups import group_segments
from tagspeech.data.batches import FeatureReader
from tagspeech.inference.generate import generate, spell
from tagspeech.inference.hotwords import Hotwords
from tagspeech.model.frames import Frames
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.segments import Segment
from tagspeech.serialize import parse_target, to_target
from tagspeech.simulation.conversation import SAMPLING_RATE, utter
from tagspeech.simulation.espeak import Espeak
from tagspeech.simulation.sentences import GRAMMAR, draw_sentence
from tagspeech.simulation.voices import voices

BATCH = 8
TAUGHT = 480  # sentences of --teach
KNOWN = GRAMMAR["NAME"]
RARE = ("zoltan", "kathrin", "miguel", "ingrid", "tobias", "renata")
WRONG = ("olga", "pedro", "yasmin", "hector", "bettina", "lorenz")
OTHERS = """
aaron abigail adele agnes albert alma amir anders anita anton arthur astrid axel beatrice benedict
bianca boris bruno camille carlos carmen cecil celine cesar clara claudia conrad cyril dagmar dalia
damian daphne delia dennis dieter dmitri dora edgar edith elena elias elmar elsa emil enrico erika
ernest esther eugene farid fatima felix fiona flora franz frieda gerda gilbert gloria gregor greta
gustav hanna harald heidi helga hilda hugo igor irene isaac ivan jakob jamal jasper joachim jonas
judith julius karim kirsten klara lars leila leon lothar lucia ludwig magnus marta matteo maxim mira
nadia noah norbert olaf oscar otto paula quentin ramona regina roman rosa
""".split()[:100]  # noqa: SIM905


class Heard(NamedTuple):
    """A batch: what was said in each item, the encoders' frames, and seconds."""

    texts: list[str]
    frames: Frames
    durations: list[float]


def sentences(count: int) -> list[str]:
    """Sentences of the test set in which the names are replaced by unheard ones."""
    rng, found = np.random.default_rng(1), list[str]()
    swap = dict(zip(KNOWN, RARE, strict=True))
    while len(found) < count:
        words = draw_sentence(rng, "test").split()
        if set(words) & set(KNOWN):
            found.append(" ".join(swap.get(word, word) for word in words))
    return found


def of_sentences(model: TagSpeechModel, reader: FeatureReader, count: int) -> list[Heard]:
    inventory, batches = voices("test"), []
    texts = sentences(count)
    with Espeak() as espeak:
        audio = [
            utter(espeak, inventory[n % len(inventory)], text).samples.astype(np.float32)
            for n, text in enumerate(texts)
        ]
    for n in range(0, count, BATCH):
        some = audio[n : n + BATCH]
        frames = encoded(model, *reader.of_samples(some))
        batches.append(
            Heard(texts[n : n + BATCH], frames, [len(item) / SAMPLING_RATE for item in some])
        )
    return batches


def teach(model: TagSpeechModel, reader: FeatureReader, steps: int) -> None:
    """Trains LLM and projectors on sentences with rare names."""
    torch.manual_seed(1)
    rng, inventory = np.random.default_rng(2), voices("train")
    texts: list[str] = []
    while len(texts) < TAUGHT:
        words = draw_sentence(rng, "train").split()
        if set(words) & set(KNOWN):
            pool = (*RARE, *OTHERS[::3])
            swapped = [
                pool[rng.integers(len(pool))] if word in KNOWN and rng.random() < 0.5 else word
                for word in words
            ]
            texts.append(" ".join(swapped))
    items: list[tuple[Frames, str]] = []
    with Espeak() as espeak:
        for text in texts:
            voice = inventory[rng.integers(len(inventory))]
            samples = utter(espeak, voice, text).samples.astype(np.float32)
            seconds = len(samples) / SAMPLING_RATE
            segment = Segment("s", "1", 0.0, seconds, text, voice.gender.lower())
            target = to_target([segment], model.config.target.time_grid)
            items.append((encoded(model, *reader.of_samples([samples])), target))
    trained = [model.llm, model.semantic_projector, model.voice_projector]
    weights = [weight.requires_grad_(True) for part in trained for weight in part.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=3e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    draw = random.Random(3)
    for step in range(steps):
        some = draw.sample(items, 12)
        both = [[getattr(frames, name)[0] for frames, _ in some] for name in ("semantic", "voice")]
        padded = [pad_sequence([item.clone() for item in side], batch_first=True) for side in both]
        lens = [torch.tensor([len(item) for item in side]) for side in both]
        frames = Frames(padded[0], lens[0], padded[1], lens[1])
        loss = model.loss_from_frames(frames, [target for _, target in some]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if step % 50 == 49:
            print(f"taught {step + 1} batches, loss {loss.item():.3f}", flush=True)


def of_groups(model: TagSpeechModel, reader: FeatureReader, path: Path, count: int) -> list[Heard]:
    """Groups of several speakers with a name, drawn."""
    cuts = [
        cut
        for cut in CutSet.from_file(path)
        if len({item.speaker for item in cut.supervisions}) > 1
        and set(" ".join(item.text for item in cut.supervisions).split()) & set(KNOWN)
    ]
    cuts = random.Random(1).sample(cuts, min(count, len(cuts)))
    batches = []
    for n in range(0, len(cuts), BATCH):
        batch = CutSet.from_cuts(sorted(cuts[n : n + BATCH], key=lambda cut: -cut.duration))
        texts = [" ".join(item.words for item in group_segments(cut)) for cut in batch]
        frames = encoded(model, *reader(batch))
        batches.append(Heard(texts, frames, [cut.duration for cut in batch]))
    return batches


@torch.inference_mode()
def encoded(model: TagSpeechModel, features: torch.Tensor, lens: torch.Tensor) -> Frames:
    return model.encode(features, lens)


def decoded(model: TagSpeechModel, batch: Heard, hotwords: Hotwords | None) -> list[str]:
    limit = model.config.decode.max_new_tokens
    outputs = generate(model, batch.frames, limit, batch.durations, hotwords)
    texts = spell(model, [output.ids for output in outputs])
    return [" ".join(item.words for item in parse_target(text, "s").segments) for text in texts]


def figures(refs: list[str], hyps: list[str], names: tuple[str, ...], listed: set[str]) -> str:
    said = hit = false = errors = words = 0
    apart = listed | set(names)
    for ref, hyp in zip(refs, hyps, strict=True):
        wanted, got = Counter(ref.split()), Counter(hyp.split())
        said += sum(wanted[name] for name in names)
        hit += sum(min(wanted[name], got[name]) for name in names)
        false += sum(max(0, got[name] - wanted[name]) for name in apart)
        rest = [[word for word in text.split() if word not in apart] for text in (ref, hyp)]
        errors += kaldialign.edit_distance(*rest)["total"]
        words += len(rest[0])
    return (
        f"recall {100 * hit / said:5.1f} % of {said}, false {false:3}, "
        f"WER of the rest {100 * errors / words:5.1f} % of {words}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--groups", type=Path, help="absent: only rare names")
    parser.add_argument("--count", type=int, default=100, help="groups, and sentences")
    parser.add_argument("--teach", type=int, default=0, help="batches with rare names")
    parser.add_argument("--strengths", default="1")
    args = parser.parse_args()
    model = load_pretrained(TagSpeechModel, args.model)
    reader = FeatureReader(model.config.features, model.config.extra_features)
    if args.teach:
        teach(model, reader, args.teach)
    sets: list[tuple[str, tuple[str, ...], list[Heard]]] = [
        ("rare", RARE, of_sentences(model, reader, args.count))
    ]
    if args.groups:
        sets.append(("groups", KNOWN, of_groups(model, reader, args.groups, args.count)))
    for kind, names, batches in sets:
        refs = [text for batch in batches for text in batch.texts]
        lists = {"none": (), "right": names, "wrong": WRONG, "many": (*names, *OTHERS)}
        strengths = [float(strength) for strength in args.strengths.split(",")]
        rows = [("none", 0.0), *((name, s) for s in strengths for name in list(lists)[1:])]
        for name, strength in rows:
            listed = lists[name]
            hotwords = Hotwords(listed, strength, model.tokenizer, "en") if listed else None
            hyps = [text for batch in batches for text in decoded(model, batch, hotwords)]
            print(f"{kind:6} {name:5} {strength:4g}", figures(refs, hyps, names, set(listed)))


if __name__ == "__main__":
    main()
