"""Text to samples and word times by espeak-ng, called through ctypes.

The shared library and its data come from the `espeakng-loader` wheel and are loaded at run time;
no code of espeak-ng (GPL) is part of this package. Constants and the event layout follow its public
header `speak_lib.h`.
"""

from __future__ import annotations

import ctypes
from _ctypes import dlclose
from typing import Any

import espeakng_loader
import numpy as np

from tagspeech.errors import InputError

_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: the callback runs inside espeak_Synth
_DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: return errors instead of exiting
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4  # espeak_PARAMETER
_QUIET = 40  # volume in percent: at 100 some voices clip
_CHARACTERS = 1  # espeak_POSITION_TYPE
_UTF8 = 1
_LIST_TERMINATED, _WORD = 0, 1  # espeak_EVENT_TYPE
_SEED = 1


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # characters, counted from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)

ESPEAK_RATE = 22050  # Hz, of all voices of espeak-ng


class Espeak:
    """The synthesizer as a context manager. A process can use one at a time, in one thread.

    The library keeps global state (phase of the flutter, noise), so samples depend on earlier
    sentences. Entering the context reloads the library: samples depend only on calls since then.

    Raises:
        InputError: The library cannot be initialized.
    """

    def __enter__(self) -> Espeak:
        self._library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        if self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DONT_EXIT) != ESPEAK_RATE:
            raise InputError("espeak-ng cannot be initialized; reinstall espeakng-loader")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))
        self._library.srand(_SEED)  # of the C library: Klatt voices take noise from rand()
        return self

    def __exit__(self, *_: object) -> None:
        self._library.espeak_Terminate()
        dlclose(self._library._handle)

    def version(self) -> str:
        """Version of the library, such as "1.52.0"."""
        self._library.espeak_Info.restype = ctypes.c_char_p
        return str(self._library.espeak_Info(None).decode())

    def speak(
        self, text: str, voice: str, *, rate: int = 175, pitch: int = 50, pitch_range: int = 50
    ) -> tuple[np.ndarray, list[tuple[int, float]]]:
        """Speaks `text`.

        Args:
            text: Words in lower case, without punctuation.
            voice: Accent and variant, such as "en-us+f2".
            rate: Words per minute, 80-450.
            pitch: 0-99; 50 is the default of the variant.
            pitch_range: 0-99; 0 is monotone, 50 the default of the variant.

        Returns:
            Samples (N,), float32 in [-1, 1] at 22,050 Hz, and word events: the index of the first
            character in `text` and the start in seconds. Words spoken as one ("of the") may share
            an event.

        Raises:
            InputError: The library has no such voice.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise InputError(f"espeak-ng has no voice {voice!r}; reinstall espeakng-loader")
        self._library.espeak_SetParameter(_VOLUME, _QUIET, 0)
        self._library.espeak_SetParameter(_RATE, rate, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        self._library.espeak_SetParameter(_RANGE, pitch_range, 0)
        return _synthesize(self._library, text)


def _synthesize(library: Any, text: str) -> tuple[np.ndarray, list[tuple[int, float]]]:
    samples: list[np.ndarray] = []
    words: list[tuple[int, float]] = []

    @_Callback
    def receive(pointer: Any, count: int, events: Any) -> int:
        if pointer and count > 0:
            samples.append(np.ctypeslib.as_array(pointer, (count,)).copy())
        for event in events:
            if event.type == _LIST_TERMINATED:
                break
            if event.type == _WORD:
                words.append((event.text_position - 1, event.audio_position / 1000))
        return 0

    library.espeak_SetSynthCallback(receive)
    data = text.encode()
    size = ctypes.c_size_t(len(data) + 1)
    library.espeak_Synth(data, size, 0, _CHARACTERS, 0, _UTF8, None, None)
    return np.concatenate(samples).astype(np.float32) / 32768, words
