"""The Ray runner: source actors that pull, worker actors that hold the ensembles.

Enters: jobs and units of work. Leaves: the same steps and results, in the same form, as
`assay.screening.runners.local`. Of the runners only this module and
`assay.screening.runners.connection` know Ray. Work, tables and plain data cross to other processes,
nothing else. A worker has one unit at a time, and a host one page. This driver owns every retry,
because Ray's own would repeat a poisonous chunk for ever. Secrets cross as references. Unless the
config asks for CPUs, actors take none from Ray (CPU-holding actors deadlock small machines); the
size of the pool bounds them.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from assay.screening.pulling import pull
from assay.screening.pulling.source import Job
from assay.screening.pulling.steps import Step
from assay.screening.runners import connection
from assay.screening.runners.local import POLL_S
from assay.screening.runners.pool import Workers
from assay.screening.runners.pulls import Pulls
from assay.screening.runners.remote import Died
from assay.screening.runners.runner import STALL_S, Do, Done, Unit
from assay.screening.runners.work import Work
from assay.screening.settings.config import Ray
from assay.screening.settings.exits import Exit, Failure
from assay.sources.databases.pace import HostPace

log = logging.getLogger(__name__)
_Jobs = Callable[[], list[Job]]
LOOK_S = 2.0
"""How often the size of the cluster and silent processes are looked at."""
HEAD_S = 30.0
"""How long the head of the cluster may be away; after 60 s Ray ends this process without a word."""
NAMESPACE = "assay"
"""Where the pace of a host is found by every campaign of a cluster."""
PACE_ANSWER_S = 60.0
"""How long the pace may take to answer."""
PACE_TRIES = 12
"""How often it is looked for or made again, over about a minute."""


class PaceActor:
    """The `assay.sources.databases.pace.HostPace` of one host, for every campaign on a cluster.

    It ends with the campaign that made it. A new one does not know which requests the one before it
    allowed: in its first interval it grants no slot.
    """

    def __init__(self) -> None:
        self._pace = HostPace()
        self._born = time.monotonic()

    def call(self, method: str, *arguments: float) -> float | None:
        """Call a method of the pace."""
        early = self._born + self._pace.interval_s - time.monotonic()
        if method == "wait" and early > 0:
            return early
        return getattr(self._pace, method)(*arguments)  # type: ignore[no-any-return]


class SharedPace:
    """An `assay.sources.databases.pace.Pace` that asks the actor of its host, and makes it."""

    def __init__(self, host: str) -> None:
        self._name = f"assay-pace-{quote(host, safe='', errors='backslashreplace')}"
        self._actor: Any = None
        self._interval_s = 0.0
        self.heard = time.monotonic()
        """When a request was made, answered, or had to wait."""

    def wait(self) -> float:
        """Take the next slot and return 0, or return the s to sleep before asking again."""
        return float(self._call("wait"))

    def good(self) -> None:
        """Note that an attempt was answered."""
        self._call("good")

    def bad(self, pause_s: float) -> None:
        """Note that an attempt failed; the server asked for this pause in s (0 if it did not)."""
        self._call("bad", pause_s)

    def slow_down(self, interval_s: float) -> None:
        """Keep at least this interval in s between requests from now on."""
        self._interval_s = max(self._interval_s, interval_s)
        self._call("slow_down", interval_s)

    def _call(self, method: str, *arguments: float) -> Any:
        import ray

        for attempt in range(PACE_TRIES):
            self.heard = time.monotonic()
            try:
                self._actor = self._actor or self._find(ray)
                return ray.get(self._actor.call.remote(method, *arguments), timeout=PACE_ANSWER_S)
            except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError, ValueError) as error:
                log.warning("%s is gone (%s); another takes its place", self._name, type(error).__name__)
            with suppress(ray.exceptions.RayError, AttributeError):
                ray.kill(self._actor)  # so that its name is free; Ray may take a while to know that a node is gone
            self._actor = None
            time.sleep(min(10.0, 0.1 * 2**attempt))
        raise ConnectionError(f"{self._name} cannot be reached; look into the logs of Ray")

    def _find(self, ray: Any) -> Any:
        named = {"name": self._name, "namespace": NAMESPACE, "get_if_exists": True, "num_cpus": 0}
        actor = ray.remote(PaceActor).options(**named).remote()
        actor.call.remote("slow_down", self._interval_s)  # in order: it comes before the next question
        return actor


class SourceActor:
    """Pulls the sources of one host, one step per call."""

    def __init__(self, jobs: list[Job], folder: str) -> None:
        """`folder` is where relative paths begin."""
        self._jobs, self._folder = jobs, folder
        self._pace = SharedPace(jobs[0].host)
        self._steps: Iterator[Step] | None = None
        self._remote = jobs[0].source.remote

    def next(self) -> Step | None:
        """The next step; None after the last."""
        self._pace.heard = time.monotonic()
        if self._steps is None:  # not before: an error in a constructor looks like a death
            if Path(self._folder).is_dir():
                os.chdir(self._folder)
            self._steps = pull.events(self._jobs, self._pace)
        return next(self._steps, None)

    def silent_s(self) -> float:
        """For how many s no request was made or answered; 0 where none are made."""
        return time.monotonic() - self._pace.heard if self._remote else 0.0


class WorkerActor:
    """Holds the worker function, and with it the loaded ensembles; does one unit per call."""

    def __init__(self, make: Callable[[], Do]) -> None:
        self._make = make
        self._do: Do | None = None

    def ready(self) -> str:
        """Make the worker function; the id of the node."""
        import ray

        self._do = self._do or self._make()
        return str(ray.get_runtime_context().get_node_id())

    def do(self, work: Work[Any], table: pa.Table) -> Any:
        """Do one unit."""
        assert self._do is not None
        return self._do(work, table)


class ClusterRunner:
    """Runs the work on Ray: a cluster by address, the one around this job, or a new local one."""

    def __init__(
        self, make: Callable[[], Do], settings: Ray, *, address: str | None = None, stall_s: float = STALL_S
    ) -> None:
        """`make` makes the worker function in a worker; a process silent for `stall_s` is dead."""
        self._left = ExitStack()
        ray = self._left.enter_context(connection.joined(address, None if settings.cpus else settings.workers))
        self._cluster = _Cluster(ray, make, settings)
        self._settings, self._stall_s = settings, stall_s

    def close(self) -> None:
        """Leave the cluster; a cluster that was started here ends."""
        self._left.close()

    def work(self, jobs: _Jobs, units: deque[Unit], stopped: Callable[[], bool]) -> Iterator[Step | Done]:
        """Steps and results as they arrive; once stopped, only of units that workers have begun.

        Raises:
            Failure: CONFIG, when no node can ever hold a worker; CLUSTER, when the cluster is lost.
        """
        self._cluster.require()
        workers = Workers(self._cluster, self._settings, self._stall_s)
        pulls = Pulls(self._cluster, jobs, stopped, self._stall_s)
        look = 0.0
        with ExitStack() as stack:
            stack.callback(pulls.close)
            stack.callback(workers.close)
            stack.enter_context(redirect_stdout(sys.stderr))  # Ray prints deaths to standard output, which is for data
            while True:
                stop = stopped()
                if not stop:
                    workers.begin(units)
                if not workers.working and (stop or not (pulls.pulling or units or workers.urgent)):
                    return
                for ref in self._cluster.arrived([*pulls.pulling, *workers.working, *workers.starting], POLL_S):
                    yield from pulls.take(ref) if ref in pulls.pulling else workers.take(ref)
                if time.monotonic() > look:
                    if self._cluster.look():
                        pulls.watch()
                        workers.watch(len(units))
                    look = time.monotonic() + LOOK_S


class _Cluster:
    """Ray, as far as this runner needs it."""

    def __init__(self, ray: Any, make: Callable[[], Do], settings: Ray) -> None:
        self._ray, self._make, self._settings = ray, make, settings
        kinds = ray.exceptions
        self._elsewhere = kinds.NodeDiedError, kinds.ObjectLostError, kinds.ActorUnavailableError
        self._deaths = (
            *self._elsewhere,
            kinds.RayActorError,
            kinds.WorkerCrashedError,
            kinds.OutOfMemoryError,
            kinds.ActorUnschedulableError,
            kinds.RuntimeEnvSetupError,
        )
        once = {"max_restarts": 0, "max_task_retries": 0}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        threads |= {name: str(settings.threads) for name in ("NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")}
        self._cpus: dict[str, float] = {}  # node -> its CPUs, when they were last asked for
        self._here, self._head = ray.get_runtime_context().get_node_id(), ray.get_runtime_context().gcs_address
        self._heard = time.monotonic()  # from the head
        asked = {"num_cpus": settings.cpus, "num_gpus": settings.gpus, "scheduling_strategy": "SPREAD"}
        environment = {"env_vars": threads}  # every user of the cluster can read it: no secrets
        self._workers = ray.remote(runtime_env=environment, **asked, **once)(WorkerActor)
        self._sources = ray.remote(num_cpus=0, concurrency_groups={"watch": 1}, **once)(SourceActor)

    def worker(self, present: Mapping[str, int]) -> tuple[Any, str]:
        """Ask for another worker and return at once.

        A worker that asks for no CPU goes to the node with the fewest workers per CPU: Ray would
        put it anywhere, and perhaps all of them on one node.
        """
        self.look()
        if self._settings.cpus or self._settings.gpus:
            return self._workers.remote(self._make), ""
        usable = {node: cpus for node, cpus in self._cpus.items() if cpus} or dict.fromkeys(self._cpus, 1.0)
        node = min(usable, key=lambda node: ((present.get(node, 0) + 1) / usable[node], node))
        return self._workers.options(scheduling_strategy=_at(node)).remote(self._make), node

    def require(self) -> None:
        """Refuse workers that no node can ever hold."""
        connection.require(self._ray, self._settings.cpus, self._settings.gpus, "a worker (ray.cpus, ray.gpus)")

    def look(self) -> bool:
        """Find out which nodes are left; False while the head does not answer.

        Raises:
            Failure: CLUSTER, when the head is gone, or the node of this process. Its end is the end
                of all actors that this process started, also of those on other nodes.
        """
        host, _, port = self._head.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), LOOK_S).close()
        except OSError as error:
            if time.monotonic() - self._heard < HEAD_S:
                return False  # a question would now wait inside Ray
            raise _lost(f"its head {self._head} does not answer since {HEAD_S:g} s ({error})") from error
        self._heard = time.monotonic()
        self._cpus = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in self._ray.nodes() if node["Alive"]}
        if self._here not in self._cpus:
            raise _lost(f"the node of this process died; nodes that are left: {len(self._cpus)}")
        return True

    def source(self, jobs: list[Job], *, remote: bool) -> Any:
        """Ask for another process that pulls; files are read on the node of the driver."""
        where: Any = "SPREAD" if remote else _at(self._ray.get_runtime_context().get_node_id())
        return self._sources.options(scheduling_strategy=where).remote(jobs, str(Path.cwd()))

    def call(self, actor: Any, method: str, *arguments: Any) -> Any:
        """Begin a call; the reference of what it will give."""
        group = {"concurrency_group": "watch"} if method == "silent_s" else {}
        return getattr(actor, method).options(**group).remote(*arguments)

    def arrived(self, refs: list[Any], wait_s: float) -> list[Any]:
        """Which calls are finished, after waiting so long for the first of them."""
        if not refs:
            time.sleep(wait_s)
            return []
        first = self._ray.wait(refs, timeout=wait_s)[0]
        return self._ray.wait(refs, num_returns=len(refs), timeout=0)[0] if first else first  # type: ignore[no-any-return]

    def get(self, ref: Any, node: str = "") -> Any:
        """The value; what a worker function raised is raised as itself, as in the local runner."""
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._deaths as error:
            gone = isinstance(error, self._elsewhere) or "node has died" in str(error)
            said = str(error).partition("Some common causes")[0][:600]  # then comes a page for every death alike
            self.look()
            raise Died(said, with_node=gone or (bool(node) and node not in self._cpus)) from error

    def end(self, actor: Any) -> None:
        """End an actor, started or not."""
        self._ray.kill(actor)

    def room(self, node: str | None = None) -> float:
        """How many workers the cluster or one node can hold: one per CPU if they ask for none."""
        ask = self._settings
        if node is not None:
            return float("inf") if ask.cpus or ask.gpus else max(1.0, self._cpus.get(node, 1.0))
        have = self._ray.cluster_resources()
        shares = [have.get("CPU", 0.0) / (ask.cpus or 1.0)]
        if ask.gpus:
            shares.append(have.get("GPU", 0.0) / ask.gpus)
        return max(1, int(min(shares)))

    def describe(self) -> str:
        """What the cluster has."""
        return connection.describe(self._ray)


def _lost(why: str) -> Failure:
    advice = "look into the logs of Ray, start it again, and run again to go on: what is committed is kept"
    return Failure(Exit.CLUSTER, f"the Ray cluster was lost: {why}; {advice}")


def _at(node: str) -> Any:
    """On this node, or on another one if it is gone."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=True)
