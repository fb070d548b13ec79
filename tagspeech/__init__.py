"""TagSpeech: who spoke what and when, by an LLM with two speech streams (arXiv 2601.06896)."""

from __future__ import annotations

from typing import Any

__all__ = ["Segment", "TagSpeech", "__version__"]


def __getattr__(name: str) -> Any:
    """Imports a name on first use, so that `import tagspeech` is fast."""
    if name == "__version__":
        from importlib.metadata import version

        return version("tagspeech")
    if name == "TagSpeech":
        from tagspeech.api import TagSpeech

        return TagSpeech
    if name == "Segment":
        from tagspeech.segments import Segment

        return Segment
    raise AttributeError(f"module 'tagspeech' has no attribute {name!r}")
