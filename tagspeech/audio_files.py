"""Opens audio files of users at their real length, or says in one line why it cannot."""

from __future__ import annotations

import struct
from pathlib import Path
from shlex import quote

import soundfile
from lhotse import Recording
from lhotse.audio import AudioLoadingError

from tagspeech.errors import InputError

# Programs that write WAV to a pipe set the size to a placeholder near the largest possible value.
UNKNOWN_SIZE = 0x7FFF0000
ROUNDING = 0.01  # seconds by which the header of a WAV file may be too large
LONGEST = 1 << 40  # samples; libsndfile gives 2^63 - 1 where a FLAC header has no length


class AudioError(InputError):
    """A file cannot be read as audio; `reason` says why and what to do."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: cannot be read as audio: {reason}")
        self.reason = reason


def open_recording(path: Path, recording_id: str | None = None) -> Recording:
    """The recording in `path`, of any length and number of channels, its samples not read yet.

    Args:
        path: An audio file.
        recording_id: The id of the recording; by default the name of the file without extension.

    Returns:
        A recording that has `num_samples` samples; 0 if the file is complete but empty.

    Raises:
        InputError: The file does not exist.
        AudioError: The format is unknown, or the file has fewer samples than its header says.
            Damage in the middle of a compressed file is only found when it is read.
    """
    if not path.exists():
        raise InputError(f"{path}: does not exist")
    if not path.is_file():
        raise AudioError(path, "it is not a file")
    if path.stat().st_size == 0:
        raise AudioError(path, "it has 0 bytes; get it again")
    _check_wav(path)
    try:
        recording = Recording.from_file(path, recording_id=recording_id)
    except (AudioLoadingError, RuntimeError, OSError) as error:
        reason = _reason(path)
        raise AudioError(path, f"{reason}; convert it to WAV or FLAC") from error
    if recording.num_samples > LONGEST:
        reason = f"its header does not say how long it is; {_again(path)}"
        raise AudioError(path, reason)
    if recording.num_samples > 0 and not _has_its_end(path):
        reason = f"its header says {recording.duration:.2f} s, the end of which cannot be read"
        raise AudioError(path, f"it is cut off or damaged: {reason}; get it again")
    return recording


def _reason(path: Path) -> str:
    """libsndfile's reason; Lhotse's message lists every reader that it has tried."""
    try:
        soundfile.info(path)
    except soundfile.LibsndfileError as error:
        return str(error.error_string).rstrip(". ")
    return "its format is not known"


def _again(path: Path) -> str:
    return f"write it again: ffmpeg -i {quote(str(path))} NEW{path.suffix}"


def _has_its_end(path: Path) -> bool:
    """Whether the last sample can be read; True for formats that libsndfile does not know."""
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError:
        return True
    with file:
        try:
            file.seek(file.frames - 1)
            return len(file.read(1)) == 1
        except soundfile.LibsndfileError:
            return False


def _check_wav(path: Path) -> None:
    """Raises `AudioError` if the header of a WAV file does not fit its data."""
    whole = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return
        bytes_per_second = 0
        position = 12
        while len(chunk := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", chunk)
            position += 8
            if name == b"data":
                break
            if name == b"fmt ":
                bytes_per_second = int.from_bytes(file.read(12)[8:], "little")
            position += size + size % 2
            file.seek(position)
        else:
            return
        there = whole - position
        if size == 0 and there > 0 and not _are_chunks(file.read(8), there):
            raise AudioError(
                path,
                f"its header says that it has no audio, yet {there} bytes follow, as after "
                f"streaming; {_again(path)}",
            )
    missing = (size - there) / max(1, bytes_per_second)
    if missing > ROUNDING and size < UNKNOWN_SIZE:
        said, found = size / max(1, bytes_per_second), there / max(1, bytes_per_second)
        raise AudioError(
            path,
            f"it is cut off: its header says {said:.2f} s, {found:.2f} s are there; get it again",
        )


def _are_chunks(head: bytes, there: int) -> bool:
    """Whether an empty data chunk is followed by another chunk that fits into the file."""
    name, size = head[:4], int.from_bytes(head[4:8], "little")
    return len(head) == 8 and name.isascii() and name.strip().isalnum() and size <= there - 8
