#!/usr/bin/env python3
"""Stops where a speaker of AMI's annotation has segments and no words.

Usage: check_ami.py CORPUS

Lhotse's preparation would end in a KeyError that names neither meeting nor file. Speakers that
meetings.xml lacks are none to it; what they say is listed by left_out_ami.py.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from tagspeech.errors import InputError

ANNOTATIONS = "ami_public_manual_1.6.2"


def check(corpus: Path) -> None:
    """Raises `InputError` that names the first such speaker, and an archive that is none."""
    place = corpus / ANNOTATIONS
    if not place.is_dir():
        place = corpus / f"{ANNOTATIONS}.zip"
    try:
        annotations = place if place.is_dir() else zipfile.Path(place)
        with (annotations / "corpusResources/meetings.xml").open("rb") as file:
            meetings = ElementTree.parse(file).getroot()
        words, segments = (
            {path.name for path in (annotations / kind).iterdir()} for kind in ("words", "segments")
        )
    except (OSError, zipfile.BadZipFile, ElementTree.ParseError) as error:
        raise InputError(f"{place}: cannot be read: {error}; get it again") from error
    speakers = [
        (meeting.get("observation"), speaker.get("nxt_agent"))
        for meeting in meetings
        for speaker in meeting
    ]
    for meeting, agent in speakers:
        own, wanted = (f"{meeting}.{agent}.{kind}.xml" for kind in ("segments", "words"))
        if own in segments and wanted not in words:
            raise InputError(
                f"{place}: meeting {meeting} has segments/{own} and no words/{wanted}; get it again"
            )


if __name__ == "__main__":
    try:
        check(Path(sys.argv[1]))
    except InputError as error:
        sys.exit(f"check_ami.py: {error}")
