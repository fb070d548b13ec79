#!/usr/bin/env python3
"""Lists the words and segments of AMI's annotation that the manifests of stage 1 lack, and why.

Usage: left_out_ami.py CORPUS PARTITION MANIFESTS OUTPUT

Lhotse keeps a word if it lies entirely within a segment and its meeting has audio and is in the
partition. It then drops what lies after the end of the audio.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from lhotse.recipes.ami import PARTITIONS

from tagspeech.corpus.rejections import AnnotatedSpeech, write_left_out
from tagspeech.errors import InputError

ANNOTATIONS = "ami_public_manual_1.6.2"


def read_spoken(annotations: Path, splits: Mapping[str, str]) -> Iterator[AnnotatedSpeech]:
    """The words of the meetings in `splits` (their split by name), and segments without words."""
    speakers = {
        (meeting.get("observation"), speaker.get("nxt_agent")): speaker.get("global_name", "")
        for meeting in ElementTree.parse(annotations / "corpusResources/meetings.xml").getroot()
        for speaker in meeting
    }
    for path in sorted((annotations / "words").glob("*.words.xml")):
        meeting, agent = path.name.split(".")[:2]
        if meeting in splits:
            name = f"{meeting}.{agent}"
            segments = read_segments(annotations / "segments" / f"{name}.segments.xml")
            who = (splits[meeting], meeting, speakers.get((meeting, agent), agent))
            yield from read_words(path, name, segments, who)


def read_segments(path: Path) -> list[tuple[float, float]]:
    """Start and end of each segment of a speaker, sorted; none if there is no file."""
    if not path.exists():
        return []
    return sorted(
        (float(item.attrib["transcriber_start"]), float(item.attrib["transcriber_end"]))
        for item in ElementTree.parse(path).getroot()
        if item.tag == "segment"
    )


def read_words(
    path: Path, name: str, segments: list[tuple[float, float]], who: tuple[str, str, str]
) -> Iterator[AnnotatedSpeech]:
    """The words, then segments without words, of a speaker; `who` is split, meeting, speaker."""
    starts = [start for start, _ in segments]
    empty = set(range(len(segments)))
    for word in ElementTree.parse(path).getroot():
        if word.tag != "w":
            continue
        if "starttime" not in word.attrib:
            yield AnnotatedSpeech(*who, "", None, word.text or "")
            continue
        start, end = float(word.attrib["starttime"]), float(word.attrib["endtime"])
        place = bisect_right(starts, start) - 1
        is_inside = place >= 0 and end <= segments[place][1]
        if is_inside:
            empty.discard(place)
        if not word.get("punc"):
            segment = f"{name}.{place}" if is_inside else ""
            yield AnnotatedSpeech(*who, segment, (start, end), word.text or "")
    for place in sorted(empty):
        yield AnnotatedSpeech(*who, f"{name}.{place}", segments[place], "")


def main(corpus: Path, partition: str, manifests: Path, output: Path) -> None:
    """Writes the list to `output`."""
    annotations = corpus / ANNOTATIONS
    if not annotations.is_dir():
        annotations = corpus  # where Lhotse unpacks the archive
    splits = {name: split for split, names in PARTITIONS[partition].items() for name in names}
    spoken = read_spoken(annotations, splits)
    write_left_out(spoken, manifests, output, missing="its meeting has no audio")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    except InputError as error:
        sys.exit(f"left_out_ami.py: {error}")
