"""`ray job submit` for real: a head node on loopback with token authentication, and a secret that stays one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from assay.sources import table
from assay.sources.crystals import Crystals
from tests.chaos.preloaded import Preloaded
from tests.servers import FaultServer, entries_from_crystals

pytest.importorskip("ray")
ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
CANARY = f"canary-{os.urandom(8).hex()}"  # made here: this file is part of what is uploaded
EXCLUDES = json.dumps({"excludes": [".venv", ".git", "runs", ".hypothesis", ".mypy_cache", ".ruff_cache"]})
SMALL = ("--set", "sources.0.n=300", "--set", "chunk_size=60")


@dataclass
class Head:
    """A Ray head node on loopback, of this test alone."""

    folder: Path
    port: int
    environment: dict[str, str]
    jobs: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ray(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`ray ...` as the user on the submitting machine types it."""
        mine = {k: v for k, v in self.environment.items() if k != "ASSAY_TEST_KEY"} | environment
        return subprocess.run(
            [str(BIN / "ray"), *arguments],
            cwd=ROOT,
            env=mine,
            text=True,
            capture_output=True,
            timeout=240,
            stdin=subprocess.DEVNULL,
        )

    def submit(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """`ray job submit ... -- python -m assay ...`, waiting for its end."""
        self.jobs.append(name)
        return self.ray(
            "job",
            "submit",
            "--address",
            self.url,
            "--submission-id",
            name,
            "--working-dir",
            ".",
            "--runtime-env-json",
            EXCLUDES,
            "--",
            "python",
            "-m",
            "assay",
            *map(str, arguments),
        )

    def api(self, path: str, token: str | None = None) -> bytes:
        """What the job API answers to the holder of a token."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        with urlopen(Request(self.url + path, headers=headers), timeout=30) as answer:
            content: bytes = answer.read()
            return content

    @property
    def token(self) -> str:
        return Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on just now."""
    taken = [socket.socket() for _ in range(n)]
    for one in taken:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


def wait_until(true: Callable[[], bool], child: subprocess.Popen[Any], log: Path) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert child.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="assay-", dir="/tmp"))  # a short path: socket names end at 107 characters
    (folder / "token").write_text(hashlib.sha256(os.urandom(32)).hexdigest())
    (folder / "token").chmod(0o600)
    ports = free_ports(2)
    own = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),  # the compiled loops
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "ASSAY_TEST_KEY": CANARY,
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHONPATH"))} | own
    command = [
        BIN / "ray",
        "start",
        "--head",
        "--block",
        "--port=0",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={ports[0]}",
        f"--ray-client-server-port={ports[1]}",
        "--dashboard-agent-listen-port=0",
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--num-cpus=2",
        f"--object-store-memory={256 << 20}",
        f"--temp-dir={folder / 'ray'}",
    ]
    log = folder / "head.log"
    with log.open("w") as output:
        child = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_until(lambda: "Ray runtime started" in log.read_text(), child, log)
        yield Head(folder, ports[0], environment)
    finally:
        child.send_signal(signal.SIGTERM)
        end(child)
        shutil.rmtree(folder)


def end(leader: subprocess.Popen[Any]) -> None:
    """Wait until a session that was asked to end is gone; whoever stays behind is killed, and fails the test."""
    deadline = time.monotonic() + 60
    while (leader.poll() is None or session(leader.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    left = session(leader.pid)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    leader.wait(10)
    assert not left


def session(leader: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, *_, sid = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(sid) == leader and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "candidates.parquet").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def submitted(head: Head) -> subprocess.CompletedProcess[str]:
    """The quickstart, submitted once."""
    done = head.submit("quickstart-1", "run", "configs/quickstart.yaml", "--output", head.folder / "out", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_quickstart_as_a_job_gives_the_bytes_of_a_local_run(
    head: Head, submitted: subprocess.CompletedProcess[str], preloaded: Preloaded, tmp_path: Path
) -> None:
    assert "Job 'quickstart-1' succeeded" in submitted.stdout
    listed = json.loads(head.api("/api/jobs/quickstart-1", head.token))
    assert (listed["status"], listed["driver_exit_code"]) == ("SUCCEEDED", 0)
    logs = head.ray("job", "logs", "--address", head.url, "quickstart-1").stdout
    assert "rank  formula" in logs
    assert f"300 received, 300 unique, 300 scored, 300 ranked -> {head.folder / 'out'}" in logs
    local = preloaded.run(["run", "configs/quickstart.yaml", "--output", tmp_path / "local", *SMALL], ROOT)
    assert local.returncode == 0, local.stderr
    assert digest(tmp_path / "local") == digest(head.folder / "out")


def test_a_second_submission_scores_nothing_again(head: Head, submitted: subprocess.CompletedProcess[str]) -> None:
    out = head.folder / "out"
    before, stamps = digest(out), {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    assert len(stamps) == 5
    again = head.submit("quickstart-2", "run", "configs/quickstart.yaml", "--output", out, *SMALL)
    assert again.returncode == 0, again.stdout + again.stderr
    assert digest(out) == before
    assert stamps == {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}


def test_a_cascade_on_symmetrised_cells_as_a_job_gives_the_bytes_of_a_local_run(
    head: Head, preloaded: Preloaded, tmp_path: Path
) -> None:
    small = (*SMALL, "--set", "cascade.audit=30", "--set", "symmetrise=0.01")
    words = ("run", "configs/superconductors-cascade.yaml", *small, "--output")
    done = head.submit("cascade-1", *words, head.folder / "cascade")
    assert done.returncode == 0, done.stdout + done.stderr
    local = preloaded.run([*words, tmp_path / "local"], ROOT)
    assert local.returncode == 0, local.stderr
    assert digest(tmp_path / "local") == digest(head.folder / "cascade")
    audited = table.read(tmp_path / "local" / "candidates.parquet", ["tier", "audit"]).to_pydict()
    assert audited["tier"].count(1) == 6 + sum(audited["audit"]) == 36  # 2 % of 300, and the audit


def test_the_exit_code_of_a_refused_campaign_is_told(head: Head) -> None:
    done = head.submit(
        "quickstart-3", "run", "configs/quickstart.yaml", "--output", head.folder / "x", "--set", "chunk_sise=1"
    )
    assert done.returncode == 1  # Ray's own: it knows only success and failure
    assert "failed with exit code 78" in done.stdout
    assert "did you mean 'chunk_size'?" in done.stdout


def test_nobody_without_the_token_gets_in(head: Head) -> None:
    for token, status in ((None, 401), ("0" * 64, 403)):
        with pytest.raises(HTTPError) as refused:
            head.api("/api/jobs/", token)
        assert refused.value.code == status
    stranger = head.ray("job", "list", "--address", head.url, RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN_PATH="")
    assert stranger.returncode != 0
    assert "Authentication required" in stranger.stderr


@pytest.mark.parametrize(
    ("mode", "token", "told"),
    [
        ("disabled", "", "set RAY_AUTH_MODE=token, so that the one in $RAY_AUTH_TOKEN_PATH is sent"),
        ("token", "0" * 64, "the one in $RAY_AUTH_TOKEN is another"),
    ],
)
def test_a_driver_that_is_not_let_in_is_told_of_the_token(head: Head, mode: str, token: str, told: str) -> None:
    address = (head.folder / "ray" / "ray_current_cluster").read_text()
    words = ("run", "configs/quickstart.yaml", "--output", head.folder / "x", "--on", "ray", "--address", address)
    mine = head.environment | {"RAY_AUTH_MODE": mode} | ({"RAY_AUTH_TOKEN": token} if token else {})
    done = subprocess.run(
        [sys.executable, "-m", "assay", *words], cwd=ROOT, env=mine, text=True, capture_output=True, timeout=240
    )
    assert done.returncode == 78, done.stderr
    assert f"the Ray cluster at {address} asks for a token: {told}" in done.stderr.splitlines()[-1]


def test_a_secret_reaches_the_server_and_nothing_else(head: Head, real: Crystals, zoo: Path) -> None:
    with FaultServer(entries_from_crystals(real[:20]), page_limit=10) as server:
        source = {
            "kind": "optimade",
            "provider": server.url,
            "name": "ref",
            "headers": {"X-Api-Key": {"env": "ASSAY_TEST_KEY"}},
        }
        content = {"name": "keyed", "sources": [source], "models": [str(zoo / "formation-energy")]}
        config = head.folder / "keyed.yaml"
        config.write_text(yaml.safe_dump(content))
        done = head.submit("keyed-1", "run", config, "--output", head.folder / "keyed")
        assert done.returncode == 0, done.stdout + done.stderr
        assert {headers.get("x-api-key") for _, headers in server.requests} == {CANARY}
    resolved = (head.folder / "keyed" / "config.resolved.yaml").read_text()
    assert yaml.safe_load(resolved)["sources"][0]["headers"] == {"X-Api-Key": {"env": "ASSAY_TEST_KEY"}}
    shown = head.api("/api/jobs/", head.token) + head.api("/api/jobs/keyed-1/logs", head.token)
    places = [path for path in head.folder.rglob("*") if path.is_file() and path.name != "token"]
    assert {"config.resolved.yaml", "report.html", "raylet.out", "head.log"} <= {path.name for path in places}
    for secret in (CANARY.encode(), head.token.encode()):
        assert secret not in shown + done.stdout.encode() + done.stderr.encode()
        assert [path for path in places if secret in path.read_bytes()] == []


def test_the_cluster_config_fits_the_schema_of_ray() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(yaml.safe_load((ROOT / "configs" / "clusters" / "cluster.yaml").read_text()))
    validate_config(prepared)
    assert prepared["provider"]["type"] == "local"
    assert prepared["max_workers"] == 2
    for role in ("head", "worker"):
        starts = [line for line in prepared[f"{role}_start_ray_commands"] if "ray start" in line]
        assert len(starts) == 1
        assert "RAY_AUTH_MODE=token" in starts[0]
    assert "~/.ray/auth_token" in prepared["file_mounts"]
    assert "/runs" in prepared["rsync_exclude"]
