"""The confidence of each word that the LLM wrote.

A word's confidence is the exponential of the mean log-probability of its tokens, over all tokens of
the vocabulary. The grammar never forces words, so it makes none of them certain. Confidences are
not calibrated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from tagspeech.inference.generate import Output, spell
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.serialize import ParsedTarget, parse_target

_UNFINISHED = "\ufffd"  # how the first bytes of a character are decoded


def parse_output(model: TagSpeechModel, output: Output, session: str) -> tuple[str, ParsedTarget]:
    """The text of an output, and its segments with the confidences of their words."""
    text = spell(model, [output.ids])[0]
    confidences = line_confidences(text, token_spans(model, output.ids), output.log_probs)
    return text, parse_target(text, session, confidences)


def token_spans(model: TagSpeechModel, ids: Sequence[int]) -> list[tuple[int, int]]:
    """The range of characters, (start, stop), that each token spells.

    A token is decoded after the one before it, since some tokenizers drop a space at the start of a
    text. A token that ends inside a character is decoded with those that follow.
    """
    spans = []
    before, begin, start = 0, 0, 0  # context, first token not decoded whole, its character
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
    """The confidences of the words of each line `START-END>words`.

    Args:
        text: The target text.
        spans: The characters of each token; a token that belongs to several words counts for each.
        log_probs: The log-probability of each token.

    Returns:
        Confidences with three decimals, by the number of the line, counted from 1.
    """
    tokens = list(zip(spans, log_probs, strict=True))
    found, place, first = {}, 0, 0
    for number, line in enumerate(text.split("\n"), 1):
        head, mark, words = line.partition(">")
        begin = place + len(head + mark)
        place += len(line) + 1
        if not mark or line.lstrip().startswith("<"):
            continue
        of_line = []
        for word in re.finditer(r"\S+", words):
            start, stop = begin + word.start(), begin + word.end()
            while tokens[first][0][1] <= start:
                first += 1
            logs, token = [], first
            while token < len(tokens) and tokens[token][0][0] < stop:
                logs.append(tokens[token][1])
                token += 1
            of_line.append(round(math.exp(math.fsum(logs) / len(logs)), 3))
        found[number] = of_line
    return found
