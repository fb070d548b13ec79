"""How good serialized transcripts are: words, and where the speaker changes."""

from __future__ import annotations

import kaldialign

from tagspeech.data.units import SPEAKER_CHANGE
from tagspeech.text import scoring_units


class SotScores:
    """Error rate of words and quality of speaker changes, over transcripts one by one.

    Words are those of `scoring_units`: characters in Chinese. Speaker changes are no words of the
    error rate. For their precision and recall the units of reference and output, words and change
    tokens alike, are aligned with the fewest edits; a change token of the output that is aligned
    with one of the reference is a hit. Precision: hits per change token of the output; recall: hits
    per change token of the reference; 0 where there are none.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self.errors = self.words = self.hits = self.found = self.wanted = 0
        self.transcripts = self.right_counts = 0

    def add(self, ref: str, hyp: str) -> None:
        """Counts one transcript, change tokens in it."""
        ref_units, hyp_units = (scoring_units(text, self.language).split() for text in (ref, hyp))
        aligned = kaldialign.align(ref_units, hyp_units, "")
        wanted, found = (units.count(SPEAKER_CHANGE) for units in (ref_units, hyp_units))
        self.hits += aligned.count((SPEAKER_CHANGE, SPEAKER_CHANGE))
        self.wanted += wanted
        self.found += found
        self.right_counts += wanted == found
        self.transcripts += 1
        ref_words, hyp_words = (
            [unit for unit in units if unit != SPEAKER_CHANGE] for units in (ref_units, hyp_units)
        )
        self.errors += kaldialign.edit_distance(ref_words, hyp_words)["total"]
        self.words += len(ref_words)

    def figures(self) -> dict[str, float]:
        """All figures as fractions."""
        return {
            "wer": self.errors / max(1, self.words),
            "change_precision": self.hits / max(1, self.found),
            "change_recall": self.hits / max(1, self.wanted),
            "changes_right": self.right_counts / max(1, self.transcripts),
        }
