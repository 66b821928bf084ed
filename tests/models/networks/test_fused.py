"""The compiled steps of a graph network: what plain torch computes in float64, and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from assay.featurize import graphs
from assay.featurize.graphs import GraphSpec
from assay.featurize.quotient import quotient
from assay.models.networks import registry
from assay.models.networks.batch import Batch
from assay.models.networks.fused import steps
from assay.models.networks.layers import BatchNorm, RadialBasis
from assay.sources.crystals import Crystals

WIDTH = 24
Step = Callable[..., "tuple[Tensor, ...]"]


@pytest.fixture(scope="module", params=["counted", "plain"])
def batch(request: pytest.FixtureRequest, crystals: Crystals) -> Batch:
    """Real neighbours: tapered and merged, each of which counts, or neither."""
    made = graphs.build(crystals[:30], GraphSpec(k=10, taper=0.3 if request.param == "counted" else 0.0))
    return Batch.of(quotient(made) if request.param == "counted" else made)


def drawn(*shapes: int, width: int = WIDTH) -> list[Tensor]:
    made = torch.Generator().manual_seed(len(shapes))
    return [torch.randn(rows, width, generator=made) for rows in shapes]


def compare(step: Step, inputs: list[Tensor], heard: tuple[int, ...]) -> None:
    """Outputs, and gradients of a sum over the outputs `heard`, in both precisions."""
    found: dict[torch.dtype, list[Tensor]] = {}
    for kind in (torch.float32, torch.float64):
        given = [tensor.clone().to(kind).requires_grad_() for tensor in inputs]
        assert steps.compiled(given[0]) == (kind == torch.float32)
        out = step(*given)
        torch.manual_seed(0)
        total = sum((out[k] * torch.randn(out[k].shape, dtype=torch.float64).to(kind)).sum() for k in heard)
        assert isinstance(total, Tensor)
        total.backward()  # type: ignore[no-untyped-call]
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in given]
        found[kind] = [*(tensor.detach() for tensor in out), *gradients]
    for quick, exact in zip(found[torch.float32], found[torch.float64], strict=True):
        assert exact.numel()
        torch.testing.assert_close(quick.double(), exact, rtol=2e-5, atol=2e-5 * float(exact.abs().max()))


def ends(batch: Batch, like: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    weight = None if batch.edge_weight is None else batch.edge_weight.to(like.dtype)
    return batch.source, batch.target, weight


@pytest.mark.parametrize("heard", [(0, 1), (1,), (0,)], ids=str)
def test_gated_messages_and_their_gradients(batch: Batch, heard: tuple[int, ...]) -> None:
    inputs = [*drawn(len(batch.source)), *drawn(len(batch.x), width=4 * WIDTH)]
    compare(lambda *given: steps.gated(*given, ends(batch, given[0])), inputs, heard)


def test_gated_sums_and_their_gradients(batch: Batch) -> None:
    inputs = drawn(len(batch.source), len(batch.x), len(batch.x), width=2 * WIDTH)
    compare(lambda *given: (steps.gated_sum(*given, ends(batch, given[0])),), inputs, (0,))


@pytest.mark.parametrize("stated", [True, False])
def test_normalised_states_their_gradients_and_running_statistics(batch: Batch, stated: bool) -> None:
    values, state = drawn(len(batch.source), len(batch.source))
    gain, offset = torch.linspace(0.5, 2.0, WIDTH)[None], torch.linspace(-1.0, 1.0, WIDTH)[None]
    seen = []

    def step(values: Tensor, gain: Tensor, offset: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        norm: Any = BatchNorm(WIDTH).to(values.dtype)
        del norm.weight, norm.bias
        norm.weight, norm.bias = gain[0], offset[0]
        count = None if batch.edge_count is None else batch.edge_count.to(values.dtype)
        out = norm.activated(values, count, *state)
        seen.append((norm.running_mean, norm.running_var, int(norm.num_batches_tracked)))
        return (out,)

    compare(step, [3 * values + 5, gain, offset, *([state] if stated else [])], (0,))
    (mean, variance, steps_taken), (exact_mean, exact_variance, _) = seen
    assert steps_taken == 1
    torch.testing.assert_close(mean.double(), exact_mean)
    torch.testing.assert_close(variance.double(), exact_variance)


def test_large_offsets_do_not_cost_the_deviation() -> None:
    """A mean 1,000 times the deviation, over 50,000 rows: sums in float32 alone would lose it."""
    (values,) = drawn(50_000)
    norm = BatchNorm(WIDTH)
    made = norm.activated(values + 1000.0)
    exact = nn.functional.silu((values - values.mean(0)) / values.std(0, correction=0))
    torch.testing.assert_close(made, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_angles_from_a_table_teach_the_same(crystals: Crystals, norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss, gradients and running statistics with the table, beside the plain way in float64."""
    built = graphs.build(crystals[:30], GraphSpec(k=10, angles=True, taper=0.3))
    batch, found = Batch.of(quotient(built)), []
    for table in (True, False):
        kind = torch.float32 if table else torch.float64
        asked: list[bool] = []
        monkeypatch.setattr(steps.Places, "look_up", _counted(steps.Places.look_up, asked))
        torch.manual_seed(0)
        network = registry.create(
            "alignn", batch.x.shape[1], ["y"], hidden=WIDTH, alignn_layers=2, gcn_layers=1, norm=norm
        )
        network.to(kind).train()(_of_kind(batch, kind))["y"].square().mean().backward()
        assert len(asked) == 2 * table
        found.append(
            {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
            | dict(network.named_buffers())
        )
    largest = max(float(one.abs().max()) for name, one in found[1].items() if name.endswith("weight"))
    for name, exact in found[1].items():
        torch.testing.assert_close(found[0][name].double(), exact.double(), rtol=2e-4, atol=2e-5 * largest, msg=name)


def _counted(method: Callable[..., Tensor], asked: list[bool]) -> Callable[..., Tensor]:
    def counted(*given: Any) -> Tensor:
        asked.append(True)
        return method(*given)

    return counted


def _of_kind(batch: Batch, kind: torch.dtype) -> Batch:
    parts = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    cast = {name: one.to(kind) for name, one in parts.items() if one is not None and one.is_floating_point()}
    return replace(batch, **cast)


def test_a_table_for_few_values_is_none() -> None:
    assert steps.Places.between(-1.0, 1.0, 0.01, torch.zeros(300)) is None
    places = steps.Places.between(-1.0, 1.0, 0.01, torch.linspace(-1.0, 1.0, 500))
    assert places is not None
    torch.testing.assert_close(places.look_up(places.knots[:, None] ** 3)[:, 0], places.values**3, rtol=1e-5, atol=1e-6)
    weight = torch.linspace(0.0, 2.0, 500)
    spread = places.spread(weight)
    assert float(spread @ places.knots**2) == pytest.approx(float(weight @ places.values**2), rel=1e-5)


def test_gaussians_of_distances(batch: Batch) -> None:
    basis = RadialBasis(0.0, 8.0, 40)
    quick = basis(batch.distance)
    torch.testing.assert_close(quick, basis(batch.distance.clone().requires_grad_()).detach(), rtol=1e-6, atol=1e-7)
    wanted = batch.distance.clone().requires_grad_()
    (slope,) = torch.autograd.grad(basis(wanted).sum(), wanted)
    assert slope.abs().max() > 0


def test_weights_that_learn_get_their_gradient(batch: Batch) -> None:
    inputs, weight = drawn(len(batch.source)), torch.ones(len(batch.source), requires_grad=True)
    inputs += drawn(len(batch.x), width=4 * WIDTH)
    steps.gated(*inputs, (batch.source, batch.target, weight))[1].sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0


def test_what_is_not_a_number_stays_so() -> None:
    values = torch.ones(4, 2)
    values[1, 1] = torch.nan
    made = BatchNorm(2).activated(values)
    assert torch.isnan(made[:, 1]).all()
    assert torch.isfinite(made[:, 0]).all()
