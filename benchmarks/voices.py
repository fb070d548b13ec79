"""How well voice encoders tell real speakers apart: equal error rates and cosine thresholds.

    python benchmarks/voices.py shared/data/librispeech/audio campplus/model.safetensors \
        egs/mini/pretrained/voice.safetensors

takes random cuts (fixed seed) of recordings named SPEAKER-*.{opus,flac,wav}, so many of each
speaker, and prints for each encoder a row for each kind of cut:

- eer: equal error rate of its voice vectors over all pairs, in percent; of mean frames in brackets.
- error at threshold: the cosine distance that best separates pairs of one speaker from pairs of
  two, and the mean of both error rates there.
- clusters at threshold: the threshold of average linkage (`decode.speaker_threshold`) with the
  most right numbers of speakers over made sessions of 12 cuts and 1-4 speakers, and their share.
- CPU seconds of the encoder for a minute of audio, without features, one thread.

"grouped" cuts are encoded as an utterance group of four cuts, mostly of different speakers, and
take their frames from it, as stage 5 and `tagspeech transcribe` do. An encoder is a file of weights
as `parts.voice_encoder` names it; without a config.json beside it, `--config` describes it.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from tagspeech.checkpoints.starting_points import find_parts
from tagspeech.config import Config
from tagspeech.config_file import load_config
from tagspeech.data.batches import FeatureReader
from tagspeech.data.pooling import pool_regions
from tagspeech.encoders.build import build_encoder, split_features
from tagspeech.encoders.stream import StreamEncoder
from tagspeech.scoring.verification import equal_error_rate
from tagspeech.training.embed import load_encoder

RATE = 16000
KINDS = {"2-4 s": (2.0, 4.0, 1), "1-7 s": (1.0, 7.0, 1), "2-4 s, grouped": (2.0, 4.0, 4)}
SESSIONS, SEGMENTS = 400, 12
THRESHOLDS = np.arange(0.02, 1.2, 0.02)


class Cut(NamedTuple):
    """Samples of one speaker."""

    speaker: str
    samples: NDArray[np.float32]


def find_recordings(folder: Path) -> dict[str, list[Path]]:
    """The recordings of each speaker."""
    found = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".opus", ".flac", ".wav"):
            found[path.name.split("-")[0]].append(path)
    if len(found) < 2:
        raise SystemExit(f"{folder}: has no recordings of two speakers, SPEAKER-*.flac")
    return found


def draw_cuts(
    recordings: dict[str, list[Path]], shortest: float, longest: float, count: int
) -> list[Cut]:
    """`count` cuts of each speaker, in random order; a short recording is taken whole."""
    rng = random.Random(1)
    cuts = []
    for speaker, paths in recordings.items():
        for path in rng.choices(paths, k=count) if len(paths) < count else rng.sample(paths, count):
            samples, rate = soundfile.read(path, dtype="float32")
            if rate != RATE or samples.ndim > 1:
                raise SystemExit(f"{path}: must be mono audio of {RATE} Hz")
            length = min(len(samples), round(rng.uniform(shortest, longest) * RATE))
            start = rng.randint(0, len(samples) - length)
            cuts.append(Cut(speaker, samples[start : start + length]))
    rng.shuffle(cuts)
    return cuts


def make_encoder(path: Path, config_path: Path) -> tuple[Config, StreamEncoder]:
    parts = ("semantic_init", "semantic_units", "semantic_encoder", "voice_init")
    sets = ['llm.name=""', *(f'parts.{part}.name=""' for part in parts)]
    sets.append(f"parts.voice_encoder.name={path}")
    with tempfile.TemporaryDirectory() as folder:
        found = find_parts(load_config(config_path, sets), Path(folder) / "parts.json")
    sets += [f"{key}={value}" for key, value in found.items() if key.startswith("voice.")]
    config = load_config(config_path, sets)
    return config, load_encoder(build_encoder(config, "voice"), Path(found["voice_encoder"]))


def encode(
    config: Config, encoder: StreamEncoder, cuts: Sequence[Cut], size: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Voice vectors and mean frames of cuts in groups of `size`, and CPU seconds per minute."""
    reader = FeatureReader(config.features, config.extra_features)
    fps = config.voice.frames_per_second
    vectors, means, spent, heard = [], [], 0.0, 0
    for place in range(0, len(cuts), size):
        group = [cut.samples for cut in cuts[place : place + size]]
        bounds = np.cumsum([0, *map(len, group)]) / RATE * fps
        features_BTF, lens_B = reader.of_samples([np.concatenate(group)])
        _, voice_BTF = split_features(config, features_BTF)
        before = time.process_time()
        frames_BTD, frame_lens_B = encoder(voice_BTF, lens_B)
        spent += time.process_time() - before
        heard += sum(map(len, group))
        regions = [
            (0, n, list(range(round(start), round(end))))
            for n, (start, end) in enumerate(pairwise(bounds))
        ]
        vectors.append(encoder.vectors(frames_BTD, frame_lens_B, regions).numpy())
        means.append(pool_regions(frames_BTD, frame_lens_B, regions).numpy())
    return np.concatenate(vectors), np.concatenate(means), spent / (heard / RATE / 60)


def best_of_pairs(vectors_NV: NDArray[np.float32], speakers: Sequence[str]) -> tuple[float, float]:
    """The cosine distance with the least mean of both error rates, and this mean."""
    names = np.asarray(speakers)
    same = (names[:, None] == names[None, :])[np.triu_indices(len(names), 1)]
    distances = pdist(vectors_NV, "cosine")
    order = np.argsort(distances)
    same = same[order]
    rejected = 1 - np.cumsum(same) / same.sum()
    accepted = np.cumsum(~same) / (~same).sum()
    best = int(np.argmin(rejected + accepted))
    return float(distances[order][best]), float((rejected + accepted)[best] / 2)


def best_of_clusters(
    vectors_NV: NDArray[np.float32], speakers: Sequence[str]
) -> tuple[float, float]:
    """The threshold with the most right numbers of speakers (the middle of several), and share."""
    rng = random.Random(2)
    places = defaultdict(list)
    for place, speaker in enumerate(speakers):
        places[speaker].append(place)
    right = np.zeros(len(THRESHOLDS))
    for session in range(SESSIONS):
        count = 1 + session % 4
        own = [places[name] for name in rng.sample(sorted(places), count)]
        chosen = [rng.choice(own[n % count]) for n in range(SEGMENTS)]
        tree = linkage(pdist(vectors_NV[chosen], "cosine"), "average")
        right += [fcluster(tree, t, "distance").max() == count for t in THRESHOLDS]
    best = np.flatnonzero(right == right.max())
    return float(THRESHOLDS[best[len(best) // 2]]), float(right.max() / SESSIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("audio", type=Path, help="folder of recordings named SPEAKER-*")
    parser.add_argument("encoders", type=Path, nargs="+", help="files of weights")
    parser.add_argument("--config", type=Path, default=Path("egs/mini/conf/tagspeech.yaml"))
    parser.add_argument("--count", type=int, default=15, help="cuts of each speaker")
    given = parser.parse_args()
    torch.set_num_threads(1)
    recordings = find_recordings(given.audio)
    rows: list[dict[str, Any]] = []
    for path in given.encoders:
        config, encoder = make_encoder(path, given.config)
        for kind, (shortest, longest, size) in KINDS.items():
            cuts = draw_cuts(recordings, shortest, longest, given.count)
            speakers = [cut.speaker for cut in cuts]
            with torch.inference_mode():
                vectors_NV, means_ND, seconds = encode(config, encoder, cuts, size)
            pairs, error = best_of_pairs(vectors_NV, speakers)
            threshold, counted = best_of_clusters(vectors_NV, speakers)
            row = {
                **{"encoder": str(path), "cuts": kind, "speakers": len(recordings)},
                "eer": 100 * equal_error_rate(vectors_NV, speakers),
                "eer_of_means": 100 * equal_error_rate(means_ND, speakers),
                **{"pair_threshold": pairs, "pair_error": 100 * error},
                **{"cluster_threshold": threshold, "right_counts": 100 * counted},
                "cpu_seconds_per_minute": seconds,
            }
            rows.append(row)
            print(
                f"{path} {kind}: eer {row['eer']:.1f} ({row['eer_of_means']:.1f}), "
                f"error {row['pair_error']:.1f} at {pairs:.2f}, "
                f"clusters {row['right_counts']:.0f} at {threshold:.2f}, {seconds:.2f} s",
                flush=True,
            )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
