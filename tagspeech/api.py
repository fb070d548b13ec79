"""`from tagspeech import TagSpeech`: the model with loading, generation and transcription.

Shape suffixes: B batch, T frames of features (100 Hz), F mel bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from tagspeech.decoding.greedy import generate, spell
from tagspeech.decoding.transcribe import LONGEST, open_audio, read_audio, transcribe
from tagspeech.errors import InputError
from tagspeech.formats import EXTENSIONS, FORMATS, render, write
from tagspeech.meetings.hearing import Cutting
from tagspeech.meetings.linking import Limits, Voices
from tagspeech.meetings.transcribe import enroll, transcribe_meeting
from tagspeech.models.hub import find_model
from tagspeech.models.llm import DTYPES
from tagspeech.models.pretrained import load_pretrained, merge_lora, save_pretrained
from tagspeech.models.released import load_projectors, save_released
from tagspeech.models.tagspeech import TagSpeechModel
from tagspeech.report.page import write_page
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
        model: str | Path,
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        offline: bool = False,
    ) -> TagSpeech:
        """A trained model in eval mode: a folder, or a Hub id such as "AudenAI/TagSpeech-AMI".

        revision  branch, tag or commit of a Hub id
        dtype     of the LLM, which is nearly all of the weights; the rest computes in float32
        offline   takes from the Hub what is on this machine already, and asks the net for nothing

        Folders are in our layout or in that of the published checkpoints; config.json tells which.
        Raises `InputError` naming file and tensor for whatever is missing, unexpected or of wrong
        shape, and saying what to download where the Hub cannot be reached.
        """
        folder = find_model(model, revision, offline)
        return load_pretrained(cls, folder, dtype, offline=offline)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the model as a folder that `from_pretrained` reads."""
        save_pretrained(self, Path(folder))

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
        channel: int = 0,
        speakers: str = "llm",
        batch_size: int = 1,
        device: str | torch.device | None = None,
        grammar: bool | None = None,
    ) -> list[list[Segment]]:
        """Segments of each recording: a path, or an array (T,) at the model's sampling rate.

        channel     of files with several
        speakers    those that the LLM wrote ("llm"), or by clustering voice frames ("voice")
        batch_size  recordings that are computed together
        device      where the model is moved to first; None: it stays where it is
        grammar     whether nothing but target texts can be written; None: `decode.grammar` decides

        The session of a path is its stem, that of an array its place in the list. Recordings of
        silence have no segments. Raises `InputError` for a recording over 80 s, for what is no
        audio, and where half precision overflows.
        """
        if isinstance(audio, (str, Path, np.ndarray)):
            raise InputError("audio: wants a list of recordings, found one; put it in brackets")
        if device is not None:
            self.to(usable_device(device))
        rate = self.config.features.sampling_rate
        sessions = [
            Path(one).stem if isinstance(one, (str, Path)) else str(place)
            for place, one in enumerate(audio)
        ]
        arrays = (
            read_audio(Path(one), rate, channel) if isinstance(one, (str, Path)) else one
            for one in audio
        )
        return list(transcribe(self, arrays, sessions, speakers, batch_size, grammar))


def usable_device(name: str | torch.device) -> torch.device:
    """The device of this name. Raises `InputError` where torch knows none, or finds none here."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"device {name}: cannot be used here: {reason}") from error
    return device


def transcribe_files(
    model: str,
    files: Sequence[Path],
    formats: Sequence[str],
    output: Path | None,
    *,
    speakers: str = "llm",
    revision: str | None = None,
    offline: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 1,
    channel: int = 0,
    grammar: bool | None = None,
    cutting: Cutting | None = None,
    limits: Limits | None = None,
    enrolled: Mapping[str, Path] | None = None,
    diarization: Path | None = None,
    page: bool = False,
) -> None:
    """Behind `tagspeech transcribe`: writes `output/STEM.EXTENSION` for each file and format, and
    with `page` a page to look at and to hear, `output/STEM.html`.

    Without `output` the first format goes to stdout, all files joined into one list. A recording
    of at most 80 s is heard at once, unless a diarization is given or voices are enrolled; a longer
    one in windows (`transcribe_meeting`), with a journal in `output` until it is done. Two files
    with one stem, an unknown format, and a file that cannot be transcribed are an `InputError`
    before the model is loaded.
    """
    _check_names(formats, files)
    if page and output is None:
        raise InputError("--page: wants --output, a folder for it")
    for path in (enrolled or {}).values():
        open_audio(path)
    in_windows = bool(diarization or enrolled)
    long = {p for p in files if open_audio(p, channel).duration > LONGEST or in_windows}
    place = usable_device(device)
    loaded = TagSpeech.from_pretrained(model, revision, DTYPES[dtype], offline).to(place)
    known = {name: enroll(loaded, path) for name, path in (enrolled or {}).items()}
    voices = Voices(loaded.config.decode.link_threshold, limits or Limits(), known)
    hear_meeting = partial(
        transcribe_meeting,
        loaded,
        channel=channel,
        speakers=speakers,
        grammar=grammar,
        batch_size=batch_size,
        cutting=cutting,
        voices=voices,
        diarization=diarization,
    )
    journals = {one: output / f"{one.stem}.journal.jsonl" for one in long} if output else {}
    everything: list[Segment] = []
    with tqdm(total=len(files), desc="transcribe", unit=" files", disable=len(files) < 2) as bar:
        for batch in _batches(files, long, batch_size):
            if batch[0] in long:
                told = [hear_meeting(batch[0], journal_path=journals.get(batch[0]))]
            else:
                told = loaded.transcribe(batch, channel, speakers, batch_size, grammar=grammar)
            for path, segments in zip(batch, told, strict=True):
                everything += segments
                if output is not None:
                    for one in formats:
                        write(segments, output / f"{path.stem}.{EXTENSIONS[one]}", one)
                if output is not None and page:
                    html, source = output / f"{path.stem}.html", {path.stem: str(path)}
                    write_page(html, path.name, {}, [], segments, recordings=source)
                if path in journals:
                    journals[path].unlink()
            bar.update(len(batch))
    if output is None:  # one list: two of them in a row would be no JSON
        print(render(everything, formats[0]), end="")


def _check_names(formats: Sequence[str], files: Sequence[Path]) -> None:
    unknown = [one for one in formats if one not in FORMATS]
    if unknown:
        raise InputError(f"--format {unknown[0]}: unknown; choose from {', '.join(FORMATS)}")
    stems = [path.stem for path in files]
    doubled = next((stem for stem in stems if stems.count(stem) > 1), None)
    if doubled is not None:
        raise InputError(f"two inputs are named {doubled}; their outputs would be one file")


def _batches(files: Sequence[Path], long: AbstractSet[Path], size: int) -> Iterator[list[Path]]:
    """Long files one by one, runs of others up to `size` together; in their order."""
    for is_long, run in groupby(files, long.__contains__):
        while batch := list(islice(run, 1 if is_long else size)):
            yield batch


def export_released(model: str, revision: str | None, offline: bool, output: Path) -> None:
    """Behind `tagspeech export released`: a model in the layout of the published checkpoints."""
    save_released(TagSpeech.from_pretrained(model, revision, offline=offline), output)


def export_merged(model: str, revision: str | None, offline: bool, output: Path) -> None:
    """Behind `tagspeech export merged`: a model whose adapters are part of its LLM."""
    loaded = TagSpeech.from_pretrained(model, revision, offline=offline)
    merge_lora(loaded)
    loaded.save_pretrained(output)
