"""Joining Ray: what is not there is told within seconds, and what is started here leaves the home folder alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.screening.runners import connection
from assay.screening.runners.cluster import ClusterRunner
from assay.screening.runners.local import LocalRunner
from assay.screening.settings.config import Ray
from assay.screening.settings.exits import Exit, Failure
from tests.screening.runners.test_cluster import PROTOTYPES, ROOT, digests, echo, finish, ids, real_work, run, units_of
from tests.screening.runners.test_job_submit import free_ports, session

pytest.importorskip("ray")

JOINS = """
import json, os, sys, time
from pathlib import Path
from assay.screening.runners import connection
from assay.screening.settings.exits import Failure

def attempt(address, see):
    began = time.monotonic()
    try:
        with connection.joined(address, 1) as ray:
            return see(ray)
    except Failure as failure:
        return [failure.code, str(failure), time.monotonic() - began]

def look(ray):
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    return [ray.get(ray.remote(lambda: 7).remote()), oct(token.stat().st_mode & 0o777), str(token)]

dead, long = sys.argv[1:]
found = {"dead": attempt(dead, look), "first": attempt(None, look), "second": attempt("local", look)}
found["left"] = sorted(name for name in os.environ if name.startswith("RAY_AUTH"))
os.environ["TMPDIR"] = long
found["long"] = attempt(None, look)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def joins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of several attempts in one process whose home folder is empty and its own."""
    home = tmp_path_factory.mktemp("home")
    long = tmp_path_factory.mktemp("x" * 60)
    mine = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", JOINS, f"127.0.0.1:{free_ports(1)[0]}", long]
    done = subprocess.run(
        command, cwd=ROOT, env=mine | {"HOME": str(home)}, text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told | {"home": sorted(str(path) for path in home.rglob("*"))}


def test_a_cluster_that_is_not_there_is_told_at_once(joins: dict[str, Any]) -> None:
    code, message, took_s = joins["dead"]
    assert code == Exit.CLUSTER == 75
    assert "there is no Ray cluster at 127.0.0.1:" in message
    assert took_s < 20


def test_a_local_ray_has_a_private_token_and_writes_nothing_into_the_home_folder(joins: dict[str, Any]) -> None:
    for answer, mode, _ in (joins["first"], joins["second"]):
        assert (answer, mode) == (7, "0o600")
    paths = {joins[which][2] for which in ("first", "second")}
    assert len(paths) == 2
    assert not any(Path(path).parent.exists() for path in paths)
    assert joins["home"] == joins["left"] == []


def test_a_path_that_is_too_long_for_a_socket_names_the_variable(joins: dict[str, Any]) -> None:
    code, message, _ = joins["long"]
    assert code == Exit.CONFIG
    assert "set TMPDIR to a short folder" in message


@pytest.mark.parametrize(
    ("ask", "told"), [({"cpus": 64.0}, "64 CPUs and 0 GPUs"), ({"gpus": 1.0}, "0 CPUs and 1 GPUs")]
)
def test_what_no_node_can_hold_is_refused_at_once(ray_cluster: Any, ask: dict[str, float], told: str) -> None:
    began = time.monotonic()
    with pytest.raises(Failure, match=rf"no node has {told}.* has 1 nodes, 2 CPUs and 0 GPUs.*cannot grow") as caught:
        finish(ClusterRunner(echo, Ray(workers=2, **ask)), units_of(ids("a")))
    assert caught.value.code is Exit.CONFIG
    assert time.monotonic() - began < 2 * connection.STATUS_S


def test_a_cluster_that_can_grow_is_waited_for(ray_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "grows", lambda: True)
    runner = ClusterRunner(echo, Ray(workers=2, gpus=1.0), stall_s=3)
    with pytest.raises(Failure, match=r"within 3 s: asked for 1 with 0 CPUs and 1 GPUs each.*2 CPUs and 0 GPUs"):
        finish(runner, units_of(ids("a")))


def test_an_autoscaler_is_told_by_the_types_of_its_nodes(ray_cluster: Any) -> None:
    from ray._raylet import GcsClient

    status = {"autoscaler_report": {"active_nodes": {"local.cluster.node": 1}}}
    head = GcsClient(address=ray_cluster.get_runtime_context().gcs_address)
    head.internal_kv_put(b"__autoscaling_status", json.dumps(status).encode(), overwrite=True, namespace=None)
    assert connection.grows()  # until Ray writes again, within seconds


CAMPAIGN = """
import sys, time
from functools import partial
from pathlib import Path
from assay.screening.campaign import drive, plan
from assay.screening.runners import cluster, worker
from assay.screening.settings import config
from assay.screening.settings.exits import Failure

cluster.HEAD_S = 2.0

def slow(models):
    inner = worker.Worker(partial(worker.load, models, 1))
    def do(work, content):
        time.sleep(2.0)
        return inner(work, content)
    return do

settings = config.load(Path(sys.argv[1])).model_copy(update={"output": sys.argv[2]})
planned = plan.make(settings)
runner = cluster.ClusterRunner(partial(slow, planned.models), settings.ray, address="local")
try:
    drive.run(planned, runner, lambda: False)
except Failure as failure:
    print(failure)
    sys.exit(failure.code)
finally:
    runner.close()
"""


@pytest.mark.parametrize(
    ("victims", "told"),
    [("ray::DashboardAgent", "the node of this process died"), ("gcs_server", "its head .* does not answer")],
)
def test_a_cluster_that_is_lost_is_told_and_the_campaign_goes_on_without_it(
    write_config: Callable[..., Path], model: Path, tmp_path: Path, victims: str, told: str
) -> None:
    path = write_config(PROTOTYPES | {"n": 80}, chunk_size=2, ray={"workers": 1})
    run(path, tmp_path / "local", LocalRunner(real_work(model)()))
    folder, log = tmp_path / "ray", (tmp_path / "log").open("w")
    command = [sys.executable, "-c", CAMPAIGN, path, folder]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
    deadline = time.monotonic() + 240
    while len(list((folder / "parts").glob("*.parquet"))) < 2 and driver.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    hit = [pid for pid in session(driver.pid) if victims in name_of(pid)]
    assert hit
    for pid in hit:
        os.kill(pid, signal.SIGKILL)
    output, _ = driver.communicate(timeout=240)
    assert driver.returncode == Exit.CLUSTER, (tmp_path / "log").read_text()[-3000:]
    assert re.search(f"the Ray cluster was lost: {told}.*run again to go on", output)
    assert 2 <= len(list((folder / "parts").glob("*.parquet"))) < 40
    assert run(path, folder, LocalRunner(real_work(model)())).code is Exit.DONE
    assert digests(folder) == digests(tmp_path / "local")


def name_of(pid: int) -> str:
    """The first word of the command line of a process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]
    except OSError:
        return ""
