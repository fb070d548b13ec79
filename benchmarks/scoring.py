"""Time of scoring: random sessions of 2-30 s with 1-4 speakers and errors.

    python benchmarks/scoring.py 1000 10000

prints wall-clock and CPU time of metrics, breakdowns and confidence intervals for each number of
sessions, without reading and writing files.
"""

from __future__ import annotations

import random
import sys
import time

from tagspeech.scoring import score
from tagspeech.segments import Segment

VOCABULARY = [f"word{number}" for number in range(2000)]


def make_session(name: str, rng: random.Random) -> tuple[list[Segment], list[Segment]]:
    """Reference and hypothesis with 10 % wrong words, 10 % wrong speakers, and times 0.1 s off."""
    ref, hyp = [], []
    speakers = "ABCD"[: rng.randint(1, 4)]
    now = 0.0
    for _ in range(rng.randint(1, 10)):
        seconds = rng.uniform(1, 4)
        speaker, start, end = rng.choice(speakers), round(now, 2), round(now + seconds, 2)
        words = rng.choices(VOCABULARY, k=int(2.5 * seconds))
        recognized = [rng.choice(VOCABULARY) if rng.random() < 0.1 else word for word in words]
        other = rng.choice(speakers) if rng.random() < 0.1 else speaker
        ref.append(Segment(name, speaker, start, end, " ".join(words)))
        hyp.append(Segment(name, other, start + 0.1, end + 0.1, " ".join(recognized)))
        now += seconds * rng.uniform(0.6, 1.1)
    return ref, hyp


def main() -> None:
    for count in map(int, sys.argv[1:] or ["1000"]):
        rng = random.Random(1)
        pairs = [make_session(f"s{number}", rng) for number in range(count)]
        ref, hyp = ([segment for pair in pairs for segment in pair[side]] for side in (0, 1))
        began, used = time.perf_counter(), time.process_time()
        scores = score(ref, hyp, malformed=(), intervals=True)
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        units = scores["overall"]["wer"]["length"]
        print(
            f"{count} sessions, {units} words: {seconds:.1f} s, {cpu:.1f} s of a core", flush=True
        )


if __name__ == "__main__":
    main()
