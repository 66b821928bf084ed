"""Training on Ray: the members of an ensemble side by side, and a search for hyper-parameters with Ray Tune.

Enters: a function with the arguments of each call, or the plan of a search. Leaves: what they write
into an output folder that every node sees. A training process that dies goes on in another one,
where its files say it stopped. Besides `assay.screening.runners.cluster` only this file knows Ray;
it does not know how a network learns.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from assay.screening.runners import cluster
from assay.screening.settings.exits import Exit, Failure, one_line
from assay.screening.training import trials
from assay.screening.training.search import Plan

if TYPE_CHECKING:
    from assay.models.training.fit import Pool

log = logging.getLogger(__name__)
DEATHS = 5
"""Processes that may die over one call; lost nodes do not count."""
CRASHES = 2
"""How often a trial whose process died, or that met an error of the program, is tried again."""
WAIT_S = 1.0
"""How long to wait for a result before looking for Ctrl-C."""
REDUCTION = 3
"""ASHA keeps one in so many trials at each rung."""


def ray_pool(address: str | None = None, workers: int | None = None, gpus: float = 0.0) -> Pool:
    """A pool whose calls run on Ray, each on one CPU with one thread, and on `gpus` GPUs (a part of one is allowed).

    Ray is the cluster at `address` or RAY_ADDRESS, else one started here with `workers` CPUs.
    `workers` is how many calls run at once, unset: as many as fit. Each `Path` among the arguments
    must be a folder that every node sees.
    """

    def pool(function: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> None:
        with _connected(address, workers) as ray:
            _require(ray, gpus)
            folders = {argument.absolute() for call in calls for argument in call if isinstance(argument, Path)}
            with _marked(sorted(folders)) as marks:
                _Calls(ray, function, marks, gpus).run(calls, workers or len(calls))

    return pool


class _Calls:
    """Calls on Ray; this driver repeats those whose process died, because Ray would do so for ever."""

    def __init__(self, ray: Any, function: Callable[..., None], marks: Sequence[Path], gpus: float) -> None:
        self._ray, self._function, self._place = ray, function, _Place.here(marks)
        kinds = ray.exceptions
        self._lost = kinds.NodeDiedError, kinds.ObjectLostError
        self._deaths = (*self._lost, kinds.WorkerCrashedError, kinds.OutOfMemoryError, kinds.RuntimeEnvSetupError)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
        self._task = ray.remote(
            num_cpus=1, num_gpus=gpus, max_retries=0, scheduling_strategy="SPREAD", runtime_env={"env_vars": threads}
        )(_call)

    def run(self, calls: Sequence[tuple[Any, ...]], most: int) -> None:
        waiting, flying = deque((call, 0) for call in calls), dict[Any, tuple[tuple[Any, ...], int]]()
        try:
            while waiting or flying:
                while waiting and len(flying) < most:
                    call, deaths = waiting.popleft()
                    flying[self._task.remote(self._place, self._function, _absolute(call))] = call, deaths
                for ref in self._ray.wait(list(flying), timeout=WAIT_S)[0]:
                    call, deaths = flying.pop(ref)
                    died = self._take(ref, deaths)
                    if died is not None:
                        waiting.append((call, died))
        finally:
            for ref in flying:
                self._ray.cancel(ref, force=True)

    def _take(self, ref: Any, deaths: int) -> int | None:
        """None when the call is done, else how often its process has died."""
        try:
            self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._deaths as error:
            deaths += not isinstance(error, self._lost)
            told = one_line(str(error).partition("Some common causes")[0])[:300]
            log.warning("a training process died, another goes on where it stopped: %s", told)
            if deaths >= DEATHS:
                raise Failure(Exit.CONFIG, f"a training process died {deaths} times; what it has learned is kept, "
                              f"go on with --resume when the cause is gone: {told}") from error  # fmt: skip
            return int(deaths)
        return None


@dataclass(frozen=True)
class _Place:
    """What a process elsewhere must find to do as the driver would."""

    folder: str
    """Where relative paths begin."""
    data: str
    """The folder of the data packs."""
    marks: tuple[Path, ...]
    """Files that the driver has written."""

    @staticmethod
    def here(marks: Sequence[Path]) -> _Place:
        return _Place(str(Path.cwd()), os.environ.get("ASSAY_DATA", ""), tuple(marks))

    def enter(self) -> None:
        """Make this process like the driver: one thread, its folder, its data.

        Raises:
            Failure: when a folder of the driver is not there.
        """
        import torch

        torch.set_num_threads(1)
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        if self.data:
            os.environ.setdefault("ASSAY_DATA", str(Path(self.data).absolute()))
        for mark in self.marks:
            if not mark.is_file():
                raise Failure(Exit.CONFIG, f"node {socket.gethostname()} does not see {mark.parent} of the driver; "
                              "choose an --output that all nodes see under the same absolute path")  # fmt: skip


def _call(place: _Place, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    place.enter()
    function(*arguments)


def _absolute(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(argument.absolute() if isinstance(argument, Path) else argument for argument in arguments)


@contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[Any]:
    """Ray, for the length of a block."""
    address = address or os.environ.get("RAY_ADDRESS")
    ray = cluster.import_ray(local=address is None)
    owned = cluster.connect(ray, address, workers)
    try:
        with redirect_stdout(sys.stderr):  # Ray tells deaths on standard output, which is for data
            yield ray
    finally:
        if owned:
            ray.shutdown()


def _require(ray: Any, gpus: float) -> None:
    """Refuse what no node can ever run: Ray would wait for ever and say nothing."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus for node in nodes):
        have = ray.cluster_resources()
        raise Failure(Exit.CONFIG, f"no node has 1 CPU and {gpus:g} GPUs for a training; the cluster has "
                      f"{len(nodes)} nodes, {have.get('CPU', 0):g} CPUs and {have.get('GPU', 0):g} GPUs")  # fmt: skip


@contextmanager
def _marked(folders: Sequence[Path]) -> Iterator[list[Path]]:
    """A file in each folder by which a node can tell that it sees the same one."""
    marks = [folder / f".seen-{secrets.token_hex(8)}" for folder in folders]
    try:
        for mark in marks:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch(exist_ok=False)
        yield marks
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)


# --- a search
# ---------------------------------------------------------------------------------------------------------


def tune(
    plan: Plan, output: Path, *, workers: int | None = None, address: str | None = None, gpus: float = 0.0
) -> list[trials.Trial]:
    """Run all trials of a search that have not ended yet, `workers` at once; all trials, best first.

    Stopped and run again, it goes on: trials that ended stay as they are, others resume at their
    last epoch.

    Raises:
        Failure: when `output` holds another search, or trials ended with an error of the program.
    """
    output = output.absolute()
    plan.claim(output)
    open_trials = [k for k in range(plan.search.trials) if trials.trial(plan, output, k).ended == "unfinished"]
    crashed = ""
    if open_trials:
        with _connected(address, workers) as ray, _marked([output]) as marks:
            _require(ray, gpus)
            crashed = _tune(plan, output, open_trials, _Place.here(marks), workers, gpus)
    found = trials.write(plan, output)
    if crashed:
        raise Failure(Exit.CONFIG, f"trials crashed, run again to go on with them: {crashed}")
    return found


def _tune(plan: Plan, output: Path, numbers: list[int], place: _Place, workers: int | None, gpus: float) -> str:
    """Run these trials; the error of the first that crashed."""
    for name in ("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "TUNE_DISABLE_SIGINT_HANDLER"):
        os.environ.setdefault(name, "1")  # our own files tell what happened; Ctrl-C is the command's business
    from ray import tune

    trainable = tune.with_parameters(_trial, plan=plan, output=output, place=place)
    results = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1, "gpu": gpus}),
        param_space={"number": tune.grid_search(numbers)},
        tune_config=tune.TuneConfig(scheduler=_scheduler(plan, output), max_concurrent_trials=workers),
        run_config=tune.RunConfig(
            name=f"from-{numbers[0]}-{secrets.token_hex(4)}",
            storage_path=str(output / "ray"),
            failure_config=tune.FailureConfig(max_failures=CRASHES),
            callbacks=[_noting(plan, output)],
            verbose=0,
        ),
    ).fit()
    return one_line(results.errors[0])[-500:] if results.errors else ""


def _trial(config: dict[str, Any], plan: Plan, output: Path, place: _Place) -> None:
    """One trial, in a process of Ray Tune."""
    from ray import tune

    place.enter()
    trials.learn(plan, output, config["number"], tune.report)


def _scheduler(plan: Plan, output: Path) -> Any:
    """Who stops the worse trials early: it is told first what earlier runs of the search have seen."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if plan.search.scheduler == "none" or plan.steps <= plan.search.grace:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    metric = plan.search.metric
    asha = ASHAScheduler(
        time_attr="step",
        metric=metric,
        mode="min",
        grace_period=plan.search.grace,
        max_t=plan.steps + 1,  # nothing to stop after the last epoch
        reduction_factor=REDUCTION,
    )
    nobody: Any = None
    for number in range(plan.search.trials):
        past = trials.trial(plan, output, number)
        if past.ended in ("finished", "stopped"):
            stand_in: Any = SimpleNamespace(trial_id=f"past-{number}")
            asha.on_trial_add(nobody, stand_in)
            for row in past.told:
                asha.on_trial_result(nobody, stand_in, row)
    return asha


def _noting(plan: Plan, output: Path) -> Any:
    """A callback that notes which trials were stopped, and keeps the tables up to date."""
    from ray import tune

    class Noting(tune.Callback):
        def on_trial_complete(self, **happened: Any) -> None:  # type: ignore[override]  # Ray calls it by keyword
            number = happened["trial"].config["number"]
            trials.end(output, number, "stopped")  # unless it has said itself how it ended
            found = trials.trial(plan, output, number)
            score = found.score(plan.search.metric)
            log.info(
                "trial %d %s after %d epochs: %s %.5g", number, found.ended, len(found.told), plan.search.metric, score
            )
            trials.write(plan, output)

    return Noting()
