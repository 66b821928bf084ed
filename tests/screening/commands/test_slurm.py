"""The sbatch script, run as Slurm runs it: srun and scontrol are fakes that act on this machine, Ray is real."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.preloaded import Preloaded

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
SCRIPT = ROOT / "configs" / "clusters" / "slurm.sbatch"
CONFIG = "configs/quickstart.yaml"
PROGRAMS = {
    # starts the command of a step here, whatever node it was meant for
    "srun": 'printf "%s\\n" "$*" | head -n 1 >>"$FAKE/srun"; while [[ $1 == -* ]]; do shift; done; exec "$@"',
    "scontrol": """
        echo "$*" >>"$FAKE/scontrol"
        if [[ $1 == show ]]; then echo "JobId=$4 JobName=assay JobState=${FAKE_STATE:-RUNNING} Reason=None"; fi""",
}
QUICK = PROGRAMS | {
    # a head that is up at once, and tells what it was given
    "ray": """
        printf "%s\\n" "$@" >"$FAKE/ray"
        env | grep ^RAY_ >"$FAKE/environment"
        stat -c %a "$RAY_AUTH_TOKEN_PATH" >"$FAKE/mode"; wc -c <"$RAY_AUTH_TOKEN_PATH" >"$FAKE/length"
        for word; do [[ $word == --temp-dir=* ]] && folder=${word#*=}; done
        mkdir -p "$folder"; echo -n 192.0.2.1:1234 >"$folder/ray_current_cluster"
        trap 'touch "$FAKE/ray-ended"; exit 0' TERM
        while :; do sleep 0.1; done""",
    # ends with a code, or runs until it is told to stop
    "assay": """
        echo "$*" >"$FAKE/assay"
        [[ $FAKE_CODE ]] && exit "$FAKE_CODE"
        trap 'exit 85' TERM
        touch "$FAKE/started"
        while :; do sleep 0.1; done""",
}


class Job:
    """One Slurm job: its batch script, started as often as Slurm starts it."""

    def __init__(self, folder: Path, programs: dict[str, str], **environment: str) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        for name, text in programs.items():
            (folder / "bin" / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
            (folder / "bin" / name).chmod(0o755)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM_", "PYTHONPATH"))}
        own = {"PATH": f"{folder / 'bin'}:{BIN}:{clean['PATH']}", "PYTHONPATH": str(ROOT), "FAKE": str(folder)}
        slurm = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_PER_TASK": "1"}
        ours = {"ASSAY_STATE": str(folder / "state"), "ASSAY_OBJECT_STORE": str(128 << 20), "FAKE_CODE": ""}
        self.environment = clean | own | slurm | ours | environment

    def start(self, *arguments: str | Path, script: Path = SCRIPT, restarts: int = 0) -> subprocess.Popen[str]:
        """The batch script; Slurm runs a copy from its own spool folder, in the folder of submission."""
        copy = self.folder / "slurm_script"
        shutil.copy(script, copy)
        counted = {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
        return subprocess.Popen(["bash", copy, *arguments], cwd=ROOT, env=self.environment | counted, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip

    def run(self, *arguments: str | Path, **options: Any) -> tuple[int, str]:
        """The batch script to its end; its exit code and log."""
        return self.end(self.start(*arguments, **options))

    def end(self, child: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for the end of the batch script, which leaves no process and no file behind."""
        try:
            output = child.communicate(timeout=240)[0]
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        assert session(child.pid) == []
        assert list((self.folder / "state").glob("*")) == []
        return child.returncode, output

    def said(self, name: str) -> str:
        """What a fake program noted."""
        path = self.folder / name
        return path.read_text() if path.exists() else ""


def session(leader: int) -> list[str]:
    """Living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, *_, sid = path.read_text().rpartition(")")[2].split()[:4]
            command = path.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if int(sid) == leader and state not in "ZX":
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def wait_for(true: Callable[[], object], child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not true():
        assert child.poll() is None, child.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_bash_and_slurm_understand_the_script() -> None:
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    head = SCRIPT.read_text().partition("set -euo pipefail")[0]
    assert {"--requeue", "--no-kill", "--open-mode=append", "--signal=B:TERM@120"} <= set(
        re.findall(r"^#SBATCH (\S+)$", head, re.MULTILINE)
    )


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    found = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("code", [0, 3, 65, 69, 70, 73, 74, 78])
def test_every_other_exit_code_is_that_of_the_job(tmp_path: Path, code: int) -> None:
    job = Job(tmp_path / "job", QUICK, FAKE_CODE=str(code))
    assert job.run(CONFIG, "/shared/out", "--workers", "3")[0] == code
    assert job.said("assay") == f"run {CONFIG} --output /shared/out --on ray --address 192.0.2.1:1234 --workers 3\n"
    assert job.said("scontrol") == ""
    assert (job.folder / "ray-ended").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_before_the_time_limit_stops_assay_and_the_job_goes_back_into_the_queue(
    tmp_path: Path, number: signal.Signals
) -> None:
    job = Job(tmp_path / "job", QUICK)
    child = job.start(CONFIG, "/shared/out")
    wait_for((job.folder / "started").exists, child)
    child.send_signal(number)
    code, log = job.end(child)
    assert code == 85, log
    assert job.said("scontrol").splitlines() == ["show job --oneliner 4711", "requeue 4711"]
    assert (job.folder / "ray-ended").exists()


def test_a_signal_while_assay_starts_is_a_stop_too(tmp_path: Path) -> None:
    deaf = 'touch "$FAKE/started"; exec sleep 100'  # has no handler yet: SIGTERM ends it
    job = Job(tmp_path / "job", QUICK | {"assay": deaf})
    child = job.start(CONFIG, "/shared/out")
    wait_for((job.folder / "started").exists, child)
    child.send_signal(signal.SIGTERM)
    assert job.end(child)[0] == 85
    assert "requeue 4711" in job.said("scontrol")


def test_a_signal_while_ray_starts_is_a_stop_too(tmp_path: Path) -> None:
    slow = QUICK["ray"].replace("mkdir -p", 'touch "$FAKE/starting"; sleep 2; mkdir -p')
    job = Job(tmp_path / "job", QUICK | {"ray": slow})
    child = job.start(CONFIG, "/shared/out")
    wait_for((job.folder / "starting").exists, child)
    child.send_signal(signal.SIGTERM)
    assert job.end(child)[0] == 85
    assert job.said("assay") == ""
    assert "requeue 4711" in job.said("scontrol")


@pytest.mark.parametrize(
    ("environment", "restarts", "reason"),
    [({"FAKE_STATE": "CANCELLED"}, 0, "JobState=CANCELLED"), ({"ASSAY_MAX_RESTARTS": "2"}, 2, "started 3 times")],
    ids=["cancelled", "too often"],
)
def test_a_job_that_shall_not_come_back_does_not(
    tmp_path: Path, environment: dict[str, str], restarts: int, reason: str
) -> None:
    job = Job(tmp_path / "job", QUICK, FAKE_CODE="85", **environment)
    code, log = job.run(CONFIG, "/shared/out", restarts=restarts)
    assert (code, "requeue" in job.said("scontrol")) == (85, False)
    assert f"not put back into the queue: {reason}" in log


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "message"),
    [
        ([CONFIG, "/out"], {"SLURM_ARRAY_JOB_ID": "4710"}, 73, "one folder has one writer"),
        ([CONFIG, "runs/out"], {}, 78, "runs/out must be absolute"),
        (["nowhere.yaml", "/out"], {}, 78, "config nowhere.yaml not found"),
        ([CONFIG], {}, 2, "needs the config and the output folder"),
        ([CONFIG, "/out"], {"SLURM_JOB_ID": ""}, 2, "run it with: sbatch"),
        ([CONFIG, "/out"], {"PATH": "/usr/bin:/bin"}, 78, "no assay on PATH"),
    ],
)
def test_what_cannot_work_is_refused_before_ray_starts(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], code: int, message: str
) -> None:
    job = Job(tmp_path / "job", QUICK, **environment)
    ended, log = job.run(*arguments)
    assert (ended, job.said("ray")) == (code, "")
    assert message in log
    assert len(log.splitlines()) == 1


def test_a_ray_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    job = Job(tmp_path / "job", QUICK | {"ray": "echo no room in /dev/shm; exit 1"})
    code, log = job.run(CONFIG, "/shared/out")
    assert code == 1
    assert "no room in /dev/shm" in log
    assert job.said("assay") == ""


def test_each_job_has_its_own_token_ports_and_folder(tmp_path: Path) -> None:
    given = []
    for name in ("one", "two"):
        job = Job(tmp_path / name, QUICK, FAKE_CODE="0", RAY_AUTH_TOKEN="f" * 64, SLURM_JOB_ID=name)
        assert job.run(CONFIG, "/shared/out")[0] == 0
        assert (job.said("mode"), job.said("length")) == ("600\n", "64\n")
        assert {"RAY_AUTH_MODE=token", "RAY_USAGE_STATS_ENABLED=0"} <= set(job.said("environment").splitlines())
        assert "RAY_AUTH_TOKEN=" not in job.said("environment")
        words = job.said("ray").splitlines()
        fixed = "--head --block --port=0 --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0"
        assert {*fixed.split(), "--include-dashboard=false", "--num-cpus=1"} <= set(words)
        scratch = next(Path(word.partition("=")[2]).parent for word in words if word.startswith("--temp-dir="))
        assert not scratch.exists()
        given.append({word for word in words if word.startswith(("--temp-dir=", "--ray-client-server-port="))})
    assert len(given[0] | given[1]) == 4


@pytest.mark.parametrize("code", [0, 3, 74])
def test_the_script_without_ray_in_the_documents_passes_exit_codes_on(tmp_path: Path, code: int) -> None:
    job = Job(tmp_path / "job", QUICK, FAKE_CODE=str(code))
    assert job.run(script=documented(tmp_path))[0] == code
    assert job.said("assay").startswith(f"run {CONFIG} --output /")
    assert job.said("scontrol") == ""


@pytest.mark.parametrize(("state", "requeued"), [("RUNNING", True), ("COMPLETING", False)])
def test_the_script_without_ray_in_the_documents_requeues(tmp_path: Path, state: str, requeued: bool) -> None:
    job = Job(tmp_path / "job", QUICK, FAKE_STATE=state)
    child = job.start(script=documented(tmp_path))
    wait_for((job.folder / "started").exists, child)
    child.send_signal(signal.SIGTERM)
    assert job.end(child)[0] == 85
    assert ("requeue 4711" in job.said("scontrol").splitlines()) is requeued


def documented(folder: Path) -> Path:
    """The script in docs/hpc.md."""
    (text,) = re.findall(r"^```slurm\n(.*?)^```", (ROOT / "docs" / "hpc.md").read_text(), re.DOTALL | re.MULTILINE)
    path = folder / "one-node.sbatch"
    path.write_text(text)
    return path


def test_stopped_and_requeued_on_two_nodes_of_real_ray_gives_the_bytes_of_an_undisturbed_run(
    tmp_path: Path, preloaded: Preloaded
) -> None:
    pytest.importorskip("ray")
    small, out = ("--set", "sources.0.n=3000", "--set", "chunk_size=50"), tmp_path / "out"
    undisturbed = preloaded.run(["run", CONFIG, "--output", tmp_path / "undisturbed", *small], ROOT)
    assert undisturbed.returncode == 0, undisturbed.stderr

    job = Job(tmp_path / "job", PROGRAMS, SLURM_JOB_NUM_NODES="2")
    child = job.start(CONFIG, out, *small)
    wait_for(lambda: parts(out) >= 2, child)
    child.send_signal(signal.SIGTERM)
    code, log = job.end(child)
    assert code == 85, log
    assert "nodes 2" in log
    assert "nodes joined" not in log  # said only when fewer came than were asked for
    assert 0 < parts(out) < 60
    assert not (out / "LOCK").exists()
    assert job.said("scontrol").splitlines()[-1] == "requeue 4711"
    assert re.search(r"--nodes=1 --ntasks=1 .*--relative=1 .*--no-kill", job.said("srun"))
    stamps = {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}

    code, log = job.run(CONFIG, out, *small, restarts=1)
    assert code == 0, log
    assert "start 2" in log
    assert "rank  formula" in log
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert digest(out) == digest(tmp_path / "undisturbed")


def parts(folder: Path) -> int:
    """Chunks that are committed."""
    records = (path.read_text() for path in (folder / "log").glob("*.json"))
    return sum(bool(re.search(r'"kind":\s*"part"', text)) for text in records)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "candidates.parquet").read_bytes()).hexdigest()
