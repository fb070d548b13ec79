"""Audio of a corpus as Lhotse recordings of one channel, whatever their sampling rate.

Lhotse could name one channel of many in a manifest, but every group would read them all. So that
channel is written to a file of its own, once; and so is what a command prints, which would be run
again for every group.
"""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import soundfile
from lhotse import Recording
from lhotse.audio import AudioLoadingError
from tqdm import tqdm

from tagspeech.data.layouts import Audio, refuse
from tagspeech.files import atomic_path

BLOCK = 1 << 20  # samples of each channel held in memory


def make_recordings(audio: Mapping[str, Audio], folder: Path) -> dict[str, Recording]:
    """The recordings by name, their files named from the root of the file system.

    folder  where channels and outputs of commands are written, as NAME.wav

    Raises `InputError` where files cannot be read or lack the channel; all are looked at first.
    """
    found: dict[str, Recording] = {}
    problems: defaultdict[str, list[str]] = defaultdict(list)
    for name, one in tqdm(audio.items(), desc="recordings", unit=" recordings"):
        try:
            found[name] = _make_recording(name, one, folder / f"{quote(name, safe='')}.wav")
        except _Unusable as error:
            problems[str(error)].append(one.source)
    for reason, sources in problems.items():
        refuse(f"of {len(audio)} recordings {reason}", sources, "correct or remove them")
    return found


class _Unusable(Exception):
    """The message says what is wrong, as one of many."""


def _make_recording(name: str, audio: Audio, own_file: Path) -> Recording:
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
        recording = Recording.from_file(os.path.abspath(path), recording_id=name)
        if recording.num_samples == 0:
            raise _Unusable("are empty")
        if recording.num_channels == 1 and (audio.channel == 0 or audio.mono_is_it):
            return recording
        if audio.channel >= recording.num_channels:
            raise _Unusable(f"have no channel {audio.channel} (the first channel is 0)")
        _write_channel(path, audio.channel, own_file)
        return Recording.from_file(os.path.abspath(own_file), recording_id=name)
    except (AudioLoadingError, soundfile.LibsndfileError) as error:
        raise _Unusable("cannot be read as audio") from error


def _write_channel(path: Path, channel: int, output: Path) -> None:
    """One channel as WAV, its samples unchanged."""
    with soundfile.SoundFile(path) as file, atomic_path(output) as temporary:
        dtype = "float64" if file.subtype in ("FLOAT", "DOUBLE") else "int32"
        with soundfile.SoundFile(
            temporary, "w", file.samplerate, 1, file.subtype, format="WAV"
        ) as mono:
            for block in file.blocks(BLOCK, dtype=dtype, always_2d=True):
                mono.write(block[:, channel])
