"""How well CAM++ tells speakers apart in utterance groups, by the length of the stretches.

    python benchmarks/short_stretches.py egs/librispeech/data/groups/dev.jsonl.gz --first 50

prints equal error rates over the stretches where a segment is alone: of vectors from the frames of
the whole group, as stage 5 and transcription have them, and from the frames of each stretch alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from lhotse import CutSet
from pipeline import CAMPPLUS

from tagspeech.config import CampPlusConfig, FeatureConfig
from tagspeech.data.batches import FeatureReader, read_groups
from tagspeech.data.pooling import clean_regions
from tagspeech.encoders.campplus import CampPlusStream
from tagspeech.packages.fetch import converted
from tagspeech.scoring.verification import equal_error_rate

RATE = 50  # frames a second
SAMPLES = 320  # of a frame
SHORTEST = 20  # frames that can be encoded alone


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("groups", type=Path)
    parser.add_argument("--first", type=int, default=50, help="groups to take")
    args = parser.parse_args()
    groups = list(read_groups(args.groups))[: args.first]
    encoder = CampPlusStream(CampPlusConfig()).eval()
    encoder.load_weights(converted(CAMPPLUS) / "model.safetensors")
    reader = FeatureReader(FeatureConfig())
    for seconds in (0, 1, 2):
        in_group, alone = [], []
        names_in_group, names_alone = [], []
        for group in groups:
            single = CutSet.from_cuts([group])
            samples_T = group.load_audio()[0]
            regions = [r for r in clean_regions(single, RATE) if len(r[2]) >= RATE * seconds]
            if not regions:
                continue
            frames_BTD, lens_B = encoder(*reader(single))
            in_group.append(encoder.vectors(frames_BTD, lens_B, regions))
            names_in_group += [group.supervisions[index].speaker for _, index, _ in regions]
            for _, index, frames in regions:
                if len(frames) >= SHORTEST:
                    piece_T = samples_T[frames[0] * SAMPLES : (frames[-1] + 1) * SAMPLES]
                    piece_BTD, (length,) = encoder(*reader.of_samples([piece_T]))
                    whole = [(0, 0, list(range(int(length))))]
                    alone.append(encoder.vectors(piece_BTD, torch.tensor([length]), whole))
                    names_alone.append(group.supervisions[index].speaker)
        rates = [
            100 * equal_error_rate(torch.cat(vectors).numpy(), names)
            for vectors, names in ((in_group, names_in_group), (alone, names_alone))
        ]
        print(
            f"{seconds} s or more: {len(names_in_group)} stretches, group {rates[0]:.1f} %; "
            f"{len(names_alone)} stretches, alone {rates[1]:.1f} %"
        )


if __name__ == "__main__":
    main()
