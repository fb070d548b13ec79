"""Sentences of simulated meetings, from a small grammar.

Sentences are in lower case without punctuation except the apostrophe and have 3-9 words from a
closed vocabulary. The hash of a sentence decides its split, so splits share no sentence; "pretrain"
is for pretrained parts of recipes. Back-channels ("yeah", "okay great") have 1-2 words and occur in
all splits.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

MIN_WORDS, MAX_WORDS = 3, 9
SENTENCE_SPLITS = ("test", "dev", *["pretrain"] * 4, *["train"] * 4)  # by the hash of a sentence

BACKCHANNELS = (
    "yeah", "okay", "right", "no", "sure", "well", "exactly", "really", "great", "thanks", "maybe",
    "yeah exactly", "okay great", "right sure", "no thanks", "oh really", "oh no", "oh yeah",
    "yeah sure", "well maybe", "not really", "so what", "okay thanks", "yeah right",
)  # fmt: skip

# A word in capitals stands for one line of its list; a line listed n times is n times as likely.
GRAMMAR: dict[str, tuple[str, ...]] = {
    "SENTENCE": (
        "let's DO the THING", "let's DO the QUALITY THING WHEN", "OPENER let's DO the THING WHEN",
        "OPENER WHO MUST DO the THING", "WHO MUST DO the THING WHEN", "WHO MUST not DO the THING",
        "MUST we DO the THING WHEN", "MUST NAME DO the QUALITY THING", "OPENER MUST you DO it WHEN",
        "the THING IS QUALITY", "OPENER the THING IS not QUALITY", "IS the THING QUALITY WHEN",
        "the THING IS QUALITY but not QUALITY", "i think the THING IS QUALITY",
        "OPENER NAME and NAME DID the THING", "NAME DID the QUALITY THING WHEN",
        "WHO DID not see the THING", "i don't like the QUALITY THING",
        "do you like the QUALITY THING",
        "the THING costs DIGIT dollars WHEN", "we need DIGIT more THINGS WHEN",
        "OPENER we have DIGIT THINGS and DIGIT THINGS", "there are DIGIT THINGS in room DIGIT",
        "PLACE DIGIT and PLACE DIGIT", "please open PLACE DIGIT WHEN", "see PLACE DIGIT DIGIT",
        "the number IS DIGIT DIGIT DIGIT DIGIT", "OPENER my number is DIGIT DIGIT DIGIT",
        "call me on DIGIT DIGIT DIGIT", "NAME said DIGIT not DIGIT", "DIGIT or DIGIT people",
        "what about the THING NAME", "what did NAME say about the QUALITY THING",
        "who MUST DO the THING WHEN", "how many THINGS do we need WHEN",
        "OPENER how many THINGS do we have", "how many THINGS did NAME need WHEN",
        "OPENER that's a QUALITY THING", "that's not my THING NAME",
        "OPENER it's a QUALITY idea NAME",
        "OPENER i'm not sure about the QUALITY THING", "OPENER i'm in room DIGIT WHEN",
        "WHO MUST call NAME WHEN",
        "the meeting is WHEN in room DIGIT", "move the THING to PLACE DIGIT",
        "can NAME and NAME DO it WHEN", "is it QUALITY or QUALITY", "why IS the THING so QUALITY",
    ),
    "OPENER": ("okay", "so", "well", "yeah", "but", "and", "right", "no", "maybe"),
    "WHO": ("i", "you", "we", "they", "he", "she", "NAME", "NAME"),
    "NAME": ("alice", "david", "emma", "frank", "susan", "tom"),
    "MUST": ("can", "should", "could", "will", "must", "would"),
    "IS": ("is", "is", "was", "looks"),
    "DO": ("move", "send", "check", "change", "finish", "start", "discuss", "write", "close",
           "open", "show"),
    "DID": ("moved", "sent", "finished", "started", "wanted", "found"),
    "THING": ("meeting", "report", "budget", "design", "button", "battery", "screen", "remote",
              "price", "colour", "test", "plan", "project", "email"),
    "THINGS": ("buttons", "people", "days", "weeks", "ideas"),
    "QUALITY": ("new", "big", "small", "cheap", "blue", "green", "yellow", "final", "good",
                "better", "ready", "late"),
    "PLACE": ("page", "slide", "line", "room"),
    "WHEN": ("on DAY", "on DAY", "before DAY", "today", "tomorrow", "now", "at DIGIT", "next week"),
    "DAY": ("monday", "tuesday", "wednesday", "thursday", "friday"),
    "DIGIT": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
}  # fmt: skip

DIGITS = GRAMMAR["DIGIT"]


@functools.lru_cache(maxsize=1024)
def _words_under(symbol: str) -> frozenset[str]:
    """The words that `symbol` can produce; a word produces itself."""
    if symbol not in GRAMMAR:
        return frozenset([symbol])
    return frozenset().union(
        *(_words_under(part) for line in GRAMMAR[symbol] for part in line.split())
    )


VOCABULARY: tuple[str, ...] = tuple(
    sorted(_words_under("SENTENCE").union(*(text.split() for text in BACKCHANNELS)))
)


def split_of(sentence: str) -> str:
    """The split of a sentence: "train" or "pretrain" (40 % each), "dev" or "test" (10 % each);
    "any" for back-channels."""
    if len(sentence.split()) < MIN_WORDS:
        return "any"
    return SENTENCE_SPLITS[zlib.crc32(sentence.encode()) % len(SENTENCE_SPLITS)]


def draw_sentence(
    rng: np.random.Generator,
    split: str,
    word: str | None = None,
    grammar: Mapping[str, Sequence[str]] = GRAMMAR,
) -> str:
    """Draws a sentence of `split`. With `word` of this module's grammar, it contains that word, and
    is a back-channel if only back-channels do."""
    if word is not None and word not in _words_under("SENTENCE"):
        return _choose(rng, [text for text in BACKCHANNELS if word in text.split()])
    while True:
        sentence = _expand(rng, grammar, "SENTENCE", word)
        if len(sentence.split()) <= MAX_WORDS and split_of(sentence) == split:
            return sentence


def draw_backchannel(rng: np.random.Generator, backchannels: Sequence[str] = BACKCHANNELS) -> str:
    """Draws a back-channel."""
    return _choose(rng, backchannels)


def _expand(
    rng: np.random.Generator,
    grammar: Mapping[str, Sequence[str]],
    symbol: str,
    word: str | None,
) -> str:
    """Expands `symbol` to words that include `word`, if given."""
    if symbol not in grammar:
        return symbol
    lines = grammar[symbol]
    if word is not None:
        lines = tuple(
            line for line in lines if any(word in _words_under(part) for part in line.split())
        )
    parts = _choose(rng, lines).split()
    able = [i for i, part in enumerate(parts) if word is not None and word in _words_under(part)]
    chosen = int(rng.choice(able)) if able else -1
    return " ".join(
        _expand(rng, grammar, part, word if i == chosen else None) for i, part in enumerate(parts)
    )


def _choose(rng: np.random.Generator, items: Sequence[str]) -> str:
    return items[int(rng.integers(len(items)))]
