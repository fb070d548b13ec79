"""`from tagspeech import TagSpeech`: the model with loading, generation and transcription."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from tagspeech.decoding.greedy import generate_texts
from tagspeech.decoding.transcribe import read_audio, transcribe
from tagspeech.errors import InputError
from tagspeech.formats import EXTENSIONS, FORMATS, render, write
from tagspeech.models.pretrained import load_pretrained, save_pretrained
from tagspeech.models.tagspeech import TagSpeechModel
from tagspeech.segments import Segment


class TagSpeech(TagSpeechModel):
    """TagSpeech as users hold it: an `nn.Module` with `streams`, `loss`, `generate`, `transcribe`.

    >>> model = TagSpeech.from_pretrained("egs/mini/exp/tagspeech/pretrained")
    >>> segments = model.transcribe(["meeting.wav"])[0]
    """

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> TagSpeech:
        """A trained model in eval mode. Raises `InputError` naming file and tensor."""
        return load_pretrained(cls, Path(folder), dtype)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the model as a folder that `from_pretrained` reads."""
        save_pretrained(self, Path(folder))

    def generate(
        self, features_BTF: Tensor, feature_lens_B: Tensor, max_new_tokens: int | None = None
    ) -> list[str]:
        """The target text of each item, greedy; features as `lhotse.Fbank` gives them."""
        decode = self.config.decode
        limit = decode.max_new_tokens if max_new_tokens is None else max_new_tokens
        frames = self.encode(features_BTF, feature_lens_B)
        return generate_texts(self, frames, limit, well_formed=decode.well_formed)

    def transcribe(
        self,
        audio: Sequence[str | Path | NDArray[np.float32]],
        channel: int = 0,
        speakers: str = "llm",
    ) -> list[list[Segment]]:
        """Segments of each recording: a path, or an array (T,) at the model's sampling rate.

        The session of a path is its stem, that of an array its place in the list. Speakers are
        those that the LLM wrote ("llm"), or re-assigned by clustering voice frames ("voice").
        """
        rate = self.config.features.sampling_rate
        sessions = [
            Path(one).stem if isinstance(one, (str, Path)) else str(place)
            for place, one in enumerate(audio)
        ]
        arrays = [
            read_audio(Path(one), rate, channel) if isinstance(one, (str, Path)) else one
            for one in audio
        ]
        return list(transcribe(self, arrays, sessions, speakers))


def transcribe_files(
    model_dir: Path,
    files: Sequence[Path],
    formats: Sequence[str],
    output: Path | None,
    speakers: str = "llm",
) -> None:
    """Behind `tagspeech transcribe`: writes `output/STEM.EXTENSION` for each file and format.

    Without `output` the first format goes to stdout, all files joined into one list. Two files
    with one stem, an unknown format or a missing file are an `InputError` before the model is
    loaded.
    """
    unknown = [one for one in formats if one not in FORMATS]
    if unknown:
        raise InputError(f"--format {unknown[0]}: unknown; choose from {', '.join(FORMATS)}")
    stems = [path.stem for path in files]
    doubled = next((stem for stem in stems if stems.count(stem) > 1), None)
    if doubled is not None:
        raise InputError(f"two inputs are named {doubled}; their outputs would be one file")
    for path in files:
        if not path.exists():
            raise InputError(f"{path}: does not exist")
    model = TagSpeech.from_pretrained(model_dir)
    everything: list[Segment] = []
    for path in tqdm(files, desc="transcribe", unit=" files", disable=len(files) < 2):
        segments = model.transcribe([path], speakers=speakers)[0]
        everything += segments
        if output is not None:
            for one in formats:
                write(segments, output / f"{path.stem}.{EXTENSIONS[one]}", one)
    if output is None:  # one list: two of them in a row would be no JSON
        print(render(everything, formats[0]), end="")
