"""Decodes the utterance groups of one split; a killed run goes on where it stopped."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from lhotse import CutSet
from tqdm import tqdm

from tagspeech.config import DecodeConfig
from tagspeech.data.batches import FeatureReader, batches_by_duration, read_groups
from tagspeech.data.groups import group_segments
from tagspeech.decoding.greedy import generate_texts
from tagspeech.files import journal, read_journal
from tagspeech.formats import write
from tagspeech.models.pretrained import load_pretrained
from tagspeech.models.tagspeech import TagSpeechModel
from tagspeech.segments import Segment
from tagspeech.serialize import ParsedTarget, parse_target

log = logging.getLogger(__name__)


def decode_groups(
    model: TagSpeechModel, groups: CutSet, config: DecodeConfig
) -> Iterator[tuple[str, ParsedTarget, str]]:
    """Session, parsed output and raw output of each group, batch by batch, longest groups first."""
    features = FeatureReader(model.config.features)
    for batch in batches_by_duration(groups, config.max_duration):
        with torch.inference_mode():
            frames = model.encode(*features(batch))
        texts = generate_texts(model, frames, config.max_new_tokens)
        for cut, text in zip(batch, texts, strict=True):
            yield cut.id, parse_target(text, cut.id), text


def decode(model_dir: Path, groups_path: Path, output: Path, config: DecodeConfig) -> None:
    """Writes `SPLIT.raw.jsonl`, `SPLIT.ref.seglst.json` and `SPLIT.hyp.seglst.json` to `output`.

    The raw file is a journal of what the LLM wrote, with what did not parse; the hypothesis
    appears when every group is decoded. SPLIT is the name of the groups' file.
    """
    groups = read_groups(groups_path)
    split = groups_path.name.partition(".")[0]
    raw = output / f"{split}.raw.jsonl"
    done = {row["session"] for row in read_journal(raw)}
    left = groups.filter(lambda cut: cut.id not in done).to_eager()
    if done:
        log.info("%d of %d groups are decoded already", len(groups) - len(left), len(groups))
    if len(left):
        model = load_pretrained(TagSpeechModel, model_dir)
        with journal(raw) as add:
            outputs = tqdm(
                decode_groups(model, left, config), f"decode {split}", len(left), unit=" groups"
            )
            for session, parsed, text in outputs:
                add(
                    {
                        **{"session": session, "text": text},
                        **{"malformed": parsed.malformed, "problems": parsed.problems},
                    }
                )
    rows = {row["session"]: row for row in read_journal(raw)}
    hyp: list[Segment] = []
    for cut in groups:
        hyp += parse_target(rows[cut.id]["text"], cut.id).segments
    ref = [segment for cut in groups for segment in group_segments(cut)]
    write(ref, output / f"{split}.ref.seglst.json", "seglst")
    write(hyp, output / f"{split}.hyp.seglst.json", "seglst")
    malformed = sum(row["malformed"] for row in rows.values())
    log.info("%s: %d groups decoded, %d malformed", split, len(groups), malformed)
