"""The stage driver and its helpers, run by the shell on a copy with a stand-in for `tagspeech`."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_launchers import FAKES

ROOT = Path(__file__).resolve().parent.parent

# Writes what each verb of the command line writes, made from what it reads. STAND_IN_FAIL=VERB
# fails, STAND_IN_REDRAW=VERB fails between two states of a progress bar, STAND_IN_GONE=VERB fails
# after the folder of logs was removed, STAND_IN_HANG=VERB leaves a partial result and waits, and
# STAND_IN_LAZY=VERB makes nothing.
STAND_IN = f"""#!{sys.executable} -IS
import gzip, hashlib, json, os, shutil, sys, time
from pathlib import Path

args = sys.argv[1:]
verb = args[0] if args[0] != "train" else f"train-{{args[1]}}"
options = {{k: v for k, v in zip(args, args[1:]) if k.startswith("--")}}
sets = [v for k, v in zip(args, args[1:]) if k == "--set"]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(verb + "\\n")

if verb == "config":
    sys.path.insert(0, {str(ROOT)!r})
    from tagspeech.dependencies import NOT_READ, of_stage

    leaf = lambda: {{"x": 1}}
    tree = {{"language": "en", "features": leaf(), "llm": {{}}, "prompt": leaf(),
            "target": leaf(), "loss": leaf(),
            "drop": leaf(), "train": leaf(), "decode": leaf(), "parts": {{}}}}
    for stream in ("semantic", "voice"):
        tree[stream] = {{"encoder": leaf(), "sot": leaf(), "train": leaf(), "stack": 4,
                        "anchor_interval": 8, "tune_lr": 0.0, "margin": 0.2, "scale": 30.0}}
    for item in sets:
        key, _, value = item.partition("=")
        *path, last = key.split(".")
        node = tree
        for name in path:
            node = node.setdefault(name, {{}})
        node[last] = json.loads(value) if value.startswith("{{") or value == "true" else value
    assert "--stages" in args
    sys.exit(print(json.dumps({{stage: of_stage(stage, tree) for stage in NOT_READ}})))

if verb == "parts":
    given = {{}} if "--from-scratch" in args else options
    named = {{}}
    for key in ("semantic_init", "semantic_encoder", "voice_init", "voice_encoder"):
        if name := given.get("--" + key.replace("_", "-")):
            if not Path(name).exists():
                sys.exit(f"tagspeech parts: parts.{{key}}: {{name}}: no such file or folder")
            print(f"{{key}}={{name}}")
            named[key] = {{"name": name}}
    print("parts=" + json.dumps(named))
    if llm := given.get("--llm"):
        print(f"llm_folder={{llm}}\\nllm.name={{llm}}")
    else:
        print("new_llm=true\\nllm.name=" + options["--new-llm"])
    sys.exit()

if verb == "gpus":
    sys.exit(print(os.environ.get("STAND_IN_GPUS", "0")))
if verb == "plan":
    sys.exit(print("3:\\t1 GPU, 5 min"))
if verb == "verify":
    sys.exit()
if os.environ.get("STAND_IN_FAIL") == verb:
    sys.exit(f"{{verb}}: the disk is full") if verb != "decode" else os._exit(3)

if os.environ.get("STAND_IN_REDRAW") == verb:
    bar = "\\r{{}}:  42%|####2     | 5/12 [00:01<00:02,  3.42 batches/s]".format(verb)
    sys.stderr.write(bar + "tagspeech train: x: No space left on device\\n" + bar + "\\n")
    sys.exit(2)
if os.environ.get("STAND_IN_GONE") == verb:
    shutil.rmtree("egs/mini/exp/log")
    sys.exit("the disk is full")

digest = hashlib.sha256()
def read(path):
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            data = file.read_bytes()
            digest.update(gzip.decompress(data) if file.suffix == ".gz" else data)
for key, value in options.items():
    if key in ("--init", "--manifests", "--groups", "--semantic", "--voice", "--llm", "--model",
               "--hyp", "--ref", "--raw", "--scores",
               "--scores-voice"):
        read(Path(value))
    elif key in ("--seed", "--train-groups", "--max-pause"):
        digest.update(value.encode())
digest.update(" ".join(sets).encode())
content = f"{{verb}} {{digest.hexdigest()}}\\n"

output = Path(options["--output"])
def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content)

if os.environ.get("STAND_IN_HANG") == verb:
    write(output / "partial")
    (output / "pid").write_text(str(os.getpid()))
    time.sleep(60)
if os.environ.get("STAND_IN_LAZY") == verb:
    sys.exit()
splits = ("train", "dev", "test")
for path in {{
    "simulate": [f"{{s}}_{{kind}}.jsonl.gz" for s in (*splits, "meetings")
                 for kind in ("recordings", "supervisions")],
    "groups": [*(f"{{s}}.jsonl.gz" for s in splits), "../rejected.jsonl",
               "../rejected.txt"],
    "train-semantic": ["final.pt"],
    "train-voice": ["final.pt"],
    "embed": ["train.jsonl.gz", "dev.jsonl.gz"],
    "new-llm": ["pretrained/config.json"],
    "train-tagspeech": ["pretrained/config.json", "pretrained/model.safetensors"],
    "decode": ["test.raw.jsonl", "test.places.json",
               *(f"test.{{name}}.seglst.json" for name in ("hyp", "hyp-voice", "ref"))],
    "score": [""],
    "report": [""],
    "meetings": [*(f"{{side}}{{row}}.seglst.json" for side in ("ref", "hyp")
                   for row in ("", "-linked", "-groups")),
                 *(f"{{name}}.json" for name in
                   ("scores", "scores-linked", "scores-groups", "results")),
                 "report.html"],
}}[verb]:
    write(output / path if path else output)
if "--page" in options:
    write(Path(options["--page"]))
"""

GIVEN = ("--install", "false", "--from-scratch", "true")  # what comes later counts
ALL_VERBS = [
    *("simulate", "groups", "train-semantic", "train-voice", "embed", "new-llm"),
    *("train-tagspeech", "decode", "score", "score", "report", "meetings"),
]
EXP = "egs/mini/exp"
DATA = "egs/mini/data"


class House:
    """A copy of the repository's shell parts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls_path = folder / "calls"

    def environment(self, **more: str) -> dict[str, str]:
        path = f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "CALLS": str(self.calls_path), **more}

    def start(self, *args: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.folder / "run.sh"), *GIVEN, *args],
            env=self.environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *args: str, code: int = 0, **more: str) -> str:
        """Runs ./run.sh, checks its exit code, gives its stderr."""
        process = self.start(*args, **more)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == code, f"{process.returncode}\n{stdout}\n{stderr}"
        return stderr

    def calls(self) -> list[str]:
        """The verbs called since the last question; those that only look are left out."""
        verbs = self.calls_path.read_text().split() if self.calls_path.exists() else []
        self.calls_path.unlink(missing_ok=True)
        return [verb for verb in verbs if verb not in ("config", "parts", "gpus", "plan")]

    def marks(self, kind: str = "done") -> list[int]:
        folders = (self.folder / DATA / ".stages", self.folder / EXP / ".stages")
        return sorted(int(p.name[:2]) for one in folders for p in one.glob(f"*.{kind}"))

    def wait_for(self, name: str) -> Path:
        path = self.folder / name
        deadline = time.monotonic() + 30
        while not (path.exists() and path.stat().st_size):
            assert time.monotonic() < deadline, f"{path} did not appear"
            time.sleep(0.02)
        return path


def build(folder: Path, root: Path) -> House:
    folder.mkdir(parents=True)
    for name in ("run.sh", "path.sh", "pyproject.toml", *(p.name for p in root.glob("req*.txt"))):
        shutil.copy2(root / name, folder)
    for name in ("local", "utils"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("run.sh", "conf", "local"):
        copy = shutil.copytree if (root / "egs/mini" / name).is_dir() else shutil.copy2
        (folder / "egs/mini").mkdir(parents=True, exist_ok=True)
        copy(root / "egs/mini" / name, folder / "egs/mini" / name)
    for name in ("tagspeech", "scratch"):
        (folder / f"egs/mini/conf/{name}.yaml").write_text("{}\n")
    for name in ("semantic.safetensors", "voice.safetensors", "llm/config.json"):
        part = folder / "egs/mini/pretrained" / name
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("trained before\n")
    stand_in = folder / "bin/tagspeech"
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    return House(folder)


@pytest.fixture
def house(tmp_path: Path, root: Path) -> House:
    """Nothing has run yet. The folder's name has a space."""
    return build(tmp_path / "a house", root)


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory: pytest.TempPathFactory, root: Path) -> House:
    house = build(tmp_path_factory.mktemp("finished") / "a house", root)
    house.run()
    assert house.calls() == ALL_VERBS
    return house


@pytest.fixture
def finished(finished_once: House, tmp_path: Path) -> House:
    """All stages are done."""
    return House(Path(shutil.copytree(finished_once.folder, tmp_path / "the house")))


def test_finished_run_does_nothing(finished: House, spent: Callable[[], float]) -> None:
    messages = finished.run()
    assert spent() < 5
    assert finished.calls() == []
    assert finished.marks() == list(range(11))
    assert messages.count("done already") == 11


def test_mark_names_inputs_options_outputs_and_time(finished: House) -> None:
    mark = json.loads((finished.folder / DATA / ".stages/02-utterance-groups.done").read_text())
    assert f"{DATA}/manifests/train_supervisions.jsonl.gz" in mark["inputs"]
    assert mark["options"] == "max_pause=1.0 max_rejected=0.1"
    assert mark["config"] == {"language": "en"}
    assert mark["outputs"][-1] == f"{DATA}/rejected.jsonl"
    assert mark["seconds"] > 0
    assert mark["finished"]


def test_seconds_of_all_stages(finished: House) -> None:
    answer = subprocess.check_output(
        [
            sys.executable,
            finished.folder / "local/mark.py",
            "seconds",
            finished.folder / DATA / ".stages",
            finished.folder / EXP / ".stages",
        ]
    )
    assert list(json.loads(answer)) == [str(number) for number in range(11)]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--stagee", "3"], "unknown option '--stagee'; see run.sh --help"),
        (["--PATH", "x"], "unknown option '--PATH'"),
        (["--stage=3"], "unknown option '--stage=3'"),
        (["--stage"], "option '--stage' needs a value"),
        (["--stage", "--stop-stage", "3"], "option '--stage' needs a value"),
        (["--stage", "ten"], "--stage must be a number from 0 to 10, not 'ten'"),
        (["--stop-stage", "12"], "--stop-stage must be a number"),
        (["--install", "no"], "option '--install' must be true or false, not 'no'"),
        (["--recipe", "other"], "no recipe 'other'; there are: mini"),
        (["--recipe", "../mini"], "no recipe '../mini'"),
        (["--set", "lr"], "--set 'lr': must be KEY=VALUE"),
        (["--config", "no.yaml"], "no.yaml: no such file"),
        (["7"], "unexpected argument '7'"),
    ],
)
def test_bad_option_is_one_line(house: House, args: list[str], words: str) -> None:
    messages = house.run(*args, code=2)
    assert words in messages
    assert messages.count("\n") == 1
    assert house.calls() == []


def test_help_shows_options_and_the_variables_of_the_recipe(house: House) -> None:
    process = house.start("--help")
    text, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert text.startswith("The one stage driver")
    for words in ("--stop-stage N", "--set KEY=VALUE", "train_groups=12500"):
        assert words in text
    assert "set -euo" not in text


def test_recipe_hands_over_from_any_folder(house: House, tmp_path: Path) -> None:
    subprocess.run(
        [house.folder / "egs/mini/run.sh", *GIVEN, "--stop-stage", "1"],
        cwd=tmp_path,
        env=house.environment(),
        check=True,
        capture_output=True,
    )
    assert house.marks() == [0, 1]


def test_stage_redoes_it_and_what_changed(finished: House) -> None:
    finished.run("--stage", "3")
    assert finished.calls() == ["train-semantic"]  # the same result: nothing follows
    finished.run("--stage", "7", "--stop-stage", "7")
    assert finished.calls() == ["decode"]


def test_device_and_processes(house: House) -> None:
    """--device goes to all that computes; auto is a process for each GPU."""
    messages = house.run("--processes", "auto", STAND_IN_GPUS="3")
    assert "processes=auto: 3 GPUs here; training processes: 3" in messages
    logs = house.folder / EXP / "log"
    training = (logs / "03-semantic-encoder.log").read_text()
    assert "--processes 3" in training
    assert "--device auto" in training
    for name in ("05-speaker-embeddings", "07-decode", "10-whole-meetings"):
        assert "--device auto" in (logs / f"{name}.log").read_text()
    house.calls()
    assert "not 'mps'" in house.run("--device", "mps", code=2)
    assert "processes=auto: 0 GPUs" in house.run("--processes", "auto", "--stop-stage", "2")
    assert house.calls() == []
    house.run("--processes", "3", "--device", "cpu")
    assert house.calls() == ["decode", "score", "score", "meetings"]  # the report stays


def test_stages_are_jobs_of_a_cluster(house: House) -> None:
    """Their marks stay here, and a killed run resumes. Slurm's programs are stand-ins."""
    fakes = {**FAKES, "srun": 'while [[ $1 != tagspeech ]]; do shift; done\nexec "$@"'}
    for name, body in fakes.items():
        (house.folder / "bin" / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (house.folder / "bin" / name).chmod(0o755)
    cluster = ("--launcher", "slurm", "--nodes", "2", "--gpus", "4", "--time", "1:00:00")
    cluster += ("--processes", "auto")
    fake = {"FAKE": str(house.folder)}
    said = house.start(*cluster, "--dry-run", **fake).communicate(timeout=60)[0]
    assert "$ utils/slurm.sh --nodes 2 --gpus 4 --processes 4 --job-name tagspeech-" in said
    assert said.count("--cpus 4 --time 1:00:00 -- ") == 7
    assert house.calls() == []
    run = house.start(*cluster, STAND_IN_HANG="train-semantic", **fake)
    pid = int(house.wait_for(f"{EXP}/semantic/pid").read_text())
    run.kill()
    run.wait()
    assert is_alive(pid)
    messages = house.run(*cluster, **fake)
    assert (
        "of a run that was killed: cancelling it"
        in (house.folder / EXP / "log/03-semantic-encoder.log").read_text()
    )
    assert not is_alive(pid)
    assert "stages 3 to 7 and 10 are jobs of 2 nodes with 4 GPUs and 4 processes each" in messages
    assert house.marks() == list(range(11))
    mark = json.loads((house.folder / EXP / ".stages/06-tagspeech.done").read_text())
    assert mark["options"] == "processes=8"
    scripts = [path.read_text() for path in (house.folder / EXP / "log/slurm").glob("job-*.sh")]
    assert sum("--gpus-per-node=4" in script for script in scripts) == len(scripts) == 8
    assert "cannot be divided" in house.run(*cluster[:-1], "3", code=2, **fake)


def test_stage_6_that_hears_audio_needs_no_stage_5(house: House) -> None:
    messages = house.run("--set", "train.from_audio=true")
    assert "stage 5: speaker embeddings: skipped: stage 6 hears the audio" in messages
    assert "embed" not in house.calls()
    mark = json.loads((house.folder / EXP / ".stages/06-tagspeech.done").read_text())
    assert f"{DATA}/groups/train.jsonl.gz" in mark["inputs"]
    assert "skipped" not in house.run("--set", "train.from_audio=true", "--stage", "6")
    house.calls()
    house.run("--set", "semantic.train.from_audio=true")
    assert "embed" in house.calls()


def test_dry_run_says_all_and_does_nothing(house: House) -> None:
    process = house.start("--dry-run", "--plan-hours", "9")
    said, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages
    assert said.count(": would run (") == 11
    assert "stage 3: semantic encoder: would run (its input egs/mini/data/groups/" in said
    assert "$ tagspeech train semantic --config egs/mini/conf/scratch.yaml" in said
    assert "$ tagspeech train tagspeech" in said
    assert said.count("$ tagspeech score") == 2
    assert "reckoned: 1 GPU, 5 min" in said
    assert house.calls() == []
    assert not (house.folder / EXP).exists()
    assert not (house.folder / DATA).exists()


def test_dry_run_of_what_is_done(finished: House) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*.done")}
    said = finished.start("--dry-run").communicate(timeout=60)[0]
    assert said.count("done already") == 11
    said = finished.start("--dry-run", "true", "--protocol", "paper").communicate(timeout=60)[0]
    assert said.count("done already") == 9
    assert "stage 8: score: would run (its options changed)" in said
    assert "stage 9: report: would run (its input" in said
    said = finished.start("--stage", "10", "--dry-run").communicate(timeout=60)[0]
    assert said.startswith("stage 10: whole meetings: would run (asked for)")
    part = ("--from-scratch", "false", "--pretrained", "", "--dry-run", "--voice-encoder")
    said = finished.start(*part, "egs/mini/pretrained/voice.safetensors").communicate(timeout=60)[0]
    assert "stage 4: voice encoder: skipped: egs/mini/pretrained/voice.safetensors takes" in said
    assert finished.calls() == []
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*.done")} == before
    assert not list(finished.folder.rglob("*.begun"))


def test_options_redo_only_what_depends_on_them(finished: House) -> None:
    finished.run("--jobs", "7", "--threads", "1")
    assert finished.calls() == []
    finished.run("--protocol", "paper", "--stop-stage", "8")
    assert finished.calls() == ["score", "score"]
    finished.run("--set", "decode.x=2")
    assert finished.calls() == ALL_VERBS[-5:]
    finished.run("--set", "decode.x=2", "--set", "semantic.anchor_interval=5")
    assert finished.calls() == ALL_VERBS[-7:]
    messages = finished.run("--max-pause", "0.5")
    assert finished.calls() == ALL_VERBS[1:]
    assert "stage 2: utterance groups (begin: its options changed)" in messages


def test_pretrained_parts_take_the_place_of_training(finished: House) -> None:
    parts = "egs/mini/pretrained"
    options = ["--from-scratch", "false", "--pretrained", parts, "--llm", f"{parts}/llm"]
    options += ["--semantic-init", f"{parts}/semantic.safetensors"]
    options += ["--voice-encoder", f"{parts}/voice.safetensors"]
    messages = finished.run(*options)
    verbs = [verb for verb in ALL_VERBS if verb not in ("train-voice", "new-llm")]
    assert finished.calls() == ["verify", *verbs[2:]]  # the corpus is the same
    assert (
        "stage 4: voice encoder: egs/mini/pretrained/voice.safetensors, trained before" in messages
    )
    finished.run(*options)
    assert finished.calls() == ["verify"]
    (finished.folder / "egs/mini/pretrained/llm/config.json").write_text("another\n")
    finished.run(*options)
    assert finished.calls()[:2] == ["verify", "train-tagspeech"]
    semantic = finished.folder / "egs/mini/pretrained/semantic.safetensors"
    semantic.write_text("another\n")
    finished.run(*options, "--stop-stage", "4")
    assert finished.calls() == ["verify", "train-semantic"]
    finished.run(*options, "--semantic-encoder", str(semantic))
    assert "train-semantic" not in finished.calls()
    words = finished.run(*options, "--voice-encoder", "none.pt", code=1)
    assert words == "tagspeech parts: parts.voice_encoder: none.pt: no such file or folder\n"
    assert finished.calls() == ["verify"]


def test_seed_redoes_all(finished: House) -> None:
    finished.run("--seed", "2")
    assert finished.calls() == ALL_VERBS


def test_changed_input_redoes_what_follows(finished: House) -> None:
    groups = finished.folder / DATA / "groups/train.jsonl.gz"
    groups.write_bytes(gzip.compress(gzip.decompress(groups.read_bytes()), mtime=12345))
    finished.run()
    assert finished.calls() == []  # the same lines in another .gz
    groups.write_bytes(gzip.compress(b"other groups\n"))
    messages = finished.run()
    assert finished.calls() == ALL_VERBS[2:]
    assert f"(begin: input {DATA}/groups/train.jsonl.gz changed)" in messages


def test_changed_weights_are_noticed(finished: House) -> None:
    (finished.folder / EXP / "tagspeech/pretrained/model.safetensors").write_text("others\n")
    finished.run()
    assert finished.calls() == ALL_VERBS[-5:]


def test_missing_output_is_made_again(finished: House) -> None:
    (finished.folder / EXP / "voice/final.pt").unlink()
    messages = finished.run()
    assert finished.calls() == ["train-voice"]
    assert f"begin: {EXP}/voice/final.pt is missing" in messages


def test_a_folder_alone_is_not_taken_for_done(finished: House) -> None:
    shutil.rmtree(finished.folder / DATA / ".stages")
    shutil.rmtree(finished.folder / EXP / ".stages")
    finished.run("--stop-stage", "3")
    assert finished.calls() == ["simulate", "groups", "train-semantic"]
    # Nobody says that a stage made it: it may be somebody's own, and is kept.
    assert (finished.folder / EXP / "semantic.old/final.pt").exists()


def test_missing_input_names_file_and_stage(house: House) -> None:
    messages = house.run("--stage", "7", code=1)
    assert messages == (
        f"run.sh: error: stage 7 (decode): its input {EXP}/tagspeech/pretrained is missing; "
        "stage 6 (TagSpeech) makes it: --stage 6\n"
    )
    assert house.calls() == []


def test_cut_off_input_is_named(finished: House) -> None:
    groups = finished.folder / DATA / "groups/dev.jsonl.gz"
    groups.write_bytes(groups.read_bytes()[:-9])
    messages = finished.run("--stage", "3", code=1)
    assert "stage 3 (semantic encoder) cannot start: " in messages
    assert f"{DATA}/groups/dev.jsonl.gz: cannot be read" in messages


def test_failing_command(house: House) -> None:
    messages = house.run(code=1, STAND_IN_FAIL="train-voice").splitlines()
    assert messages[-1] == (
        "run.sh: error: stage 4 (voice encoder) failed: train-voice: the disk is full; "
        f"exit code 1; log: {EXP}/log/04-voice-encoder.log"
    )
    assert house.marks() == [0, 1, 2, 3]
    assert "the disk is full" in (house.folder / EXP / "log/04-voice-encoder.log").read_text()
    house.calls()
    house.run()
    assert house.calls() == ALL_VERBS[3:]


def test_reason_of_a_failure_is_no_progress_bar(house: House) -> None:
    messages = house.run(code=2, STAND_IN_REDRAW="train-voice").splitlines()
    assert messages[-1] == (
        "run.sh: error: stage 4 (voice encoder) failed: tagspeech train: x: "
        f"No space left on device; exit code 2; log: {EXP}/log/04-voice-encoder.log"
    )
    # The same stage again: what the log says of the earlier attempt does not count.
    messages = house.run(code=3, STAND_IN_FAIL="decode").splitlines()
    assert "stage 7 (decode) failed: it gave no reason; exit code 3" in messages[-1]


def test_failure_without_its_log_says_so(house: House) -> None:
    messages = house.run(code=1, STAND_IN_GONE="train-voice").splitlines()
    assert messages[-1] == (
        "run.sh: error: stage 4 (voice encoder) failed: its log is gone: was the folder removed "
        f"meanwhile?; exit code 1; log: {EXP}/log/04-voice-encoder.log"
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_full_disk_is_named(finished: House) -> None:
    log = finished.folder / EXP / "log/07-decode.log"
    log.unlink()
    log.symlink_to("/dev/full")
    messages = finished.run("--stage", "7", code=1)
    assert f"{EXP}/log/07-decode.log: cannot be written" in messages


def test_exit_code_of_the_command_is_kept(finished: House) -> None:
    messages = finished.run("--stage", "7", code=3, STAND_IN_FAIL="decode")
    assert "stage 7 (decode) failed: " in messages


def test_stage_of_two_commands_stops_at_the_first_failure(finished: House) -> None:
    finished.run("--stage", "6", code=1, STAND_IN_FAIL="new-llm")
    assert finished.calls() == ["new-llm"]


def test_command_that_makes_nothing(house: House) -> None:
    messages = house.run(code=1, STAND_IN_LAZY="train-semantic")
    assert f"ended well, yet did not make {EXP}/semantic/final.pt" in messages
    assert house.marks() == [0, 1, 2]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return not state.stdout.startswith("Z")


@pytest.fixture
def hanging(house: House) -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """Starts a run and waits until the named training works; gives the run and that process."""
    processes: list[int] = []

    def start(stage: str = "semantic") -> tuple[subprocess.Popen[str], int]:
        run = house.start(STAND_IN_HANG=f"train-{stage}")
        pid = int(house.wait_for(f"{EXP}/{stage}/pid").read_text())
        processes.extend((run.pid, pid))
        return run, pid

    yield start
    for pid in processes:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_killed_run_leaves_no_mark_and_goes_on(house: House, hanging: Callable) -> None:
    run, pid = hanging()
    run.kill()
    run.wait()
    assert house.marks() == [0, 1, 2]
    assert house.marks("begun") == [3]
    messages = house.run()  # ends what was left at work, or two would write into one folder
    assert f"process {run.pid} was killed and left its stage at work" in messages
    assert not is_alive(pid)
    assert "stage 3: semantic encoder (continue)" in messages
    assert (house.folder / EXP / "semantic/partial").exists()
    assert house.marks() == list(range(11))


def test_killed_stage_begins_anew_when_asked_otherwise(house: House, hanging: Callable) -> None:
    run, _ = hanging()
    run.kill()
    run.wait()
    messages = house.run("--set", "semantic.train.x=9", "--stop-stage", "3")
    assert "what it read or how it was asked changed" in messages
    assert not (house.folder / EXP / "semantic/partial").exists()
    assert not (house.folder / EXP / "semantic.old").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stop_reaches_the_stage(house: House, hanging: Callable, number: int, code: int) -> None:
    run, pid = hanging()
    run.send_signal(number)
    _, messages = run.communicate(timeout=20)
    assert run.returncode == code
    assert messages.endswith("stopped; the same command goes on from here\n")
    assert not is_alive(pid)
    assert house.marks() == [0, 1, 2]


def test_killed_command_is_a_failure(house: House, hanging: Callable) -> None:
    run, pid = hanging()
    os.kill(pid, signal.SIGKILL)
    _, messages = run.communicate(timeout=20)
    assert run.returncode == 137
    assert "stage 3 (semantic encoder) failed" in messages
    assert house.marks() == [0, 1, 2]


def test_two_runs_of_a_recipe_do_not_meet(house: House, hanging: Callable) -> None:
    run, pid = hanging()
    messages = house.run(code=1)
    assert messages == f"run.sh: error: another run (process {run.pid}) is at work in {EXP}\n"
    assert is_alive(pid)


def test_old_work_is_kept_until_the_new_is_done(finished: House) -> None:
    old = finished.folder / EXP / "tagspeech.old/pretrained/config.json"
    finished.run("--set", "train.x=2", code=1, STAND_IN_FAIL="train-tagspeech")
    assert old.exists()
    finished.run("--set", "train.x=2")
    assert not old.exists()


def test_other_folders(finished: House, tmp_path: Path) -> None:
    exp = str(tmp_path / "other exp")
    finished.run("--exp", exp, "--stop-stage", "3")
    assert finished.calls() == ["train-semantic"]  # experiments share the data
    assert (Path(exp) / "semantic/final.pt").exists()


def test_new_key_of_any_section_redoes_what_reads_it(finished: House) -> None:
    """Nobody has named it anywhere."""
    finished.run("--set", "semantic.invented=1", "--stop-stage", "6")
    assert finished.calls() == ["train-semantic", "embed", "new-llm", "train-tagspeech"]
    finished.run("--set", "semantic.invented=1", "--set", "invented.key=1", "--stop-stage", "2")
    assert finished.calls() == ["groups"]


def test_what_only_changes_speed_redoes_nothing(finished: House) -> None:
    keys = ("train.read_ahead", "semantic.train.try_largest")
    finished.run(*(word for key in keys for word in ("--set", f"{key}=3")))
    assert finished.calls() == []


def test_stage_that_dependencies_do_not_know_is_an_error(house: House) -> None:
    path = house.folder / "run.sh"
    text = path.read_text()
    path.write_text(
        text.replace('run_stage 0 "', 'run_stage 11 "').replace("([0-9]|10)", "([0-9]+)")
    )
    messages = house.run("--stop-stage", "11", code=1)
    assert "dependencies.py does not say what stage 11 depends on" in messages


def test_pretrained_part_is_named_only_where_its_stage_would_be(finished: House) -> None:
    part = "egs/mini/pretrained/voice.safetensors"
    options = ["--from-scratch", "false", "--pretrained", "", "--voice-encoder", part]
    assert "trained before" not in finished.run(*options, "--stop-stage", "3")
    assert f"stage 4: voice encoder: {part}, trained before" in finished.run(*options)
    assert "trained before" not in finished.run(*options, "--stage", "7")


def test_path_sets_variables_and_nothing_else(house: House) -> None:
    script = (
        '. ./path.sh; . ./path.sh; echo "$PATH"; env | grep -cE "^(OMP|GOMP|MALLOC_|PYTHONHASH)"'
    )
    answer = subprocess.run(
        ["bash", "-euc", script], cwd=house.folder, capture_output=True, text=True, check=True
    )
    path, count = answer.stdout.splitlines()
    assert path.split(":").count(str(house.folder / ".venv/bin")) == 1
    assert int(count) >= 6
    assert answer.stderr == ""


def test_install_has_nothing_to_do(house: House, spent: Callable[[], float]) -> None:
    wanted = [f"folder {house.folder}\ngpu false"]
    for name in ("pyproject.toml", "requirements.txt", "requirements-gpu.txt"):
        wanted.append((house.folder / name).read_text().rstrip("\n"))
    (house.folder / ".venv").mkdir()
    (house.folder / ".venv/.installed").write_text("\n".join(wanted) + "\n")
    subprocess.run([house.folder / "utils/install.sh"], check=True)
    assert spent() < 0.5


def test_install_without_a_python_says_so(house: House, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "env", "dirname", "cat", "grep", "sed", "awk", "date"):
        (tools / name).symlink_to(str(shutil.which(name)))
    answer = subprocess.run(
        [house.folder / "utils/install.sh"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stderr == (
        "install.sh: error: no Python 3.10 to 3.13 found; install one, or name it: "
        "utils/install.sh --python PROGRAM\n"
    )


def test_stage_driver_stays_short(root: Path) -> None:
    """What it decides belongs into Python or local/stage.sh."""
    assert len((root / "run.sh").read_text(encoding="utf-8").splitlines()) <= 230


def test_scripts_run_on_a_mac_too(root: Path) -> None:
    """Its bash is 3.2 and its tools are not GNU's."""
    newer = (
        r"declare -A|local -A|mapfile|readarray|,,\}|\^\^\}|&>>|\|&|wait -n|BASHPID|EPOCHSECONDS"
    )
    gnu = r"readlink -f|realpath|sed -i|sha256sum|date --|cp --|mktemp --|grep -P|xargs -r|stat -c"
    scripts = [root / "run.sh", root / "path.sh", *root.glob("*/*.sh"), *root.glob("egs/**/*.sh")]
    for script in scripts:
        if ".venv" not in script.parts:
            found = re.search(f"{newer}|{gnu}", script.read_text(encoding="utf-8"))
            assert not found, f"{script.relative_to(root)}: {found and found.group()}"
