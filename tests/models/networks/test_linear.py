"""Linear maps through oneDNN: the same function and the same gradients as torch's own."""

import copy

import pytest
import torch
from torch import Tensor, nn

from assay.models.networks import linear, registry

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture(autouse=True)
def not_of_intel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "of_intel", lambda: False)
    monkeypatch.setattr(linear, "narrow", lambda: False)


def pair(inputs: int, outputs: int, bias: bool = True) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(inputs, outputs, bias=bias))
    routed = copy.deepcopy(plain)
    linear.route(routed)
    assert type(routed[0]) is linear.Linear
    return plain, routed


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    out = module(leaf if x.is_contiguous() else leaf[:, ::2])
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    return [out.detach(), leaf.grad, *(p.grad for p in module.parameters())]  # type: ignore[list-item]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 7), (400, 96), (5, 80, 96)], ids=str)
@pytest.mark.parametrize("outputs", [64, 200])
def test_same_function_and_gradients(
    shape: tuple[int, ...], outputs: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "SMALL", 0)
    plain, routed = pair(shape[-1], outputs, bias)
    x = torch.randn(shape)
    for ours, theirs in zip(gradients(routed, x), gradients(plain, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_slice_is_no_slower_path_to_other_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "SMALL", 0)
    plain, routed = pair(32, 48)
    x = torch.randn(100, 9, 32)[:, 0]
    assert not x.is_contiguous()
    torch.testing.assert_close(routed(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("small", [0, 2**40], ids=["oneDNN", "torch"])
@pytest.mark.parametrize("narrow", [True, False])
def test_maps_of_the_same_rows_together(small: int, narrow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "SMALL", small)
    monkeypatch.setattr(linear, "narrow", lambda: narrow)
    torch.manual_seed(0)
    maps = [linear.Linear(24, outputs) for outputs in (16, 40)]
    found = []
    for way in (lambda x: linear.together(x, *maps), lambda x: torch.cat([one(x) for one in maps], 1)):
        x = torch.linspace(-1, 1, 24 * 50).view(50, 24).sin().requires_grad_()
        out = way(x)
        every = [x, *(p for one in maps for p in one.parameters())]
        found.append([out.detach(), *torch.autograd.grad((out * torch.linspace(-1, 1, 56)).sum(), every)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not linear.multiplies_bfloat16(), reason="no instructions for bfloat16")
def test_products_in_bfloat16_are_close_and_not_the_same() -> None:
    torch.manual_seed(0)
    maps = [linear.Linear(64, outputs) for outputs in (32, 16)]
    x, found = torch.randn(500, 64), []
    for way in (linear.together, linear.halved):
        leaf = x.clone().requires_grad_()
        out = way(leaf, *maps)
        every = [leaf, *(p for one in maps for p in one.parameters())]
        found.append([out.detach(), *torch.autograd.grad((out * torch.linspace(-1, 1, 48)).sum(), every)])
    for theirs, ours in zip(*found, strict=True):
        assert torch.linalg.norm(ours - theirs) < 5e-3 * torch.linalg.norm(theirs)
    assert not torch.equal(found[0][0], found[1][0])
    adapter = nn.Sequential(nn.Linear(64, 32))
    assert torch.equal(linear.halved(x, adapter), adapter(x))
    assert torch.equal(linear.halved(x, maps[0], adapter), torch.cat([maps[0](x), adapter(x)], 1))


def test_small_double_and_reduced_precision_products_stay_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> Tensor:
        raise AssertionError("oneDNN was asked")

    monkeypatch.setattr(linear, "product", never)
    monkeypatch.setattr(linear, "SMALL", 2**20)
    _, routed = pair(64, 64)
    routed(torch.randn(4, 64))
    large = torch.randn(2000, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert routed(large).dtype == torch.bfloat16
    with pytest.raises(AssertionError, match="oneDNN was asked"):
        routed(large)
    routed.double()(large.double())


def test_on_processors_of_intel_torch_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    _, routed = pair(64, 64)
    large = torch.randn(20_000, 64)
    asked = []
    monkeypatch.setattr(linear, "product", lambda *given: asked.append(1) or nn.functional.linear(*given))
    with torch.inference_mode():
        routed(large)
        assert asked == [1]
        monkeypatch.setattr(linear, "of_intel", lambda: True)
        routed(large)
    assert asked == [1]


def test_a_second_derivative_is_refused_and_not_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "SMALL", 0)
    _, routed = pair(8, 8)
    x = torch.randn(4, 8, requires_grad=True)
    (first,) = torch.autograd.grad((routed(x) ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_networks_are_routed_when_they_are_made() -> None:
    network = registry.create("cgcnn", 4, ["y"])
    kinds = {type(module) for module in network.modules() if isinstance(module, nn.Linear)}
    assert kinds == {linear.Linear}


@pytest.mark.skipif(not linear.multiplies_bfloat16(), reason="oneDNN or the processor has no bfloat16")
@pytest.mark.parametrize("bias", [True, False])
def test_packed_weights_in_bfloat16_are_the_same_function_in_copies_too(bias: bool) -> None:
    torch.manual_seed(0)
    trained, x = nn.Linear(96, 160, bias=bias), torch.randn(3, 50, 96)
    half = linear.Half(trained)
    assert half.packed.is_mkldnn
    assert torch.equal(half.weight, trained.weight.to(torch.bfloat16))
    with torch.inference_mode():
        wanted = nn.functional.linear(x, trained.weight, trained.bias)
        for one in (half, copy.deepcopy(half), copy.deepcopy(copy.deepcopy(half))):
            torch.testing.assert_close(one(x).float(), wanted, atol=0.02, rtol=0.02)
