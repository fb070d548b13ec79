"""Stage 5: what the frozen encoders say of every utterance group, stored with Lhotse.

Each cut gets `semantic_frames` and `voice_frames` (frames at 25 Hz, half precision) and each of its
supervisions a `speaker_vector`: the mean voice frame where the segment is heard alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lhotse import CutSet, NumpyFilesWriter
from lhotse.cut import Cut
from tqdm import tqdm

from tagspeech.config import FRAMES_PER_SECOND, Config
from tagspeech.data.batches import (
    FeatureReader,
    batches_by_duration,
    clean_regions,
    pool_regions,
    read_groups,
)
from tagspeech.data.groups import write_cuts
from tagspeech.models.zipformer import Zipformer, load_zipformer
from tagspeech.scoring.verification import equal_error_rate
from tagspeech.training.parallel import gather, rank, world_size

log = logging.getLogger(__name__)

BATCH_SECONDS = 80.0


def load_encoder(encoder: Zipformer, path: Path) -> Zipformer:
    """Loads the trained weights of an encoder strictly, frozen and in eval mode."""
    load_zipformer(encoder, path)
    return encoder.requires_grad_(False).eval()


def embed(
    config: Config,
    groups_dir: Path,
    semantic_path: Path,
    voice_path: Path,
    output: Path,
    splits: Sequence[str],
) -> None:
    """Writes `output/SPLIT.jsonl.gz` and the arrays it names, in `output/SPLIT`."""
    semantic = load_encoder(Zipformer(config.semantic.encoder), semantic_path)
    voice = load_encoder(Zipformer(config.voice.encoder), voice_path)
    features = FeatureReader(config.features)
    for split in splits:
        groups = read_groups(groups_dir / f"{split}.jsonl.gz")
        cuts: list[Cut] = []
        batches = list(batches_by_duration(groups, BATCH_SECONDS))[rank() :: world_size()]
        total = sum(map(len, batches))
        progress = tqdm(total=total, desc=f"embed {split}", unit=" groups", disable=rank() > 0)
        with NumpyFilesWriter(output / split) as writer:
            for batch in batches:
                with torch.inference_mode():
                    cuts += _embed_batch(batch, features, semantic, voice, writer)
                progress.update(len(batch))
        progress.close()
        cuts = [cut for share in gather(cuts) for cut in share]
        if rank() > 0:
            continue
        write_cuts(output / f"{split}.jsonl.gz", sorted(cuts, key=lambda cut: cut.id))
        supervisions = [one for cut in cuts[:1000] for one in cut.supervisions]
        vectors = [one for one in supervisions if one.has_custom("speaker_vector")]
        log.info(
            "%s: equal error rate %.4f over %d segments",
            split,
            equal_error_rate(
                np.stack([one.load_speaker_vector() for one in vectors]).astype(np.float32),
                [one.speaker for one in vectors],
            ),
            len(vectors),
        )


def _embed_batch(
    batch: CutSet,
    features: FeatureReader,
    semantic: Zipformer,
    voice: Zipformer,
    writer: NumpyFilesWriter,
) -> list[Cut]:
    features_BTF, feature_lens_B = features(batch)
    semantic_BTD, semantic_lens_B = semantic(features_BTF, feature_lens_B)
    voice_BTD, voice_lens_B = voice(features_BTF, feature_lens_B)
    regions = clean_regions(batch)
    vectors_ND = pool_regions(voice_BTD, voice_lens_B, regions).half().numpy()
    cuts = list(batch)
    for item, cut in enumerate(cuts):
        for stream, frames_BTD, lens_B in (
            ("semantic", semantic_BTD, semantic_lens_B),
            ("voice", voice_BTD, voice_lens_B),
        ):
            frames_TD = frames_BTD[item, : lens_B[item]].half().numpy()
            stored = writer.store_array(
                f"{cut.id}-{stream}",
                frames_TD,
                frame_shift=1 / FRAMES_PER_SECOND,
                temporal_dim=0,
                start=cut.start,  # Lhotse reads from the cut's place in its recording
            )
            setattr(cut, f"{stream}_frames", stored)
    for (item, index, _), vector_D in zip(regions, vectors_ND, strict=True):
        supervision = cuts[item].supervisions[index]
        supervision.speaker_vector = writer.store_array(f"{cuts[item].id}-{index}", vector_D)
    return cuts
