"""The recognizer: windows of audio to segments and voices. Nothing else decodes with a model.

Shape suffixes: B batch, T samples or frames, F mel bins, N segments, D encoder channels, V channels
of a voice vector.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from lhotse import CutSet
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from tagspeech.audio.sources import Audio, Span, is_audible
from tagspeech.checkpoints.native import fingerprint
from tagspeech.data.batches import FeatureReader
from tagspeech.encoders.aligner import WordAligner
from tagspeech.errors import InputError
from tagspeech.inference.clustering import cluster_voices, voice_vectors, with_speakers
from tagspeech.inference.confidence import parse_output
from tagspeech.inference.generate import Output, generate
from tagspeech.inference.hotwords import Hotwords
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.options import TranscribeOptions
from tagspeech.segments import Segment, with_word_lists
from tagspeech.serialize import ParsedTarget

log = logging.getLogger(__name__)

SHORTEST = 0.25  # seconds; under 21 feature frames no frame reaches the LLM


@dataclass(frozen=True)
class WindowResult:
    """What was recognized in one window.

    Attributes:
        start: Seconds from the start of the recording.
        end: The same.
        segments: In the recording's times; the speakers are those of the window.
        vectors: The voice of each segment, (N, V), of unit length.
    """

    start: float
    end: float
    segments: tuple[Segment, ...]
    vectors: NDArray[np.float32]

    def to_row(self) -> dict[str, Any]:
        """The result as a row of a journal; vectors keep four decimals."""
        return {
            "start": self.start,
            "end": self.end,
            "segments": [asdict(segment) for segment in self.segments],
            "vectors": [[round(float(x), 4) for x in vector_V] for vector_V in self.vectors],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> WindowResult:
        """The result that `to_row` wrote."""
        segments = []
        for fields in row["segments"]:
            lists = fields["word_confidences"], fields.get("word_spans")
            plain = Segment(**{**fields, "word_confidences": None, "word_spans": None})
            segments.append(with_word_lists(plain, *lists))
        vectors_NV = np.array(row["vectors"], dtype=np.float32)
        vectors_NV = vectors_NV.reshape(len(segments), -1 if segments else 1)
        return cls(row["start"], row["end"], tuple(segments), vectors_NV)


class Window(NamedTuple):
    """A part of a recording that is decoded at once, and its result if it is known already."""

    audio: Audio
    span: Span
    known: WindowResult | None = None


@dataclass(frozen=True)
class Hypothesis:
    """What the LLM wrote for one item of a batch, and the item's voice frames (T, D)."""

    text: str
    parsed: ParsedTarget
    output: Output
    voice_TD: Tensor


class Recognizer:
    """A trained model that recognizes windows of recordings and utterance groups.

    Args:
        model: In eval mode.
        options: How to transcribe; None: the defaults. Its None values are the model's.
    """

    def __init__(self, model: TagSpeechModel, options: TranscribeOptions | None = None) -> None:
        config = model.config
        self.model = model
        self.options = (options or TranscribeOptions()).resolved(config.decode)
        self.aligner = _aligner(model, self.options)
        self.hotwords = _hotwords(model, self.options)
        self.reader = FeatureReader(config.features, config.extra_features)

    def recognize(self, windows: Iterable[Window]) -> Iterator[WindowResult]:
        """The result of each window, in order.

        Up to `options.batch_size` windows are decoded together, also those of different recordings.
        They do not influence each other beyond the last bits of sums. A batch is decoded again
        unless the results of all its windows are known, so that a resumed run has the same batches
        as one that never stopped. A window of silence has no segments.

        Raises:
            InputError: Audio cannot be read, or half precision overflows.
        """
        for batch in self._batches(windows):
            results: list[WindowResult | None] = [None] * len(batch)
            if not all(window.known for window in batch):
                results = self._recognize_batch(batch)
            for window, result in zip(batch, results, strict=True):
                yield window.known or result or _nothing(window.span)

    def recognize_groups(self, groups: CutSet) -> list[Hypothesis]:
        """The hypotheses of a batch of utterance groups, in order."""
        durations = [cut.duration for cut in groups]
        names = [cut.id for cut in groups]
        return self._hypotheses(*self.reader(groups), names, durations)

    def voice(self, windows: Iterable[Window]) -> NDArray[np.float32] | None:
        """The voice of windows of one speaker, (V,), of unit length; None without windows.

        All their frames together make one vector.
        """
        heard = []
        for window in windows:
            frames = self._encode(*self.reader.of_samples([self._samples(window)]))
            heard.append(frames.voice[0, : frames.voice_lens[0]].float())
        if not sum(map(len, heard)):
            return None
        voice_BTD = torch.cat(heard)[None]
        length = voice_BTD.shape[1]
        region = (0, 0, list(range(length)))
        vectors_NV = self.model.voice_encoder.vectors(voice_BTD, torch.tensor([length]), [region])
        return np.asarray(normalize(vectors_NV[0], dim=0).cpu().numpy(), dtype=np.float32)

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the model."""
        return fingerprint(self.model)

    def _batches(self, windows: Iterable[Window]) -> Iterator[list[Window]]:
        """Windows in order, as many together as the options allow."""
        options = self.options
        batch: list[Window] = []
        longest = 0.0
        for window in windows:
            seconds = window.span.end - window.span.start
            longest = max(longest, seconds)
            if len(batch) == options.batch_size or (
                batch and longest * (len(batch) + 1) > options.max_duration
            ):
                yield batch
                batch, longest = [], seconds
            batch.append(window)
        if batch:
            yield batch

    def _recognize_batch(self, batch: Sequence[Window]) -> list[WindowResult | None]:
        """The result of each window; None for windows of silence, which the model never hears."""
        samples = [self._samples(window) for window in batch]
        audible = [place for place, samples_T in enumerate(samples) if is_audible(samples_T)]
        results: list[WindowResult | None] = [None] * len(batch)
        if not audible:
            return results
        shortest = round(SHORTEST * self.reader.sampling_rate)
        padded = [
            np.pad(samples[place], (0, max(0, shortest - len(samples[place])))) for place in audible
        ]
        hypotheses = self._hypotheses(
            *self.reader.of_samples(padded),
            [batch[place].audio.name for place in audible],
            [len(samples[place]) / self.reader.sampling_rate for place in audible],
        )
        for place, hypothesis in zip(audible, hypotheses, strict=True):
            window = batch[place]
            for problem in hypothesis.parsed.problems:
                log.warning("%s, at %.2f s: %s", window.audio.label, window.span.start, problem)
            results[place] = self._result(window.span, hypothesis)
        return results

    def _samples(self, window: Window) -> NDArray[np.float32]:
        return window.audio.samples(self.reader.sampling_rate, window.span)

    def _result(self, span: Span, hypothesis: Hypothesis) -> WindowResult:
        """The segments of a window with their speakers and voices, rounded as a journal is."""
        segments, voice_TD = hypothesis.parsed.segments, hypothesis.voice_TD
        encoder = self.model.voice_encoder
        if self.options.speakers == "voice":
            threshold = self.model.config.decode.speaker_threshold
            speakers = cluster_voices(segments, voice_TD, encoder, threshold)
            segments = with_speakers(segments, speakers)
        if segments and len(voice_TD):
            vectors_NV = normalize(voice_vectors(segments, voice_TD, encoder).float()).cpu().numpy()
        else:
            vectors_NV = np.zeros((len(segments), 1), dtype=np.float32)
        moved = tuple(segment.moved(span.start) for segment in segments)
        result = WindowResult(span.start, span.end, moved, vectors_NV)
        return WindowResult.from_row(result.to_row())

    def _encode(self, features_BTF: Tensor, lens_B: Tensor, names: Sequence[str] = ()) -> Any:
        with torch.inference_mode():
            return self.model.encode(features_BTF, lens_B, names=names)

    def _hypotheses(
        self,
        features_BTF: Tensor,
        lens_B: Tensor,
        names: Sequence[str],
        durations: Sequence[float],
    ) -> list[Hypothesis]:
        """Encodes and decodes a batch; `durations` in seconds bound the times of an output."""
        frames = self._encode(features_BTF, lens_B, names)
        constrained = durations if self.options.grammar else None
        limit = self.model.config.decode.max_new_tokens
        hypotheses = []
        outputs = generate(self.model, frames, limit, constrained, self.hotwords)
        for item, output in enumerate(outputs):
            text, parsed = parse_output(self.model, output, names[item])
            if self.aligner is not None:
                heard_TD = frames.semantic[item, : frames.semantic_lens[item]]
                parsed = replace(parsed, segments=self.aligner.align(heard_TD, parsed.segments))
            voice_TD = frames.voice[item, : frames.voice_lens[item]]
            hypotheses.append(Hypothesis(text, parsed, output, voice_TD))
        return hypotheses


def _aligner(model: TagSpeechModel, options: TranscribeOptions) -> WordAligner | None:
    """What places words in time, as `options.word_times` says.

    Raises:
        InputError: It must be there, and is not.
    """
    if options.word_times == "estimated":
        return None
    why = (
        "the model has no output that places words in time (it keeps that of a semantic encoder "
        "trained here, if semantic.tune_lr is 0)"
    )
    if model.aligner is None and options.word_times == "aligned":
        raise InputError(f"--word-times aligned: {why}; take estimated or auto")
    if model.aligner is None:
        log.warning("word times are estimated: %s", why)
    return model.aligner


def _hotwords(model: TagSpeechModel, options: TranscribeOptions) -> Hotwords | None:
    """What the LLM favours; None without hotwords, or if their strength is 0."""
    if not options.hotwords or not options.hotword_strength:
        return None
    strength, language = options.hotword_strength, model.config.language
    return Hotwords(options.hotwords, strength, model.tokenizer, language)


def _nothing(span: Span) -> WindowResult:
    return WindowResult(span.start, span.end, (), np.zeros((0, 1), dtype=np.float32))
