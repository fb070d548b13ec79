#!/usr/bin/env python3
"""Writes what people say in the training meetings of AMI, a segment a line, for speak_sentences.py.

Usage: ami_sentences.py --annotations DIR --output FILE

DIR is the folder ami_public_manual_1.6.2. Taken are the segments of Lhotse's training partition of
3 to 20 words without letters that are spelled. The first minute of each meeting is left out,
because published clips of AMI begin there.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from pathlib import Path

from lhotse.recipes.ami import PARTITIONS, parse_ami_annotations

from tagspeech.files import write_text
from tagspeech.text import normalise

WORDS = range(3, 21)
FIRST_SECONDS = 60
PLAIN = re.compile(r"[a-z' ]+")


def main() -> int:
    """Returns 0, or 2 after an error that the user can mend."""
    parser = argparse.ArgumentParser(prog="ami_sentences.py", description=__doc__.split("\n")[0])
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    if not (args.annotations / "corpusResources/meetings.xml").is_file():
        print(f"ami_sentences.py: {args.annotations}: has no corpusResources", file=sys.stderr)
        return 2
    logging.disable(logging.WARNING)  # Lhotse writes a line for each comma
    of_train = set(PARTITIONS["full-corpus-asr"]["train"])
    lines = set()
    segments = 0
    for (meeting, _, _), spoken in sorted(parse_ami_annotations(args.annotations).items()):
        for segment in spoken if meeting in of_train else ():
            segments += 1
            text = normalise(segment.text, "en")
            is_early = segment.start_time < FIRST_SECONDS
            if not is_early and len(text.split()) in WORDS and PLAIN.fullmatch(text):
                lines.add(text)
    write_text(args.output, "".join(f"{line}\n" for line in sorted(lines)))
    words = sum(len(line.split()) for line in lines)
    print(f"{len(lines)} sentences of {words} words, of {segments} segments")
    return 0


if __name__ == "__main__":
    sys.exit(main())
