"""The command as a user types it: what it prints, what it writes, how it refuses."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import soundfile

from tagspeech.cli import main
from tagspeech.cli.arguments import VERBS as REGISTERED
from tagspeech.config import Config
from tagspeech.errors import InputError
from tagspeech.formats import EXTENSIONS, FORMATS, read, write
from tagspeech.inference.generate import Output
from tagspeech.llm.prompt import encode_text
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.segments import Segment
from tagspeech.serialize import to_target

VERBS = [
    *("simulate", "groups", "train", "embed", "new-llm", "decode", "score", "report"),
    *("transcribe", "convert", "config", "import", "export", "verify"),
]
CONSOLE = Path(sys.executable).parent / "tagspeech"


def tagspeech(*args: object, code: int = 0) -> tuple[str, str]:
    """Runs `python -m tagspeech`, checks the exit code, gives stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "tagspeech", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr


def run(*args: object) -> int:
    """The same in this process, where the heavy imports are there already."""
    return main([str(arg) for arg in args])


def write_wav(path: Path, seconds: float, rate: int = 16000, channels: int = 1) -> Path:
    shape = (round(seconds * rate), channels)
    samples = np.random.default_rng(1).normal(0, 0.01, shape)
    soundfile.write(path, samples.astype(np.float32), rate)
    return path


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "meeting.wav", 2.0)


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch, tiny_segments: list[Segment]) -> None:
    """Whatever it hears, the model writes the target of `tiny_segments`."""
    tell(monkeypatch, to_target(tiny_segments))


def tell(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    def told(model: TagSpeechModel, *_: object) -> list[Output]:
        ids = encode_text(model.tokenizer, text)
        return [Output(ids, [-0.1] * len(ids))]

    monkeypatch.setattr("tagspeech.inference.recognizer.generate", told)


# Parsing


def test_version_is_that_of_the_package() -> None:
    assert tagspeech("--version") == (f"tagspeech {version('tagspeech')}\n", "")


@pytest.mark.parametrize("verb", REGISTERED)
def test_help_names_choices_and_default_of_each_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # no line is wrapped
    with pytest.raises(SystemExit) as end:
        main([*verb.split(), "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: tagspeech {verb} ")
    sections = out[out.index("\noptions:") :]
    options = re.split(r"\n  (?=-)", sections)[1:]
    assert len(options) > 1
    for text in options:
        assert re.search(r"\((required|default: .+)\)|show this help", text), text
    for field in dataclasses.fields(REGISTERED[verb]):
        assert f"{{{','.join(field.metadata.get('choices') or ())}}}" in f"{out}{{}}", field.name


@pytest.mark.parametrize("verb", REGISTERED)
def test_called_function_takes_the_options(verb: str) -> None:
    """A verb without a method of its own passes its fields as keywords."""
    if REGISTERED[verb].calls:
        module, _, name = REGISTERED[verb].calls.rpartition(".")
        function = getattr(importlib.import_module(module), name)
        fields = dataclasses.fields(REGISTERED[verb])
        inspect.signature(function).bind(**{field.name: None for field in fields})


SCORE = ["score", "--ref", "a", "--hyp", "a"]
TRANSCRIBE = ["transcribe", "--model", "m", "a.wav"]
GROUPS = ["groups", "--config", "c", "--manifests", "m", "--output", "o", "--rejected", "r"]
TRAIN = ["train", "semantic", "--config", "c", "--groups", "g", "--output", "o"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([*SCORE, "--collar", "nan"], "--collar: must be 0 or more, got nan"),
        ([*SCORE, "--collar", "inf"], "--collar: must be 0 or more, got inf"),
        ([*TRANSCRIBE, "--max-pause", "-1"], "--max-pause: must be 0 or more, got -1"),
        ([*TRANSCRIBE, "--threads", "100000"], "--threads: must be from 0 to 1024, got 100000"),
        ([*TRANSCRIBE, "--enroll", "a=x", "--enroll", "a=y"], "--enroll: a is given twice"),
        ([*TRANSCRIBE, "--idle", "3"], "--idle: has no effect without --follow"),
        ([*GROUPS, "--max-rejected", "nan"], "--max-rejected: must be from 0 to 1, got nan"),
        ([*TRAIN, "--processes", "0"], "--processes: must be from 1 to 1024, got 0"),
        ([*TRAIN, "--voice", "v.pt"], "--voice: has no effect on train semantic; leave it out"),
        (["simulate", "--output", "o", "--jobs", "0"], "--jobs: must be from 1 to 1024, got 0"),
        (["simulate", "--output", "o", "--max-speakers", "99"], "--max-speakers: must be from 1"),
        (["import", "--output", "o", "--seed", "-1"], "--seed: must be 0 or more, got -1"),
    ],
)
def test_value_out_of_range_is_one_line(
    capsys: pytest.CaptureFixture[str], args: Sequence[str], words: str
) -> None:
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"tagspeech {args[0]}: {words}")


def test_device_that_computes_nothing_is_refused(
    capsys: pytest.CaptureFixture[str], tiny_model_folder: Path, wav: Path
) -> None:
    message = refused(capsys, "--model", tiny_model_folder, "--device", "meta", wav)
    assert "device meta: cannot be used here" in message


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.lr", "nan", "train: lr: must be 0 or more, got nan"),
        ("train.max_steps", "-5", "train: max_steps: must be 0 or more, got -5"),
        ("train.valid_every", "0", "train: valid_every: must be 1 or more, got 0"),
        ("train.augment.rooms_share", "2", "rooms_share: must be from 0 to 1, got 2"),
        ("train.augment.noise_snr", "[1, inf]", "noise_snr: must be a finite number, got inf"),
        ("semantic.encoder.encoder_dim", "[8, 0]", "encoder_dim: must be 1 or more, got 0"),
        ("decode.max_window", "0", "decode: max_window: must be more than 0, got 0"),
    ],
)
def test_configuration_out_of_range_is_one_line(
    capsys: pytest.CaptureFixture[str], tiny_yaml: Path, key: str, value: str, words: str
) -> None:
    assert run("config", "--config", tiny_yaml, "--set", f"{key}={value}") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"tagspeech config: {tiny_yaml}: ")
    assert words in err


def test_every_number_of_the_configuration_has_a_range() -> None:
    def numbers(cls: type) -> Iterator[str]:
        for name, hint in get_type_hints(cls, include_extras=True).items():
            kinds = get_args(hint) if get_origin(hint) is not Annotated else ()
            for kind in (hint, *kinds):
                if dataclasses.is_dataclass(kind):
                    yield from numbers(kind)
                elif kind in (int, float):
                    yield f"{cls.__name__}.{name}"

    assert list(numbers(Config)) == []


@pytest.mark.skipif(not CONSOLE.exists(), reason="the console command is not installed")
def test_console_command_is_the_module() -> None:
    out = subprocess.run([CONSOLE, "--help"], capture_output=True, text=True, check=True).stdout
    assert out == tagspeech("--help")[0]


def test_help_lists_the_verbs_and_is_fast(spent: Callable[[], float]) -> None:
    out, err = tagspeech("--help")
    assert spent() < 1
    assert err == ""
    for verb in VERBS:
        assert re.search(rf"\n    {verb}\s", out), verb


def test_help_of_every_verb_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom tagspeech.cli import main\n"
        f"for verb in {VERBS}:\n"
        "    try:\n        main([verb, '--help'])\n"
        "    except SystemExit as end:\n        assert end.code == 0\n"
        "heavy = {'torch', 'lhotse', 'transformers', 'numpy', 'meeteval'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: ") == len(VERBS)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "VERB"),
        (["fly"], "invalid choice: 'fly'"),
        (["config", "--fast"], "--config"),
        (["convert", "--format", "rttm", "--fast", "a.rttm"], "unrecognized arguments: --fast"),
        (["decode", "--threads", "many"], "--threads: invalid int value: 'many'"),
        (["transcribe", "--model", "folder"], "AUDIO"),
        (["train", "everything"], "invalid choice: 'everything'"),
        (["transcribe", "--model", "m", "--speakers", "face", "a.wav"], "invalid choice: 'face'"),
    ],
)
def test_wrong_arguments_are_one_line(
    capsys: pytest.CaptureFixture[str], args: Sequence[str], words: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main(args)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("tagspeech")
    assert words in err
    assert "--help" in err


@pytest.mark.parametrize(
    "args",
    [
        ["config", "--config", "nowhere"],
        ["convert", "--format", "rttm", "nowhere.seglst.json"],
        ["score", "--ref", "nowhere.rttm", "--hyp", "nowhere.rttm"],
        ["transcribe", "--model", "model", "nowhere.wav"],
        [
            *("groups", "--config", "CONFIG", "--manifests", "nowhere", "--output", "OUT"),
            *("--rejected", "OUT"),
        ],
        ["train", "semantic", "--config", "CONFIG", "--groups", "nowhere", "--output", "OUT"],
        [
            *("decode", "--config", "CONFIG", "--model", "nowhere"),
            *("--groups", "nowhere.jsonl.gz", "--output", "OUT"),
        ],
    ],
    ids=lambda args: args[0],
)
def test_missing_file_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_yaml: Path, args: list[str]
) -> None:
    places = {"CONFIG": str(tiny_yaml), "OUT": str(tmp_path / "out")}
    assert run(*(places.get(arg, arg) for arg in args)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"tagspeech {args[0]}: ")
    assert "nowhere" in err
    assert err.count("\n") == 1


def test_missing_file_from_the_shell() -> None:
    out, err = tagspeech("convert", "--format", "rttm", "nowhere.stm", code=2)
    assert (out, err.count("\n")) == ("", 1)
    assert "nowhere.stm" in err


def test_training_tagspeech_wants_both_encoders(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_yaml: Path
) -> None:
    args = ("--config", tiny_yaml, "--groups", tmp_path, "--output", tmp_path)
    assert run("train", "tagspeech", *args) == 2
    assert "--semantic and --voice" in capsys.readouterr().err


def test_config_prints_what_set_says(tiny_yaml: Path) -> None:
    out, _ = tagspeech("config", "--config", tiny_yaml, "--set", "train.lr=1e-4")
    assert json.loads(out)["train"]["lr"] == 1e-4
    _, err = tagspeech("config", "--config", tiny_yaml, "--set", "train.lrr=1", code=2)
    assert "unknown key 'lrr'" in err
    assert str(tiny_yaml) in err


# Transcribing


def test_stdout_is_the_result_and_nothing_else(tiny_model_folder: Path, wav: Path) -> None:
    out, err = tagspeech("transcribe", "--model", tiny_model_folder, "--threads", 1, wav)
    for row in json.loads(out):
        assert row["session_id"] == "meeting"
    assert "Traceback" not in err


def test_every_format_is_written(
    tiny_model_folder: Path, wav: Path, tmp_path: Path, telling: None, capsys: object
) -> None:
    output = tmp_path / "new/output"
    formats = ",".join(FORMATS)
    args = ("--model", tiny_model_folder, "--format", formats, "--output", output, wav)
    assert run("transcribe", *args) == 0
    files = {path.name for path in output.iterdir()}
    assert files == {f"meeting.{extension}" for extension in EXTENSIONS.values()}
    for name in FORMATS:
        segments = read(output / f"meeting.{EXTENSIONS[name]}", name)
        assert segments, name
        assert {one.session for one in segments} == {"meeting"}
    segments = read(output / "meeting.seglst.json")
    assert [one.words for one in segments] == [
        *("set the lamp to seven", "she will call at three", "bring two paper cups")
    ]
    assert [one.speaker for one in segments] == ["1", "2", "1"]


@pytest.mark.parametrize(
    ("speakers", "told"),
    [("llm", [("1", "f"), ("2", "m"), ("1", "f")]), ("voice", [("1", "f")] * 3)],
)
def test_speakers_by_llm_or_by_voice(
    tiny_model_folder: Path,
    wav: Path,
    tmp_path: Path,
    telling: None,
    capsys: pytest.CaptureFixture[str],
    speakers: str,
    told: list[tuple[str, str]],
) -> None:
    """By voice with a threshold that takes all for one speaker: f, written for most of the time."""
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))
    tree = json.loads((folder / "config.json").read_text())
    tree["decode"]["speaker_threshold"] = 2.0
    (folder / "config.json").write_text(json.dumps(tree))
    assert run("transcribe", "--model", folder, "--speakers", speakers, wav) == 0
    out = tmp_path / "out.seglst.json"
    out.write_text(capsys.readouterr().out)
    segments = read(out)
    assert [(one.speaker, one.gender) for one in segments] == told
    assert segments[0].words == "set the lamp to seven"


def test_speakers_by_anything_else_are_refused(tiny_model_folder: Path, wav: Path) -> None:
    from tagspeech import TagSpeech

    model = TagSpeech.from_pretrained(tiny_model_folder)
    with pytest.raises(InputError, match="speakers: must be llm or voice, got 'face'"):
        model.transcribe([wav], speakers="face")


def test_stdout_of_two_files_is_one_list(
    tiny_model_folder: Path,
    wav: Path,
    tmp_path: Path,
    telling: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = write_wav(tmp_path / "other.wav", 1.0)
    assert run("transcribe", "--model", tiny_model_folder, wav, other) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["session_id"] for row in rows} == {"meeting", "other"}


def test_real_recording(shared: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    recording = shared / "data/ami/EN2002c-12-0-35.wav"
    if not recording.exists():
        pytest.skip(f"{recording} is absent")
    args = ("--model", tiny_model_folder, "--format", "seglst,rttm", "--output", tmp_path)
    assert run("transcribe", *args, recording) == 0
    assert read(tmp_path / "EN2002c-12-0-35.seglst.json") is not None
    assert (tmp_path / "EN2002c-12-0-35.rttm").exists()


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2)])
def test_any_rate_and_channels(
    tiny_model_folder: Path, tmp_path: Path, telling: None, rate: int, channels: int
) -> None:
    recording = write_wav(tmp_path / "meeting.flac", 1.5, rate, channels)
    args = ("--model", tiny_model_folder, "--output", tmp_path)
    assert run("transcribe", *args, recording) == 0
    assert len(read(tmp_path / "meeting.seglst.json")) == 3


@pytest.mark.parametrize("samples", [0, 1, 400])
def test_hardly_any_sample(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], samples: int
) -> None:
    recording = write_wav(tmp_path / "empty.wav", samples / 16000)
    assert run("transcribe", "--model", tiny_model_folder, recording) == 0
    rows = json.loads(capsys.readouterr().out)
    if not samples:
        assert rows == []


def test_empty_recording_in_every_format(tiny_model_folder: Path, tmp_path: Path) -> None:
    recording = write_wav(tmp_path / "empty.wav", 0)
    formats = ",".join(FORMATS)
    args = ("--model", tiny_model_folder, "--format", formats, "--output", tmp_path)
    assert run("transcribe", *args, recording) == 0
    for name in FORMATS:
        assert read(tmp_path / f"empty.{EXTENSIONS[name]}", name) == [], name


@pytest.mark.parametrize("last_bit", [0, 1])
def test_silence_has_an_empty_transcript(
    tiny_model_folder: Path, tmp_path: Path, telling: None, last_bit: int
) -> None:
    """Also where the last bit of 16 flickers; the model would write three segments of anything."""
    samples = np.random.default_rng(1).integers(-last_bit, last_bit + 1, 16000)
    soundfile.write(tmp_path / "silence.wav", samples.astype(np.int16), 16000)
    args = ("--model", tiny_model_folder, "--output", tmp_path, tmp_path / "silence.wav")
    assert run("transcribe", *args) == 0
    assert read(tmp_path / "silence.seglst.json") == []


def test_malformed_output_is_salvaged_and_warned_about(
    tiny_model_folder: Path,
    wav: Path,
    tmp_path: Path,
    tiny_segments: list[Segment],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = to_target(tiny_segments)
    cut_off = text[: text.index("</speaker>") - 5]
    tell(monkeypatch, cut_off)
    assert run("transcribe", "--model", tiny_model_folder, "--output", tmp_path, wav) == 0
    words = [one.words for one in read(tmp_path / "meeting.seglst.json")]
    assert words == [one.words for one in tiny_segments]
    assert any("meeting" in record.message for record in caplog.records)


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """What `transcribe` says when it refuses: one line, exit code 2."""
    assert run("transcribe", *args) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("tagspeech transcribe: ")]
    assert out == ""
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


def test_refusals(
    tiny_model_folder: Path, wav: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", tiny_model_folder)
    (tmp_path / "b").mkdir()
    twin = write_wav(tmp_path / "b/meeting.flac", 1.0)
    assert "two inputs are named meeting" in refused(capsys, *model, wav, twin)
    assert "meeting" in refused(capsys, *model, wav, wav)
    message = refused(capsys, *model, "--format", "seglst,docx", wav)
    assert "docx" in message
    assert "rttm" in message


@pytest.mark.parametrize("content", [b"", b"no sound at all", b"RIFF\x00\x00\x00\x00WAVEfmt "])
def test_file_that_is_no_audio_is_named(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "noise.wav"
    path.write_bytes(content)
    assert f"{path}: cannot be read as audio" in refused(capsys, "--model", tiny_model_folder, path)


def test_folder_in_place_of_a_recording_is_named(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert str(tmp_path) in refused(capsys, "--model", tiny_model_folder, tmp_path)


def test_folder_without_a_model_is_named(
    wav: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "--model", tmp_path / "nothing", wav)
    assert str(tmp_path / "nothing/config.json") in message


def test_output_that_is_a_file_is_named(
    tiny_model_folder: Path, wav: Path, capsys: pytest.CaptureFixture[str], telling: None
) -> None:
    message = refused(capsys, "--model", tiny_model_folder, "--output", wav, wav)
    assert str(wav) in message


# Converting


def test_convert_there_and_back(tmp_path: Path, tiny_segments: list[Segment]) -> None:
    from tagspeech.formats import write

    source = tmp_path / "one.seglst.json"
    write(tiny_segments, source, "seglst")
    there, back = tmp_path / "there", tmp_path / "back"
    tagspeech("convert", "--format", "textgrid,stm", "--output", there, source)
    assert sorted(path.name for path in there.iterdir()) == ["one.TextGrid", "one.stm"]
    for name in ("one.TextGrid", "one.stm"):
        out, _ = tagspeech("convert", "--format", "seglst", "--output", back, there / name)
        assert out == ""
        segments = read(back / "one.seglst.json")
        told = [(one.speaker, one.start, one.end, one.words) for one in segments]
        assert told == [(one.speaker, one.start, one.end, one.words) for one in tiny_segments]


def test_convert_to_stdout(tmp_path: Path, tiny_segments: list[Segment]) -> None:
    from tagspeech.formats import write

    source = tmp_path / "one.seglst.json"
    write(tiny_segments, source, "seglst")
    out, err = tagspeech("convert", "--format", "rttm", source)
    assert err == ""
    assert [line.split()[0] for line in out.splitlines()] == ["SPEAKER"] * 3


def test_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, tiny_segments: list[Segment]
) -> None:
    """A file that may not grow stands in for a disk without room."""
    source, output = tmp_path / "one.seglst.json", tmp_path / "output"
    write(tiny_segments, source, "seglst")
    command = 'ulimit -f 0; exec "$0" -m tagspeech convert --format stm --output "$1" "$2"'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, output, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("tagspeech convert: ")
    assert "cannot be written" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(output.iterdir()) == []
