"""`from tagspeech import TagSpeech`: the model with loading, generation and transcription.

Shape suffixes: B batch, T frames of features (100 Hz), F mel bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagspeech.audio.sources import ArrayAudio, Audio, open_audio
from tagspeech.checkpoints.compact import save_compact
from tagspeech.checkpoints.download import find_model
from tagspeech.checkpoints.native import load_pretrained, merge_lora, read_config, save_pretrained
from tagspeech.checkpoints.published import load_projectors, save_released
from tagspeech.checkpoints.upload import CARD, push_folder
from tagspeech.default_model import default_model
from tagspeech.errors import InputError
from tagspeech.files import write_text
from tagspeech.inference.generate import generate, spell
from tagspeech.inference.meeting import transcribe
from tagspeech.inference.recognizer import Recognizer
from tagspeech.llm.load import usable_device
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.options import TranscribeOptions
from tagspeech.report.card import CardFacts, model_card
from tagspeech.segments import Segment


class TagSpeech(TagSpeechModel):
    """TagSpeech as users hold it: an `nn.Module` with `streams`, `loss`, `generate`, `transcribe`.

    >>> model = TagSpeech.from_pretrained("egs/mini/exp/tagspeech/pretrained")
    >>> segments = model.transcribe(["meeting.wav"])[0]

    Features are those of `lhotse.Fbank` with 80 bins, (B, T, F), with their lengths (B,) in frames;
    what lies behind an item's length has no effect. Two methods come as they are:

    streams(features_BTF, feature_lens_B)
        what the LLM hears, anchors included: `.semantic` and `.voice`, (B, S, H), with
        `.semantic_lens` and `.voice_lens`, (B,)
    loss(features_BTF, feature_lens_B, targets, return_logits=False)
        `.loss`, the mean over all tokens of the target texts, and on request their `.logits`
    """

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        offline: bool = False,
    ) -> TagSpeech:
        """A trained model in eval mode: a folder, or a Hub id such as "AudenAI/TagSpeech-AMI".

        Without a name it is the model for English of this repository (`default_model`).

        revision  branch, tag or commit of a Hub id
        dtype     of the LLM, which is nearly all of the weights; the rest computes in float32
        offline   takes from the Hub what is on this machine already, and asks the net for nothing

        Folders are in our layout or in that of the published checkpoints; config.json says which.
        Raises `InputError` naming file and tensor for whatever is missing, unexpected or of wrong
        shape, and saying what to download where the Hub cannot be reached.
        """
        folder = find_model(default_model() if model is None else model, revision, offline)
        return load_pretrained(cls, folder, dtype, offline=offline)

    def save_pretrained(self, folder: str | Path, facts: CardFacts | None = None) -> None:
        """Writes the model as a folder that `from_pretrained` reads.

        facts  what the model card (README.md) says besides the configuration; None: a short card
        """
        card = model_card(Path(folder).name, self.config, facts) if facts is not None else None
        save_pretrained(self, Path(folder))
        if card is not None:
            write_text(Path(folder) / CARD, card)

    def push_to_hub(
        self, name: str, facts: CardFacts, *, private: bool = False, revision: str | None = None
    ) -> str:
        """Uploads the model to the Hugging Face Hub, where `from_pretrained(name)` finds it.

        name      ORG/NAME; the repository is made if it is missing
        facts     what the model card says besides the configuration
        private   a new repository is private
        revision  a branch; None: the main one

        The address of the commit. Raises `InputError` if the Hub refuses.
        """
        card = model_card(name, self.config, facts)
        with TemporaryDirectory() as folder:
            target = Path(folder) / "model"
            save_pretrained(self, target)
            return push_folder(target, name, card, private=private, revision=revision)

    def load_projectors(self, path: str | Path) -> None:
        """Takes the projectors of a released trainer checkpoint (.pt), or of a projectors.pt.

        Raises `InputError` naming file and tensor, and for a file that would run code.
        """
        load_projectors(self, Path(path))

    @overload
    def generate(
        self,
        features_BTF: Tensor,
        feature_lens_B: Tensor,
        max_new_tokens: int | None = ...,
        return_ids: Literal[False] = ...,
        grammar: bool | None = ...,
    ) -> list[str]: ...

    @overload
    def generate(
        self,
        features_BTF: Tensor,
        feature_lens_B: Tensor,
        max_new_tokens: int | None = ...,
        *,
        return_ids: Literal[True],
        grammar: bool | None = ...,
    ) -> tuple[list[str], list[list[int]]]: ...

    def generate(
        self,
        features_BTF: Tensor,
        feature_lens_B: Tensor,
        max_new_tokens: int | None = None,
        return_ids: bool = False,
        grammar: bool | None = None,
    ) -> list[str] | tuple[list[str], list[list[int]]]:
        """The target text of each item, greedy, and on request its token ids.

        grammar  whether nothing but target texts can be written; None: `decode.grammar` decides

        The end of the turn belongs to neither. Raises `InputError` where half precision overflows.
        """
        decode = self.config.decode
        limit = decode.max_new_tokens if max_new_tokens is None else max_new_tokens
        with torch.inference_mode():
            frames = self.encode(features_BTF, feature_lens_B)
        held = decode.grammar if grammar is None else grammar
        durations = (feature_lens_B / 100).tolist() if held else None  # a frame every 0.01 s
        ids = [output.ids for output in generate(self, frames, limit, durations)]
        texts = spell(self, ids)
        return (texts, ids) if return_ids else texts

    def transcribe(
        self,
        audio: Sequence[str | Path | NDArray[np.float32]],
        options: TranscribeOptions | None = None,
        *,
        device: str | torch.device | None = None,
        **overrides: Any,
    ) -> list[list[Segment]]:
        """Transcribes recordings of any length.

        >>> model.transcribe(["meeting.wav"], speakers="voice", num_speakers=4)

        Args:
            audio: Paths, or arrays (T,) at the model's sampling rate.
            options: How to transcribe; None: the defaults of `TranscribeOptions`.
            device: Where the model is moved to first; None: it stays where it is.
            overrides: Fields of `TranscribeOptions` that replace those of `options`.

        Returns:
            The segments of each recording, in order of time. The session of a path is its stem,
            that of an array its place in the list.

        Raises:
            InputError: A file cannot be read, an array is not audio, an option is out of its range,
                or half precision overflows.
        """
        if isinstance(audio, (str, Path, np.ndarray)):
            raise InputError("audio: must be a list of recordings, got one; put it in brackets")
        options = replace(options or TranscribeOptions(), **overrides)
        if device is not None:
            self.to(usable_device(device))
        rate = self.config.features.sampling_rate
        inputs: list[Sequence[Audio]] = [
            open_audio(Path(recording), options.channel)
            if isinstance(recording, (str, Path))
            else [ArrayAudio(str(place), recording, rate)]
            for place, recording in enumerate(audio)
        ]
        return list(transcribe(Recognizer(self, options), inputs))


def push(
    model: str, to: str, facts: CardFacts, *, private: bool = False, revision: str | None = None
) -> None:
    """Behind `tagspeech push`: a folder to the Hub, without loading its weights."""
    folder = Path(model)
    card = model_card(to, read_config(folder), facts)
    print(push_folder(folder, to, card, private=private, revision=revision))


def export_released(model: str, revision: str | None, offline: bool, output: Path) -> None:
    """Behind `tagspeech export released`: a model in the layout of the published checkpoints."""
    save_released(TagSpeech.from_pretrained(model, revision, offline=offline), output)


def export_merged(model: str, revision: str | None, offline: bool, output: Path) -> None:
    """Behind `tagspeech export merged`: a model whose adapters are part of its LLM."""
    loaded = TagSpeech.from_pretrained(model, revision, offline=offline)
    merge_lora(loaded)
    loaded.save_pretrained(output)


def export_compact(
    model: str,
    revision: str | None,
    offline: bool,
    semantic_encoder: str,
    voice_encoder: str,
    output: Path,
) -> None:
    """Behind `tagspeech export compact`: what training changed, in half precision."""
    loaded = TagSpeech.from_pretrained(model, revision, offline=offline)
    parts = {"semantic": semantic_encoder, "voice": voice_encoder}
    save_compact(loaded, output, parts, offline=offline)
