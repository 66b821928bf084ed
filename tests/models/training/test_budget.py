"""Steps in parts: the parts add up, what does not fit is taken again, a probe leaves no trace."""

import gc
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies
from numpy.typing import NDArray
from torch import Tensor, nn

from assay.featurize import atoms, graphs
from assay.featurize.graphs import Graphs
from assay.models import memory
from assay.models.networks import registry
from assay.models.networks.batch import Batch
from assay.models.networks.inputs import GraphInputs
from assay.models.training import budget
from assay.models.training.budget import Budget
from assay.sources.crystals import Crystals
from tests.models.networks.test_networks import SMALL, SPEC

ROOT = Path(__file__).resolve().parents[3]
NETWORKS = pytest.mark.parametrize("name", ["cgcnn", "alignn"])
WIDE = 192
"""Of states, so that a step takes several times what the tests of the probe allow, on every machine."""
NO_ROOM = (
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12"),
)


class Learner:
    """A network with what a training step needs; counts its parts."""

    def __init__(self, name: str, crystals: Crystals, **sizes: Any) -> None:
        torch.manual_seed(0)
        width = atoms.width(SPEC.atom_features)
        self.network: nn.Module = registry.create(name, width, ["tc"], **{**SMALL[name], **sizes}).train()
        self.graphs: Graphs = graphs.build(crystals, replace(SPEC, angles=registry.MODELS[name].reads.angles))
        self.cost = GraphInputs(self.graphs, self.graphs.spec.angles).cost
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-2)
        self.parts: list[int] = []

    def step(self, rows: NDArray[np.int64]) -> float:
        """Share of the mean squared error."""
        self.parts.append(len(rows))
        target = torch.linspace(-1, 1, len(self.graphs))[rows]
        error = self.network(Batch.of(self.graphs.select(rows)))["tc"] - target
        loss = (error**2).sum() / len(self.graphs)
        loss.backward()
        return loss.item()

    def gradients(self) -> dict[str, Tensor]:
        """Copies of the gradients there are."""
        return {n: p.grad.clone() for n, p in self.network.named_parameters() if p.grad is not None}

    def everything(self) -> list[Tensor]:
        """All that decides how the training goes on."""
        moments = [tensor for state in self.optimizer.state.values() for tensor in state.values()]
        return [*self.network.state_dict().values(), *moments, torch.get_rng_state()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b))


def greedy(costs: list[int], limit: int) -> int:
    """Parts when each takes as many crystals as fit: as few as there can be."""
    parts, load = 1, costs[0]
    for cost in costs[1:]:
        fits = load + cost <= limit
        parts, load = parts + (not fits), load + cost if fits else cost
    return parts


@given(strategies.lists(strategies.integers(1, 1000), min_size=1, max_size=40), strategies.integers(1, 3000))
def test_parts_keep_the_order_and_the_limit(costs: list[int], limit: int) -> None:
    cost = np.array(costs)
    parts = Budget(limit).parts(cost)
    assert np.concatenate(parts).tolist() == list(range(len(cost)))
    assert all(len(part) == 1 or 0 < cost[part].sum() <= limit for part in parts)
    assert len(parts) == greedy(costs, limit)
    again = [part.tolist() for part in Budget(limit).parts(cost)]
    assert again == [part.tolist() for part in parts]


def test_parts_are_of_like_size() -> None:
    assert [len(part) for part in Budget(1000).parts(np.full(11, 100))] == [6, 5]
    assert [len(part) for part in Budget().parts(np.full(11, 100))] == [11]


@given(strategies.lists(strategies.integers(1, 1000), min_size=2, max_size=20))
def test_halving_splits_the_part_until_one_crystal_is_left(costs: list[int]) -> None:
    cost, found = np.array(costs), Budget()
    while len(part := found.parts(cost)[0]) > 1:
        found.halve(cost[part])
        assert len(found.parts(cost)[0]) < len(part)
    with pytest.raises(MemoryError, match=rf"one crystal with {cost[0]:,} nodes.*lower graph\.k"):
        found.halve(cost[part])


@pytest.mark.parametrize("limit", [None, 4096])
def test_a_budget_is_remembered(limit: int | None, tmp_path: Path) -> None:
    torch.save(Budget(limit).to_state(), tmp_path / "state.pt")
    assert Budget.from_state(torch.load(tmp_path / "state.pt", weights_only=True)) == Budget(limit)
    assert Budget.from_state(json.loads(json.dumps(Budget(limit).to_state()))) == Budget(limit)


def test_work_counts_what_the_network_holds(crystals: Crystals) -> None:
    flat = graphs.build(crystals[:20], SPEC)
    bent = flat.with_angles()
    expected = [len(bent.select(np.array([i])).cosine) for i in range(20)]
    states = np.diff(flat.node_ptr) + np.diff(flat.edge_ptr)
    assert (GraphInputs(flat).cost == states).all()
    assert (GraphInputs(bent, angles=True).cost == states + expected).all()
    assert (GraphInputs(flat, angles=True).cost == GraphInputs(bent, angles=True).cost).all()


@pytest.mark.parametrize(("name", "sizes"), [("alignn", {"norm": "layer"}), ("cgcnn", {})])
def test_parts_add_up_to_the_whole_step(name: str, sizes: dict[str, str], crystals: Crystals) -> None:
    learner = Learner(name, crystals[:16], **sizes)
    if name == "cgcnn":
        learner.network.eval()  # batch statistics are those of a part
    loss = budget.in_parts(learner.network, Budget(), learner.cost, learner.step)
    whole = learner.gradients()
    limit = int(learner.cost.sum()) // 4
    assert budget.in_parts(learner.network, Budget(limit), learner.cost, learner.step) == pytest.approx(loss, rel=1e-5)
    assert len(learner.parts) > 4
    for key, gradient in learner.gradients().items():
        torch.testing.assert_close(gradient, whole[key], rtol=1e-4, atol=1e-5 * whole[key].abs().max().item() + 1e-9)


@NETWORKS
@pytest.mark.parametrize("error", NO_ROOM, ids=lambda error: type(error).__name__)
def test_a_step_out_of_memory_is_taken_again_exactly(name: str, error: Exception, crystals: Crystals) -> None:
    broken, clean = (Learner(name, crystals[:16], dropout=0.3) for _ in range(2))
    room = int(broken.cost.sum()) // 3

    def short(rows: NDArray[np.int64]) -> float:
        loss = broken.step(rows)  # gradients, batch statistics and random numbers are spent when the error comes
        if broken.cost[rows].sum() > room:
            raise error
        return loss

    torch.manual_seed(5)
    found = Budget()
    loss = budget.in_parts(broken.network, found, broken.cost, short)
    assert found.limit is not None
    assert len(broken.parts) > len(found.parts(broken.cost)) > 1
    torch.manual_seed(5)
    assert budget.in_parts(clean.network, Budget(found.limit), clean.cost, clean.step) == loss
    assert same(list(broken.gradients().values()), list(clean.gradients().values()))
    assert same(broken.everything(), clean.everything())


def test_a_crystal_that_does_not_fit_ends_the_run(crystals: Crystals) -> None:
    learner = Learner("cgcnn", crystals[:4])

    def never(rows: NDArray[np.int64]) -> float:
        raise MemoryError

    with pytest.raises(MemoryError, match="one crystal with"):
        budget.in_parts(learner.network, Budget(), learner.cost, never)


def test_other_errors_are_not_taken_for_memory(crystals: Crystals) -> None:
    learner = Learner("cgcnn", crystals[:4])

    def wrong(rows: NDArray[np.int64]) -> float:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        budget.in_parts(learner.network, Budget(), learner.cost, wrong)


@NETWORKS
def test_a_probe_leaves_no_trace(name: str, crystals: Crystals) -> None:
    ends = []
    for probed in (False, True):
        learner = Learner(name, crystals[:16], dropout=0.3)
        for _ in range(3):
            if probed:
                found = budget.probe(learner.network, learner.step, learner.cost, 8)
                assert found == Budget()
                assert learner.gradients() == {}
            budget.in_parts(learner.network, Budget(), learner.cost, learner.step)
            learner.optimizer.step()
        ends.append(learner.everything())
    assert same(*ends)


def test_a_probe_allows_its_share_of_the_memory(crystals: Crystals, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner("alignn", crystals[:64], hidden=WIDE)
    heaviest = np.sort(learner.cost)[-16:]

    def probed(room: int) -> Budget:
        monkeypatch.setattr(memory, "available", lambda device: room)
        return budget.probe(learner.network, learner.step, learner.cost, 16)

    assert probed(2**40).limit is None
    limit = probed(2**26).limit
    assert limit is not None
    assert limit == 2 ** (limit.bit_length() - 1)
    assert limit < heaviest.sum()
    taken = 4 * WIDE * limit  # bytes of one state of hidden width per unit of work: a step holds many of them
    assert 2 * taken < 2**25 < 100 * taken
    with pytest.raises(MemoryError, match=f"one crystal with {heaviest[-1]:,} nodes"):
        probed(2**16)


def test_a_probe_does_not_count_on_what_a_collector_frees_in_it(
    crystals: Crystals, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = Learner("alignn", crystals[:64], hidden=WIDE)
    monkeypatch.setattr(memory, "available", lambda device: 2**26)

    def step(rows: NDArray[np.int64]) -> float:
        if len(rows) == 2:
            gc.collect()
        return learner.step(rows)

    cycle: list[Any] = [torch.zeros(2**27, dtype=torch.int8) + 1]
    cycle.append(cycle)
    del cycle
    gc.disable()
    try:
        limit = budget.probe(learner.network, step, learner.cost, 16).limit
    finally:
        gc.enable()
    assert limit is not None
    assert WIDE * 4 * 2 * limit < 2**25


def test_a_probe_that_runs_out_halves(crystals: Crystals) -> None:
    learner = Learner("cgcnn", crystals[:16])

    def short(rows: NDArray[np.int64]) -> float:
        if len(rows) > 2:
            raise MemoryError
        return learner.step(rows)

    found = budget.probe(learner.network, short, learner.cost, 8)
    assert found.limit is not None
    assert 0 < found.limit < learner.cost.sum()
    assert learner.gradients() == {}


def test_the_guard_halves_before_the_machine_swaps(monkeypatch: pytest.MonkeyPatch) -> None:
    found, cost = Budget(), np.array([5, 7, 9])
    monkeypatch.setattr(memory, "is_short", lambda: False)
    found.guard(cost)
    assert found.limit is None
    monkeypatch.setattr(memory, "is_short", lambda: True)
    found.guard(cost)
    assert [part.tolist() for part in found.parts(cost)] == [[0], [1], [2]]
    found.guard(cost)  # nothing left to halve: the run goes on


CAPPED = """
import resource, sys
import numpy as np, torch
from assay.models.training import budget; from assay.models import memory
from assay.models.networks.batch import Batch
from assay.models.training.budget import Budget
from assay.models.networks.inputs import GraphInputs
from assay.featurize import atoms; from assay.featurize import graphs
from assay.featurize.graphs import GraphSpec
from assay.models.networks import registry
from assay.sources.crystals import Crystals

torch.set_num_threads(1)
random = np.random.default_rng(0)
n, sites = 24, 8
crystals = Crystals(
    ids=np.array([f"t/{i}" for i in range(n)]),
    lattice=np.repeat(6.0 * np.eye(3)[None], n, axis=0),
    site_ptr=sites * np.arange(n + 1),
    frac=random.random((n * sites, 3)),
    species_ptr=np.arange(n * sites + 1),
    numbers=random.integers(1, 80, n * sites).astype(np.uint8),
    occupancy=np.ones(n * sites, np.float32),
)
spec = GraphSpec(angles=True)
built = graphs.build(crystals, spec)
cost = GraphInputs(built, True).cost
torch.manual_seed(0)
network = registry.create(
    "alignn", atoms.width(spec.atom_features), ["y"], hidden=128, alignn_layers=1, gcn_layers=1, norm="layer"
)

def step(rows):
    loss = (network(Batch.of(built.select(rows)))["y"] ** 2).sum() / n
    loss.backward()
    return loss.item()

def gradient():
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

network.zero_grad(set_to_none=True)
loss = step(np.arange(n))
whole = gradient()
taken = memory.peak(torch.device("cpu"), lambda: step(np.arange(n))) - memory.used(torch.device("cpu"))
memory.release()
size = 1024 * int(open("/proc/self/status").read().split("VmSize:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_AS, (size + taken // 2, resource.RLIM_INFINITY))
assert memory.available(torch.device("cpu")) <= taken // 2
found = Budget()
again = budget.in_parts(network, found, cost, step)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))  # a comparison imports much
assert found.limit is not None and found.limit < cost.sum()
torch.testing.assert_close(again, loss, rtol=1e-5, atol=0)
torch.testing.assert_close(gradient(), whole, rtol=1e-3, atol=1e-5 * whole.abs().max().item())
"""


def test_a_process_with_half_the_memory_takes_the_same_step() -> None:
    leaving = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what glibc frees leaves the address space: half of it is half
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | leaving
    child = subprocess.run([sys.executable, "-c", CAPPED], capture_output=True, text=True, env=env)
    assert child.returncode == 0, child.stdout + child.stderr[-3000:]
    assert "short of memory with 24 crystals at once" in child.stderr
