"""Training on Ray: the members of an ensemble side by side, and searches with Ray Tune.

Enters: a function with the arguments of each call, or a search. Leaves: the files that the calls
write into an output folder, which every node sees. If a training process dies, another one goes on
from its files. Besides `assay.screening.runners.cluster` and `assay.screening.runners.connection`
only this file knows Ray; it does not know how a network learns.
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

from assay.screening.runners import connection
from assay.screening.settings.exits import Exit, Failure, one_line
from assay.screening.training import trials
from assay.screening.training.search import Search

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
    """A pool whose calls run on Ray, each on one CPU with one thread and on `gpus` GPUs.

    Ray is the cluster at `address` or RAY_ADDRESS, else one started here with `workers` CPUs. At
    most `workers` calls run at once; unset: as many as fit. `gpus` may be a fraction. Each `Path`
    among the arguments must be a folder that every node sees.
    """

    def pool(function: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> None:
        with connected(address, workers) as ray:
            connection.require(ray, 1, gpus, "a training")
            folders = {argument.absolute() for call in calls for argument in call if isinstance(argument, Path)}
            with _marked(sorted(folders)) as marks:
                _Calls(ray, function, marks, gpus).run(calls, workers or len(calls))

    return pool


class _Calls:
    """Calls on Ray; the driver repeats dead ones itself, because Ray would repeat them for ever."""

    def __init__(self, ray: Any, function: Callable[..., None], marks: Sequence[Path], gpus: float) -> None:
        self._ray, self._function, self._place = ray, function, Place.here(marks)
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
            cause = one_line(str(error).partition("Some common causes")[0])[:300]
            log.warning("a training process died, another goes on where it stopped: %s", cause)
            if deaths >= DEATHS:
                advice = "what it has learned is kept, go on with --resume when the cause is gone"
                text = f"a training process died {deaths} times; {advice}: {cause}"
                raise Failure(Exit.CONFIG, text) from error
            return int(deaths)
        return None


@dataclass(frozen=True)
class Place:
    """The surroundings of the driver, for a process on another node."""

    folder: str
    """Where relative paths begin."""
    data: str
    """The folder of the data packs."""
    marks: tuple[Path, ...]
    """Files that the driver has written."""

    @staticmethod
    def here(marks: Sequence[Path]) -> Place:
        """The surroundings of this process."""
        return Place(str(Path.cwd()), os.environ.get("ASSAY_DATA", ""), tuple(marks))

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
                advice = "choose an --output that all nodes see under the same absolute path"
                unseen = f"node {socket.gethostname()} does not see {mark.parent} of the driver"
                raise Failure(Exit.CONFIG, f"{unseen}; {advice}")


def _call(place: Place, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    place.enter()
    function(*arguments)


def _absolute(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(argument.absolute() if isinstance(argument, Path) else argument for argument in arguments)


@contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[Any]:
    """Ray, for the length of a block."""
    with connection.joined(address, workers) as ray, redirect_stdout(sys.stderr):  # where Ray tells deaths
        yield ray


@contextmanager
def _marked(folders: Sequence[Path]) -> Iterator[list[Path]]:
    """A file in each folder by which a node can report that it sees the same one."""
    marks = [folder / f".seen-{secrets.token_hex(8)}" for folder in folders]
    try:
        for mark in marks:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch(exist_ok=False)
        yield marks
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)


def tune(
    search: Search, output: Path, *, workers: int | None = None, address: str | None = None, gpus: float = 0.0
) -> list[trials.Trial]:
    """Run all trials of a search that have not ended, `workers` at once; returns all, best first.

    A stopped search goes on when it is run again: trials that ended stay as they are, others resume
    at their last epoch.

    Raises:
        Failure: when `output` holds another search, or one on other files, or trials ended with an
            error of the program.
    """
    output = output.absolute()
    search.claim(output)
    search = search.learned(output)
    trials.hold_files(search, output)
    open_trials = [k for k in range(search.config.trials) if trials.trial(search, output, k).ended == "unfinished"]
    crashed = ""
    if open_trials:
        with connected(address, workers) as ray, _marked([output]) as marks:
            connection.require(ray, 1, gpus, "a training")
            crashed = _tune(search, output, open_trials, Place.here(marks), workers, gpus)
    found = trials.write(search, output)
    if crashed:
        raise Failure(Exit.CONFIG, f"trials crashed, run again to go on with them: {crashed}")
    return found


def _tune(search: Search, output: Path, numbers: list[int], place: Place, workers: int | None, gpus: float) -> str:
    """Run these trials; the error of the first that crashed."""
    for name in ("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "TUNE_DISABLE_SIGINT_HANDLER"):
        os.environ.setdefault(name, "1")  # the files of the trials are the record; the command handles Ctrl-C
    tune = _ray_tune()
    trainable = tune.with_parameters(_trial, search=search, output=output, place=place)
    results = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1, "gpu": gpus}),
        param_space={"number": tune.grid_search(numbers)},
        tune_config=tune.TuneConfig(scheduler=scheduler(search, output), max_concurrent_trials=workers),
        run_config=tune.RunConfig(
            name=f"from-{numbers[0]}-{secrets.token_hex(4)}",
            storage_path=str(output / "ray"),
            failure_config=tune.FailureConfig(max_failures=CRASHES),
            callbacks=[_noting(search, output)],
            verbose=0,
        ),
    ).fit()
    return one_line(results.errors[0])[-500:] if results.errors else ""


def _trial(config: dict[str, Any], search: Search, output: Path, place: Place) -> None:
    """One trial, in a process of Ray Tune."""
    place.enter()
    trials.learn(search, output, config["number"], _ray_tune().report)


def _ray_tune() -> Any:
    from ray import tune

    return tune


def scheduler(search: Search, output: Path) -> Any:
    """The scheduler that stops the worse trials early; it is given the earlier runs first."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if search.config.scheduler == "none" or search.steps <= search.config.grace:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    metric = search.config.metric
    asha = ASHAScheduler(
        time_attr="step",
        metric=metric,
        mode="min",
        grace_period=search.config.grace,
        max_t=search.steps + 1,  # nothing to stop after the last epoch
        reduction_factor=REDUCTION,
    )
    runner: Any = None  # asha does not use it
    for number in range(search.config.trials):
        past = trials.trial(search, output, number)
        if past.ended in ("finished", "stopped"):
            stand_in: Any = SimpleNamespace(trial_id=f"past-{number}")
            asha.on_trial_add(runner, stand_in)
            for row in past.reported:
                asha.on_trial_result(runner, stand_in, row)
    return asha


def _noting(search: Search, output: Path) -> Any:
    """A callback that notes which trials were stopped, and keeps the tables up to date."""

    class Noting(_ray_tune().Callback):  # type: ignore[misc]
        def on_trial_complete(self, **happened: Any) -> None:  # Ray calls it by keyword
            number = happened["trial"].config["number"]
            trials.end(output, number, "stopped")  # unless it has said itself how it ended
            found = trials.trial(search, output, number)
            score = found.score(search.config.metric)
            log.info(
                "trial %d %s after %d epochs: %s %.5g",
                number,
                found.ended,
                len(found.reported),
                search.config.metric,
                score,
            )
            trials.write(search, output)

    return Noting()
