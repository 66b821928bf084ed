"""Attention over elements: a function of the shares, without a jump where an element goes, and it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from assay.featurize.composition import CompositionSpec
from assay.models.networks import kinds, registry
from assay.models.networks.attention import SetAttention
from assay.models.networks.inputs import CompositionInputs
from assay.models.networks.layers import Network
from assay.models.target import LOG_VARIANCE
from assay.sources.crystals import Crystals
from assay.sources.elements import SYMBOLS

SPEC = CompositionSpec(("families",))
"""The network reads the elements, whatever the table holds."""


def network(**sizes: float | bool) -> Network:
    torch.manual_seed(0)
    return registry.create("set-attention", kinds.shape(SPEC), ["tc"], hidden=16, layers=2, **sizes).eval()


def inputs(*formulas: dict[str, float]) -> CompositionInputs:
    atoms = np.zeros((len(formulas), 119))
    for row, formula in enumerate(formulas):
        atoms[row, [SYMBOLS.index(symbol) for symbol in formula]] = list(formula.values())
    return CompositionInputs(atoms, SPEC)


def told(net: Network, *formulas: dict[str, float]) -> torch.Tensor:
    read = inputs(*formulas)
    values: torch.Tensor = net(read.batch(np.arange(len(read)), net))["tc"]
    return values.detach()


def test_a_prediction_depends_on_the_shares_and_on_no_neighbour_in_the_batch() -> None:
    net = network()
    many = {"La": 1.85, "Sr": 0.15, "Cu": 1.0, "O": 4.0}
    found = told(net, {"Mg": 1, "B": 2}, {"B": 4, "Mg": 2}, many, {"Nb": 1})
    assert found[0].item() == pytest.approx(found[1].item(), abs=1e-6)
    alone = [told(net, one).item() for one in ({"Mg": 1, "B": 2}, many, {"Nb": 1})]
    np.testing.assert_allclose(found[[0, 2, 3]], alone, rtol=1e-5, atol=1e-6)
    assert len({round(value, 4) for value in alone}) == 3


def test_an_element_that_goes_leaves_no_jump() -> None:
    net = network()
    bare = told(net, {"Mg": 1, "B": 2})
    steps = [(told(net, {"Mg": 1, "B": 2, "Fe": amount}) - bare).abs().item() for amount in (1e-2, 1e-4, 1e-6)]
    assert steps[0] > steps[1] > steps[2]
    assert steps[2] < 1e-4


def test_heads_tell_variances_and_must_divide_the_width() -> None:
    read = inputs({"Mg": 1, "B": 2})
    assert set(network(variance=True)(read.batch(np.arange(1), network()))) == {"tc", "tc" + LOG_VARIANCE}
    with pytest.raises(ValueError, match=r"hidden is 16, expected a multiple of attention_heads \(5\)"):
        network(attention_heads=5)


def test_it_learns_formation_energies_better_than_a_constant(crystals: Crystals) -> None:
    read = CompositionInputs(crystals.composition(), SPEC)
    truth = torch.from_numpy(crystals.columns["e_form"].astype(np.float32))
    rows, net = np.arange(len(read)), network().train()
    assert isinstance(net, SetAttention)
    batch = read.batch(rows, net)
    step = torch.optim.AdamW(net.parameters(), 3e-3)
    for _ in range(60):
        step.zero_grad()
        loss = (net(batch)["tc"] - truth).abs().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        step.step()
    assert loss.item() < 0.5 * (truth - truth.median()).abs().mean().item()
