"""Large linear maps through oneDNN: the same function, about twice as fast on processors of AMD.

Enters: a network. Leaves: the same network, whose linear layers multiply single-precision matrices
on a CPU with oneDNN, forward and backward, where torch would take MKL. On processors of Intel MKL
is quicker, and stays. The rule asks for shapes and for the maker alone, never for a clock: the last
bits of a product depend on who makes it, and they must not depend on the moment. The one exception,
a process whose address space is capped and full, is logged. docs/log.md has the ratios. This module
does not know networks.
"""

from __future__ import annotations

import logging
import platform
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

SMALL = 2**26
"""Products of a matrix multiplication below which oneDNN costs more than it saves: it compiles for
every new shape, and graphs hardly ever come in the same shape twice."""

_log = logging.getLogger(__name__)


class Linear(nn.Linear):
    """`nn.Linear`, computed elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in) to (..., out)."""
        if x.numel() * self.out_features < SMALL or not _suits(x, self.weight):
            return super().forward(x)
        x = x.contiguous()  # oneDNN has no quick way through a slice
        if torch.is_grad_enabled():
            mapped: Tensor = _Product.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return mapped
        return product(x, self.weight, self.bias)


def together(x: Tensor, *maps: nn.Module) -> Tensor:
    """(m, all their columns) what linear maps make of the same rows (m, in), side by side."""
    plain = [one for one in maps if type(one) is Linear and one.bias is not None]  # an adapter is none
    if len(plain) == len(maps) and _suits(x, plain[0].weight) and torch.is_grad_enabled():
        made: Tensor = _Together.apply(x, *(one.weight for one in plain), *(one.bias for one in plain))  # type: ignore[no-untyped-call]
        return made
    return torch.cat([one(x) for one in maps], dim=1)


def halved(x: Tensor, *maps: nn.Module) -> Tensor:
    """`together` with products in bfloat16, forward and backward; sums are in float32.

    Where one is no plain linear layer (an adapter), all map as they always do.
    """
    plain = [one for one in maps if type(one) is Linear and one.bias is not None]
    if len(plain) < len(maps):
        return together(x, *maps) if len(maps) > 1 else maps[0](x)
    weight, bias = (torch.cat([getattr(one, name) for one in plain]) for name in ("weight", "bias"))
    made: Tensor = _Halved.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return made


def route(network: nn.Module) -> None:
    """Make every linear layer of a network one of ours; weights and names stay."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear


class Half(nn.Module):
    """A trained linear map in bfloat16, for prediction alone: (..., in) to (..., out).

    The input may have any precision, the output is in bfloat16.

    Sums are kept in single precision by the processor. Half the bytes, and twice the products per
    instruction. oneDNN lays the weights out once as its products read them, where it would do so in
    every call (2 to 6 % of a product of ViT-B).
    """

    def __init__(self, trained: nn.Linear) -> None:
        super().__init__()
        weight = trained.weight.detach().to(torch.bfloat16)
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)  # noqa: SLF001
        self.register_buffer("bias", None if trained.bias is None else trained.bias.detach().to(torch.bfloat16))

    @property
    def weight(self) -> Tensor:
        """(out, in) in the usual order, for backbones that multiply by the weights directly."""
        return self.packed.to_dense()

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the weights in the usual order: torch cannot copy the other."""
        return {**self.__dict__, "packed": self.weight}

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in) to (..., out)."""
        return product(x.to(torch.bfloat16), self.packed, self._buffers["bias"])


class _Product(torch.autograd.Function):
    """The map and its gradients, all three by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1]).contiguous()
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = product(rows, weight.t(), None).reshape(x.shape)
        if ctx.needs_input_grad[1]:
            of_weight = _transposed(rows, x.reshape(-1, x.shape[-1]))
        return of_x, of_weight, rows.sum(0) if ctx.biased and ctx.needs_input_grad[2] else None


class _Together(torch.autograd.Function):
    """Several maps of the same rows as one, and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *maps: Tensor) -> Tensor:
        weights, biases = maps[: len(maps) // 2], maps[len(maps) // 2 :]
        weight = torch.cat(weights)
        ctx.save_for_backward(x, weight)
        ctx.sizes = [len(one) for one in weights]
        multiply = product if x.numel() * len(weight) >= SMALL else functional.linear
        return multiply(x, weight, torch.cat(biases))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        large = x.numel() * len(weight) >= SMALL
        of_x = product(gradient, weight.t(), None) if large else gradient @ weight
        of_weight = _transposed(gradient, x) if large else gradient.t() @ x
        return of_x, *torch.split(of_weight, ctx.sizes), *torch.split(gradient.sum(0), ctx.sizes)


class _Halved(torch.autograd.Function):
    """A map and its gradients with factors in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        factors = x.to(torch.bfloat16), weight.to(torch.bfloat16)
        ctx.save_for_backward(*factors)
        return product(*factors, None).float().add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        rows = gradient.to(torch.bfloat16)
        return product(rows, weight.t(), None).float(), (rows.t() @ x).float(), gradient.sum(0)


def multiplies_bfloat16() -> bool:
    """Whether torch was built with oneDNN, and this processor has instructions for bfloat16."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


def check_bfloat16() -> None:
    """Refuse a processor that does not multiply bfloat16.

    Raises:
        ValueError: on such a processor.
    """
    if not multiplies_bfloat16():
        raise ValueError(
            "precision is bfloat16, and this processor does not multiply it (x86 with AVX-512 BF16 or AMX "
            "does); float32 is slower, with other last bits"
        )


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map x (..., in) to (..., out), by oneDNN where torch was built with it; without gradients."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return functional.linear(x, weight, bias)
    try:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # noqa: SLF001
    except RuntimeError as error:
        if "could not create a primitive" not in str(error):
            raise
        _log.warning("oneDNN has no room for its code; MKL takes over, with other last bits")  # address space is capped
        return functional.linear(x, weight.to_dense() if weight.is_mkldnn else weight, bias)
    return made


def _transposed(left: Tensor, right: Tensor) -> Tensor:
    """Left' right, for tall matrices; oneDNN copies its first factor, hence the narrower one.

    Where MKL is as quick, the copies decide.
    """
    if narrow():
        return left.t() @ right
    if left.shape[1] > right.shape[1]:
        return product(right.t(), left.t(), None).t().contiguous()
    return product(left.t(), right.t(), None)


@cache
def of_intel() -> bool:
    """Whether Intel made the processor, as Linux and Windows tell."""
    return "GenuineIntel" in _told()


@cache
def narrow() -> bool:
    """Whether it multiplies 256 bits at a time, as AMD's do up to Zen 4; MKL asks for no more."""
    family = re.search(r"(?i)family\s*:?\s*(\d+)", _told())
    return family is not None and "AuthenticAMD" in _told() and int(family[1]) <= 25


def _told() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()


def _suits(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # first: the compiler stops at what it cannot trace, as the last question is
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and not of_intel()
    )
