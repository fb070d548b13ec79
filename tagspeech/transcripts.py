"""Behind `tagspeech transcribe`: from files and streams to transcripts."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import groupby, islice
from pathlib import Path

from tqdm import tqdm

from tagspeech.api import TagSpeech, usable_device
from tagspeech.decoding.transcribe import LONGEST, open_audio
from tagspeech.errors import InputError
from tagspeech.formats import EXTENSIONS, FORMATS, render, write
from tagspeech.meetings.follow import LINE_FORMATS, Cutter, follow, line_of
from tagspeech.meetings.hearing import Cutting, Ears
from tagspeech.meetings.linking import Limits, Voices
from tagspeech.meetings.pcm import PcmStream
from tagspeech.meetings.transcribe import enroll, transcribe_meeting
from tagspeech.models.llm import DTYPES
from tagspeech.report.page import write_page
from tagspeech.segments import Segment


def transcribe_files(
    model: str,
    files: Sequence[Path],
    formats: Sequence[str],
    output: Path | None,
    *,
    speakers: str = "llm",
    revision: str | None = None,
    offline: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 1,
    channel: int = 0,
    grammar: bool | None = None,
    cutting: Cutting | None = None,
    limits: Limits | None = None,
    enrolled: Mapping[str, Path] | None = None,
    diarization: Path | None = None,
    page: bool = False,
) -> None:
    """Behind `tagspeech transcribe`: writes `output/STEM.EXTENSION` for each file and format, and
    with `page` a page to look at and to hear, `output/STEM.html`.

    Without `output` the first format goes to stdout, all files joined into one list. A recording
    of at most 80 s is heard at once, unless a diarization is given or voices are enrolled; a longer
    one in windows (`transcribe_meeting`), with a journal in `output` until it is done. Two files
    with one stem, an unknown format, and a file that cannot be transcribed are an `InputError`
    before the model is loaded.
    """
    _check_names(formats, files)
    if page and output is None:
        raise InputError("--page: wants --output, a folder for it")
    for path in (enrolled or {}).values():
        open_audio(path)
    in_windows = bool(diarization or enrolled)
    long = {p for p in files if open_audio(p, channel).duration > LONGEST or in_windows}
    place = usable_device(device)
    loaded = TagSpeech.from_pretrained(model, revision, DTYPES[dtype], offline).to(place)
    known = {name: enroll(loaded, path) for name, path in (enrolled or {}).items()}
    voices = Voices(loaded.config.decode.link_threshold, limits or Limits(), known)
    hear_meeting = partial(
        transcribe_meeting,
        loaded,
        channel=channel,
        speakers=speakers,
        grammar=grammar,
        batch_size=batch_size,
        cutting=cutting,
        voices=voices,
        diarization=diarization,
    )
    journals = {one: output / f"{one.stem}.journal.jsonl" for one in long} if output else {}
    everything: list[Segment] = []
    with tqdm(total=len(files), desc="transcribe", unit=" files", disable=len(files) < 2) as bar:
        for batch in _batches(files, long, batch_size):
            if batch[0] in long:
                told = [hear_meeting(batch[0], journal_path=journals.get(batch[0]))]
            else:
                told = loaded.transcribe(batch, channel, speakers, batch_size, grammar=grammar)
            for path, segments in zip(batch, told, strict=True):
                everything += segments
                if output is not None:
                    _write(segments, path, output, formats, page)
                if path in journals:
                    journals[path].unlink()
            bar.update(len(batch))
    if output is None:  # one list: two of them in a row would be no JSON
        print(render(everything, formats[0]), end="")


def _write(
    segments: list[Segment], audio: Path, output: Path, formats: Sequence[str], page: bool
) -> None:
    """The transcript of one recording in all formats, and its page."""
    for one in formats:
        write(segments, output / f"{audio.stem}.{EXTENSIONS[one]}", one)
    if page:
        html = output / f"{audio.stem}.html"
        write_page(html, audio.name, {}, [], segments, recordings={audio.stem: str(audio)})


def follow_stream(
    model: str,
    path: str,
    form: str,
    *,
    sampling_rate: int,
    idle: float,
    speakers: str = "llm",
    revision: str | None = None,
    offline: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    channel: int = 0,
    grammar: bool | None = None,
    cutting: Cutting | None = None,
    limits: Limits | None = None,
    enrolled: Mapping[str, Path] | None = None,
) -> None:
    """Behind `tagspeech transcribe --follow`: prints a line for each segment as soon as it is told.

    path  a growing file of 16-bit PCM, or "-" for standard input (`PcmStream`)
    form  the format of the lines
    idle  seconds without growth after which a file is at its end

    An interrupt (SIGINT, SIGTERM) ends the stream: what was read until then is printed. Raises
    `InputError` for another format, an unusable stream or voice, before the model is loaded; and
    for a file that is removed, replaced or cut off, after what it held has been printed.
    """
    if form not in LINE_FORMATS:
        raise InputError(f"--format {form}: --follow prints lines of {', '.join(LINE_FORMATS)}")
    for one in (enrolled or {}).values():
        open_audio(one)
    stream = PcmStream(path, sampling_rate, channel, idle)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stream.stop())
    place = usable_device(device)
    loaded = TagSpeech.from_pretrained(model, revision, DTYPES[dtype], offline).to(place)
    decode, cutting = loaded.config.decode, cutting or Cutting()
    known = {name: enroll(loaded, one) for name, one in (enrolled or {}).items()}
    cutter = Cutter(stream.rate, cutting, cutting.longest or decode.max_window)
    told = follow(
        Ears(loaded, speakers, grammar),
        "live" if path == "-" else Path(path).stem,
        stream.blocks(cutter.block),
        cutter,
        Voices(decode.link_threshold, limits or Limits(), known),
    )
    for segments in told:
        for segment in segments:
            print(line_of(segment, form), flush=True)
    if stream.problem:
        raise stream.problem


def _check_names(formats: Sequence[str], files: Sequence[Path]) -> None:
    unknown = [one for one in formats if one not in FORMATS]
    if unknown:
        raise InputError(f"--format {unknown[0]}: unknown; choose from {', '.join(FORMATS)}")
    stems = [path.stem for path in files]
    doubled = next((stem for stem in stems if stems.count(stem) > 1), None)
    if doubled is not None:
        raise InputError(f"two inputs are named {doubled}; their outputs would be one file")


def _batches(files: Sequence[Path], long: AbstractSet[Path], size: int) -> Iterator[list[Path]]:
    """Long files one by one, runs of others up to `size` together; in their order."""
    for is_long, run in groupby(files, long.__contains__):
        while batch := list(islice(run, 1 if is_long else size)):
            yield batch
