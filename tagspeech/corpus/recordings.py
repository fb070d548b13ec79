"""Audio of a corpus as Lhotse recordings of one channel, whatever their sampling rate.

Lhotse could name one channel of many in a manifest, but every group would read them all. So that
channel, or the mean of all, is written to a file of its own, once; and so is what a command prints,
which would be run again for every group.
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
from lhotse import Recording
from tqdm import tqdm

from tagspeech.audio.files import AudioError, open_recording
from tagspeech.corpus.channels import channel_id
from tagspeech.corpus.layouts import MIX, RecordingSource, refuse
from tagspeech.files import atomic_path

log = logging.getLogger(__name__)

BLOCK = 1 << 20  # samples of each channel held in memory


def make_recordings(audio: Mapping[str, RecordingSource], folder: Path) -> dict[str, Recording]:
    """The recordings by name, their files named from the root of the file system.

    folder  where channels and outputs of commands are written, as NAME.wav

    What is taken of files with several channels is logged. Raises `InputError` where files cannot
    be read or lack the channel; all are looked at first.
    """
    found: dict[str, Recording] = {}
    problems: defaultdict[str, list[str]] = defaultdict(list)
    channels: dict[str, int] = {}
    for name, one in tqdm(audio.items(), desc="recordings", unit=" recordings"):
        try:
            own_file = folder / f"{quote(name, safe='')}.wav"
            found[name], channels[name] = _make_recording(name, one, own_file)
        except _Unusable as error:
            problems[error.args[0]].append(error.args[1] if error.args[1:] else one.source)
    for reason, sources in problems.items():
        refuse(f"of {len(audio)} recordings {reason}", sources, "correct or remove them")
    _say_channels(audio, channels)
    return found


def each_channel(
    audio: Mapping[str, RecordingSource], splits: Mapping[str, str]
) -> tuple[dict[str, RecordingSource], dict[str, str]]:
    """Recordings and their splits, files with several channels as a recording for each channel.

    Recordings whose channel is given already stay as they are. Raises `InputError` for a command,
    whose channels are not known before it runs, and for files that cannot be read.
    """
    found: dict[str, RecordingSource] = {}
    split_of: dict[str, str] = {}
    counts: defaultdict[int, list[str]] = defaultdict(list)
    one_of_many = {name: one for name, one in audio.items() if not isinstance(one.channel, int)}
    refuse(
        "recordings come from commands: --channel each does not know their channels",
        [name for name, one in one_of_many.items() if one.is_command],
        "name the channels in reco2file_and_channel",
    )
    for name, one in audio.items():
        count = 1
        if name in one_of_many:
            count = open_recording(Path(one.source)).num_channels
        parts = {name: replace(one, channel=None) if name in one_of_many else one}
        if count > 1:
            counts[count].append(one.source)
            parts = {channel_id(name, n): replace(one, channel=n) for n in range(count)}
        refuse("recordings have two files", [id for id in parts if id in found], "rename one")
        found.update(parts)
        split_of.update({id: splits[name] for id in parts if name in splits})
    for count, sources in counts.items():
        log.warning(
            "%d recordings have %d channels: each is a recording of its own, ID-ch0 to ID-ch%d "
            "(the first: %s)",
            *(len(sources), count, count - 1, sources[0]),
        )
    return found, split_of


class _Unusable(Exception):
    """What is wrong with one of many, and the file, where `Audio.source` does not say enough."""


def _make_recording(name: str, audio: RecordingSource, own_file: Path) -> tuple[Recording, int]:
    """The recording of one channel, and how many channels its source has."""
    path = Path(audio.source)
    if audio.is_command:
        path = own_file
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            command = ["bash", "-o", "pipefail", "-c", audio.source]
            if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file).returncode:
                raise _Unusable("come from a command that fails")
    if not path.exists():
        raise _Unusable("do not exist")
    try:
        recording = open_recording(Path(os.path.abspath(path)), name)
        if recording.num_samples == 0:
            raise _Unusable("are empty")
        count = recording.num_channels
        if count == 1 and (audio.channel in (0, None, MIX) or audio.mono_is_it):
            return recording, 1
        channel = _taken(audio.channel, count)
        if isinstance(channel, int) and channel >= count:
            raise _Unusable(f"have no channel {channel} (the first channel is 0)")
        write_channel(path, channel, own_file)
        return open_recording(Path(os.path.abspath(own_file)), name), count
    except AudioError as error:
        raise _Unusable("cannot be read as audio", f"{path}: {error.reason}") from error
    except soundfile.LibsndfileError as error:
        raise _Unusable("cannot be read as audio", f"{path}: it is damaged") from error


def _taken(channel: int | str | None, count: int) -> int | str:
    """What is taken of `count` channels where `channel` is asked for: a number, or the mix."""
    if channel is None:
        return MIX if count == 2 else 0
    return channel


def _say_channels(audio: Mapping[str, RecordingSource], channels: Mapping[str, int]) -> None:
    """Logs what is taken of sources with several channels, a line for all that are alike."""
    alike: defaultdict[tuple[int, int | str | None], list[str]] = defaultdict(list)
    named: defaultdict[str, set[int | str | None]] = defaultdict(set)  # channels of each source
    for name, count in channels.items():
        one = audio[name]
        if count > 1 and one.mono_is_it:
            named[one.source].add(one.channel)
        elif count > 1:
            alike[count, one.channel].append(one.source)
    for (count, channel), sources in alike.items():
        array = ", one array" if channel is None and count > 2 else ""
        taken = _taken(channel, count)
        log.warning(
            "%d recordings have %d channels%s: %s taken (the first: %s); --channel takes another "
            "or each",
            *(len(sources), count, array),
            "their mix is" if taken == MIX else f"channel {taken} of them is",
            sources[0],
        )
    counts = {audio[name].source: count for name, count in channels.items()}
    unheard = [source for source, taken in named.items() if len(taken) < counts[source]]
    if unheard:
        log.warning(
            "%d files have channels that no recording takes (the first: %s); name them in "
            "reco2file_and_channel if they are to be heard",
            *(len(unheard), unheard[0]),
        )


def write_channel(path: Path, channel: int | str, output: Path) -> None:
    """One channel as WAV, its samples unchanged; or the mean of all, which cannot clip ("mix")."""
    with soundfile.SoundFile(path) as file, atomic_path(output) as temporary:
        subtype = file.subtype if soundfile.check_format("WAV", file.subtype) else "FLOAT"
        dtype = "int32" if subtype.startswith("PCM") else "float64"
        with soundfile.SoundFile(temporary, "w", file.samplerate, 1, subtype, format="WAV") as mono:
            for block in file.blocks(BLOCK, dtype=dtype, always_2d=True):
                if channel == MIX:
                    mono.write(np.mean(block, axis=1).astype(dtype))
                else:
                    mono.write(block[:, channel])
