"""A replica of AliMeeting's far-field part, in the layout of its archives.

    DIR/Train_Ali_far/audio_dir/R0003_M0046_MS002.wav      the array, 8 channels, 16 kHz
    DIR/Train_Ali_far/textgrid_dir/R0003_M0046.TextGrid    a tier per speaker, R0003_M0046_F_SPK0093
    DIR/Eval_Ali/Eval_Ali_far/...  DIR/Test_Ali/Test_Ali_far/...

If a speaker overlaps themselves, their tier is invalid and Lhotse leaves out the whole meeting.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mandarin import mandarin
from meeting import Plan, SimulatedMeeting, draw_meeting, overstate_length, person_number
from microphones import record_array

from tagspeech.files import write_text
from tagspeech.formats.textgrid import Interval, render_tiers
from tagspeech.simulation.conversation import SAMPLING_RATE
from tagspeech.simulation.sessions import write_wav
from tagspeech.simulation.voices import Voice

MEETINGS = (
    Plan("R0003_M0046", "train"),
    Plan("R0003_M0047", "train", "past-end"),
    Plan("R0004_M0053", "train", "short-audio"),
    Plan("R0006_M0061", "train", "sample-count"),
    Plan("R0008_M0069", "train", "empty-segment"),
    Plan("R0010_M0085", "train", "own-overlap"),
    Plan("R0015_M0151", "train", "one-speaker"),
    Plan("R8001_M8004", "dev"),
    Plan("R8003_M8001", "dev"),
    Plan("R8002_M8002", "test"),
    Plan("R8009_M8028", "test"),
)
FOLDERS = {
    "train": "Train_Ali_far",
    "dev": "Eval_Ali/Eval_Ali_far",
    "test": "Test_Ali/Test_Ali_far",
}
EMPTY = (100, 400)  # milliseconds of an empty segment, before the first utterance


def write_corpus(output: Path, plans: Iterable[Plan], minutes: float, seed: int) -> None:
    """Writes the meetings of `plans`; each file is written atomically."""
    for number, plan in enumerate(plans, 2):
        meeting = draw_meeting(plan, minutes, seed, mandarin)
        folder = output / FOLDERS[plan.split]
        audio = folder / "audio_dir" / f"{plan.name}_MS{number:03d}.wav"
        write_wav(audio, record_array(meeting))
        if plan.fault == "sample-count":
            overstate_length(audio)
        grid = folder / "textgrid_dir" / f"{plan.name}.TextGrid"
        write_text(grid, render_tiers(speaker_tiers(meeting)))


def speaker_tiers(meeting: SimulatedMeeting) -> dict[str, list[Interval]]:
    """The intervals (start and end in ms, text) of each speaker."""
    tiers: dict[str, list[Interval]] = {}
    for person in meeting.people:
        tiers[f"{meeting.plan.name}_{_speaker(person)}"] = [
            (
                _milliseconds(item.start),
                _milliseconds(item.end),
                item.utterance.text.replace(" ", ""),
            )
            for item in meeting.placed
            if item.utterance.voice == person
        ]
    if meeting.plan.fault == "empty-segment":
        for tier in tiers.values():
            tier.insert(0, (*EMPTY, " "))
    return tiers


def _speaker(voice: Voice) -> str:
    return f"{voice.gender}_SPK{person_number(voice):04d}"


def _milliseconds(samples: int) -> int:
    return round(samples / SAMPLING_RATE * 1000)
