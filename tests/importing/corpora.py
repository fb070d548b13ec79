"""Corpora to import: simulated sessions in every layout, and three small recordings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.kaldi import export_to_kaldi
from lhotse.qa import validate_recordings_and_supervisions

from tagspeech.corpus.importing import ImportConfig, import_corpus
from tagspeech.corpus.splits import SPLITS
from tagspeech.formats import write
from tagspeech.segments import Segment


def manifests(folder: Path, split: str) -> tuple[list[Recording], list[SupervisionSegment]]:
    return (
        list(RecordingSet.from_file(folder / f"{split}_recordings.jsonl.gz")),
        list(SupervisionSet.from_file(folder / f"{split}_supervisions.jsonl.gz")),
    )


def segments_of(supervisions: list[SupervisionSegment]) -> list[Segment]:
    """The segments with times in whole milliseconds, sorted."""
    found = [
        Segment(
            session=one.recording_id,
            speaker=one.speaker,
            start=round(one.start, 3),
            end=round(one.end, 3),
            words=one.text,
            gender=(one.gender or "u").lower(),
        )
        for one in supervisions
    ]
    return sorted(found, key=lambda one: (one.session, one.start, one.end, one.speaker))


class Source:
    """Simulated sessions, written in the layouts of users."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.supervisions = [one for split in SPLITS for one in manifests(folder, split)[1]]
        self.segments = segments_of(self.supervisions)
        self.wavs = {path.stem: path for split in SPLITS for path in folder.glob(f"{split}/*.wav")}

    def split(self, name: str) -> str:
        return self.wavs[name].parent.name

    def write_audio(self, corpus: Path) -> None:
        """As audio/SPLIT/NAME; dev as FLAC."""
        for name, path in self.wavs.items():
            folder = corpus / "audio" / self.split(name)
            folder.mkdir(parents=True, exist_ok=True)
            if self.split(name) == "dev":
                soundfile.write(folder / f"{name}.flac", *soundfile.read(path, dtype="int16"))
            else:
                (folder / path.name).symlink_to(path)
        test = corpus / "audio/test"
        test.rename(corpus / "elsewhere")
        test.symlink_to(corpus / "elsewhere")  # users also link folders
        (test / "._hidden.wav").write_text("of a file manager")

    def write_words(self, corpus: Path, format: str) -> None:
        """As all.stm, all.seglst.json, textgrid/NAME.TextGrid or audio/SPLIT/NAME.json."""
        if format in ("stm", "seglst"):
            write(self.segments, corpus / ("all.stm" if format == "stm" else "all.seglst.json"))
            return
        for name in self.wavs:
            own = [one for one in self.segments if one.session == name]
            if format == "textgrid":
                write(own, corpus / f"words/{name}.TextGrid")
                continue
            rows = [
                {
                    **{"speaker": one.speaker, "start": one.start, "end": one.end},
                    **{"text": one.words, "gender": {"m": "male", "f": "F"}[one.gender]},
                }
                for one in own
            ]
            path = corpus / "audio" / self.split(name) / f"{name}.json"
            path.write_text(json.dumps(rows))

    def write_ctm(self, corpus: Path) -> None:
        """Writes the times of all words, and the turns."""
        lines = [
            f"{one.recording_id} 1 {word.start:.3f} {word.duration:.3f} {word.symbol}\n"
            for one in self.supervisions
            for word in one.alignment["word"]
        ]
        (corpus / "all.ctm").write_text("".join(lines))
        write(self.segments, corpus / "all.rttm")

    def write_kaldi(self, folder: Path) -> None:
        """Writes a data directory for each split with Lhotse, and one for all splits."""
        for split in SPLITS:
            recordings, supervisions = manifests(self.folder, split)
            export_to_kaldi(
                RecordingSet.from_recordings(recordings),
                SupervisionSet.from_segments(supervisions),
                folder / split,
            )
            genders = {one.speaker: one.gender.lower() for one in supervisions}
            lines = [f"{speaker} {gender}\n" for speaker, gender in genders.items()]
            (folder / split / "spk2gender").write_text("".join(lines))
        (folder / "whole").mkdir()
        for path in (folder / "train").iterdir():
            texts = [(folder / split / path.name).read_text() for split in SPLITS]
            (folder / "whole" / path.name).write_text("".join(texts))


def imported(folder: Path, source: Source) -> list[Segment]:
    """The imported segments, after checks of the manifests and the audio."""
    found = []
    for split in SPLITS:
        recordings, supervisions = manifests(folder, split)
        validate_recordings_and_supervisions(
            RecordingSet.from_recordings(recordings),
            SupervisionSet.from_segments(supervisions),
            read_data=True,
        )
        assert {one.id for one in recordings} == {
            n for n in source.wavs if source.split(n) == split
        }
        for one in recordings:
            assert np.array_equal(one.load_audio()[0], soundfile.read(source.wavs[one.id])[0])
        assert len({one.id for one in supervisions}) == len(supervisions)
        found += supervisions
    return segments_of(found)


NAMES = {"train": "a", "dev": "b", "test": "c"}


def noise(path: Path, seconds: float = 2.0, rate: int = 8000, channels: int = 1) -> np.ndarray:
    """Writes 16-bit audio and returns its samples, (N, channels)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (round(seconds * rate), channels)
    samples = np.random.default_rng(1).integers(-9000, 9000, shape, dtype=np.int16)
    soundfile.write(path, samples, rate)
    return samples


def take(folder: Path, **config: object) -> dict[str, list[SupervisionSegment]]:
    """Imports the small corpus and returns the supervisions of each split."""
    paths = {"audio": folder / "audio", "words": folder / "all.stm"}
    import_corpus(folder / "out", ImportConfig(**{**paths, **config}))  # type: ignore[arg-type]
    return {split: manifests(folder / "out", split)[1] for split in SPLITS}


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def rejected(folder: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in (folder / "out/rejected.jsonl").read_text().splitlines()]
    return [(row["reason"], row["text"]) for row in rows]
