"""Contracts every graph network of the registry keeps; those of vision networks are in test_vision.py."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from assay.featurize import atoms, graphs
from assay.featurize.graphs import GraphSpec
from assay.featurize.quotient import quotient
from assay.models.networks import registry
from assay.models.networks.batch import Batch
from assay.models.networks.layers import Network
from assay.models.networks.megnet import Set2Set
from assay.models.target import LOG_VARIANCE
from assay.sources.crystals import Crystals

SMALL = {
    "cgcnn": {"hidden": 16, "layers": 2, "bins": 16},
    "alignn": {"hidden": 16, "alignn_layers": 1, "gcn_layers": 1, "bins": 16, "angle_bins": 8, "embedding": 8},
    "gated-gcn": {"hidden": 16, "layers": 2, "bins": 16, "embedding": 8},
    "megnet": {"hidden": 16, "blocks": 2, "bins": 16, "set2set_steps": 2},
}
WIDTHS = {"cgcnn": 32, "alignn": 32, "gated-gcn": 32, "megnet": 80}
"""What `encode` gives at these sizes."""
VARIANTS = [
    *SMALL.items(),
    ("alignn", {**SMALL["alignn"], "norm": "layer"}),
    ("alignn", {**SMALL["alignn"], "pool": "mean", "head": "linear"}),
]
SPEC = GraphSpec()


def network(name: str, properties: tuple[str, ...] = ("tc",), **sizes: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return registry.create(name, atoms.width(SPEC.atom_features), properties, **{**SMALL[name], **sizes}).eval()


def batch_of(name: str, crystals: Crystals) -> Batch:
    return Batch.of(graphs.build(crystals, replace(SPEC, angles=registry.MODELS[name].reads.angles)))


def test_every_network_is_tested() -> None:
    assert set(SMALL) == {name for name, entry in registry.MODELS.items() if entry.reads.family == "graphs"}


@pytest.mark.parametrize("name", SMALL)
def test_one_value_per_crystal_and_property(name: str, crystals: Crystals) -> None:
    out = network(name, ("tc", "gap"))(batch_of(name, crystals[:7]))
    assert {k: tuple(v.shape) for k, v in out.items()} == {"tc": (7,), "gap": (7,)}
    assert all(torch.isfinite(v).all() for v in out.values())


@pytest.mark.parametrize("name", SMALL)
def test_neighbours_in_a_batch_do_not_matter(name: str, crystals: Crystals) -> None:
    net = network(name)
    together = net(batch_of(name, crystals[:20]))["tc"]
    alone = torch.cat([net(batch_of(name, crystals[i : i + 1]))["tc"] for i in range(20)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_site_order_and_supercell_do_not_matter(name: str, crystals: Crystals) -> None:
    net = network(name)
    one = crystals[3:4]
    doubled = Crystals(
        ids=one.ids,
        lattice=one.lattice * np.array([2.0, 1.0, 1.0])[:, None],
        site_ptr=2 * one.site_ptr,
        frac=np.concatenate([one.frac * [0.5, 1, 1], one.frac * [0.5, 1, 1] + [0.5, 0, 0]])[::-1],
        species_ptr=np.arange(2 * len(one.frac) + 1),
        numbers=np.tile(one.numbers, 2)[::-1],
        occupancy=np.ones(2 * len(one.frac)),
    )
    torch.testing.assert_close(net(batch_of(name, one))["tc"], net(batch_of(name, doubled))["tc"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_a_vacancy_is_seen(name: str, crystals: Crystals) -> None:
    one = crystals[3:4]
    emptier = replace(one, occupancy=np.where(np.arange(len(one.numbers)) == 0, 0.5, 1.0))
    net = network(name)
    assert not torch.allclose(net(batch_of(name, one))["tc"], net(batch_of(name, emptier))["tc"], atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_atoms_without_neighbours_are_no_error(name: str, crystals: Crystals) -> None:
    spec = GraphSpec(neighbours="radius", cutoff=0.4, angles=registry.MODELS[name].reads.angles)
    batch = Batch.of(graphs.build(crystals[:2], spec))
    assert len(batch.target) == 0
    assert torch.isfinite(network(name)(batch)["tc"]).all()


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_before_the_last_update_learns(name: str, crystals: Crystals) -> None:
    net = network(name).train()
    net(batch_of(name, crystals[:8]))["tc"].sum().backward()
    idle = [n for n, p in net.named_parameters() if p.grad is None]
    # ALIGNN's last edge and triplet states are read by nobody; the published model computes them
    # too
    assert all("bn_edges" in n for n in idle), idle


# A quotient graph is the crystal, too.


def assert_same_on_quotient(net: torch.nn.Module, name: str, crystals: Crystals) -> None:
    """Outputs, and what the batch statistics learn, are those of the full graph."""
    full = graphs.build(crystals, replace(SPEC, angles=registry.MODELS[name].reads.angles))
    merged = quotient(full)
    assert len(merged.source) < 0.8 * len(full.source)
    found = []
    for part in (full, merged):
        copied = copy.deepcopy(net)
        out = copied(Batch.of(part))
        found.append((out, dict(copied.named_buffers())))
    for key, value in found[0][0].items():
        assert value.std() > 1e-4
        torch.testing.assert_close(found[1][0][key], value, rtol=1e-4, atol=2e-5)
    for key, buffer in found[0][1].items():
        torch.testing.assert_close(found[1][1][key], buffer, rtol=1e-4, atol=2e-5, msg=key)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("name", "sizes"), VARIANTS)
def test_quotient_and_full_graph_agree(name: str, sizes: dict[str, Any], training: bool, crystals: Crystals) -> None:
    net = network(name, **sizes)
    norms = [part for part in net.modules() if isinstance(part, torch.nn.BatchNorm1d)]
    assert_same_on_quotient(net.train(training), name, crystals[:24])
    if norms and training:
        before = norms[0].running_mean.clone()
        net(batch_of(name, crystals[:4]))
        assert not torch.equal(norms[0].running_mean, before)  # there was something to compare


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_quotient_and_full_graph_agree_for_disordered_crystals(name: str, training: bool, disordered: Crystals) -> None:
    few = disordered.select(np.flatnonzero(np.diff(disordered.site_ptr) <= 12)[:24])
    assert not few.is_ordered.all()
    assert_same_on_quotient(network(name).train(training), name, few)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_quotient_and_full_graph_agree_in_the_most_symmetric_crystals(name: str, training: bool) -> None:
    """Rock salt as eight atoms, caesium chloride, a simple cubic metal of one atom."""
    salt = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]) / 2
    frac = [salt, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.zeros((1, 3))]
    numbers = [[11] * 4 + [17] * 4, [55, 17], [84]]
    sites = np.concatenate([[0], np.cumsum([len(part) for part in frac])])
    few = Crystals(
        ids=np.array(["test/salt", "test/cscl", "test/po"]),
        lattice=np.array([5.64, 4.12, 3.35])[:, None, None] * np.eye(3),
        site_ptr=sites,
        frac=np.concatenate(frac),
        species_ptr=np.arange(sites[-1] + 1),
        numbers=np.concatenate(numbers).astype(np.uint8),
        occupancy=np.ones(sites[-1], np.float32),
    )
    assert_same_on_quotient(network(name).train(training), name, few)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_of_quotient_and_full_graph_agree(name: str, crystals: Crystals) -> None:
    full = graphs.build(crystals[:16], replace(SPEC, angles=registry.MODELS[name].reads.angles))
    found = []
    for part in (full, quotient(full)):
        net = network(name).train()
        net(Batch.of(part))["tc"].square().sum().backward()
        found.append({key: p.grad for key, p in net.named_parameters() if p.grad is not None})
    for key, grad in found[0].items():
        torch.testing.assert_close(found[1][key], grad, rtol=1e-2, atol=1e-3 * float(grad.abs().max()) + 1e-5, msg=key)


# What fine-tuning, retrieval and mean-variance training rely on.


@pytest.mark.parametrize("name", SMALL)
def test_encode_is_what_the_heads_read(name: str, crystals: Crystals) -> None:
    net, batch = network(name), batch_of(name, crystals[:5])
    assert isinstance(net, Network)
    embedded = net.encode(batch)
    assert embedded.shape == (5, WIDTHS[name])
    assert torch.equal(net.heads(embedded)["tc"], net(batch)["tc"])


@pytest.mark.parametrize(("name", "sizes"), VARIANTS)
def test_stages_hold_every_trunk_parameter_once(name: str, sizes: dict[str, Any]) -> None:
    net = network(name, **sizes)
    held = [id(p) for stage in net.stages() for p in stage.parameters()]
    trunk = [id(p) for key, p in net.named_parameters() if not key.startswith("heads.")]
    assert len(held) == len(set(held))
    assert set(held) == set(trunk)
    assert len(net.stages()) >= 3


@pytest.mark.parametrize(("name", "sizes"), VARIANTS)
def test_variance_adds_a_second_output(name: str, sizes: dict[str, Any], crystals: Crystals) -> None:
    out = network(name, ("tc", "gap"), variance=True, **sizes)(batch_of(name, crystals[:3]))
    assert list(out) == ["tc", "tc" + LOG_VARIANCE, "gap", "gap" + LOG_VARIANCE]
    assert all(value.shape == (3,) for value in out.values())
    assert not torch.equal(out["tc"], out["tc" + LOG_VARIANCE])


def test_our_alignn_checkpoints_keep_their_names() -> None:
    names = network("alignn").state_dict().keys()
    assert {"heads.heads.tc.0.weight", "heads.heads.tc.3.bias", "node_updates.0.bn_nodes.running_mean"} <= names


def test_megnet_state_sees_no_cell_size(crystals: Crystals) -> None:
    """Counting the nodes twice changes nothing: everything global is a mean."""
    batch = batch_of("megnet", crystals[:6])
    twice = replace(
        batch,
        size=2 * batch.size,
        node_weight=torch.full((len(batch.x),), 2.0),
        edge_weight=torch.ones(len(batch.target)),
        triplet_weight=torch.ones(0),
    )
    net = network("megnet")
    torch.testing.assert_close(net(twice)["tc"], net(batch)["tc"], rtol=1e-5, atol=1e-6)


def test_set2set_counts_a_row_as_often_as_it_stands_for() -> None:
    torch.manual_seed(0)
    read, rows = Set2Set(4, 3), torch.randn(3, 4)
    owner, count = torch.tensor([0, 0, 2]), torch.tensor([3.0, 1.0, 2.0])
    merged = read(rows, owner, 3, count)
    times = count.long()
    full = read(rows.repeat_interleave(times, 0), owner.repeat_interleave(times), 3, None)
    torch.testing.assert_close(merged, full)
    assert not torch.allclose(merged[0], read(rows, owner, 3, None)[0])
    assert torch.equal(merged[1, 4:], torch.zeros(4))  # nobody answers for the second


def test_unknown_network_and_size_are_named() -> None:
    with pytest.raises(ValueError, match="'resnet' is not one of"):
        registry.create("resnet", 3, ["tc"])
    with pytest.raises(ValueError, match=r"'cgcnn' refuses its sizes.*depth"):
        registry.create("cgcnn", 3, ["tc"], depth=3)
    for size in ("norm", "pool", "head"):
        with pytest.raises(ValueError, match=rf"'alignn' refuses its sizes.*{size} is 'best', expected one of"):
            registry.create("alignn", 3, ["tc"], **{size: "best"})
