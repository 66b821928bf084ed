"""Three nodes of Ray: workers are killed, a node goes, another one comes, and the bytes stay the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.screening.folder.ledger import Ledger
from assay.screening.runners import connection
from assay.screening.runners.local import LocalRunner
from tests.screening.runners.test_cluster import PROTOTYPES, ROOT, actors, digests, raylet_of, real_work, run

CAMPAIGN = """
import os, sys, time
from functools import partial
from pathlib import Path
from assay.screening.campaign import drive, plan
from assay.screening.runners import cluster, worker
from assay.screening.settings import config

def text(path):
    return path.read_text() if path.exists() else ""

def slow(models, log, newcomer):
    import ray
    worker.set_up_process()
    ensembles = worker.load(models, 1)  # here, so that a death while they are loaded accuses no task
    inner = worker.Worker(lambda: ensembles)
    node = ray.get_runtime_context().get_node_id()
    def do(work, content):
        with log.with_name("begun").open("a") as file:
            file.write(f"{os.getpid()} {content['id'][:1].to_pylist()}\\n")
        result = inner(work, content)
        time.sleep(0.4)
        with log.open("a") as file:
            file.write(node + "\\n")
        for _ in range(600):  # the end must not come before the new node has had its share
            if text(log).count("\\n") > 30 and (text(newcomer) or "-") not in text(log):
                time.sleep(0.1)
        return result
    return do

folder, address = sys.argv[1:3]
path, log, newcomer = map(Path, sys.argv[3:])
settings = config.load(path).model_copy(update={"output": folder})
planned = plan.make(settings)
runner = cluster.ClusterRunner(partial(slow, planned.models, log, newcomer), settings.ray, address=address, stall_s=120)
drive.run(planned, runner, lambda: False)
runner.close()
"""


@pytest.fixture
def nodes() -> Iterator[Any]:
    """Three nodes of a cluster that no one is connected to; its token is not that of the home folder."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 128 << 20, "include_dashboard": False}
    with connection._own_token():
        cluster = Cluster(initialize_head=True, head_node_args=node)
        for _ in range(2):
            cluster.add_node(**node)
        yield cluster
        cluster.shutdown()


def test_workers_and_a_node_may_go_and_a_node_may_come(
    nodes: Any, write_config: Callable[..., Path], model: Path, tmp_path: Path
) -> None:
    path = write_config(PROTOTYPES, chunk_size=4)
    run(path, tmp_path / "local", LocalRunner(real_work(model)()))
    log, newcomer, rng, victims, killed_at = tmp_path / "nodes", tmp_path / "newcomer", random.Random(5), 0, 0
    command = [sys.executable, "-c", CAMPAIGN, tmp_path / "ray", nodes.address, path, log, newcomer]
    driver = subprocess.Popen(command, cwd=ROOT, stderr=(tmp_path / "errors").open("w"))

    def done() -> list[str]:
        return log.read_text().split() if log.exists() else []

    def busy(struck: set[str]) -> dict[int, str]:
        """Workers and the first crystal of their chunks, but those of chunks that were struck before."""
        begun = (tmp_path / "begun").read_text().splitlines() if done() else []
        found = {int(pid): first for pid, _, first in (line.partition(" ") for line in begun)}
        pids = actors("WorkerActor", [raylet_of(node) for node in nodes.list_all_nodes()])
        return {pid: found[pid] for pid in pids if pid in found and found[pid] not in struck}

    gone, struck = "", set[str]()
    deadline = time.monotonic() + 600
    while driver.poll() is None:
        if time.monotonic() > deadline:
            driver.kill()
        time.sleep(rng.uniform(1.0, 2.0))
        if (pids := busy(struck)) and killed_at < len(done()) < 28 and victims < 5:
            pid = rng.choice(sorted(pids))
            os.kill(pid, signal.SIGKILL)
            victims, killed_at = victims + 1, len(done())
            struck.add(pids[pid])  # a chunk that kills again and again is done in halves, whose last bits may differ
        leaving = [node for node in nodes.worker_nodes if node.node_id in done()]
        if leaving and not gone:
            gone = leaving[0].node_id
            nodes.remove_node(leaving[0], allow_graceful=False)
        elif gone and len(done()) > 12 and not newcomer.exists():
            newcomer.write_text(nodes.add_node(num_cpus=1, object_store_memory=128 << 20).node_id)
    assert driver.returncode == 0, (tmp_path / "errors").read_text()[-3000:]
    assert victims >= 3
    assert {gone, newcomer.read_text(), nodes.head_node.node_id} <= set(done())
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")
    ledger = Ledger(tmp_path / "ray")
    assert ledger.replaced == []
    assert len(ledger.all("part")) == 50
