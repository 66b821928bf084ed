"""The quick twin of a network says what the network says; its kernels are exact where they claim to be."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.featurize import graphs
from assay.featurize.quotient import quotient
from assay.models.ensemble import checkpoint, kernels
from assay.models.ensemble.frozen import BLOCK, freeze
from assay.models.ensemble.lean.convolutions import Convolutions
from assay.models.networks import registry
from assay.models.networks.batch import Batch
from assay.models.networks.fused import loops
from assay.models.networks.layers import Network
from assay.models.networks.linear import multiplies_bfloat16
from assay.sources.crystals import Crystals
from tests.models.networks.test_networks import SMALL, SPEC, network

FROZEN = [
    ("cgcnn", {}),
    ("cgcnn", {"hidden": 24, "layers": 3, "cutoff": 5.0, "variance": True}),
    ("alignn", {}),
    ("alignn", {"alignn_layers": 2, "gcn_layers": 2, "hidden": 24}),
    ("alignn", {"alignn_layers": 2, "gcn_layers": 0}),
    ("alignn", {"alignn_layers": 0, "gcn_layers": 2}),
    ("alignn", {"pool": "mean", "head": "linear"}),
    ("gated-gcn", {"layers": 3, "hidden": 24}),
]


def used(name: str, sizes: dict[str, Any], full: graphs.Graphs) -> Network:
    """A network whose batch statistics are those of crystals, and whose normalisations are not the identity."""
    net: Any = network(name, **sizes)
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.normal_(part.bias, std=0.3)
    for _ in range(20):
        net.train()(Batch.of(full))
    return net.eval()


def said(net: Network | Convolutions, part: graphs.Graphs) -> dict[str, torch.Tensor]:
    if isinstance(net, Convolutions):
        plain, found = net.look(part)
        return {name: torch.from_numpy(values) for name, values in {"state": plain, **found}.items()}
    with torch.inference_mode():
        state, values = net.look(Batch.of(part))
    return {"state": state, **values}


@pytest.mark.parametrize("merged", [False, True], ids=["full", "quotient"])
@pytest.mark.parametrize(("name", "sizes"), FROZEN, ids=str)
def test_frozen_says_what_the_network_says(name: str, sizes: dict[str, Any], merged: bool, crystals: Crystals) -> None:
    full = graphs.build(crystals[:60], replace(SPEC, angles=registry.MODELS[name].reads.angles))
    part = quotient(full) if merged else full
    assert len(part.source) % 128  # the last block is not full
    assert merged or len(part.source) > BLOCK
    net = used(name, sizes, full)
    twin = freeze(net)
    assert twin is not net
    for key, value in said(net, part).items():
        assert value.std() > 1e-3
        torch.testing.assert_close(said(twin, part)[key], value, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("name", ["cgcnn", "alignn"])
def test_frozen_says_the_same_of_tapered_graphs(name: str, crystals: Crystals) -> None:
    full = graphs.build(crystals[:16], replace(SPEC, taper=0.3, angles=registry.MODELS[name].reads.angles))
    net = used(name, {}, full)
    value, twin = (said(some, quotient(full))["tc"] for some in (net, freeze(net)))
    torch.testing.assert_close(twin, value, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize(("name", "sizes"), [("megnet", {}), ("alignn", {"norm": "layer"})])
def test_what_has_no_twin_stays_as_it_is(name: str, sizes: dict[str, Any]) -> None:
    net: Any = network(name, **sizes)
    assert freeze(net) is net


@pytest.mark.parametrize("name", ["cgcnn", "alignn"])
def test_atoms_without_neighbours_are_no_error(name: str, crystals: Crystals) -> None:
    spec = replace(SPEC, neighbours="radius", cutoff=0.5, angles=registry.MODELS[name].reads.angles)
    bare = graphs.build(crystals[:3], spec)
    assert len(bare.source) == 0
    net: Any = network(name)
    torch.testing.assert_close(said(freeze(net), bare)["tc"], said(net, bare)["tc"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["cgcnn", "alignn"])
def test_a_network_that_overflows_says_nan(name: str, crystals: Crystals) -> None:
    """What is not finite must not be ranked, so it must not become finite on the way."""
    full = graphs.build(crystals[:4], replace(SPEC, angles=registry.MODELS[name].reads.angles))
    for spoil in ("atom_embedding.0.weight", "embed.weight", "gcn_layers.0.edge_gate.weight", "layers.1.edge.weight"):
        net: Any = copy.deepcopy(network(name))
        weights = net.state_dict()
        if spoil in weights:
            weights[spoil].fill_(torch.inf)
            assert torch.isnan(said(freeze(net), full)["tc"]).all()


@pytest.mark.parametrize(
    ("folder", "member"), [("tc-graphs", 0), ("tc-graphs", 4), ("formation-energy", 0), ("formation-energy", 2)]
)
def test_trained_networks_and_their_twins_agree_on_real_crystals(
    folder: str, member: int, zoo: Path, crystals: Crystals
) -> None:
    """To 1e-5 of the target's standard deviation, which is the unit of what a network says."""
    kept = checkpoint.read(zoo / folder / f"member-{member}")
    part = graphs.build(crystals, replace(kept.spec, angles=registry.MODELS[kept.name].reads.angles))
    name = kept.properties[0].name
    apart = said(kept.frozen, part)[name] - said(kept.network, part)[name]
    assert apart.abs().max() < 1e-5


@pytest.mark.skipif(not multiplies_bfloat16(), reason="oneDNN or the processor has no bfloat16")
def test_in_bfloat16_predictions_move_by_less_than_a_ten_thousandth(zoo: Path, crystals: Crystals) -> None:
    """Of the target's standard deviation; the plain network stays, and a store keeps the outputs apart."""
    folder = zoo / "tc-graphs/member-0"
    full, half = checkpoint.read(folder), checkpoint.read(folder, "bfloat16")
    part = quotient(graphs.build(crystals, replace(full.spec, angles=True)))
    values, moved = (said(kept.frozen, part)["tc"] for kept in (full, half))
    assert 0 < (moved - values).abs().max() < 1e-4
    assert set(moved.topk(100).indices.tolist()) == set(values.topk(100).indices.tolist())
    assert torch.equal(said(half.network, part)["tc"], said(full.network, part)["tc"])
    assert full.outputs != half.outputs


def test_an_alignn_in_bfloat16_without_the_instructions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(ValueError, match="this processor does not multiply it"):
        network("alignn").lower()
    with pytest.raises(ValueError, match="this processor does not multiply it"):
        network("alignn").learn_lowered()
    network("cgcnn").lower()


def test_the_twin_is_made_once() -> None:
    net: Any = network("cgcnn")
    kept = checkpoint.Checkpoint(net, "cgcnn", SMALL["cgcnn"], SPEC, (), (), {})
    assert kept.frozen is kept.frozen


# The kernels.


def test_activation_is_exact_in_the_whole_range() -> None:
    x = np.concatenate([np.linspace(-120, 120, 100_001), [0.0, 1e-30, -1e-30, 1e6, -1e6]]).astype(np.float32)[:, None]
    out = np.empty_like(x)
    kernels.silu(x, out)
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(out, wide / (1 + np.exp(-wide)), rtol=5e-7, atol=1e-30)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_becomes_nan(bad: float) -> None:
    x = np.array([[1.0, bad]], np.float32)
    kernels.silu(x, x)
    assert np.isfinite(x[0, 0])
    assert np.isnan(x[0, 1])
    out = np.empty((1, 2), np.float32)
    loops.look_up(np.array([bad], np.float32), np.float32(0), np.float32(1), np.ones((9, 2), np.float32), out)
    assert np.isnan(out).all()


def test_a_table_is_exact_for_cubics_and_constant_beyond_its_ends() -> None:
    def cubic(x: np.ndarray) -> np.ndarray:
        return np.stack([x**3 - 2 * x, 3 * x**2 + 1], axis=1)

    table = cubic(0.25 * (np.arange(40) - 1)).astype(np.float32)
    values = np.linspace(0, 9, 500).astype(np.float32)
    out = np.empty((len(values), 2), np.float32)
    loops.look_up(values, np.float32(0), np.float32(4), table, out)
    np.testing.assert_allclose(out, cubic(values.astype(np.float64)), rtol=1e-5, atol=1e-5)
    ends = np.empty((2, 2), np.float32)
    loops.look_up(np.array([-5, 99], np.float32), np.float32(0), np.float32(4), table, ends)
    np.testing.assert_allclose(ends, table[[1, 37]], rtol=1e-6)


@pytest.mark.parametrize("wide", [16, 30])
def test_a_row_of_a_product_or_of_distances_does_not_depend_on_the_others(wide: int) -> None:
    rng = np.random.default_rng(1)
    rows, weight, bias = (rng.normal(size=size).astype(np.float32) for size in ((8, wide), (wide, 37), (37,)))
    made, turned = np.empty((8, 37), np.float32), np.empty((8, 37), np.float32)
    kernels.product(rows, weight, bias, made)
    np.testing.assert_allclose(made, rows.astype(np.float64) @ weight + bias, rtol=1e-4, atol=1e-5)
    order = rng.permutation(8)
    kernels.product(rows[order], weight, bias, turned)
    assert made[order].tobytes() == turned.tobytes()
    kernels.squares(rows, weight, made)
    apart = rows[:, :, None].astype(np.float64) - weight[None]
    np.testing.assert_allclose(made, (apart**2).sum(axis=1), rtol=1e-5)
    kernels.squares(rows[order], weight, turned)
    assert made[order].tobytes() == turned.tobytes()
