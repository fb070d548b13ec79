"""Scores of segments against segments: word error rates, DER, speaker count, gender.

The error rates come from meeteval, kaldialign and spy-der; here is what they are given, and how
the sessions are added up. No session is ever left out.
"""

from tagspeech.scoring.files import score_files
from tagspeech.scoring.score import score

__all__ = ["score", "score_files"]
