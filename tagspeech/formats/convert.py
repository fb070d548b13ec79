"""`tagspeech convert`: files of one format into files of others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tagspeech.errors import InputError
from tagspeech.files import write_text
from tagspeech.formats import EXTENSIONS, check_format, read, render, split_name


def convert(
    paths: Sequence[str | Path],
    formats: Sequence[str],
    output_dir: str | Path | None = None,
    input_format: str | None = None,
    session: str | None = None,
    subtitle_speakers: str = "auto",
) -> list[Path]:
    """Writes every file of `paths` in every format as OUTPUT_DIR/<stem>.<extension>.

    Without `output_dir` the first format goes to stdout, all files joined into one list.
    `input_format`, `session` and `subtitle_speakers` are those of `tagspeech.formats.read`. Returns
    the files written.

    Everything is read and rendered before the first file is written. Raises `InputError` when
    nothing is asked for, two inputs have one stem, or an input would be overwritten.
    """
    outputs = output_paths(paths, formats, output_dir)
    contents = [read(path, input_format, session, subtitle_speakers) for path in paths]
    if not outputs:
        sys.stdout.write(render([item for content in contents for item in content], formats[0]))
        return []
    rendered = [
        (path, render(content, format))
        for content, files in zip(contents, outputs, strict=True)
        for format, path in files.items()
    ]
    for path, text in rendered:
        write_text(path, text)
    return [path for path, _ in rendered]


def output_paths(
    paths: Sequence[str | Path], formats: Sequence[str], output_dir: str | Path | None
) -> list[dict[str, Path]]:
    """For each of `paths` its output file by format; [] without `output_dir`.

    Any input will do, audio too. Raises `InputError` as `convert` does.
    """
    if not paths or not formats:
        raise InputError("wants at least one input file and one format")
    for format in formats:
        check_format(format)
    if output_dir is None:
        return []
    stems: dict[str, str | Path] = {}
    for path in paths:
        stem = split_name(path)[0]
        if stem in stems:
            raise InputError(
                f"{stems[stem]} and {path} would both be written to {output_dir}/{stem}: "
                "rename one, or convert them into different folders"
            )
        stems[stem] = path
    inputs = {Path(path).resolve() for path in paths}
    outputs = [
        {format: Path(output_dir) / f"{stem}.{EXTENSIONS[format]}" for format in formats}
        for stem in stems
    ]
    for path in (path for files in outputs for path in files.values()):
        if path.resolve() in inputs:
            raise InputError(f"{path}: is an input and would be overwritten: choose another folder")
    return outputs
