"""16-bit PCM that is still being written: a growing file, or standard input.

Shape suffix: T samples.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tagspeech.errors import InputError

POLL = 0.1  # seconds between two looks at a file that has not grown
SAMPLE = 2  # bytes


class PcmStream:
    """Bare samples, or a WAV of them, whose header need not know its length yet.

    path           a file, or "-" for standard input
    sampling_rate  of bare samples, which have one channel; a WAV says its own
    channel        of a WAV with several
    idle           seconds without growth after which a file is at its end

    Raises `InputError` for a path that is no file, and a WAV of anything but 16-bit PCM.
    """

    def __init__(self, path: str, sampling_rate: int, channel: int, idle: float) -> None:
        self.path, self.rate, self.channel, self.channels = path, sampling_rate, channel, 1
        self.idle = None if path == "-" else idle
        if path != "-" and not Path(path).is_file():
            raise InputError(f"{path}: is no file; --follow wants one that grows, or - for a pipe")
        # Without a buffer: the end of the program must not wait for a reader's lock.
        self._file = FileIO(sys.stdin.fileno() if path == "-" else path, closefd=path != "-")
        self._blocks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._ahead = b""  # read to see what it is
        self._ahead = self._read(4)
        if self._ahead == b"RIFF":
            self._ahead = b""
            self._read_header()

    def blocks(self, size: int) -> Iterator[NDArray[np.float32]]:
        """Samples (T,) from -1 to 1, `size` at a time, the last block perhaps shorter.

        A thread reads, so that whoever writes into a pipe need not wait while a window is decoded.
        """
        count = size * self.channels * SAMPLE
        threading.Thread(target=self._fill, args=(count,), daemon=True).start()
        for block in iter(self._blocks.get, b""):
            whole = block[: len(block) // (SAMPLE * self.channels) * SAMPLE * self.channels]
            if whole:  # half a sample may be left at the end
                samples_TC = np.frombuffer(whole, "<i2").reshape(-1, self.channels)
                yield samples_TC[:, self.channel].astype(np.float32) / np.float32(2**15)
        self._file.close()

    def stop(self) -> None:
        """Takes what has been read for all there is."""
        self._blocks.put(b"")

    def _fill(self, size: int) -> None:
        while len(data := self._read(size)) == size:
            self._blocks.put(data)
        if data:
            self._blocks.put(data)
        self._blocks.put(b"")

    def _read(self, size: int) -> bytes:
        """So many bytes, or less at the end."""
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        grew = time.monotonic()
        while len(data) < size:
            more = self._file.read(size - len(data))
            if more:
                data, grew = data + more, time.monotonic()
            elif self.idle is None or time.monotonic() - grew >= self.idle:
                break
            else:
                time.sleep(POLL)
        return data

    def _read_header(self) -> None:
        """Of a WAV, up to its samples."""
        self._read(8)
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
                        f"{self.path}: --follow wants 16-bit PCM, found {bits} bits, format {kind}"
                    )
        self._read(4)
        if self.channel >= self.channels:
            raise InputError(
                f"{self.path}: has no channel {self.channel}; it has {list(range(self.channels))}"
            )
