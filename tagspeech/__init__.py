"""TagSpeech: who spoke what and when, by an LLM that hears two streams (arXiv 2601.06896)."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Segment", "TagSpeech"]


def __getattr__(name: str) -> Any:
    """`TagSpeech` and `Segment` on first use, so that `import tagspeech` costs nothing."""
    if name == "TagSpeech":
        from tagspeech.api import TagSpeech

        return TagSpeech
    if name == "Segment":
        from tagspeech.segments import Segment

        return Segment
    raise AttributeError(f"module 'tagspeech' has no attribute {name!r}")
