"""Voices of simulated meetings: female and male voices of espeak-ng.

A voice is a variant of espeak-ng (formants and voicing), an accent, a pitch, a pitch range, a rate
and a resampling factor, which moves formants as a longer or shorter vocal tract does. Train, dev
and test have different variants. Within a variant, pitches form a logarithmic grid and the other
parameters follow a Kronecker sequence, so that voices are spread evenly. The voices of "pretrain"
have the variants of train and lie between its voices.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

# Variants by split and gender with their mean pitch in Hz (measured with accent en-us, pitch 50).
# The gender is the one that the variant declares; else male by name and a pitch below 120 Hz.
# Variants that sound alike (f4 and aunty, m6 and Alex, ...) are never in different splits.
VARIANTS: dict[str, dict[str, dict[str, float]]] = {
    "train": {
        "F": {"Alicia": 253, "Andrea": 245, "anika": 269, "belinda": 230, "f1": 179, "f3": 212,
              "f5": 206, "grandma": 200, "steph": 184},
        "M": {"Alex": 104, "Andy": 96, "Denis": 99, "Gene": 95, "Hugo": 109, "Reed": 117,
              "antonio": 112, "benjamin": 102, "david": 75, "edward": 102, "gustave": 109,
              "iven": 100, "m1": 94, "m3": 106, "m5": 105, "m8": 86, "max": 102, "norbert": 102,
              "paul": 86, "sandro": 99, "victor": 95},
    },
    "dev": {"F": {"Annie": 240}, "M": {"ed": 126, "robert": 99}},
    "test": {
        "F": {"f2": 195, "f4": 179, "linda": 227},
        "M": {"m2": 100, "m7": 107, "michel": 106},
    },
}  # fmt: skip
VARIANTS["pretrain"] = VARIANTS["train"]
VOICES_PER_GENDER = {"train": 126, "dev": 6, "test": 12, "pretrain": 378}
PRETRAIN_OFFSET = 1000  # start of "pretrain" in the sequence, after all voices of "train"
PITCHES = {"F": (165.0, 260.0), "M": (84.0, 150.0)}  # Hz
PITCH_RANGES = (25, 80)
STEPS_PER_OCTAVE = 70  # of espeak-ng's pitch near 50 (measured)
RATES = (155, 200)  # words per minute
RESAMPLINGS = (0.94, 1.06)
ACCENTS = ("en-us", "gmw/en", "en-us", "gmw/en-029", "en-us", "en-gb-scotland", "gmw/en",
           "en-gb-x-rp")  # fmt: skip


@dataclass(frozen=True)
class Voice:
    """A simulated speaker.

    Attributes:
        name: Unique name, such as "f3-04".
        gender: "F" or "M".
        espeak: Name in espeak-ng: accent+variant.
        pitch: 0-99, in espeak-ng's scale.
        pitch_range: 0-99, in espeak-ng's scale.
        rate: Words per minute before resampling.
        resampling: Factor of pitch, formants and tempo.
    """

    name: str
    gender: str
    espeak: str
    pitch: int
    pitch_range: int
    rate: int
    resampling: float

    @property
    def variant(self) -> str:
        """The variant in espeak-ng, such as "f3"."""
        return self.espeak.split("+")[1]


@functools.lru_cache(maxsize=len(VARIANTS))
def voices(split: str) -> tuple[Voice, ...]:
    """The voices of "train", "dev", "test" or "pretrain"; the same at every call."""
    inventory = []
    mark, offset = ("pre-", PRETRAIN_OFFSET) if split == "pretrain" else ("", 0)
    for gender, variants in VARIANTS[split].items():
        each = VOICES_PER_GENDER[split] // len(variants)
        for v, (variant, mean_pitch) in enumerate(variants.items()):
            for k in range(each):
                height = (k + (v + 0.5) / len(variants)) / each
                place = k + 17 * v + 1 + offset
                accent = ACCENTS[(k + 3 * v) % len(ACCENTS)]
                name = f"{mark}{variant.lower()}-{k:02d}"
                inventory.append(
                    _voice(name, gender, f"{accent}+{variant}", mean_pitch, place, height)
                )
    return tuple(inventory)


def _voice(
    name: str, gender: str, espeak: str, mean_pitch: float, place: int, height: float
) -> Voice:
    """The voice at `place` of the sequence; `height` (0-1) is its relative pitch in its gender."""
    low, high = PITCHES[gender]
    # Powers of the root of x^4 = x + 1 give the Kronecker sequence in three dimensions.
    tract, tempo, liveliness = (place / 1.2207440846057596**power % 1 for power in (1, 2, 3))
    resampling = round(_between(RESAMPLINGS, tract), 3)
    octaves = math.log2(low * (high / low) ** height / (mean_pitch * resampling))
    return Voice(
        name=name,
        gender=gender,
        espeak=espeak,
        pitch=min(max(round(50 + STEPS_PER_OCTAVE * octaves), 0), 99),
        pitch_range=round(_between(PITCH_RANGES, liveliness)),
        rate=round(_between(RATES, tempo)),
        resampling=resampling,
    )


def _between(limits: tuple[float, float], place: float) -> float:
    low, high = limits
    return low + (high - low) * place
