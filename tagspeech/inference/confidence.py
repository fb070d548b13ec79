"""How sure the LLM was of each word that it wrote.

A word's confidence is exp of the mean log-probability of its tokens, each among all tokens of the
vocabulary. Words are never forced, so none is sure because a grammar left nothing else. Nothing is
calibrated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from tagspeech.inference.generate import Output, spell
from tagspeech.models.tagspeech import TagSpeechModel
from tagspeech.serialize import ParsedTarget, parse_target

_UNFINISHED = "\ufffd"  # what the first bytes of a character are spelt as


def parse_output(model: TagSpeechModel, output: Output, session: str) -> tuple[str, ParsedTarget]:
    """The text of an output, and its segments with the confidences of their words."""
    text = spell(model, [output.ids])[0]
    confidences = line_confidences(text, token_spans(model, output.ids), output.log_probs)
    return text, parse_target(text, session, confidences)


def token_spans(model: TagSpeechModel, ids: Sequence[int]) -> list[tuple[int, int]]:
    """The characters from start to stop that each token spells, the last perhaps in part.

    A token is spelt behind the one before it, since some tokenizers drop a space that begins a
    text; one that ends within a character is spelt with those that follow.
    """
    spans = []
    before, begin, start = 0, 0, 0  # tokens of context, first one not spelt whole, its character
    for place in range(len(ids)):
        known, text = spell(model, [ids[before:begin], ids[before : place + 1]])
        if text.endswith(_UNFINISHED):
            spans.append((start, start + 1))
            continue
        stop = start + len(text) - len(known)
        spans.append((start, max(stop, start + 1)))
        before, begin, start = begin, place + 1, stop
    return spans


def line_confidences(
    text: str, spans: Sequence[tuple[int, int]], log_probs: Sequence[float]
) -> dict[int, list[float]]:
    """Of the words of each line `START-END>words`, three decimals, by the line's number from 1.

    spans, log_probs  of each token. A token that belongs to several words counts for each
    """
    tokens = list(zip(spans, log_probs, strict=True))
    found, place, first = {}, 0, 0
    for number, line in enumerate(text.split("\n"), 1):
        head, mark, words = line.partition(">")
        begin = place + len(head + mark)
        place += len(line) + 1
        if not mark or line.lstrip().startswith("<"):
            continue
        sure = []
        for word in re.finditer(r"\S+", words):
            start, stop = begin + word.start(), begin + word.end()
            while tokens[first][0][1] <= start:
                first += 1
            logs, token = [], first
            while token < len(tokens) and tokens[token][0][0] < stop:
                logs.append(tokens[token][1])
                token += 1
            sure.append(round(math.exp(math.fsum(logs) / len(logs)), 3))
        found[number] = sure
    return found
