"""Audio of a corpus as Lhotse recordings with one channel, at any sampling rate.

A Lhotse manifest can name one of several channels, but then each group would read all of them.
Therefore a channel, or the mean of all, is written to a separate file once. So is the output of a
command, which would otherwise run for each group.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import soundfile
from lhotse import Recording, RecordingSet
from tqdm import tqdm

from tagspeech.audio.files import AudioError, open_recording
from tagspeech.corpus.channels import channel_id
from tagspeech.corpus.layouts import MIX, RecordingSource, refuse
from tagspeech.errors import InputError
from tagspeech.files import atomic_path, check_id

log = logging.getLogger(__name__)

BLOCK = 1 << 20  # samples of each channel held in memory


def make_recordings(audio: Mapping[str, RecordingSource], folder: Path) -> dict[str, Recording]:
    """Makes recordings with absolute paths, by name; logs the choice among several channels.

    Args:
        audio: Sources by name.
        folder: Folder for channels and outputs of commands, as NAME.wav.

    Raises:
        InputError: Files cannot be read or lack the channel; all are checked first.
    """
    found: dict[str, Recording] = {}
    problems: defaultdict[str, list[str]] = defaultdict(list)
    channels: dict[str, int] = {}
    for name, source in tqdm(audio.items(), desc="recordings", unit=" recordings"):
        try:
            output = folder / f"{quote(name, safe='')}.wav"
            found[name], channels[name] = _make_recording(name, source, output)
        except _Unusable as error:
            problems[error.args[0]].append(error.args[1] if error.args[1:] else source.source)
    for reason, sources in problems.items():
        refuse(f"of {len(audio)} recordings {reason}", sources, "correct or remove them")
    _log_channels(audio, channels)
    return found


def each_channel(
    audio: Mapping[str, RecordingSource], splits: Mapping[str, str]
) -> tuple[dict[str, RecordingSource], dict[str, str]]:
    """Recordings and their splits, with a recording for each channel of a file.

    Recordings whose channel is given do not change.

    Raises:
        InputError: A recording comes from a command, whose channels are unknown before it runs, or
            a file cannot be read.
    """
    found: dict[str, RecordingSource] = {}
    split_of: dict[str, str] = {}
    counts: defaultdict[int, list[str]] = defaultdict(list)
    open_choice = {n: source for n, source in audio.items() if not isinstance(source.channel, int)}
    refuse(
        "recordings come from commands: --channel each does not know their channels",
        [name for name, source in open_choice.items() if source.is_command],
        "name the channels in reco2file_and_channel",
    )
    for name, source in audio.items():
        parts, count = {name: source}, 1
        if name in open_choice:
            parts = {name: replace(source, channel=None)}
            count = open_recording(Path(source.source)).num_channels
        if count > 1:
            counts[count].append(source.source)
            parts = {channel_id(name, n): replace(source, channel=n) for n in range(count)}
        refuse("recordings have two files", [id for id in parts if id in found], "rename one")
        found.update(parts)
        split_of.update({id: splits[name] for id in parts if name in splits})
    for count, sources in counts.items():
        log.warning(
            "%d recordings have %d channels: each is a separate recording, ID-ch0 to ID-ch%d "
            "(the first: %s)",
            *(len(sources), count, count - 1, sources[0]),
        )
    return found, split_of


class _Unusable(Exception):
    """What is wrong with a recording, and details if its source does not say enough."""


def _make_recording(name: str, audio: RecordingSource, output: Path) -> tuple[Recording, int]:
    """The recording with one channel, and the number of channels of its source."""
    path = Path(audio.source)
    if audio.is_command:
        path = output
        _run(audio.source, path)
    if not path.exists():
        raise _Unusable("do not exist")
    try:
        recording = open_recording(Path(os.path.abspath(path)), name)
        if recording.num_samples == 0:
            raise _Unusable("are empty")
        count = recording.num_channels
        if count == 1 and (audio.channel in (0, None, MIX) or audio.mono_is_it):
            return recording, 1
        channel = _choice(audio.channel, count)
        if isinstance(channel, int) and channel >= count:
            raise _Unusable(f"have no channel {channel} (the first channel is 0)")
        write_channel(path, channel, output)
        return open_recording(Path(os.path.abspath(output)), name), count
    except AudioError as error:
        raise _Unusable("cannot be read as audio", f"{path}: {error.reason}") from error
    except soundfile.LibsndfileError as error:
        raise _Unusable("cannot be read as audio", f"{path}: it is damaged") from error


def _run(command: str, output: Path) -> None:
    """Writes what a command prints to a file."""
    with atomic_path(output) as temporary, open(temporary, "wb") as file:
        words = ["bash", "-o", "pipefail", "-c", command]
        if subprocess.run(words, stdin=subprocess.DEVNULL, stdout=file).returncode:
            raise _Unusable("come from a command that fails")


def run_commands(recordings: RecordingSet, folder: Path) -> RecordingSet:
    """Recordings with files in place of commands, whose output is written to `folder`.

    Raises:
        InputError: A command fails.
    """
    found = []
    for recording in recordings:
        sources = list(recording.sources)
        for number, source in enumerate(sources):
            if source.type == "command":
                check_id(recording.id, "a manifest with commands")
                path = folder / f"{quote(recording.id, safe='')}.{number}.audio"
                try:
                    _run(source.source, path)
                except _Unusable as error:
                    raise InputError(
                        f"recording {recording.id}: its command {source.source!r} fails; see above"
                    ) from error
                sources[number] = replace(source, type="file", source=os.path.abspath(path))
        found.append(replace(recording, sources=sources))
    return RecordingSet.from_recordings(found)


def _choice(channel: int | str | None, count: int) -> int | str:
    """Resolves the default of `channel` for `count` channels: a number, or the mix."""
    if channel is None:
        return MIX if count == 2 else 0
    return channel


def _log_channels(audio: Mapping[str, RecordingSource], channels: Mapping[str, int]) -> None:
    """Logs the choice among several channels, one line per number of channels and choice."""
    alike: defaultdict[tuple[int, int | str | None], list[str]] = defaultdict(list)
    named: defaultdict[str, set[int | str | None]] = defaultdict(set)  # channels of each source
    for name, count in channels.items():
        source = audio[name]
        if count > 1 and source.mono_is_it:
            named[source.source].add(source.channel)
        elif count > 1:
            alike[count, source.channel].append(source.source)
    for (count, channel), sources in alike.items():
        array = ", one array" if channel is None and count > 2 else ""
        choice = _choice(channel, count)
        log.warning(
            "%d recordings have %d channels%s: using %s (the first: %s); --channel chooses another "
            "or each",
            *(len(sources), count, array),
            "their mix" if choice == MIX else f"channel {choice}",
            sources[0],
        )
    counts = {audio[name].source: count for name, count in channels.items()}
    unused = [source for source, used in named.items() if len(used) < counts[source]]
    if unused:
        log.warning(
            "%d files have channels that no recording uses (the first: %s); name them in "
            "reco2file_and_channel to use them",
            *(len(unused), unused[0]),
        )


def write_channel(path: Path, channel: int | str, output: Path) -> None:
    """Writes one channel as WAV, samples unchanged, or with "mix" the mean, which cannot clip."""
    with soundfile.SoundFile(path) as file, atomic_path(output) as temporary:
        subtype = file.subtype if soundfile.check_format("WAV", file.subtype) else "FLOAT"
        dtype = "int32" if subtype.startswith("PCM") else "float64"
        with soundfile.SoundFile(temporary, "w", file.samplerate, 1, subtype, format="WAV") as mono:
            for block in file.blocks(BLOCK, dtype=dtype, always_2d=True):
                if channel == MIX:
                    mono.write(np.mean(block, axis=1).astype(dtype))
                else:
                    mono.write(block[:, channel])
