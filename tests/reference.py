"""Where the reference vectors lie: beside the repository, or where TAGSPEECH_SHARED says."""

from __future__ import annotations

import os
from pathlib import Path

SHARED = Path(os.environ.get("TAGSPEECH_SHARED") or Path(__file__).resolve().parents[2] / "shared")
GOLDEN = SHARED / "golden"
