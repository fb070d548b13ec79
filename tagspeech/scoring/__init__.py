"""Scores hypothesis segments against a reference: word error rates, DER, speaker count, gender.

meeteval, kaldialign and spy-der compute the errors of a session; this package prepares their input
and adds up all sessions. No session is ever excluded silently.
"""

from tagspeech.scoring.files import score_files
from tagspeech.scoring.score import score

__all__ = ["score", "score_files"]
