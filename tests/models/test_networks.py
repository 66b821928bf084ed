"""Contracts every network of the registry keeps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from featurize import atoms, graphs
from featurize.graphs import GraphSpec
from models import registry
from models.batch import Batch
from sources.crystals import Crystals

SMALL = {
    "cgcnn": {"hidden": 16, "layers": 2, "bins": 16},
    "alignn": {"hidden": 16, "alignn_layers": 1, "gcn_layers": 1, "bins": 16, "angle_bins": 8, "embedding": 8},
}
SPEC = GraphSpec()


def network(name: str, properties: tuple[str, ...] = ("tc",)) -> torch.nn.Module:
    torch.manual_seed(0)
    return registry.create(name, atoms.width(SPEC.atom_features), properties, **SMALL[name]).eval()


def batch_of(name: str, crystals: Crystals) -> Batch:
    return Batch.of(graphs.build(crystals, replace(SPEC, angles=name in registry.NEEDS_ANGLES)))


def test_every_network_is_tested() -> None:
    assert set(SMALL) == set(registry.MODELS)


@pytest.mark.parametrize("name", registry.MODELS)
def test_one_value_per_crystal_and_property(name: str, crystals: Crystals) -> None:
    out = network(name, ("tc", "gap"))(batch_of(name, crystals[:7]))
    assert {k: tuple(v.shape) for k, v in out.items()} == {"tc": (7,), "gap": (7,)}
    assert all(torch.isfinite(v).all() for v in out.values())


@pytest.mark.parametrize("name", registry.MODELS)
def test_neighbours_in_a_batch_do_not_matter(name: str, crystals: Crystals) -> None:
    net = network(name)
    together = net(batch_of(name, crystals[:20]))["tc"]
    alone = torch.cat([net(batch_of(name, crystals[i : i + 1]))["tc"] for i in range(20)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", registry.MODELS)
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


@pytest.mark.parametrize("name", registry.MODELS)
def test_a_vacancy_is_seen(name: str, crystals: Crystals) -> None:
    one = crystals[3:4]
    emptier = replace(one, occupancy=np.where(np.arange(len(one.numbers)) == 0, 0.5, 1.0))
    net = network(name)
    assert not torch.allclose(net(batch_of(name, one))["tc"], net(batch_of(name, emptier))["tc"], atol=1e-6)


@pytest.mark.parametrize("name", registry.MODELS)
def test_atoms_without_neighbours_are_no_error(name: str, crystals: Crystals) -> None:
    spec = GraphSpec(neighbours="radius", cutoff=0.4, angles=name in registry.NEEDS_ANGLES)
    batch = Batch.of(graphs.build(crystals[:2], spec))
    assert len(batch.target) == 0
    assert torch.isfinite(network(name)(batch)["tc"]).all()


@pytest.mark.parametrize("name", registry.MODELS)
def test_every_parameter_before_the_last_update_learns(name: str, crystals: Crystals) -> None:
    net = network(name).train()
    net(batch_of(name, crystals[:8]))["tc"].sum().backward()
    idle = [n for n, p in net.named_parameters() if p.grad is None]
    # ALIGNN's last edge and triplet states are read by nobody; the published model computes them too
    assert all("bn_edges" in n for n in idle), idle


def test_unknown_network_and_size_are_named() -> None:
    with pytest.raises(ValueError, match="'resnet' is not one of"):
        registry.create("resnet", 3, ["tc"])
    with pytest.raises(ValueError, match=r"'cgcnn' refuses its sizes.*depth"):
        registry.create("cgcnn", 3, ["tc"], depth=3)
