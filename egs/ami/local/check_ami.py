#!/usr/bin/env python3
"""Checks that each speaker of AMI's annotation who has segments has words.

Usage: check_ami.py CORPUS

Otherwise Lhotse's preparer raises a KeyError that names neither meeting nor file. It ignores
speakers that meetings.xml does not list; left_out_ami.py lists their words.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from tagspeech.errors import InputError

ANNOTATIONS = "ami_public_manual_1.6.2"


def check(corpus: Path) -> None:
    """Raises `InputError` for the first speaker without words, or an unreadable archive."""
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
        name = f"{meeting}.{agent}"
        if f"{name}.segments.xml" in segments and f"{name}.words.xml" not in words:
            raise InputError(
                f"{place}: meeting {meeting} has segments/{name}.segments.xml and no "
                f"words/{name}.words.xml; get it again"
            )


if __name__ == "__main__":
    try:
        check(Path(sys.argv[1]))
    except InputError as error:
        sys.exit(f"check_ami.py: {error}")
