"""What the campaign gives damaged inputs to: readers, configurations, folders and verbs."""

from __future__ import annotations

import gzip
import io
import json
import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from safetensors.torch import save

from tagspeech import formats
from tagspeech.audio.sources import open_audio
from tagspeech.checkpoints.native import load_pretrained, save_pretrained
from tagspeech.cli import main as run_verb
from tagspeech.config import FeatureConfig
from tagspeech.config_file import load_config
from tagspeech.corpus.groups import make_groups
from tagspeech.corpus.importing import import_corpus
from tagspeech.data.batches import FeatureReader, read_groups
from tagspeech.encoders.build import build_encoder
from tagspeech.files import read_journal
from tagspeech.llm.load import load_llm
from tagspeech.llm.new import make_llm
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.options import ImportConfig
from tagspeech.report.page import write_page_of
from tagspeech.scoring.files import score_files
from tagspeech.segments import Segment
from tagspeech.serialize import parse_target, to_target
from tagspeech.training.checkpoint import CheckpointFolder, rng_state
from tagspeech.weights import read_model, read_pt, read_safetensors

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "egs/template/conf/tiny.yaml"
CANARY = "canary"  # a file that commands in inputs make
SEGMENTS = [
    Segment("one", "anna", 0.3, 1.2, "set the lamp to seven", "f", (0.5,) * 5),
    Segment("one", "bert b", 0.9, 2.1, "she will call at three", "m", (0.5,) * 5),
    Segment("one", "anna", 2.2, 2.9, "", "f"),
]
CALLS = (
    "convert --format srt,rttm a.stm",
    "score --ref a.stm --hyp a.stm --collar 5",
    "combine a.stm a.stm --output b.stm",
    "config --config x.yaml --set train.lr=1",
    "page --output p.html --hyp a.stm --language en",
    "verify .",
    "transcribe --model m a.wav --max-pause 1 --speakers voice --enroll a=b.wav",
    "groups --config x.yaml --manifests . --output g --rejected r --max-pause 1",
    "import --output o --audio . --words a.stm --shares 0.8,0.1,0.1 --channel 0",
)
Mutate = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """A reader with examples of what it reads.

    Attributes:
        name: What it reads.
        files: Examples: folders, all of whose files are copied; one of the files is damaged.
        call: Reads in a folder that has the files of an example.
        damage: Names of the files that are damaged; empty: any.
        weight: How often it is chosen.
    """

    name: str
    files: list[dict[str, bytes]]
    call: Callable[[Path], object]
    damage: tuple[str, ...] = ()
    weight: float = 1.0

    def write(self, folder: Path, rng: random.Random, mutate: Mutate) -> str:
        """Writes an example with one damaged file, whose name is given."""
        example = rng.choice(self.files)
        damaged = rng.choice(self.damage or tuple(example))
        for name, data in example.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(mutate(data, rng) if name == damaged else data)
        return damaged


def make_targets(folder: Path) -> list[Target]:
    """All targets; `folder` is for files that examples are made from."""
    return [
        *_of_segments(),
        *_of_configurations(),
        *_of_audio(),
        *_of_corpora(),
        *_of_weights(folder),
    ]


def _of_segments() -> Iterator[Target]:
    for name in formats.FORMATS:
        file = f"one.{formats.EXTENSIONS[name]}"
        example = {file: formats.render(SEGMENTS, name).encode()}

        def read(box: Path, file: str = file) -> object:
            return formats.read(box / file)

        yield Target(name, [example], read, weight=2)
    stm, seglst = (formats.render(SEGMENTS, name).encode() for name in ("stm", "seglst"))
    uem = b"one 1 0.0 2.5\n"
    raw = b'{"session": "one", "malformed": false, "text": ""}\n'
    scored = {"ref.stm": stm, "hyp.seglst.json": seglst, "x.uem": uem, "raw.jsonl": raw}

    def score(box: Path) -> object:
        paths = (box / "ref.stm", box / "hyp.seglst.json", box / "raw.jsonl")
        return score_files(*paths, uem=box / "x.uem", output=box / "scores.json")

    def page(box: Path) -> None:
        write_page_of(box / "page.html", box / "hyp.seglst.json", box / "ref.stm", [])
        text = (box / "page.html").read_text()
        assert "<script>alert" not in text, "a script of the input is in the page"

    yield Target("score", [scored], score)
    yield Target("page", [scored], page, ("hyp.seglst.json", "ref.stm"))
    target = to_target(SEGMENTS).encode()
    yield Target(
        "target text",
        [{"x": target}, {"x": target.replace(b"0.30", b"0.31")}],
        lambda box: parse_target((box / "x").read_bytes().decode("utf-8", "replace"), "s"),
        weight=3,
    )


def _of_configurations() -> Iterator[Target]:
    paths = [*ROOT.glob("egs/*/conf/*.yaml"), *ROOT.glob("local/ablations/*.yaml")]
    texts = [path.read_bytes() for path in paths if b"base:" not in path.read_bytes()]
    yield Target(
        "configuration",
        [{"x.yaml": text} for text in texts],
        lambda box: load_config(box / "x.yaml"),
        weight=3,
    )
    settings = [b"train.lr=1e-4", b"llm={lora: {r: 4}}", b"voice.encoder.num_heads=[2, 4]"]

    def override(box: Path) -> object:
        return load_config(TINY, [(box / "x").read_bytes().decode("utf-8", "replace")])

    yield Target("override", [{"x": one} for one in settings], override, weight=2)
    rows = b'{"a": 1, "session": "x"}\n{"b": [1, 2, {"c": null}]}\n'
    yield Target("journal", [{"x.jsonl": rows}], lambda box: read_journal(box / "x.jsonl"))
    stm = formats.render(SEGMENTS, "stm").encode()
    examples = [
        {"words": call.replace(" ", "\n").encode(), "a.stm": stm, "x.yaml": b"{}"} for call in CALLS
    ]
    yield Target("verb", examples, _run_verb, ("words",), weight=2)


def _run_verb(box: Path) -> None:
    """Runs a verb whose words lie in a file, one a line; what they name lies in the folder."""
    words = (box / "words").read_bytes().decode("utf-8", "surrogateescape").split("\n")
    try:
        code = run_verb([word.replace("../", "").lstrip("/") for word in words])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    assert code in (0, 1, 2), code


def _of_audio() -> Iterator[Target]:
    samples = np.random.default_rng(1).normal(0, 0.1, (16000, 2))
    examples = []
    for name, kind, subtype in (
        *(("a.wav", "WAV", "PCM_16"), ("a.wav", "WAV", "FLOAT"), ("a.flac", "FLAC", "PCM_16")),
        ("a.ogg", "OGG", "VORBIS"),
    ):
        file = io.BytesIO()
        soundfile.write(file, samples, 8000, subtype, format=kind)
        examples.append({name: file.getvalue()})

    def read(box: Path) -> None:
        (path,) = box.iterdir()
        for audio in open_audio(path):
            for piece in audio.pieces(16000):
                assert np.isfinite(piece).all(), "samples that are no numbers"

    yield Target("audio", examples, read, weight=2)


def _wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(1).normal(0, 0.1, 24000), 8000, format="WAV")
    return file.getvalue()


def _manifests(split: str) -> dict[str, bytes]:
    source = {"type": "file", "channels": [0], "source": f"{split}.wav"}
    recording = {"id": "one", "sources": [source], "sampling_rate": 8000, "num_samples": 24000}
    recording |= {"duration": 3.0, "channel_ids": [0]}
    supervisions: list[dict[str, Any]] = [
        {"id": f"one-{n}", "recording_id": "one", "start": s.start, "duration": s.duration}
        | {"channel": 0, "text": s.words, "speaker": s.speaker, "gender": "F"}
        | {"alignment": {"word": [["set", s.start, 0.2, 1.0]]}}
        for n, s in enumerate(SEGMENTS)
    ]
    rows = {"recordings": [recording], "supervisions": supervisions}
    return {f"{split}.wav": _wav()} | {
        f"{split}_{kind}.jsonl.gz": gzip.compress(
            "".join(json.dumps(r) + "\n" for r in of).encode()
        )
        for kind, of in rows.items()
    }


def _groups(box: Path) -> None:
    for path in box.glob("*_recordings.jsonl.gz"):  # Lhotse reads relative to where it runs
        with suppress(OSError, EOFError, zlib.error):
            text = gzip.decompress(path.read_bytes())
            text = text.replace(b'"train.wav"', f'"{box}/train.wav"'.encode())
            path.write_bytes(gzip.compress(text))
    make_groups(
        *(box, box / "groups"),
        rejected=box / "rejected.jsonl",
        splits=("train",),
        max_pause=1.0,
        language="en",
        max_rejected=1.0,
    )
    FeatureReader(FeatureConfig(8000, 23), ())(read_groups(box / "groups/train.jsonl.gz"))


def _of_corpora() -> Iterator[Target]:
    train = _manifests("train")
    damage = ("train_recordings.jsonl.gz", "train_supervisions.jsonl.gz")
    yield Target("manifests", [train], _groups, damage, weight=2)
    wav = _wav()
    stm = "".join(
        formats.render([Segment(name, s.speaker, s.start, s.end, s.words) for s in SEGMENTS], "stm")
        for name in "abc"
    )
    files = {**{f"audio/{name}.wav": wav for name in "abc"}, "all.stm": stm.encode()}
    options: dict[str, Any] = {"split_by": "shares", "max_rejected": 1.0, "skip_unmatched": True}
    yield Target(
        "import of files",
        [files],
        lambda box: import_corpus(
            box / "out", ImportConfig(audio=box / "audio", words=box / "all.stm", **options)
        ),
    )
    kaldi = {
        "wav.scp": "".join(f"{name} {name}.wav\n" for name in "abc").encode(),
        "segments": "".join(f"{name}-1 {name} 0.1 2.0\n" for name in "abc").encode(),
        "text": "".join(f"{name}-1 so it is\n" for name in "abc").encode(),
        "utt2spk": "".join(f"{name}-1 anna\n" for name in "abc").encode(),
        "spk2gender": b"anna f\n",
        "reco2file_and_channel": b"a a A\n",
    }
    yield Target(
        "import of Kaldi",
        [{**kaldi, **{f"{name}.wav": wav for name in "abc"}}],
        lambda box: import_corpus(box / "out", ImportConfig(kaldi=box, wav_root=box, **options)),
        tuple(kaldi),
    )


def _of_weights(folder: Path) -> Iterator[Target]:
    config = load_config(TINY, [f"llm.name={folder / 'llm'}", "llm.new.vocab_size=400"])
    make_llm(config.llm.new, [to_target(SEGMENTS, 0.1)], 0.1, 3.0, folder / "llm")
    model = TagSpeechModel(config, *load_llm(config.llm))
    save_pretrained(model, folder / "model")
    state = build_encoder(config, "semantic").state_dict()
    archive = io.BytesIO()
    torch.save({"model": state, "epoch": 3, "name": "x"}, archive)
    for name, data, read in (
        ("x.pt", archive.getvalue(), read_pt),
        ("x.pt", archive.getvalue(), read_model),
        ("x.safetensors", save(state), read_safetensors),
    ):

        def call(box: Path, name: str = name, read: Callable[[Path], object] = read) -> object:
            return read(box / name)

        yield Target(f"weights by {read.__name__}", [{name: data}], call)
    training: dict[str, Any] = {"model": {"a": torch.ones(3)}, "optimizer": {}, "step": 2}
    training |= {"epoch": 0, "batch": 1, "rng": [rng_state()], "seconds": 1.0}
    CheckpointFolder(folder / "run", 1).add(2, training)
    run = {path.name: path.read_bytes() for path in (folder / "run").iterdir()}
    yield Target("checkpoints", [run], lambda box: CheckpointFolder(box, 1).latest())
    files = {
        path.relative_to(folder / "model").as_posix(): path.read_bytes()
        for path in (folder / "model").rglob("*")
        if path.is_file()
    }
    small = tuple(name for name in files if not name.endswith((".safetensors", ".md")))
    yield Target(
        "model", [files], lambda box: load_pretrained(TagSpeechModel, box, offline=True), small, 0.5
    )
