"""The Ray runner: the same bytes as in one process, whoever dies; one pace per host; what cannot run is told."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from assay.screening.campaign import drive, plan
from assay.screening.folder.ledger import Ledger
from assay.screening.pulling.kinds.files import FileSource
from assay.screening.pulling.kinds.optimade import OptimadeSource
from assay.screening.pulling.kinds.prototypes import PrototypeSource
from assay.screening.pulling.source import Job
from assay.screening.pulling.steps import Down, Portion, ShardEnd, Sharding, SourceEnd, Step
from assay.screening.runners import pool, worker
from assay.screening.runners.cluster import ClusterRunner
from assay.screening.runners.fingerprint import Fingerprint
from assay.screening.runners.local import LocalRunner
from assay.screening.runners.runner import Do, Done, Runner, Unit
from assay.screening.runners.score import Score
from assay.screening.runners.work import Work
from assay.screening.settings import config
from assay.screening.settings.config import Ray
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table
from assay.sources.crystals import Crystals
from assay.sources.quarantine import Reason
from tests.servers import FaultServer, entries_from_crystals

ROOT = Path(__file__).resolve().parents[3]
PROTOTYPES = {"kind": "prototypes", "n": 200, "seed": 3}


@pytest.fixture(autouse=True)
def by_value() -> None:
    """Workers cannot import this file: send its functions along."""
    pytest.importorskip("ray").cloudpickle.register_pickle_by_value(sys.modules[__name__])


def no_jobs() -> list[Job]:
    """Nothing to pull."""
    return []


def echo() -> Do:
    """A worker function that needs no model."""
    return lambda work, content: content


def real_work(model: Path) -> Callable[[], Do]:
    """What the command gives its workers."""
    return partial(worker.Worker, partial(worker.load, [str(model)], 1))


def ids(*names: str) -> pa.Table:
    return pa.table({"id": pa.array(names, pa.string())})


def units_of(*contents: pa.Table, **options: Any) -> deque[Unit]:
    return deque(
        Unit(Fingerprint(), str(k), c.num_rows, partial(lambda c: c, c), **options) for k, c in enumerate(contents)
    )


def finish(runner: Runner, units: deque[Unit], stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    return {done.unit.key: done.result for done in runner.work(no_jobs, units, stopped) if isinstance(done, Done)}


class Watched:
    """A runner whose events are seen before they are committed, and whose units come in any order."""

    def __init__(self, runner: Runner, see: Callable[[Step | Done], None] = lambda _: None, seed: int = 0) -> None:
        self._runner, self._see, self._rng = runner, see, random.Random(seed)

    def work(self, jobs: Any, units: deque[Unit], stopped: Any) -> Iterator[Step | Done]:
        for happened in self._runner.work(jobs, units, stopped):
            self._rng.shuffle(units)
            self._see(happened)
            yield happened

    def close(self) -> None:
        self._runner.close()


def run(path: Path, folder: Path, runner: Runner) -> drive.Outcome:
    settings = config.load(path).model_copy(update={"output": str(folder)})
    return drive.run(plan.make(settings), runner, lambda: False)


def digests(folder: Path) -> dict[str, str]:
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.parquet")}


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_and_any_order_give_the_bytes_of_one_process(
    ray_cluster: Any, write_config: Callable[..., Path], model: Path, tmp_path: Path, workers: int
) -> None:
    filters = {"predicted": {"formation_energy": {"max": -0.5, "confidence": 0.9}}}
    path = write_config(PROTOTYPES, chunk_size=20, filters=filters)
    assert run(path, tmp_path / "local", LocalRunner(real_work(model)())).balance.excluded > 0
    runner = Watched(ClusterRunner(real_work(model), Ray(workers=workers, min_workers=workers)), seed=workers)
    assert run(path, tmp_path / "ray", runner).code is Exit.DONE
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")


def deadly(model: Path, poison: str) -> Do:
    """The real worker, which ends its process when it meets a certain crystal."""
    inner = real_work(model)()

    def do(work: Work[Any], content: pa.Table) -> Any:
        if poison in content["id"].to_pylist():
            os._exit(1)
        return inner(work, content)

    return do


def test_crystals_that_kill_workers_are_quarantined_and_nothing_else_changes(
    ray_cluster: Any, write_config: Callable[..., Path], model: Path, tmp_path: Path
) -> None:
    path = write_config(PROTOTYPES | {"n": 32}, chunk_size=8)
    run(path, tmp_path / "local", LocalRunner(real_work(model)()))
    whole = table.read(tmp_path / "local" / "candidates.parquet")
    poison = sorted(whole["id"].to_pylist())[11]
    outcome = run(path, tmp_path / "ray", ClusterRunner(partial(deadly, model, poison), Ray(workers=2)))
    scored = table.read(tmp_path / "ray" / "candidates.parquet")
    refused = table.read(tmp_path / "ray" / "quarantine.parquet")
    assert outcome.balance.quarantined == 1
    assert refused["id"].to_pylist() == [poison]
    assert refused["reason"].to_pylist() == [Reason.WORKER_DIED.value]
    assert set(scored["id"].to_pylist()) == set(whole["id"].to_pylist()) - {poison}


def suspicious() -> Do:
    """Says how many rows came at once and who had them, and dies of the row `bad`."""

    def do(work: Work[Any], content: pa.Table) -> pa.Table:
        names = content["id"].to_pylist()
        if "bad" in names:
            os._exit(1)
        return pa.table(
            {
                "id": pa.array(names, pa.string()),
                "composition": [str(len(names))] * len(names),
                "distances": pa.array([[float(os.getpid())]] * len(names), pa.list_(pa.float32())),
            }
        )

    return do


def test_other_units_go_on_while_one_is_rescued(ray_cluster: Any, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    def make() -> Do:
        inner = suspicious()

        def do(work: Work[Any], content: pa.Table) -> Any:
            if "last" in content["id"].to_pylist():
                mark.touch()
            while "a" in content["id"].to_pylist() and "bad" not in content["id"].to_pylist() and not mark.exists():
                time.sleep(0.05)
            return inner(work, content)

        return do

    contents = [ids("a", "bad"), *(ids(f"{k}") for k in range(9)), ids("last")]
    results = finish(ClusterRunner(make, Ray(workers=2), stall_s=60), units_of(*contents))
    assert [row["composition"] for row in results["0"].to_pylist()] == ["1", ""]
    assert len(results) == 11


def test_a_suspect_is_rescued_at_once(ray_cluster: Any) -> None:
    results = finish(ClusterRunner(suspicious, Ray(workers=1)), units_of(ids("a", "bad"), suspect=True))
    assert results["0"]["id"].to_pylist() == ["a", "bad"]
    assert results["0"]["composition"].to_pylist() == ["1", ""]


def silent_once(mark: str) -> Do:
    """Falls silent the first time it is asked for anything."""

    def do(work: Work[Any], content: pa.Table) -> pa.Table:
        if not Path(mark).exists():
            Path(mark).touch()
            time.sleep(600)
        return content

    return do


def test_a_silent_worker_is_ended_and_its_unit_done_by_another(ray_cluster: Any, tmp_path: Path) -> None:
    runner = ClusterRunner(partial(silent_once, str(tmp_path / "mark")), Ray(workers=1), stall_s=15)
    assert finish(runner, units_of(ids("a")))["0"].equals(ids("a"))


def test_after_a_request_to_stop_what_was_begun_is_finished_and_no_more(ray_cluster: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def noting() -> Do:
        def do(work: Work[Any], content: pa.Table) -> pa.Table:
            with log.open("a") as file:
                file.write("x")
            return content

        return do

    asked: list[int] = []
    runner = Watched(ClusterRunner(noting, Ray(workers=2, min_workers=2)), lambda _: asked.append(1))
    results = finish(runner, units_of(*(ids(f"{k}") for k in range(50))), lambda: len(asked) >= 5)
    assert len(results) == len(log.read_text())
    assert 5 <= len(results) <= 7


def refusing(error: Exception) -> Do:
    """A worker function with a defect."""

    def do(work: Work[Any], content: pa.Table) -> pa.Table:
        raise error

    return do


@pytest.mark.parametrize("error", [RuntimeError("not today"), Failure(Exit.BALANCE_BROKEN, "not today")])
def test_what_a_worker_raises_is_raised_as_itself(ray_cluster: Any, error: Exception) -> None:
    def make() -> Do:
        return refusing(RuntimeError("not today") if code is None else Failure(code, "not today"))

    code = error.code if isinstance(error, Failure) else None
    with pytest.raises(type(error), match="not today") as caught:
        finish(ClusterRunner(make, Ray(workers=1)), units_of(ids("a")))
    assert getattr(caught.value, "code", None) == code


def test_a_missing_model_on_the_worker_is_told(ray_cluster: Any, real: Crystals) -> None:
    units = deque([Unit(Score(), "0", 4, lambda: table.to_table(real[:4]))])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        finish(ClusterRunner(real_work(Path("nowhere")), Ray(workers=1)), units)


def test_workers_that_cannot_start_yet_do_not_hold_up_the_others(ray_cluster: Any) -> None:
    runner = ClusterRunner(echo, Ray(workers=5, min_workers=5, cpus=1.0))
    assert len(finish(runner, units_of(*(ids(f"{k}") for k in range(20))))) == 20


def test_workers_that_die_before_they_are_ready_are_told(ray_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "STARTS", 5)
    with pytest.raises(Failure, match="5 workers in a row died before they were ready") as caught:
        finish(ClusterRunner(partial(os._exit, 1), Ray(workers=2)), units_of(ids("a")))
    assert caught.value.code is Exit.CONFIG


# --- pulling ---------------------------------------------------------------------------------------------------


def actors(kind: str, raylets: list[int]) -> list[int]:
    """Pids of the actors of a kind that certain raylets started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                ours = int((folder / "stat").read_text().rpartition(")")[2].split()[1]) in raylets
                if ours and (folder / "cmdline").read_text().startswith(f"ray::{kind}"):
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def raylet_of(node: Any) -> int:
    """Pid of the raylet of a node."""
    return int(node.all_processes["raylet"][0].process.pid)


@pytest.fixture
def server(real: Crystals) -> Iterator[FaultServer]:
    """300 real crystals in 15 pages."""
    with FaultServer(entries_from_crystals(real[:300]), page_limit=20) as server:
        yield server


def test_a_source_process_that_dies_goes_on_at_its_page(
    ray_cluster: Any, write_config: Callable[..., Path], model: Path, tmp_path: Path, server: FaultServer
) -> None:
    source = {"kind": "optimade", "provider": server.url, "page_limit": 20, "shard_size": 100}
    path = write_config(source, chunk_size=100, licences=["unknown"])
    run(path, tmp_path / "local", LocalRunner(real_work(model)()))
    victims: list[int] = []

    def kill(happened: Step | Done) -> None:
        if isinstance(happened, Portion) and happened.number == 1 and len(victims) < 2:
            for pid in actors("SourceActor", [raylet_of(ray_cluster._private.worker._global_node)]):
                os.kill(pid, signal.SIGKILL)
                victims.append(pid)

    outcome = run(path, tmp_path / "ray", Watched(ClusterRunner(real_work(model), Ray(workers=1)), kill))
    assert len(victims) == 2
    assert outcome.code is Exit.DONE
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")
    ours, theirs = ({r.key for r in Ledger(tmp_path / where).all("page")} for where in ("ray", "local"))
    assert ours == theirs
    assert Ledger(tmp_path / "ray").replaced == []


class Mortal:
    """A source that ends the process that receives it."""

    remote, wait_s = False, 0.0

    def __reduce__(self) -> Any:
        return os._exit, (1,)


def test_a_host_whose_process_dies_again_and_again_is_down(ray_cluster: Any) -> None:
    asked: list[int] = []

    def jobs() -> list[Job]:
        asked.append(1)
        return [Job("first", Mortal(), "one"), Job("second", Mortal(), "one"), *others[: 2 - len(asked)]]  # type: ignore[arg-type]

    others = [Job("other", PrototypeSource(kind="prototypes", n=5), "other")]
    steps = list(ClusterRunner(echo, Ray()).work(jobs, deque(), lambda: False))
    assert [step.source for step in steps if isinstance(step, Down)] == ["first", "second"]
    assert [type(step) for step in steps if not isinstance(step, Down)] == [Sharding, Portion, ShardEnd, SourceEnd]
    assert len(asked) == 6


def test_what_a_source_refuses_is_raised_as_itself(ray_cluster: Any, real_file: Path) -> None:
    changed = Job("files", FileSource(kind="files", paths=[str(real_file)]), "files", Sharding("files", [], "x"))
    with pytest.raises(Failure, match="is not what this campaign began with") as caught:
        list(ClusterRunner(echo, Ray()).work(lambda: [changed], deque(), lambda: False))
    assert caught.value.code is Exit.CONFIG


def test_files_are_found_from_the_folder_of_the_driver(
    ray_cluster: Any, real_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(real_file.parent)
    job = Job("files", FileSource(kind="files", paths=[real_file.name]), "files")
    steps = list(ClusterRunner(echo, Ray()).work(lambda: [job], deque(), lambda: False))
    assert sum(step.received for step in steps if isinstance(step, Portion)) == 300


def test_a_deaf_source_process_is_replaced(
    ray_cluster: Any, server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    source = OptimadeSource(kind="optimade", provider=server.url, page_limit=100, patience_s=0)
    job = Job("here", source, "127.0.0.1:deaf")
    raylet = raylet_of(ray_cluster._private.worker._global_node)
    before = set(actors("SourceActor", [raylet]))
    deaf: set[int] = set()

    def see(happened: Step | Done) -> None:
        if not deaf:
            deaf.update(set(actors("SourceActor", [raylet])) - before)
            for pid in deaf:
                os.kill(pid, signal.SIGSTOP)

    steps = list(Watched(ClusterRunner(echo, Ray(), stall_s=6), see).work(lambda: [job], deque(), lambda: False))
    assert deaf
    assert "is silent since" in caplog.text
    assert [type(step) for step in steps][-5:] == [*[Portion] * 3, ShardEnd, SourceEnd]  # told to begin again
