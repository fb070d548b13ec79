"""Decodes the utterance groups of one split, or a shard of them; a killed run resumes.

Shards are decoded on several devices or hosts; `merge_decoded` makes one output of their journals.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from tagspeech.inference.origin import check_origin, common_origin, origin_of, write_origin
from tagspeech.inference.recognizer import Recognizer
from tagspeech.llm.place import Place, find_place, note_place, read_places
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.segments import Segment, with_word_lists
from tagspeech.serialize import parse_target

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1 to `count`, of the utterance groups of a split."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that an option K/N names.

        Raises:
            InputError: The text is not K/N with K from 1 to N.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"--shard {text}: must be K/N with K from 1 to N, such as 2/4")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_torchrun(cls, environment: Mapping[str, str]) -> Shard | None:
        """The shard of a process that torchrun started; None if it is the only one."""
        count = int(environment.get("WORLD_SIZE", "1"))
        return cls(int(environment["RANK"]) + 1, count) if count > 1 else None

    def journal(self, split: str) -> str:
        """The file name of the shard's journal."""
        return f"{split}.{self.number}-of-{self.count}.raw.jsonl"

    def take(self, groups: CutSet) -> CutSet:
        """The groups of the shard, dealt out from the longest on: shards take about equal time."""
        ordered = sorted(groups, key=lambda cut: (-cut.duration, cut.id))
        return CutSet.from_cuts(ordered[self.number - 1 :: self.count])


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
            from others, or with another configuration.
    """
    groups = read_groups(groups_path)
    split = groups_path.name.partition(".")[0]
    own = groups if shard is None else shard.take(groups)
    raw = output / (f"{split}.raw.jsonl" if shard is None else shard.journal(split))
    place = place or find_place()
    origin = origin_of(model_dir, groups_path, decode=to_tree(config), dtype=str(place.dtype))
    check_origin(raw, origin)
    done = {row["session"] for row in read_journal(raw)}
    left = sum(cut.id not in done for cut in own)
    if done:
        log.info("%d of %d groups are already decoded", len(own) - left, len(own))
    write_origin(raw, origin)
    with journal(raw) as add:  # an empty shard has a journal too
        if left:
            model = load_on(TagSpeechModel, model_dir, place)
            note_place(_places(raw), place)
            model.config = replace(model.config, decode=config)
            outputs = decode_groups(Recognizer(model), own, done)
            for row in tqdm(outputs, f"decode {split}", left, unit=" groups"):
                add(row)
    if shard is None:
        rows = {row["session"]: row for row in read_journal(raw)}
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
    rows, origin = _rows(groups, found), common_origin(list(found.values()))
    lists = [
        read_places(path)
        for folder in folders or [output]
        for path in sorted(folder.glob(f"{split}.*-of-*.places.json"))
    ]
    write_json(output / f"{split}.places.json", list(dict.fromkeys(chain.from_iterable(lists))))
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    raw = output / f"{split}.raw.jsonl"
    if origin:
        write_origin(raw, origin)
    write_text(raw, "".join(lines))
    _write_segments(groups, rows, output, split)


def _places(raw: Path) -> Path:
    """The file beside a journal that says where its rows were computed."""
    return raw.with_name(raw.name.replace(".raw.jsonl", ".places.json"))


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


def find_shards(split: str, folders: Sequence[Path]) -> dict[Shard, Path]:
    """The journals of all shards in `folders`.

    Raises:
        InputError: There are no shards, or shards of several divisions, or a shard is missing or
            present twice.
    """
    found: dict[Shard, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob(f"{split}.*-of-*.raw.jsonl")):
            match = re.fullmatch(r"(\d+)-of-(\d+)\.raw\.jsonl", path.name[len(split) + 1 :])
            if not match:
                continue
            shard = Shard(int(match[1]), int(match[2]))
            if shard in found:
                raise InputError(f"{path}: {found[shard]} is the same shard; name only one of them")
            found[shard] = path
    counts = sorted({shard.count for shard in found})
    where = ", ".join(map(str, folders))
    if len(counts) != 1:
        kinds = " and ".join(map(str, counts)) or "no"
        raise InputError(f"{where}: holds {kinds} shards of {split}; they must be of one division")
    for number in range(1, counts[0] + 1):
        if Shard(number, counts[0]) not in found:
            raise InputError(
                f"{where}: lacks shard {number}/{counts[0]} of {split}; decode it with "
                f"--shard {number}/{counts[0]}"
            )
    return found


def _rows(groups: CutSet, found: Mapping[Shard, Path]) -> list[dict[str, Any]]:
    """The rows of all shards' journals, in the order of the groups.

    Raises:
        InputError: A session is missing, present twice, or not among the groups.
    """
    rows: dict[str, dict[str, Any]] = {}
    wanted = set(groups.ids)
    for path in found.values():
        for row in read_journal(path):
            session = row["session"]
            if session in rows:
                raise InputError(f"{path}: session {session} is decoded twice; remove one of them")
            if session not in wanted:
                raise InputError(f"{path}: session {session} is not among the groups")
            rows[session] = row
    for shard, path in found.items():
        missing = [cut.id for cut in shard.take(groups) if cut.id not in rows]
        if missing:
            raise InputError(
                f"{path}: lacks {len(missing)} sessions, {missing[0]} the first; continue with "
                f"--shard {shard.number}/{shard.count}"
            )
    return [rows[cut.id] for cut in groups]
