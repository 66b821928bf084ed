"""The Ray runner when workers die: innocent crystals keep their bytes, guilty ones are named."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from screening.cluster import ClusterRunner
from screening.local import LocalRunner
from screening.snapshot import Chunk
from screening.worker import Part, Scorer
from sources import table
from sources.crystals import Crystals
from sources.quarantine import Reason


def deadly(folder: str, poison: frozenset[str]) -> Callable[[pa.Table], Part]:
    """A real scorer that takes its process down when it meets certain crystals."""
    scorer = Scorer.load([folder], threads=1)

    def score(chunk: pa.Table) -> Part:
        if poison & set(chunk["id"].to_pylist()):
            os._exit(1)
        return scorer(chunk)

    return score


def refusing(message: str) -> Callable[[pa.Table], Part]:
    """A scorer with a defect."""

    def score(chunk: pa.Table) -> Part:
        raise RuntimeError(message)

    return score


@pytest.fixture
def chunks(real: Crystals) -> dict[str, pa.Table]:
    return {f"{k}": table.to_table(real[4 * k : 4 * k + 4]) for k in range(6)}


def run(runner: Any, chunks: dict[str, pa.Table]) -> dict[str, Part]:
    todo = [Chunk(name, name, content.num_rows) for name, content in chunks.items()]
    return {chunk.name: part for chunk, part in runner.score(todo, lambda c: chunks[c.path], lambda: False)}


@pytest.fixture
def undisturbed(model: Path, chunks: dict[str, pa.Table]) -> dict[str, Part]:
    return run(LocalRunner(lambda: Scorer.load([model], threads=1)), chunks)


@pytest.fixture(autouse=True)
def by_value() -> None:
    """Workers cannot import this file: send its functions along."""
    pytest.importorskip("ray").cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.mark.parametrize("n", [1, 2, 4])
def test_any_number_of_workers(
    ray_cluster: Any, model: Path, chunks: dict[str, pa.Table], undisturbed: dict[str, Part], n: int
) -> None:
    parts = run(ClusterRunner(partial(Scorer.load, [str(model)], 1), workers=n), chunks)
    assert {k: p.table.equals(undisturbed[k].table) for k, p in parts.items()} == dict.fromkeys(chunks, True)


def test_crystals_that_kill_workers_are_quarantined(
    ray_cluster: Any, model: Path, chunks: dict[str, pa.Table], undisturbed: dict[str, Part]
) -> None:
    poison = [chunks["2"]["id"][1].as_py(), chunks["2"]["id"][2].as_py()]
    parts = run(ClusterRunner(partial(deadly, str(model), frozenset(poison)), workers=2), chunks)
    assert [row.id for row in parts["2"].quarantined] == poison
    assert {row.reason for row in parts["2"].quarantined} == {Reason.WORKER_DIED}
    assert parts["2"].table.num_rows == 2
    for name in chunks.keys() - {"2"}:
        assert parts[name].table.equals(undisturbed[name].table)


def test_a_worker_that_dies_by_accident_costs_nothing(
    ray_cluster: Any, model: Path, chunks: dict[str, pa.Table], undisturbed: dict[str, Part], tmp_path: Path
) -> None:
    def unlucky(folder: str, pids: str) -> Callable[[pa.Table], Part]:
        scorer = Scorer.load([folder], threads=1)
        with open(pids, "a") as file:
            file.write(f"{os.getpid()}\n")

        def score(chunk: pa.Table) -> Part:
            time.sleep(0.3)
            return scorer(chunk)

        return score

    killed: list[int] = []

    def kill_first() -> None:
        pids = tmp_path / "pids"
        while not pids.exists() or not pids.read_text().endswith("\n"):
            time.sleep(0.01)
        killed.append(int(pids.read_text().split()[0]))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_first, daemon=True)
    killer.start()
    parts = run(ClusterRunner(partial(unlucky, str(model), str(tmp_path / "pids")), workers=2), chunks)
    killer.join(5)
    assert killed
    assert all(not part.quarantined for part in parts.values())
    assert all(part.table.equals(undisturbed[name].table) for name, part in parts.items())


def test_a_silent_worker_is_ended(ray_cluster: Any, model: Path, chunks: dict[str, pa.Table], tmp_path: Path) -> None:
    def slow_once(folder: str, mark: str) -> Callable[[pa.Table], Part]:
        scorer = Scorer.load([folder], threads=1)

        def score(chunk: pa.Table) -> Part:
            if not Path(mark).exists():
                Path(mark).touch()
                time.sleep(600)
            return scorer(chunk)

        return score

    load = partial(slow_once, str(model), str(tmp_path / "mark"))
    parts = run(ClusterRunner(load, workers=1, stall_s=20.0), {"0": chunks["0"]})
    assert parts["0"].table.num_rows == 4


def test_a_defect_is_raised_as_itself(ray_cluster: Any, chunks: dict[str, pa.Table]) -> None:
    with pytest.raises(RuntimeError, match="not today"):
        run(ClusterRunner(partial(refusing, "not today"), workers=1), chunks)


def test_a_missing_model_on_the_worker_is_told(ray_cluster: Any, chunks: dict[str, pa.Table]) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run(ClusterRunner(partial(Scorer.load, ["nowhere"], 1), workers=1), chunks)
