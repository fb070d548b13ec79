"""The verb that serves a page and an API."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from tagspeech.cli.arguments import DeviceOptions, ModelOrDefaultOptions, verb
from tagspeech.errors import InputError
from tagspeech.options import TranscribeOptions, group, option
from tagspeech.ranges import Natural, NonNegative, Positive, Range

NEEDED = ("fastapi", "uvicorn", "python_multipart")


@verb("serve")
class Serve(ModelOrDefaultOptions, DeviceOptions):
    """Serves a page on which recordings are transcribed, and OpenAI's API for transcriptions."""

    port: Annotated[int, Range(0, 65535)] = option("0: any that is free, which is printed", 8000)
    host: str = option(
        "address to listen on; there is no password: whoever reaches it may use it",
        "127.0.0.1",
    )
    folder: Path = option("where recordings and results are stored", Path("tagspeech-jobs"))
    max_upload: Positive = option("largest recording in MB", 1000.0)
    max_hours: Positive = option("longest recording in hours", 12.0)
    max_waiting: Natural = option("recordings that may wait at a time", 100)
    keep_days: NonNegative = option("days after which results are deleted", 7.0)
    options: TranscribeOptions = group("transcription")

    def run(self) -> None:
        missing = [name for name in NEEDED if find_spec(name) is None]
        if missing:
            raise InputError(
                f"{', '.join(missing)}: not installed; remedy: pip install -r "
                "requirements-serve.txt, or pip install 'tagspeech[serve]'"
            )
        from tagspeech.report.transcript_files import ModelChoice
        from tagspeech.serve.server import serve
        from tagspeech.serve.store import Bounds

        serve(
            ModelChoice(self.model, self.revision, self.offline, self.device, self.dtype),
            self.folder,
            host=self.host,
            port=self.port,
            bounds=Bounds(self.max_upload, self.max_hours, self.max_waiting, self.keep_days),
            options=self.options,
        )
