"""The pool of workers without any: who is blamed for a death, and how many workers there are."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from assay.screening.runners import pool
from assay.screening.runners.fingerprint import Fingerprint
from assay.screening.runners.pool import Workers
from assay.screening.runners.remote import Died
from assay.screening.runners.runner import Done, Unit
from assay.screening.settings.config import Ray
from assay.screening.settings.exits import Exit, Failure


class Fake:
    """A cluster whose workers answer at once: what `fate` says of the ids of a call."""

    def __init__(self, fate: Callable[[list[str]], str] = lambda _: "", room: int = 3) -> None:
        self.fate, self.size = fate, room
        self.started: list[str] = []
        self.ended: list[str] = []
        self.where: dict[str, str] = {}
        self.calls: dict[str, tuple[str, list[str]]] = {}

    def worker(self, present: Mapping[str, int]) -> tuple[str, str]:
        self.started.append(f"worker {len(self.started)}")
        return self.started[-1], ""

    def call(self, worker: str, method: str, *arguments: Any) -> str:
        ref = f"call {len(self.calls)}"
        self.calls[ref] = worker, arguments[1]["id"].to_pylist() if method == "do" else ["ready"]
        return ref

    def get(self, ref: str, node: str = "") -> Any:
        worker, names = self.calls[ref]
        fate = self.fate(names)
        if fate:
            raise Died(fate, with_node=fate == "node")
        if names == ["ready"]:
            return self.where.get(worker, "")
        columns = {name: pa.array(names, pa.string()) for name in ("id", "composition")}
        return pa.table(columns | {"distances": pa.array([[float(len(names))]] * len(names), pa.list_(pa.float32()))})

    def end(self, worker: str) -> None:
        self.ended.append(worker)

    def room(self, node: str | None = None) -> float:
        return self.size if node is None else 1 if node else 100

    def describe(self) -> str:
        return "little"

    def tried(self) -> list[list[str]]:
        """The ids of every call that was no question whether a worker is ready."""
        return [names for _, names in self.calls.values() if names != ["ready"]]


def units_of(*names: str, suspect: bool = False) -> deque[Unit]:
    """Units that take fingerprints, with one row per letter."""
    return deque(
        Unit(Fingerprint(), name, len(name), lambda name=name: pa.table({"id": list(name)}), suspect)  # type: ignore[misc]
        for name in names
    )


def finish(workers: Workers, units: deque[Unit], rounds: int = 100) -> list[Done]:
    """Do all units, the oldest call first."""
    done: list[Done] = []
    for _ in range(rounds):
        workers.begin(units)
        waiting = [*workers.starting, *workers.working]
        if not workers.working and not units and not workers.urgent:
            break
        done += workers.take(min(waiting, key=lambda ref: int(ref.split()[1])))
    return done


def rows(done: Done) -> list[str]:
    return [row["id"] for row in done.result.to_pylist() if row["composition"]]


def test_the_pool_is_empty_until_there_is_something_to_do_and_then_as_large_as_that() -> None:
    fake = Fake(room=3)
    workers = Workers(fake, Ray(min_workers=2), 60)
    workers.begin(deque())
    assert fake.started == []
    workers.begin(units_of("a"))
    assert len(fake.started) == 2
    workers.begin(units_of(*"abcdefgh"))
    assert len(fake.started) == 3
    fake.size = 5
    workers.watch(8)
    workers.begin(units_of(*"abcdefgh"))
    assert len(fake.started) == 5


def test_the_config_bounds_the_pool_whatever_the_cluster_has() -> None:
    fake = Fake(room=100)
    Workers(fake, Ray(workers=4), 60).begin(units_of(*"abcdefgh"))
    assert len(fake.started) == 4


def test_a_crowded_worker_makes_place_for_one_elsewhere() -> None:
    fake = Fake(room=2)
    fake.where = {"worker 0": "a", "worker 1": "a", "worker 2": "b"}
    assert len(finish(Workers(fake, Ray(), 60), units_of(*"abcdefgh"))) == 8
    assert fake.ended == ["worker 0"]
    assert len(fake.started) == 3


def test_idle_workers_end_except_the_least_number(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(room=4)
    workers = Workers(fake, Ray(min_workers=1), 60)
    assert len(finish(workers, units_of(*"abcdefgh"))) == 8
    while workers.starting:
        list(workers.take(next(iter(workers.starting))))
    workers.watch(0)
    assert fake.ended == []
    monkeypatch.setattr(pool, "IDLE_S", -1.0)
    workers.watch(0)
    assert len(fake.ended) == len(fake.started) - 1
    workers.watch(0)
    assert len(fake.ended) == len(fake.started) - 1
    assert len(finish(workers, units_of("i"))) == 1


@given(names=st.lists(st.text("abcdef", min_size=1, max_size=6), max_size=12, unique=True), room=st.integers(1, 5))
def test_every_unit_is_done_once_and_only_deadly_rows_are_left_out(names: list[str], room: int) -> None:
    fake = Fake(lambda ids: "boom" if "f" in ids else "", room)
    done = finish(Workers(fake, Ray(), 60), units_of(*names), rounds=2000)
    assert sorted(d.unit.key for d in done) == sorted(names)
    for one in done:
        assert sorted(rows(one)) == sorted(one.unit.key.replace("f", ""))


def test_a_unit_whose_node_is_lost_is_done_again_as_it_was() -> None:
    fates = iter(["", "node", "", "node", ""])
    fake = Fake(lambda _: next(fates, ""), room=1)
    done = finish(Workers(fake, Ray(), 60), units_of("abc"))
    assert rows(done[0]) == ["a", "b", "c"]
    assert fake.tried() == [["a", "b", "c"]] * 3


def test_a_unit_that_takes_its_nodes_along_is_blamed_in_the_end() -> None:
    fake = Fake(lambda ids: "node" if "b" in ids else "", room=1)
    done = finish(Workers(fake, Ray(), 60), units_of("abc"), rounds=400)
    assert rows(done[0]) == ["a", "c"]
    assert fake.tried()[:4] == [["a", "b", "c"]] * 4


def test_a_suspect_does_not_wait_for_its_first_death() -> None:
    fake = Fake(lambda ids: "boom" if "b" in ids else "", room=1)
    done = finish(Workers(fake, Ray(), 60), units_of("ab", suspect=True))
    assert rows(done[0]) == ["a"]
    assert fake.tried().count(["a", "b"]) == 1


def test_work_that_dies_without_any_crystal_is_told_and_nobody_is_blamed() -> None:
    fake = Fake(lambda ids: "" if ids == ["ready"] else "boom", room=1)
    with pytest.raises(Failure, match="before it meets a crystal") as caught:
        finish(Workers(fake, Ray(), 60), units_of("abcd"))
    assert caught.value.code is Exit.CONFIG


def test_a_silent_worker_is_ended() -> None:
    fake = Fake(room=1)
    workers = Workers(fake, Ray(), stall_s=0.01)
    units = units_of("a")
    workers.begin(units)
    list(workers.take("call 0"))
    workers.begin(units)
    time.sleep(0.02)
    workers.watch(0)
    assert fake.ended == ["worker 0"]


def test_waiting_for_workers_is_bounded_only_while_there_are_none() -> None:
    fake = Fake(room=2)
    workers = Workers(fake, Ray(), stall_s=0.01)
    units = units_of("a", "b")
    workers.begin(units)
    workers.watch(2)
    list(workers.take("call 0"))
    time.sleep(0.02)
    workers.watch(2)  # one is there
    lonely = Workers(Fake(), Ray(gpus=2.0), stall_s=0.01)
    lonely.begin(units)
    lonely.watch(2)
    time.sleep(0.02)
    with pytest.raises(Failure, match=r"no worker could start within 0.01 s: asked for 2 with .* 2 GPUs.*has little"):
        lonely.watch(2)


def test_a_pool_that_is_closed_in_the_middle_of_a_rescue_ends_every_worker() -> None:
    fake = Fake(lambda ids: "boom" if "b" in ids else "", room=2)
    workers = Workers(fake, Ray(), 60)
    assert finish(workers, units_of("abcdefgh", "ijb"), rounds=6) == []
    workers.close()
    assert set(fake.started) <= set(fake.ended)


def test_what_is_waited_for_is_said_again_and_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool, "REPORT_S", 0.01)
    workers = Workers(Fake(room=2), Ray(cpus=4), 900)
    workers.begin(units_of("a"))
    workers.watch(1)
    for _ in range(3):
        time.sleep(0.02)
        workers.watch(1)
    told = "still waiting: asked for 1 with 4 CPUs and 0 GPUs each (ray.cpus, ray.gpus); the cluster has little"
    assert caplog.text.count(told) == 3


@pytest.mark.parametrize(("were_there", "code"), [(True, Exit.CLUSTER), (False, Exit.CONFIG)])
def test_workers_that_were_lost_and_do_not_come_again_are_no_fault_of_the_config(were_there: bool, code: Exit) -> None:
    workers, units = (
        Workers(Fake(lambda names: "" if names == ["ready"] else "node"), Ray(workers=1), 0.01),
        units_of("a"),
    )
    workers.begin(units)
    if were_there:
        list(workers.take("call 0"))
        workers.begin(units)
        list(workers.take("call 1"))  # its node dies
        workers.begin(units)
    workers.watch(1)
    time.sleep(0.02)
    with pytest.raises(Failure, match="no worker could start .* run again") as caught:
        workers.watch(1)
    assert caught.value.code is code
