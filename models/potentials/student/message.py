"""The sum of the messages of PaiNN for torch, with gradients and gradients of gradients.

Enters and leaves: tensors on the CPU, all float32 or all float64. Forces are gradients, so learning
from forces takes gradients of gradients. The loops are compiled
(`assay.models.potentials.student.loops`). This module does not know networks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from assay.models.potentials.student import loops

Ends = tuple[Any, Any]
"""(E,) int64 arrays: the atom that each message comes from, and the one it goes to, ascending."""


def sent(phi: Tensor, w: Tensor, unit: Tensor, v: Tensor, ends: Ends) -> tuple[Tensor, Tensor]:
    """(S, F) and (S, 3, F), the sums of the scalar and of the vector messages to each atom.

    Args:
        phi: (S, 3 F) what each atom sends; (S, 2 F) where no atom has a vector state yet.
        w: (E, 3 F or 2 F) filters.
        unit: (E, 3) unit vectors of the edges.
        v: (S, 3, F) vector states.
        ends: of the edges.
    """
    made: tuple[Tensor, Tensor] = _Sent.apply(phi, w, unit, v, ends)  # type: ignore[no-untyped-call]
    return made


def _arrays(*tensors: Tensor) -> list[Any]:
    return [np.ascontiguousarray(tensor.detach().numpy()) for tensor in tensors]


class _Sent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, phi: Tensor, w: Tensor, unit: Tensor, v: Tensor, ends: Ends) -> Any:
        ctx.save_for_backward(phi, w, unit, v)
        ctx.ends = ends
        out = np.zeros(v.shape, v.numpy().dtype)
        s = np.zeros((len(v), v.shape[2]), out.dtype)
        loops.send(*_arrays(phi, w, unit, v), *ends, s, out)
        return torch.from_numpy(s), torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, d_s: Tensor, d_out: Tensor) -> Any:
        return (*_Back.apply(d_s, d_out, *ctx.saved_tensors, ctx.ends), None)  # type: ignore[no-untyped-call]


class _Back(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, d_s: Tensor, d_out: Tensor, *rest: Any) -> Any:
        *kept, ends = rest
        ctx.save_for_backward(d_s, d_out, *kept)
        ctx.ends = ends
        values = _arrays(d_s, d_out, *kept)
        made = [np.zeros_like(values[2]), np.empty_like(values[3]), np.empty_like(values[4]), np.zeros_like(values[5])]
        loops.back(*values, *ends, *made)
        return tuple(map(torch.from_numpy, made))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        values = _arrays(*ctx.saved_tensors)
        made = [np.zeros_like(value) for value in values]
        loops.back_again(*_arrays(*slopes), *values, *ctx.ends, *made)
        return (*map(torch.from_numpy, made), None)
