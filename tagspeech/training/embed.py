"""Stage 5: stores the frames of the frozen encoders for every utterance group, with Lhotse.

Each cut gets `semantic_frames` and `voice_frames` in half precision, at the rate of its
encoder.
Each supervision gets a `speaker_vector`, by the voice encoder, of its frames where nobody else
speaks.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from lhotse import CutSet, NumpyFilesWriter
from lhotse.cut import Cut
from tqdm import tqdm

from tagspeech.checkpoints.native import load_encoders
from tagspeech.config import Config
from tagspeech.corpus.manifests import write_cuts
from tagspeech.data.batches import FeatureReader, batches_by_duration, read_groups
from tagspeech.data.pooling import clean_regions
from tagspeech.encoders.build import build_encoder, split_features
from tagspeech.encoders.stream import StreamEncoder
from tagspeech.errors import InputError
from tagspeech.files import write_json
from tagspeech.scoring.verification import equal_error_rate
from tagspeech.training.parallel import device, gather, on_device, rank, world_size

log = logging.getLogger(__name__)

BATCH_SECONDS = 80.0
NO_ENCODERS = "needs --semantic and --voice, both final.pt, or --init-from a trained model"
E = TypeVar("E", bound=StreamEncoder)
BLOCK = 4096  # bytes; a file takes whole blocks on disk
MAX_EER_SEGMENTS = 3000  # segments compared in pairs for the equal error rate


def load_encoder(encoder: E, path: Path) -> E:
    """Loads weights strictly and returns the encoder frozen, in eval mode."""
    encoder.load_weights(path)
    return encoder.requires_grad_(False).eval()


def embed(
    config: Config,
    groups_dir: Path,
    semantic_path: Path | None,
    voice_path: Path | None,
    output: Path,
    splits: Sequence[str],
    init_from: Path | None = None,
) -> None:
    """Writes `output/SPLIT.jsonl.gz` and its arrays in `output/SPLIT`.

    `output/speakers.json` measures the speaker vectors: the equal error rate of each split with the
    number of segments and speakers.

    Args:
        splits: Names of groups files in `groups_dir`.
        init_from: Folder of a trained model; its encoders replace both paths.
    """
    if init_from:
        config, semantic, voice = load_encoders(init_from)
    elif semantic_path is None or voice_path is None:
        raise InputError(NO_ENCODERS)
    else:
        semantic = load_encoder(build_encoder(config, "semantic"), semantic_path)
        voice = load_encoder(build_encoder(config, "voice"), voice_path)
    semantic.to(device())
    voice.to(device())
    features = FeatureReader(config.features, config.extra_features)
    figures: dict[str, dict[str, float]] = {}
    groups_of = {split: read_groups(groups_dir / f"{split}.jsonl.gz") for split in splits}
    if rank() == 0:
        _check_disk(sum(stored_bytes(config, groups) for groups in groups_of.values()), output)
    for split, groups in groups_of.items():
        cuts: list[Cut] = []
        batches = list(batches_by_duration(groups, BATCH_SECONDS))[rank() :: world_size()]
        total = sum(map(len, batches))
        progress = tqdm(total=total, desc=f"embed {split}", unit=" groups", disable=rank() > 0)
        with NumpyFilesWriter(output / split) as writer:
            for batch in batches:
                with torch.inference_mode():
                    cuts += _embed_batch(config, batch, features, semantic, voice, writer)
                progress.update(len(batch))
        progress.close()
        cuts = [cut for share in gather(cuts) for cut in share]
        if rank() > 0:
            continue
        cuts.sort(key=lambda cut: cut.id)
        write_cuts(output / f"{split}.jsonl.gz", cuts)
        figures[split] = _speaker_separation(cuts)
        log.info("%s: %s", split, figures[split])
    if rank() == 0:
        write_json(output / "speakers.json", figures)


def stored_bytes(config: Config, groups: CutSet) -> int:
    """Estimates the disk space of the frames and speaker vectors of `groups`, a file each."""
    streams = (config.semantic, config.voice)
    values = sum(stream.frames_per_second * stream.output_dim for stream in streams)
    files = sum(2 + len(cut.supervisions) for cut in groups)
    return round(2 * values * sum(cut.duration for cut in groups)) + files * BLOCK


def _check_disk(needed: int, output: Path) -> None:
    """Logs the space needed; too little free space raises `InputError`."""
    output.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output).free
    log.info("%s: takes about %.2f GB; %.1f GB are free", output, needed / 1e9, free / 1e9)
    if needed > free:
        raise InputError(
            f"{output}: takes about {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free; "
            "make room, or choose another folder (--exp of run.sh)"
        )


def _speaker_separation(cuts: Sequence[Cut]) -> dict[str, float]:
    """Equal error rate over all pairs of at most `MAX_EER_SEGMENTS` segments, spread evenly."""
    supervisions = (supervision for cut in cuts for supervision in cut.supervisions)
    segments = [segment for segment in supervisions if segment.has_custom("speaker_vector")]
    segments = segments[:: -(-len(segments) // MAX_EER_SEGMENTS) or 1]
    vectors = [segment.load_speaker_vector().astype(np.float32) for segment in segments]
    speakers = [segment.speaker for segment in segments]
    return {
        "equal_error_rate": equal_error_rate(np.stack(vectors), speakers) if vectors else 0.5,
        "segments": len(segments),
        "speakers": len(set(speakers)),
    }


def _embed_batch(
    config: Config,
    batch: CutSet,
    features: FeatureReader,
    semantic: StreamEncoder,
    voice: StreamEncoder,
    writer: NumpyFilesWriter,
) -> list[Cut]:
    features_BTF, feature_lens_B = on_device(features(batch))
    semantic_BTF, voice_BTF = split_features(config, features_BTF)
    semantic_BTD, semantic_lens_B = semantic(semantic_BTF, feature_lens_B)
    voice_BTD, voice_lens_B = voice(voice_BTF, feature_lens_B)
    regions = clean_regions(batch, config.voice.frames_per_second)
    vectors_NV = voice.vectors(voice_BTD, voice_lens_B, regions).half().cpu().numpy()
    cuts = list(batch)
    for item, cut in enumerate(cuts):
        for stream, frames_BTD, lens_B, rate in (
            ("semantic", semantic_BTD, semantic_lens_B, config.semantic.frames_per_second),
            ("voice", voice_BTD, voice_lens_B, config.voice.frames_per_second),
        ):
            frames_TD = frames_BTD[item, : lens_B[item]].half().cpu().numpy()
            stored = writer.store_array(
                f"{cut.id}-{stream}",
                frames_TD,
                frame_shift=1 / rate,
                temporal_dim=0,
                start=cut.start,  # Lhotse reads at the cut's start in its recording
            )
            setattr(cut, f"{stream}_frames", stored)
    for (item, index, _), vector_V in zip(regions, vectors_NV, strict=True):
        supervision = cuts[item].supervisions[index]
        supervision.speaker_vector = writer.store_array(f"{cuts[item].id}-{index}", vector_V)
    return cuts
