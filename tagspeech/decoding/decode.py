"""Decodes the utterance groups of one split, or a shard of them; a killed run goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet
from tqdm import tqdm

from tagspeech.config import DecodeConfig
from tagspeech.data.batches import FeatureReader, batches_by_duration, read_groups
from tagspeech.data.groups import group_segments
from tagspeech.decoding.confidence import parse_output
from tagspeech.decoding.greedy import generate
from tagspeech.decoding.shards import Shard, read_shards
from tagspeech.decoding.speakers import cluster_voices, with_speakers
from tagspeech.files import journal, read_journal, write_text
from tagspeech.formats import write
from tagspeech.models.pretrained import load_pretrained
from tagspeech.models.tagspeech import TagSpeechModel
from tagspeech.segments import Segment
from tagspeech.serialize import parse_target

log = logging.getLogger(__name__)


def decode_groups(
    model: TagSpeechModel, groups: CutSet, config: DecodeConfig, done: Collection[str] = ()
) -> Iterator[dict[str, Any]]:
    """The journal's row of each group, batch by batch, longest groups first.

    Groups of `done` have none, but are decoded again with others of their batch: another batch
    changes the last bits of sums.

    session, text       what the LLM wrote for whom
    malformed, problems whether and why it does not parse whole
    tokens, passes      how many tokens it has, and forward passes of the LLM that wrote them
    speakers_by_voice, word_confidences   of each segment that parses, in order
    """
    features = FeatureReader(model.config.features, model.config.semantic.whisper_bins)
    for batch in batches_by_duration(groups, config.max_duration):
        if all(cut.id in done for cut in batch):
            continue
        with torch.inference_mode():
            frames = model.encode(*features(batch))
        durations = [cut.duration for cut in batch] if config.grammar else None
        outputs = generate(model, frames, config.max_new_tokens, durations)
        for item, (cut, output) in enumerate(zip(batch, outputs, strict=True)):
            if cut.id in done:
                continue
            text, parsed = parse_output(model, output, cut.id)
            voice_TD = frames.voice[item, : frames.voice_lens[item]]
            yield {
                "session": cut.id,
                "text": text,
                "malformed": parsed.malformed,
                "problems": parsed.problems,
                "tokens": len(output.ids),
                "passes": output.passes,
                "speakers_by_voice": cluster_voices(
                    parsed.segments, voice_TD, config.speaker_threshold
                ),
                "word_confidences": [one.word_confidences for one in parsed.segments],
            }


def decode(
    model_dir: Path,
    groups_path: Path,
    output: Path,
    config: DecodeConfig,
    *,
    shard: Shard | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes `SPLIT.{raw.jsonl,ref.seglst.json,hyp.seglst.json,hyp-voice.seglst.json}` to `output`.

    The raw file is a journal of what the LLM wrote, with what did not parse. The hypotheses appear
    when every group is decoded: `hyp` with the speakers that the LLM wrote, `hyp-voice` with
    speakers by voice. SPLIT is the name of the groups' file.

    shard  decodes this part alone, into a journal of its own; `merge_decoded` does the rest
    dtype  of the LLM
    """
    groups = read_groups(groups_path)
    split = groups_path.name.partition(".")[0]
    own = groups if shard is None else shard.take(groups)
    raw = output / (f"{split}.raw.jsonl" if shard is None else shard.journal(split))
    done = {row["session"] for row in read_journal(raw)}
    left = sum(cut.id not in done for cut in own)
    if done:
        log.info("%d of %d groups are decoded already", len(own) - left, len(own))
    with journal(raw) as add:  # also of a shard without groups
        if left:
            model = load_pretrained(TagSpeechModel, model_dir, dtype).to(device)
            outputs = decode_groups(model, own, config, done)
            for row in tqdm(outputs, f"decode {split}", left, unit=" groups"):
                add(row)
    if shard is None:
        rows = {row["session"]: row for row in read_journal(raw)}
        _write_segments(groups, [rows[cut.id] for cut in groups], output, split)


def merge_decoded(groups_path: Path, folders: Sequence[Path], output: Path) -> None:
    """Makes of the journals of all shards in `folders` what `decode` writes to `output`.

    Raises `InputError` for gaps and duplicates, of shards or of sessions.
    """
    groups = read_groups(groups_path)
    split = groups_path.name.partition(".")[0]
    rows = read_shards(groups, split, folders or [output])
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(output / f"{split}.raw.jsonl", "".join(lines))
    _write_segments(groups, rows, output, split)


def _write_segments(
    groups: CutSet, rows: Sequence[dict[str, Any]], output: Path, split: str
) -> None:
    """References and hypotheses of all groups, each with its row, and a summary to the log."""
    hyp: list[Segment] = []
    hyp_voice: list[Segment] = []
    for row in rows:
        segments = parse_target(row["text"], row["session"]).segments
        if "word_confidences" in row:  # not in journals before there were any
            segments = [
                replace(segment, word_confidences=None if sure is None else tuple(sure))
                for segment, sure in zip(segments, row["word_confidences"], strict=True)
            ]
        hyp += segments
        hyp_voice += with_speakers(segments, row["speakers_by_voice"])
    ref = [segment for cut in groups for segment in group_segments(cut)]
    write(ref, output / f"{split}.ref.seglst.json", "seglst")
    write(hyp, output / f"{split}.hyp.seglst.json", "seglst")
    write(hyp_voice, output / f"{split}.hyp-voice.seglst.json", "seglst")
    malformed = sum(row["malformed"] for row in rows)
    log.info("%s: %d groups decoded, %d malformed", split, len(rows), malformed)
    tokens, passes = (sum(row[key] for row in rows) for key in ("tokens", "passes"))
    log.info(
        "%d tokens by %d forward passes of a row: %d passes saved", tokens, passes, tokens - passes
    )
