"""Converts files of segments to other formats (`tagspeech convert`)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tagspeech.errors import InputError
from tagspeech.files import write_text
from tagspeech.formats import OUTPUTS, check_format, read, render, split_name
from tagspeech.segments import renamed, unused_names

log = logging.getLogger(__name__)


def convert(
    paths: Sequence[str | Path],
    formats: Sequence[str],
    output_dir: str | Path | None = None,
    input_format: str | None = None,
    session: str | None = None,
    subtitle_speakers: str = "auto",
    names: Mapping[str, str] | None = None,
    readable: bool = False,
) -> list[Path]:
    """Writes each file of `paths` in each format as OUTPUT_DIR/<stem>.<extension>.

    Everything is read and rendered before the first file is written. `input_format`, `session` and
    `subtitle_speakers` are as for `tagspeech.formats.read`.

    Args:
        paths: The files to read.
        formats: The formats to write.
        output_dir: A folder; None: all segments go to stdout in the first format.
        names: New names of speakers.
        readable: Lay out subtitles for people, as for `tagspeech.formats.render`.

    Returns:
        The files written.

    Raises:
        InputError: There is no path or format, two inputs have the same stem, or an input would be
            overwritten.
    """
    outputs = output_paths(paths, formats, output_dir)
    contents = [read(path, input_format, session, subtitle_speakers) for path in paths]
    everything = [item for content in contents for item in content]
    if unused := unused_names(everything, names or {}):
        log.warning("--rename: no file has a speaker %s", " or ".join(unused))
    if not outputs:
        text = render(renamed(everything, names or {}), formats[0], readable=readable)
        sys.stdout.write(text)
        return []
    rendered = [
        (path, render(renamed(content, names or {}), format, readable=readable))
        for content, files in zip(contents, outputs, strict=True)
        for format, path in files.items()
    ]
    for path, text in rendered:
        write_text(path, text)
    return [path for path, _ in rendered]


def output_paths(
    paths: Sequence[str | Path], formats: Sequence[str], output_dir: str | Path | None
) -> list[dict[str, Path]]:
    """The output file of each path by format; [] without `output_dir`. Raises as `convert`."""
    if not paths or not formats:
        raise InputError("needs at least one input file and one format")
    for format in formats:
        check_format(format, OUTPUTS)
    if output_dir is None:
        return []
    stems: dict[str, str | Path] = {}
    for path in paths:
        stem = split_name(path)[0]
        if stem in stems:
            raise InputError(
                f"{stems[stem]} and {path} would both be written to {output_dir}/{stem}: "
                "rename one of them, or convert them into different folders"
            )
        stems[stem] = path
    inputs = {Path(path).resolve() for path in paths}
    outputs = [
        {format: Path(output_dir) / f"{stem}.{OUTPUTS[format]}" for format in formats}
        for stem in stems
    ]
    for path in (path for files in outputs for path in files.values()):
        if path.resolve() in inputs:
            raise InputError(f"{path}: is an input and would be overwritten; choose another folder")
    return outputs
