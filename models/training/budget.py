"""How much of a training step is held in memory at once: a budget of work, not of crystals.

Enters: the work of each crystal of a step. Leaves: the parts in which the step is taken, their
gradients summed. A part that does not fit is halved and taken again, so a machine with little
memory trains slower, not differently, but for the last bits and for batch statistics, which are
those of a part. This module does not know losses or optimizers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from assay.models import memory

_TELLING = 128 * 2**20
"""Bytes a probe has to take before its measure is believed."""
_TOO_BIG = (
    "one crystal with {:,} nodes, edges and triplets, or pixels, does not fit into memory: lower graph.k, "
    "graph.cutoff, view.size or augment.views, take a smaller network (sizes), merge equal atoms (quotient), leave "
    "out the largest crystals, or use a larger machine"
)

Step = Callable[[NDArray[np.int64]], float]
"""Goes forward and backward with the crystals at positions (p,) of a step, and returns their share
of its loss. Shares add up when each is divided by the weight of the whole step."""
Result = TypeVar("Result")

_log = logging.getLogger(__name__)


@dataclass
class Budget:
    """The most work that one part of a training step may hold in memory."""

    limit: int | None = None
    """In the unit of `Inputs.cost`; None: every step in one part."""

    def parts(self, cost: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Positions of a step with work `cost` (b,), in order, in few parts of like size.

        A crystal that is over the limit by itself is a part by itself.
        """
        positions = np.arange(len(cost))
        if self.limit is None or cost.sum() <= self.limit:
            return [positions]
        cuts = _cuts(cost, self.limit)
        low, high = int(cost.sum()) // (len(cuts) + 1), self.limit
        while high - low > 1:  # the lowest limit with as few parts: no remnant with the batch statistics of one crystal
            middle = (low + high) // 2
            tried = _cuts(cost, middle)
            low, high, cuts = (low, middle, tried) if len(tried) == len(cuts) else (middle, high, cuts)
        return np.split(positions, cuts)

    def halve(self, cost: NDArray[np.int64]) -> None:
        """Allow half the work of a part that did not fit, whose crystals have work `cost` (p,).

        Raises:
            MemoryError: when the part is a single crystal.
        """
        if len(cost) == 1:
            raise MemoryError(_TOO_BIG.format(int(cost[0])))
        self.limit = max(1, int(cost.sum()) // 2)
        _log.warning("short of memory with %d crystals at once: steps now in parts of %d", len(cost), self.limit)

    def guard(self, cost: NDArray[np.int64]) -> None:
        """Halve when main memory is nearly gone, before the machine swaps.

        `cost` (b,) is the work of a typical step.

        It takes a millisecond or two; call it every few dozen steps of a run on the CPU.
        """
        if memory.is_short():
            heaviest = max((cost[part] for part in self.parts(cost)), key=np.sum)
            if len(heaviest) > 1:
                self.halve(heaviest)
                memory.release()

    def to_state(self) -> dict[str, Any]:
        """What `from_state` makes the same budget of; goes into state.pt and model.json."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Budget:
        """The budget of an interrupted run, so that its parts stay what they were."""
        return cls(**state)


def in_parts(network: nn.Module, budget: Budget, cost: NDArray[np.int64], step: Step) -> float:
    """Gather the gradients of one training step with work `cost` (b,); returns its loss.

    When memory runs out, the budget is halved and the step taken anew from where it began: no
    gradients, the same buffers, the same random numbers.

    Raises:
        MemoryError: when a single crystal does not fit.
    """
    restart = _remember(network)
    while True:
        restart()
        loss = 0.0
        for part in budget.parts(cost):
            share = _attempt(partial(step, part))
            if share is None:
                budget.halve(cost[part])
                break
            loss += share
        else:
            return loss


def probe(network: nn.Module, step: Step, cost: NDArray[np.int64], size: int, share: float = 0.5) -> Budget:
    """Measure what typical crystals take, and allow at most `share` of the available memory.

    Here `step` takes positions among all training crystals, whose work is `cost` (n,); `size` is
    how many a training step has. The limit is a power of two, so that noise does not move it, and
    None where every step fits: either way the same machine makes the same parts. Gradients are
    empty afterwards, buffers and random numbers as before.

    Raises:
        MemoryError: when the largest crystal needs more than there is.
    """
    device = next(network.parameters()).device
    allowed = share * memory.available(device)
    typical = np.argsort(np.abs(cost - np.median(cost)), kind="stable")[:size]
    restore = _remember(network)
    count, before, taken = 1, 0, 0
    try:
        while True:
            most = _attempt(partial(memory.peak, device, partial(step, typical[:count])))
            if most is None:
                found = Budget()
                found.halve(cost[typical[:count]])
                return found
            if count == 1:  # what is allocated once and for all is not counted
                memory.release()
                before = memory.used(device)
            else:
                taken = most - before
            if count == len(typical) or taken >= min(_TELLING, allowed / 2):
                break
            count = min(2 * count, len(typical))
    finally:
        restore()
    return _allow(cost, size, allowed * cost[typical[:count]].sum() / max(taken, 1), share)


def _allow(cost: NDArray[np.int64], size: int, units: float, share: float) -> Budget:
    """The budget of a machine of which a share of memory holds `units` of work."""
    if cost.max() > units / share:
        raise MemoryError(_TOO_BIG.format(int(cost.max())))
    if np.sort(cost)[-size:].sum() <= units:
        return Budget()
    budget = Budget(2 ** int(np.log2(max(units, 1))))
    _log.info("steps of up to %d crystals are taken in parts of %d nodes, edges and triplets", size, budget.limit)
    return budget


def _attempt(work: Callable[[], Result]) -> Result | None:
    """The result of `work`, or None where memory ran out; by then the tensors it made are gone."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not memory.ran_out(error):
            raise
    memory.release()
    return None


def _remember(network: nn.Module) -> Callable[[], None]:
    """What puts buffers and random numbers back, and empties the gradients."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    device = next(network.parameters()).device
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    on_host = torch.get_rng_state()

    def restore() -> None:
        network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(buffers[name])
        torch.set_rng_state(on_host)
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, device)

    return restore


def _cuts(cost: NDArray[np.int64], limit: int) -> list[int]:
    """Where a new part starts when each takes as many crystals as fit."""
    cuts, load = [], 0
    for position, units in enumerate(cost.tolist()):
        if position and load + units > limit:
            cuts.append(position)
            load = 0
        load += units
    return cuts
