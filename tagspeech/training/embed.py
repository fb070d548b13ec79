"""Stage 5: stores the frames of the frozen encoders for every utterance group, with Lhotse.

Each cut gets `semantic_frames` and `voice_frames` in half precision, at the rate of its
encoder.
Each supervision gets a `speaker_vector`, by the voice encoder, of its frames where nobody else
speaks.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from lhotse import CutSet, NumpyFilesWriter
from lhotse.cut import Cut
from lhotse.cut.set import deserialize_cut
from tqdm import tqdm

from tagspeech.checkpoints.native import load_encoders
from tagspeech.config import Config
from tagspeech.config_file import to_tree
from tagspeech.corpus.manifests import write_cuts
from tagspeech.data.batches import FeatureReader, batches_by_duration, read_groups
from tagspeech.data.pooling import clean_regions
from tagspeech.dependencies import of_stage
from tagspeech.encoders.build import build_encoder, split_features
from tagspeech.encoders.halving import encode
from tagspeech.encoders.stream import StreamEncoder
from tagspeech.errors import InputError
from tagspeech.files import journal, read_journal, sha256_inside, write_json
from tagspeech.inference.origin import fingerprint
from tagspeech.parallel import device, gather, on_device, rank, world_size
from tagspeech.scoring.verification import equal_error_rate

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

    A killed run resumes at the first batch that is not stored: a journal for each process,
    `output/SPLIT.K-of-N.part.jsonl`, holds the cuts that are, until all splits are done.

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
    made_from = {
        "config": of_stage(5, to_tree(config)),
        "encoders": [fingerprint(path) for path in (init_from, semantic_path, voice_path) if path],
    }
    parts = {split: Part.read(output, split, groups_dir, made_from) for split in splits}
    if rank() == 0:
        _check_disk(config, groups_of, parts, output)
    for split, groups in groups_of.items():
        batches = list(batches_by_duration(groups, BATCH_SECONDS))[rank() :: world_size()]
        embed_batch = partial(_embed_batch, config, features, semantic, voice)
        cuts = _embed_split(batches, parts[split], output / split, embed_batch)
        cuts = [cut for share in gather(cuts) for cut in share]
        if rank() > 0:
            continue
        cuts.sort(key=lambda cut: cut.id)
        write_cuts(output / f"{split}.jsonl.gz", cuts)
        figures[split] = _speaker_separation(cuts)
        log.info("%s: %s", split, figures[split])
    if rank() == 0:
        write_json(output / "speakers.json", figures)
        for split in splits:
            for path in output.glob(f"{split}.*-of-*.part.jsonl"):
                path.unlink()


class Part:
    """The cuts of a split that a process has stored, in a journal.

    The first row says what they were made from; a journal of something else is removed.

    Attributes:
        path: The journal.
        cuts: The stored cuts by id.
    """

    @classmethod
    def read(cls, output: Path, split: str, groups_dir: Path, made_from: dict[str, Any]) -> Part:
        """The part of this process in `output`."""
        path = output / f"{split}.{rank() + 1}-of-{world_size()}.part.jsonl"
        groups = sha256_inside(groups_dir / f"{split}.jsonl.gz")
        return cls(path, {**made_from, "groups": groups})

    def __init__(self, path: Path, origin: dict[str, Any]) -> None:
        self.path, self._origin = path, origin
        rows = read_journal(path)
        if rows and rows[0] != origin:
            path.unlink()
            rows = []
        self._is_new = not rows
        self.cuts: dict[str, Cut] = {row["id"]: deserialize_cut(row) for row in rows[1:]}

    @contextmanager
    def writer(self) -> Iterator[Callable[[Sequence[Cut]], None]]:
        """Yields a function that adds cuts."""
        with journal(self.path) as add:
            if self._is_new:
                add(self._origin)

            def add_cuts(cuts: Sequence[Cut]) -> None:
                for cut in cuts:
                    add(cut.to_dict())

            yield add_cuts


def _embed_split(
    batches: Sequence[CutSet], part: Part, folder: Path, embed_batch: Callable[..., list[Cut]]
) -> list[Cut]:
    """The cuts of all batches with frames; those of `part` are stored already."""
    split = folder.name
    total = sum(map(len, batches))
    progress = tqdm(total=total, desc=f"embed {split}", unit=" groups", disable=rank() > 0)
    if part.cuts:
        log.info("%s: %d of %d groups are stored already", split, len(part.cuts), total)
    cuts: list[Cut] = []
    with NumpyFilesWriter(folder) as writer, part.writer() as add:
        for batch in batches:
            known = [part.cuts[cut.id] for cut in batch if cut.id in part.cuts]
            if len(known) < len(batch):  # other batches would change the last bits
                with torch.inference_mode():
                    known = embed_batch(batch, writer)
                add(known)
            cuts += known
            progress.update(len(batch))
    progress.close()
    return cuts


def stored_bytes(config: Config, groups: Iterable[Cut]) -> int:
    """Estimates the disk space of the frames and speaker vectors of `groups`, a file each."""
    groups = list(groups)
    streams = (config.semantic, config.voice)
    values = sum(stream.frames_per_second * stream.output_dim for stream in streams)
    files = sum(2 + len(cut.supervisions) for cut in groups)
    return round(2 * values * sum(cut.duration for cut in groups)) + files * BLOCK


def _check_disk(
    config: Config, groups_of: Mapping[str, CutSet], parts: Mapping[str, Part], output: Path
) -> None:
    """Logs the space needed for what is not stored; too little space raises `InputError`."""
    needed = sum(
        stored_bytes(config, [cut for cut in groups if cut.id not in parts[split].cuts])
        for split, groups in groups_of.items()
    )
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
    features: FeatureReader,
    semantic: StreamEncoder,
    voice: StreamEncoder,
    batch: CutSet,
    writer: NumpyFilesWriter,
) -> list[Cut]:
    features_BTF, feature_lens_B = on_device(features(batch))
    semantic_BTF, voice_BTF = split_features(config, features_BTF)
    names = [cut.id for cut in batch]
    semantic_BTD, semantic_lens_B = encode(semantic, semantic_BTF, feature_lens_B, names)
    voice_BTD, voice_lens_B = encode(voice, voice_BTF, feature_lens_B, names)
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
