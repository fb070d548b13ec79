"""A replica of the AMI corpus, in the layout of Lhotse's download.

    DIR/wav_db/ES2002a/audio/ES2002a.Array1-01.wav ... -08.wav    the array; the first is sdm
    DIR/wav_db/ES2002a/audio/ES2002a.Mix-Headset.wav              ihm-mix
    DIR/ami_public_manual_1.6.2/corpusResources/meetings.xml      speakers of A, B, C, D
    DIR/ami_public_manual_1.6.2/words/ES2002a.A.words.xml         words and full stops with times
    DIR/ami_public_manual_1.6.2/segments/ES2002a.A.segments.xml   times and references to words

The annotations are in the format of the NITE XML toolkit; times have two decimals. Each meeting is
in the same split in all of AMI's partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from meeting import Plan, SimulatedMeeting, draw_meeting, overstate_length, person_number
from microphones import mix_headsets, record_array

from tagspeech.files import atomic_path
from tagspeech.simulation.conversation import SAMPLING_RATE, Utterance, utter
from tagspeech.simulation.espeak import Espeak
from tagspeech.simulation.sentences import draw_backchannel, draw_sentence
from tagspeech.simulation.sessions import write_wav
from tagspeech.simulation.voices import Voice

MEETINGS = (
    Plan("ES2002a", "train"),
    Plan("ES2002b", "train", "past-end"),
    Plan("ES2005a", "train", "short-audio"),
    Plan("IS1000a", "train", "sample-count"),
    Plan("IS1001a", "train", "empty-segment"),
    Plan("TS3005a", "train", "own-overlap"),
    Plan("TS3008a", "train", "one-speaker"),
    Plan("ES2011a", "dev"),
    Plan("IS1008a", "dev"),
    Plan("ES2004a", "test"),
    Plan("TS3003a", "test"),
)
ANNOTATIONS = "ami_public_manual_1.6.2"
NITE = "http://nite.sourceforge.net/"
SHORTER = 4  # channel (from 0) that lacks SHORTER_BY samples in the meeting with "sample-count"
SHORTER_BY = 32000
LAUGH, COMMA = (0.1, 0.2), (0.25, 0.4)  # seconds; empty segments before the first utterance
CAPITALS = {"i": "I", "i'm": "I'm"}

ElementTree.register_namespace("nite", NITE)


@dataclass(frozen=True)
class Token:
    """An element of a words file: a word or punctuation mark, or laughter if `text` is empty."""

    start: float
    end: float
    text: str = ""
    is_punctuation: bool = False


def write_corpus(output: Path, plans: Iterable[Plan], minutes: float, seed: int) -> None:
    """Writes the meetings of `plans`; each file is written atomically."""
    resources = _element("root", "meetings")
    for plan in plans:
        meeting = draw_meeting(plan, minutes, seed, english)
        _write_audio(output / "wav_db" / plan.name / "audio", meeting)
        entry = _child(resources, "meeting", f"meeting.{plan.name}", observation=plan.name)
        entry.set("duration", _seconds(meeting.length / SAMPLING_RATE))
        for channel, person in enumerate(meeting.people):
            agent = "ABCD"[channel]
            name = f"{person.gender}EE{person_number(person):03d}"
            speaker = _child(entry, "speaker", f"{plan.name}.{agent}", nxt_agent=agent)
            speaker.attrib.update(global_name=name, channel=str(channel))
            _write_annotation(output / ANNOTATIONS, meeting, person, agent, channel)
    _write_xml(output / ANNOTATIONS / "corpusResources" / "meetings.xml", resources)


def english(
    espeak: Espeak, rng: np.random.Generator, split: str
) -> Callable[[Voice, bool], Utterance]:
    """Returns a function that draws an English sentence or back-channel of a voice."""

    def say(voice: Voice, is_backchannel: bool) -> Utterance:
        text = draw_backchannel(rng) if is_backchannel else draw_sentence(rng, split)
        return utter(espeak, voice, text)

    return say


def _write_audio(folder: Path, meeting: SimulatedMeeting) -> None:
    name, is_faulty = meeting.plan.name, meeting.plan.fault == "sample-count"
    mixture = folder / f"{name}.Mix-Headset.wav"
    write_wav(mixture, mix_headsets(meeting))
    channels = [folder / f"{name}.Array1-{number:02d}.wav" for number in range(1, 9)]
    for index, (path, pcm) in enumerate(zip(channels, record_array(meeting), strict=True)):
        write_wav(path, pcm[:-SHORTER_BY] if is_faulty and index == SHORTER else pcm)
    if is_faulty:
        overstate_length(mixture)
        overstate_length(channels[0])


def _write_annotation(
    folder: Path, meeting: SimulatedMeeting, person: Voice, agent: str, channel: int
) -> None:
    """Writes words and segments of one person, the speaker `agent` of the meeting."""
    name = f"{meeting.plan.name}.{agent}"
    words = _element("root", f"{name}.words")
    segments = _element("root", f"{name}.segs")
    count = 0
    for tokens in segments_of(meeting, person):
        ids = [f"{name}.words{count + index}" for index in range(len(tokens))]
        count += len(tokens)
        for id, token in zip(ids, tokens, strict=True):
            tag = "w" if token.text else "vocalsound"
            word = _child(words, tag, id, starttime=_seconds(token.start))
            word.set("endtime", _seconds(token.end))
            if token.is_punctuation:
                word.set("punc", "true")
            if token.text:
                word.text = token.text
            else:
                word.set("type", "laugh")
        segment = _child(segments, "segment", f"{name}.segment{len(segments)}")
        segment.attrib.update(
            channel=str(channel),
            transcriber_start=_seconds(tokens[0].start),
            transcriber_end=_seconds(tokens[-1].end),
        )
        href = f"{name}.words.xml#id({ids[0]})" + (f"..id({ids[-1]})" if ids[1:] else "")
        ElementTree.SubElement(segment, f"{{{NITE}}}child", {"href": href})
    _write_xml(folder / "words" / f"{name}.words.xml", words)
    _write_xml(folder / "segments" / f"{name}.segments.xml", segments)


def segments_of(meeting: SimulatedMeeting, person: Voice) -> list[list[Token]]:
    """The tokens of each utterance of `person`."""
    segments = []
    if meeting.plan.fault == "empty-segment":
        segments += [[Token(*LAUGH)], [Token(*COMMA, ",", is_punctuation=True)]]
    for item in meeting.placed:
        if item.utterance.voice == person:
            segments.append(_sentence(item.start / SAMPLING_RATE, item.utterance))
    return segments


def _sentence(offset: float, utterance: Utterance) -> list[Token]:
    """The words of an utterance with capitals, and a full stop."""
    words = [CAPITALS.get(word, word) for word, _, _ in utterance.words]
    words[0] = words[0][0].upper() + words[0][1:]
    tokens = [
        Token(offset + start, offset + end, word)
        for word, (_, start, end) in zip(words, utterance.words, strict=True)
    ]
    end = tokens[-1].end
    return [*tokens, Token(end, end, ".", is_punctuation=True)]


def _element(tag: str, id: str) -> ElementTree.Element:
    return ElementTree.Element(f"{{{NITE}}}{tag}", {f"{{{NITE}}}id": id})


def _child(
    parent: ElementTree.Element, tag: str, id: str, **attributes: str
) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, {f"{{{NITE}}}id": id, **attributes})


def _seconds(time: float) -> str:
    return f"{time:.2f}"


def _write_xml(path: Path, root: ElementTree.Element) -> None:
    ElementTree.indent(root, "   ")
    with atomic_path(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="ISO-8859-1", xml_declaration=True)
