"""Decodes the utterance groups of one split, or a shard of them; a killed run resumes.

Processes that `parallel.launch` started share the groups, and the first one writes what a single
process would. Shards are decoded by calls of their own, such as on hosts that share no folder;
`merge_decoded` makes one output of their journals.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from lhotse import CutSet
from tqdm import tqdm

from tagspeech.checkpoints.native import load_on
from tagspeech.config import DecodeConfig
from tagspeech.config_file import to_tree
from tagspeech.corpus.groups import group_segments
from tagspeech.data.batches import batches_by_duration, read_groups
from tagspeech.errors import InputError
from tagspeech.files import journal, read_journal, write_json, write_text
from tagspeech.formats import write
from tagspeech.inference.clustering import cluster_voices, with_speakers
from tagspeech.inference.origin import (
    check_origin,
    common_origin,
    origin_of,
    write_origin,
)
from tagspeech.inference.recognizer import Recognizer
from tagspeech.inference.shards import (
    PART,
    Shard,
    find_shards,
    join_parts,
    parts_of,
    places_file,
    rows_of,
    to_line,
)
from tagspeech.llm.place import Place, find_place, note_place, read_places
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.parallel import gather, rank, world_size
from tagspeech.segments import Segment, with_word_lists
from tagspeech.serialize import parse_target

log = logging.getLogger(__name__)


def decode_groups(
    recognizer: Recognizer, groups: CutSet, done: Collection[str] = ()
) -> Iterator[dict[str, Any]]:
    """Decodes groups batch by batch, longest groups first.

    A batch that contains groups of `done` is decoded whole, since other batches would change the
    last bits of sums; only the rows of the remaining groups are yielded.

    Yields:
        The journal row of each group: session; text, what the LLM wrote; malformed and problems,
        whether and why it does not parse whole; tokens and passes, the numbers of tokens and of
        forward passes; speakers_by_voice, word_confidences and word_spans, of each parsed segment
        in order.
    """
    config = recognizer.model.config.decode
    encoder = recognizer.model.voice_encoder
    for batch in batches_by_duration(groups, config.max_duration):
        if all(cut.id in done for cut in batch):
            continue
        for cut, hypothesis in zip(batch, recognizer.recognize_groups(batch), strict=True):
            if cut.id in done:
                continue
            segments = hypothesis.parsed.segments
            yield {
                "session": cut.id,
                "text": hypothesis.text,
                "malformed": hypothesis.parsed.malformed,
                "problems": hypothesis.parsed.problems,
                "tokens": len(hypothesis.output.ids),
                "passes": hypothesis.output.passes,
                "speakers_by_voice": cluster_voices(
                    segments, hypothesis.voice_TD, encoder, config.speaker_threshold
                ),
                "word_confidences": [segment.word_confidences for segment in segments],
                "word_spans": [segment.word_spans for segment in segments],
            }


def decode(
    model_dir: Path,
    groups_path: Path,
    output: Path,
    config: DecodeConfig,
    *,
    shard: Shard | None = None,
    place: Place | None = None,
) -> None:
    """Writes `SPLIT.{raw.jsonl,ref.seglst.json,hyp.seglst.json,hyp-voice.seglst.json}` to `output`.

    The raw file is a journal of what the LLM wrote; `SPLIT.raw.origin.json` beside it says what it
    was made from. The hypotheses appear when every group is decoded: `hyp` has the speakers that
    the LLM wrote, `hyp-voice` speakers by voice.

    Args:
        model_dir: A trained model.
        groups_path: Lhotse cuts, `SPLIT.jsonl.gz`.
        output: A folder.
        config: How to decode; it replaces the section of the model.
        shard: Decode this part only, into a journal of its own, for `merge_decoded`.
        place: Where the model runs; None: where `find_place` finds. SPLIT.places.json lists it.

    Raises:
        InputError: The model or the groups cannot be read, or `output` has a journal that was made
            from others, or with another configuration; or a shard has several processes.
    """
    if shard and world_size() > 1:
        raise InputError("--shard: is decoded by a single process; start it without torchrun")
    groups = read_groups(groups_path)
    split = groups_path.name.partition(".")[0]
    share = shard or (Shard(rank() + 1, world_size()) if world_size() > 1 else None)
    own = groups if share is None else share.take(groups, config.max_duration)
    whole = output / f"{split}.raw.jsonl"
    if shard:
        raw, journals = output / shard.journal(split), [output / shard.journal(split)]
    else:  # a killed run may have had another number of processes
        raw = whole if share is None else output / share.journal(f"{split}{PART}")
        journals = list(dict.fromkeys([whole, *parts_of(output, split), raw]))
    place = place or find_place()
    origin = origin_of(model_dir, groups_path, decode=to_tree(config), dtype=str(place.dtype))
    for path in journals:
        check_origin(path, origin)
    done = {row["session"]: row for path in journals for row in read_journal(path)}
    gather(None)  # all have read, before any writes
    left = sum(cut.id not in done for cut in own)
    if left < len(own):
        log.info("%d of %d groups are already decoded", len(own) - left, len(own))
    write_origin(raw, origin)
    with journal(raw) as add:  # an empty shard has a journal too
        if left:
            model = load_on(TagSpeechModel, model_dir, place)
            note_place(places_file(raw), place)
            model.config = replace(model.config, decode=config)
            outputs = decode_groups(Recognizer(model), own, done)
            bar = tqdm(outputs, f"decode {split}", left, unit=" groups", disable=rank() > 0)
            for row in bar:
                add(row)
                done[row["session"]] = row
    if shard:
        return
    shares = gather([done[cut.id] for cut in own])
    if rank() == 0:
        rows = {row["session"]: row for row in chain.from_iterable(shares)}
        join_parts(whole, rows, groups, origin, config.max_duration)
        _write_segments(groups, [rows[cut.id] for cut in groups], output, split)


def merge_decoded(groups_path: Path, folders: Sequence[Path], output: Path) -> None:
    """Writes to `output` what `decode` writes without shards, from the journals in `folders`.

    Raises:
        InputError: A shard or a session is missing or present twice, or shards were made from
            different models, groups or configurations.
    """
    groups = read_groups(groups_path)
    split = groups_path.name.partition(".")[0]
    found = find_shards(split, folders or [output])
    rows, origin = rows_of(groups, found), common_origin(list(found.values()))
    lists = [read_places(places_file(path)) for path in found.values()]
    write_json(output / f"{split}.places.json", list(dict.fromkeys(chain.from_iterable(lists))))
    lines = map(to_line, rows)
    raw = output / f"{split}.raw.jsonl"
    if origin:
        write_origin(raw, origin)
    write_text(raw, "".join(lines))
    _write_segments(groups, rows, output, split)


def _write_segments(
    groups: CutSet, rows: Sequence[dict[str, Any]], output: Path, split: str
) -> None:
    """Writes the references and hypotheses of all groups, and a summary to the log."""
    hyp: list[Segment] = []
    hyp_voice: list[Segment] = []
    for row in rows:
        segments = parse_target(row["text"], row["session"]).segments
        unknown = [None] * len(segments)  # older journals say nothing of words
        lists = (row.get(key, unknown) for key in ("word_confidences", "word_spans"))
        segments = [
            with_word_lists(segment, *of_words)
            for segment, *of_words in zip(segments, *lists, strict=True)
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
