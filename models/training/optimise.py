"""Losses and errors, learning rates over time, averaged weights: the arithmetic of training.

Enters: tensors, a `Schedule`. Leaves: numbers and tensors. This module does not know networks, data
or files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from assay.models.evaluation import metrics
from assay.models.target import LOG_VARIANCE, Property
from assay.models.training.recipe import Schedule

_RISE = 0.3
"""Share of the steps in which `onecycle` rises."""


def row_losses(predicted: dict[str, Tensor], name: str, truth: Tensor, kind: str) -> Tensor:
    """(b,) loss of each row on the scaled property `name`; `truth` (b,) must be finite."""
    value = predicted[name]
    if kind == "nll":
        log_variance = predicted[name + LOG_VARIANCE]
        return 0.5 * (log_variance + (value - truth) ** 2 * torch.exp(-log_variance))
    if kind == "huber":
        return functional.huber_loss(value, truth, reduction="none")
    return (value - truth).abs() if kind == "l1" else (value - truth) ** 2


def masked_loss(
    predicted: dict[str, Tensor], truth: dict[str, Tensor], weight: Tensor, share: dict[str, Tensor], kind: str
) -> Tensor:
    """Mean over the properties of the weighted mean loss over the rows whose value is known.

    Args:
        predicted: (b,) per property, in scaled units.
        truth: (b,) per property; NaN where unknown.
        weight: (b,) of each row.
        share: per property, the weight of all known rows of the whole step, of which these rows may
            be a part.
        kind: a `Schedule.loss`.

    Returns:
        A scalar; zero, with a gradient, where nothing is known.
    """
    loss = weight.new_zeros(())
    for name, values in truth.items():
        known = torch.isfinite(values)
        safe = torch.where(known, values, torch.zeros_like(values))  # 0 * NaN is NaN: a mask alone poisons the sum
        per_row = row_losses(predicted, name, safe, kind)
        counted = torch.where(known, weight, torch.zeros_like(weight))
        loss = loss + (per_row * counted).sum() / share[name].clamp(min=1e-12)
    return loss / max(1, sum(bool(total > 0) for total in share.values()))


def rate_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Share of the peak learning rate at a step, 0 to 1; the loop lowers `plateau` further."""
    warmup = (_RISE if schedule.kind == "onecycle" else schedule.warmup) * steps
    if step < warmup:
        done = (step + 1) / (warmup + 1)
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * done)) if schedule.kind == "onecycle" else done
    if schedule.kind == "plateau":
        return 1.0
    done = (step - warmup) / max(1.0, steps - warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


class Muon(torch.optim.Optimizer):
    """Momentum for matrices, of which every step is made orthogonal (Jordan and others, 2024).

    A step has the root mean square that AdamW's have, 0.2 of the rate (Liu and others, 2025). All
    matrices of one shape are taken at once, in float32: networks for crystals have many small ones.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], momentum: float = 0.95) -> None:
        """`groups` hold matrices only; `momentum` is Nesterov's."""
        super().__init__(groups, {"lr": 1e-2, "weight_decay": 0.0, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002 -- torch's signature
        """Move every matrix that has a gradient; there is no `closure`."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in alike.items():
                rate = group["lr"] * 0.2 * math.sqrt(max(shape))
                steps = _orthogonal(torch.stack(self._wanted(matrices, group["momentum"])))
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(matrices, list(steps.unbind()), alpha=-rate)

    def _wanted(self, matrices: Sequence[Tensor], momentum: float) -> list[Tensor]:
        """Nesterov's steps."""
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        averages = [self.state[matrix].setdefault("momentum", torch.zeros_like(matrix)) for matrix in matrices]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        return [torch.lerp(*pair, momentum) for pair in zip(gradients, averages, strict=True)]


def _orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (k, a, b) with the same singular vectors, and singular values of about 1.

    Five steps of Newton and Schulz, with the coefficients of Jordan and others.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = torch.bmm(x, x.transpose(1, 2))
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.transpose(1, 2) if tall else x


class MovingAverage:
    """Exponential moving average of weights and statistics (Polyak and Juditsky, 1992)."""

    def __init__(self, state: dict[str, Tensor], decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state = {name: tensor.detach().clone() for name, tensor in state.items()}

    def update(self, state: dict[str, Tensor]) -> None:
        """Move towards the present weights, in larger steps at first, to forget the start."""
        self.steps += 1
        share = 1 - min(self.decay, self.steps / (self.steps + 10))
        with torch.no_grad():
            moved = [name for name, tensor in state.items() if tensor.is_floating_point()]
            torch._foreach_lerp_([self.state[name] for name in moved], [state[name] for name in moved], share)
            for name in state.keys() - set(moved):
                self.state[name].copy_(state[name])


def errors(
    properties: Sequence[Property],
    target: NDArray[Any],
    predicted: NDArray[Any],
    weight: NDArray[np.float64],
    learned: NDArray[np.int64],
) -> tuple[float, list[float]]:
    """The error that counts, and that of each property in its unit.

    Several properties are weighed on the scales they are learned on; only those count whose numbers
    are `learned`.
    """
    found = [_mae(target[:, k], predicted[:, k], weight) for k in range(len(properties))]
    if len(found) == 1:
        return found[0], found
    scaled = [_mae(p.encode(target[:, k]), p.encode(predicted[:, k]), weight) for k, p in enumerate(properties)]
    return float(np.mean([scaled[k] for k in learned])), found


def _mae(truth: NDArray[Any], predicted: NDArray[Any], weight: NDArray[np.float64]) -> float:
    known = np.isfinite(truth)
    return metrics.regression(truth[known], predicted[known], weight[known])["mae"]
