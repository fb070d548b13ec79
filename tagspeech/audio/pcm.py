"""16-bit PCM that is still being written: a growing file, or standard input.

Shape suffixes: T samples, C channels.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagspeech.audio.sources import choose_channels
from tagspeech.errors import InputError

POLL = 0.1  # seconds between two looks at a file that has not grown
SAMPLE = 2  # bytes
READ = 1 << 16  # bytes read at once at most
LOWEST_RATE = 4000  # hertz; less is no speech
# What a file begins with that is something else. Samples of speech hardly begin so by chance.
OTHERS = {b"fLaC": "FLAC", b"OggS": "Ogg", b"FORM": "AIFF", b"RF64": "RF64", b"ID3": "MP3"}


class PcmStream:
    """Bare samples, or a WAV of them, whose header need not know its length yet.

    path           a file, or "-" for standard input
    sampling_rate  of bare samples, which have one channel; a WAV says its own
    channel        of a WAV with several: a number, "mix" for their mean, or "auto": the mean of
                   two, the first of more
    idle           seconds without growth after which a file is at its end

    A thread reads from the beginning on: whoever writes into a pipe need not wait while a model is
    loaded or a window decoded. `problem` is what ended the stream before its time, if anything did:
    a file that is gone, replaced or shorter than before, an error of the disk.

    Raises `InputError` for a path that is no file, and for what is no 16-bit PCM with this channel.
    """

    def __init__(self, path: str, sampling_rate: int, channel: str | int, idle: float) -> None:
        self.path, self.rate, self.channels = path, sampling_rate, 1
        self.idle = None if path == "-" else idle
        self.problem: InputError | OSError | None = None
        if path != "-" and not Path(path).is_file():
            raise InputError(f"{path}: is no file; --follow needs a growing file, or - for a pipe")
        # Without a buffer: the end of the program must not wait for a reader's lock.
        self._file = FileIO(sys.stdin.fileno() if path == "-" else path, closefd=path != "-")
        begin = self._read(4)
        if begin == b"RIFF":
            begin = b""
            self._read_header()
        for magic, name in OTHERS.items():
            if begin.startswith(magic):
                raise InputError(f"{path}: is {name}; --follow needs 16-bit PCM, bare or as WAV")
        streams = choose_channels(path, range(self.channels), str(channel))
        if len(streams) > 1:
            raise InputError("--channel each: --follow prints one transcript; take mix or a number")
        self.chosen = list(streams[0])
        if self.rate < LOWEST_RATE:
            raise InputError(f"{path}: {self.rate} Hz: --follow needs {LOWEST_RATE} Hz or more")
        self._pieces: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        if begin:
            self._pieces.put(begin)
        threading.Thread(target=self._fill, daemon=True).start()

    def blocks(self, size: int) -> Iterator[NDArray[np.float32]]:
        """Samples (T,) from -1 to 1, `size` at a time, the last block perhaps shorter."""
        frame = SAMPLE * self.channels
        rest = b""
        for piece in iter(self._pieces.get, b""):
            rest += piece
            whole = len(rest) // (size * frame) * size * frame
            for start in range(0, whole, size * frame):
                yield self._samples(rest[start : start + size * frame])
            rest = rest[whole:]
        if whole := len(rest) // frame * frame:  # half a sample may be left at the end
            yield self._samples(rest[:whole])

    def stop(self) -> None:
        """Takes what has been read for all there is."""
        self._pieces.put(b"")

    def _samples(self, data: bytes) -> NDArray[np.float32]:
        samples_TC = np.frombuffer(data, "<i2").reshape(-1, self.channels)
        return samples_TC[:, self.chosen].mean(axis=1, dtype=np.float32) / np.float32(2**15)

    def _fill(self) -> None:
        try:
            while data := self._more(READ):
                self._pieces.put(data)
        except (InputError, OSError) as error:
            self.problem = error
        self._pieces.put(b"")

    def _read(self, size: int) -> bytes:
        """So many bytes, or less at the end."""
        data = b""
        while len(data) < size and (more := self._more(size - len(data))):
            data += more
        return data

    def _more(self, size: int) -> bytes:
        """The next bytes, one to `size`, as soon as there are any; none at the end."""
        since = time.monotonic()
        while not (data := self._file.read(size)):
            if self.idle is None:
                break
            self._check_file()
            if time.monotonic() - since >= self.idle:
                break
            time.sleep(POLL)
        return data or b""

    def _check_file(self) -> None:
        """Raises `InputError` where the file cannot grow any more."""
        own = os.fstat(self._file.fileno())
        if not Path(self.path).exists():
            raise InputError(f"{self.path}: was removed while it was followed")
        if not os.path.samestat(own, os.stat(self.path)):
            raise InputError(f"{self.path}: was replaced while it was followed; follow it anew")
        if own.st_size < self._file.tell():
            raise InputError(f"{self.path}: became shorter while it was followed; follow it anew")

    def _read_header(self) -> None:
        """Of a WAV, up to its samples."""
        if self._read(8)[4:] != b"WAVE":
            raise InputError(f"{self.path}: is RIFF, but no WAV")
        while (name := self._read(4)) != b"data":
            size = int.from_bytes(self._read(4), "little")
            chunk = self._read(size + size % 2)
            if not name:
                raise InputError(f"{self.path}: is a WAV without samples")
            if name == b"fmt ":
                kind, self.channels, self.rate, bits = (
                    int.from_bytes(chunk[start:end], "little")
                    for start, end in ((0, 2), (2, 4), (4, 8), (14, 16))
                )
                if bits != 8 * SAMPLE or kind not in (1, 0xFFFE):
                    raise InputError(
                        f"{self.path}: --follow needs 16-bit PCM, got {bits} bits, format {kind}"
                    )
        self._read(4)
