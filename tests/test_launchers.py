"""utils/local.sh and utils/slurm.sh: one calling convention; Slurm's programs are stand-ins."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

# A job has a process group of its own, and no lock of run.sh (descriptors 8 and 9): it outlives the
# process that waits for it, as on a cluster.
SBATCH = """set -m
echo "$1" >"$FAKE/sbatch.log"
echo Submitted batch job 7
export SLURM_JOB_ID=7 SLURM_JOB_NODELIST="n[1-2]"
bash "$2" >"$(sed -n 's/^#SBATCH.* --output=//p' "$2")" 2>&1 8>&- 9>&- &
echo "$!" >"$FAKE/job"
wait "$!"
"""
AT_WORK = '[[ -f "$FAKE/job" ]] && kill -0 "$(<"$FAKE/job")" 2>/dev/null'
FAKES = {
    "sbatch": SBATCH,
    "squeue": f"if {AT_WORK}; then echo 7; fi",
    "scancel": f'echo "$@" >>"$FAKE/scancel.log"\n{AT_WORK} && kill -KILL -- "-$(<"$FAKE/job")"',
    "scontrol": '[[ "$*" == "show hostnames n[1-2]" ]] && printf "n1\\nn2\\n"',
    "srun": 'pwd >"$FAKE/srun.log"\nprintf "%s\\n" "$@" >>"$FAKE/srun.log"',
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment with programs of Slurm's names that write down how they were called."""
    for name, body in FAKES.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "FAKE": str(tmp_path)}


def run(root: Path, env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(root / words[0]), *words[1:]]
    return subprocess.run(command, env=env, cwd="/", capture_output=True, text=True)


def test_slurm_job_calls_torchrun_on_every_machine(
    root: Path, slurm: dict[str, str], tmp_path: Path
) -> None:
    options = ("--nodes", "2", "--processes", "3", "--cpus", "5", "--time", "1:00:00")
    verb = ("config", "--set", "parts.voice_init.name=a folder/$HOME")
    told = run(root, slurm, "utils/slurm.sh", *options, "--log", str(tmp_path / "log"), "--", *verb)
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "sbatch.log").read_text() == "--wait\n"
    (script,) = (tmp_path / "log").glob("job-*.sh")
    for word in ("--nodes=2 --ntasks-per-node=1", "--cpus-per-task=15", "--time=1:00:00"):
        assert word in script.read_text()
    assert "gpus-per-node" not in script.read_text()
    folder, *called = (tmp_path / "srun.log").read_text().splitlines()
    assert folder == str(root)
    found = ("--rdzv-id", "7", "--rdzv-backend", "c10d", "--rdzv-endpoint", "n1:29400")
    torchrun = ("torchrun", "--nnodes", "2", "--nproc-per-node", "3", *found)
    assert called == [*torchrun, "-m", "tagspeech", *verb]


def test_stopped_and_killed_jobs_are_cancelled(
    root: Path, slurm: dict[str, str], tmp_path: Path
) -> None:
    """A signal reaches the job; a job that a kill left behind ends before the next one begins."""
    (tmp_path / "srun").write_text('#!/usr/bin/env bash\necho begun >"$FAKE/begun"\nsleep 60\n')
    command = [str(root / "utils/slurm.sh"), "--gpus", "2", "--log", str(tmp_path / "log")]

    def start() -> subprocess.Popen[str]:
        (tmp_path / "begun").unlink(missing_ok=True)
        process = subprocess.Popen(
            [*command, "--", "config"], env=slurm, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 30
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process

    first = start()
    first.kill()
    first.wait()
    second = start()
    second.terminate()
    said = second.communicate(timeout=30)[1]
    assert second.returncode == 143
    assert "is at work, of a run that was killed: cancelling it" in said
    assert "is cancelled; the same command resumes it" in said
    user, name = (tmp_path / "scancel.log").read_text().split()[1:4:2]
    assert (tmp_path / "scancel.log").read_text() == f"--user {user} --name {name}\n" * 2
    script = next((tmp_path / "log").glob("job-*.sh")).read_text()
    assert f"--job-name={name} " in script
    assert "#SBATCH --gpus-per-node=2" in script
    assert "--nproc-per-node 2" in script


def test_local_launcher_runs_a_verb(root: Path, tiny_yaml: Path) -> None:
    words = ("--processes", "1", "--", "config", "--config", str(tiny_yaml))
    told = run(root, dict(os.environ), "utils/local.sh", *words)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["target"]["time_grid"] == 0.1


@pytest.mark.parametrize("script", ["utils/local.sh", "utils/slurm.sh"])
@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--processes", "2"), "needs -- and a verb"),
        (("--processors", "2", "--", "config"), "unknown option '--processors'"),
    ],
)
def test_wrong_calls_are_told(
    root: Path, slurm: dict[str, str], script: str, words: tuple[str, ...], error: str
) -> None:
    told = run(root, slurm, script, *words)
    assert told.returncode == 2
    assert error in told.stderr


def test_no_slurm_here(root: Path) -> None:
    told = run(root, {**os.environ, "PATH": "/usr/bin:/bin"}, "utils/slurm.sh", "--", "config")
    assert told.returncode == 2
    assert "sbatch is not here" in told.stderr
