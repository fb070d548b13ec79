"""Scores of serialized transcripts: words and speaker changes."""

from __future__ import annotations

import kaldialign

from tagspeech.data.units import SPEAKER_CHANGE
from tagspeech.text import scoring_units


class SotScores:
    """Accumulates word errors, and precision and recall of speaker changes.

    Words are those of `scoring_units`, characters in Chinese; change tokens are no words. For
    precision and recall, words and change tokens of reference and output are aligned with the
    fewest edits. A change token aligned with a change token is a hit. Precision is hits per change
    token of the output, recall is hits per change token of the reference, 0 without any.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self.errors = self.words = self.hits = self.hyp_changes = self.ref_changes = 0
        self.transcripts = self.correct_counts = 0

    def add(self, ref: str, hyp: str) -> None:
        """Adds a transcript with change tokens."""
        ref_units, hyp_units = (scoring_units(text, self.language).split() for text in (ref, hyp))
        aligned = kaldialign.align(ref_units, hyp_units, "")
        ref_changes, hyp_changes = (units.count(SPEAKER_CHANGE) for units in (ref_units, hyp_units))
        self.hits += aligned.count((SPEAKER_CHANGE, SPEAKER_CHANGE))
        self.ref_changes += ref_changes
        self.hyp_changes += hyp_changes
        self.correct_counts += ref_changes == hyp_changes
        self.transcripts += 1
        ref_words, hyp_words = (
            [unit for unit in units if unit != SPEAKER_CHANGE] for units in (ref_units, hyp_units)
        )
        self.errors += kaldialign.edit_distance(ref_words, hyp_words)["total"]
        self.words += len(ref_words)

    def figures(self) -> dict[str, float]:
        """Returns all figures as fractions."""
        return {
            "wer": self.errors / max(1, self.words),
            "change_precision": self.hits / max(1, self.hyp_changes),
            "change_recall": self.hits / max(1, self.ref_changes),
            "changes_right": self.correct_counts / max(1, self.transcripts),
        }
