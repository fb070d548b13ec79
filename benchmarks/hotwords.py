"""What hotwords do to names that are rare: recall of the names, error rate of all other words.

    python benchmarks/hotwords.py --model egs/mini/exp/tagspeech/pretrained --strengths 1,2,4

espeak-ng speaks sentences of mini's test set in its test voices, once with the names of mini's
vocabulary ("known"), once with names that no training text has ("rare"). Each set is decoded with

    none    no hotwords
    right   the six names that are said
    wrong   six names that nobody says
    many    the six names that are said, and 100 that are not

Recall is the share of the names said that are written, false the number of hotwords written that
were not said, and WER that of all words that are in none of the lists.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import kaldialign
import numpy as np

from tagspeech.audio.sources import ArrayAudio, Span
from tagspeech.checkpoints.native import load_pretrained
from tagspeech.inference.hotwords import Hotwords
from tagspeech.inference.recognizer import Recognizer, Window
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.options import TranscribeOptions
from tagspeech.simulation.conversation import SAMPLING_RATE, utter
from tagspeech.simulation.espeak import Espeak
from tagspeech.simulation.sentences import GRAMMAR, draw_sentence
from tagspeech.simulation.voices import voices

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


def sentences(count: int, seed: int) -> list[str]:
    """Sentences of the test set that contain a name."""
    rng = np.random.default_rng(seed)
    found: list[str] = []
    while len(found) < count:
        sentence = draw_sentence(rng, "test", None)
        if set(sentence.split()) & set(KNOWN):
            found.append(sentence)
    return found


def spoken(texts: list[str]) -> list[np.ndarray]:
    inventory = voices("test")
    with Espeak() as espeak:
        return [
            utter(espeak, inventory[n % len(inventory)], text).samples.astype(np.float32)
            for n, text in enumerate(texts)
        ]


def decoded(recognizer: Recognizer, audio: list[np.ndarray]) -> list[str]:
    windows = [
        Window(ArrayAudio(str(n), samples, SAMPLING_RATE), Span(0.0, len(samples) / SAMPLING_RATE))
        for n, samples in enumerate(audio)
    ]
    results = recognizer.recognize(windows)
    return [" ".join(segment.words for segment in result.segments) for result in results]


def figures(refs: list[str], hyps: list[str], names: tuple[str, ...], listed: set[str]) -> str:
    said = hit = false = errors = words = 0
    apart = listed | set(names)
    for ref, hyp in zip(refs, hyps, strict=True):
        wanted, got = Counter(ref.split()), Counter(hyp.split())
        said += sum(wanted[name] for name in names)
        hit += sum(min(wanted[name], got[name]) for name in names)
        false += sum(max(0, got[name] - wanted[name]) for name in listed)
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
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--strengths", default="2")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    model = load_pretrained(TagSpeechModel, args.model)
    recognizer = Recognizer(model, TranscribeOptions(batch_size=16, word_times="estimated"))
    known = sentences(args.sentences, args.seed)
    swap = dict(zip(KNOWN, RARE, strict=True))
    rare = [" ".join(swap.get(word, word) for word in text.split()) for text in known]
    for kind, names, texts in (("known", KNOWN, known), ("rare", RARE, rare)):
        audio = spoken(texts)
        lists = {"right": names, "wrong": WRONG, "many": (*names, *OTHERS)}
        print(kind, "none      ", figures(texts, decoded(recognizer, audio), names, set()))
        for strength in map(float, args.strengths.split(",")):
            for name, listed in lists.items():
                recognizer.hotwords = Hotwords(listed, strength, model.tokenizer, "en")
                hyps = decoded(recognizer, audio)
                print(kind, f"{name:5} {strength:4g}", figures(texts, hyps, names, set(listed)))
        recognizer.hotwords = None


if __name__ == "__main__":
    main()
