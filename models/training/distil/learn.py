"""One student learns: energies, forces and stresses of labelled crystals, step by step.

Enters: `Labels` of the training rows. Leaves: a trained `PaiNN`. The state of the run is kept after
every epoch, and a run that was stopped goes on to the same weights. This module does not know
teachers or splits.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from assay.models.potentials.potential import GPA
from assay.models.potentials.student.painn import ATOMS, PaiNN
from assay.models.potentials.student.slopes import slopes
from assay.models.training.optimise import MovingAverage, Muon
from assay.sources.durable import whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from assay.models.training.distil.label import Labels
    from assay.models.training.distil.recipe import Schedule, StudentSpec

_STATE = "state.pt"
_log = logging.getLogger(__name__)


def learn(
    labels: Labels,
    watched: Labels,
    spec: StudentSpec,
    schedule: Schedule,
    folder: Path | None,
    begun: Mapping[str, Tensor] | None = None,
) -> PaiNN:
    """Train a student, and log its errors on the crystals that are watched.

    With a `folder` the state is kept there, and taken up from there. The student goes on from the
    weights `begun`, if there are any.
    """
    torch.manual_seed(spec.seed)
    sizes = {name: getattr(spec, name) for name in ("features", "layers", "radial", "cutoff")}
    network = PaiNN(**sizes)
    if begun is None:
        _level(network, labels)
    else:
        network.load_state_dict(begun)
    run = _Run(network, labels, spec, schedule)
    if folder is not None:
        run.restore(folder)
    while run.epoch < schedule.epochs:
        began = time.perf_counter()
        loss = run.learn()
        if not run.taken:
            raise ValueError(_stuck(run, loss))
        found = errors(run.averaged(), watched) if run.epoch % 5 == 0 or run.epoch == schedule.epochs else {}
        told = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
        said = run.epoch, schedule.epochs, loss, time.perf_counter() - began, told
        _log.info("student %d epoch %d/%d: loss %.4f, %.0f s; %s", spec.seed, *said)
        if folder is not None:
            run.save(folder)
    return run.averaged()


def errors(network: PaiNN, labels: Labels, batch_size: int = 64) -> dict[str, float]:
    """Mean absolute errors: energy (meV/atom), force component (meV/Å), stress component (GPa)."""
    energy, forces, stress = [], [], []
    for first in range(0, len(labels.crystals), batch_size):
        some = labels.select(np.arange(first, min(first + batch_size, len(labels.crystals))))
        e, f, s = (found.detach().numpy() for found in slopes(network, some.crystals))
        energy.append((e - some.energy) / some.crystals.nsites)
        forces.append(f - some.forces)
        stress.append(s - some.stress)
    parts = {"energy": (energy, 1e3), "force": (forces, 1e3), "stress": (stress, GPA)}
    return {name: float(abs(np.concatenate(rows)).mean() * unit) for name, (rows, unit) in parts.items()}


class _Run:
    """A student, its optimisers, and how far it is."""

    def __init__(self, network: PaiNN, labels: Labels, spec: StudentSpec, schedule: Schedule) -> None:
        self.network, self.labels, self.spec, self.schedule = network, labels, spec, schedule
        matrices = [p for name, p in network.named_parameters() if p.ndim == 2 and not name.startswith("embed")]
        chosen = {id(p) for p in matrices}
        rest = [p for p in network.parameters() if id(p) not in chosen]
        decay = {"weight_decay": schedule.weight_decay}
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon([{"params": matrices, "peak": schedule.matrix_rate, **decay}]),
            torch.optim.AdamW([{"params": rest, "peak": schedule.learning_rate, **decay}], betas=(0.9, 0.99)),
        ]
        self.average = MovingAverage(network.state_dict(), schedule.ema)
        self.epoch = 0
        self.taken = 0

    def learn(self) -> float:
        """One epoch; its mean loss."""
        rows = np.random.default_rng([self.spec.seed, self.epoch]).permutation(len(self.labels.crystals))
        steps = math.ceil(len(rows) / self.schedule.batch_size)
        total, self.taken = 0.0, 0
        for step, chosen in enumerate(np.array_split(rows, steps)):
            self._rates((self.epoch + step / steps) / self.schedule.epochs)
            loss = self._loss(self.labels.select(chosen))
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip)
            if torch.isfinite(norm) and loss < self.schedule.largest_loss:
                self.taken += 1
                for optimizer in self.optimizers:
                    optimizer.step()
            self.average.update(self.network.state_dict())
            total += float(loss.item())
        self.epoch += 1
        return total / steps

    def _loss(self, some: Labels) -> Tensor:
        energy, forces, stress = slopes(self.network, some.crystals, learn=True)
        atoms = torch.from_numpy(some.crystals.nsites)
        off = ((energy - torch.from_numpy(some.energy)) / atoms).abs().mean()
        pushed = ((forces - torch.from_numpy(some.forces)).square().sum(1) + 1e-8).sqrt().mean()
        pulled = (stress - torch.from_numpy(some.stress)).abs().mean()
        return self.schedule.energy * off + self.schedule.force * pushed + self.schedule.stress * pulled

    def _rates(self, done: float) -> None:
        rise = self.schedule.warmup
        factor = done / rise if done < rise else (1 + math.cos(math.pi * (done - rise) / (1 - rise))) / 2
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor

    def averaged(self) -> PaiNN:
        """A network with the averaged weights."""
        made = PaiNN(**self.network.sizes)
        made.load_state_dict(self.average.state)
        return made.eval()

    def save(self, folder: Path) -> None:
        """Write the state as one file, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": (self.average.steps, self.average.state),
            "epoch": self.epoch,
        }
        with whole(folder / _STATE) as file:
            torch.save(state, file)

    def restore(self, folder: Path) -> None:
        """Take up the state in `folder`, if there is one."""
        if not (folder / _STATE).is_file():
            return
        state = torch.load(folder / _STATE, weights_only=True)
        self.network.load_state_dict(state["network"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.average.steps, self.average.state = state["average"]
        self.epoch = state["epoch"]


def _stuck(run: _Run, loss: float) -> str:
    """Why a student has learned nothing in an epoch."""
    spread = run.epoch > 1 or not math.isfinite(loss)
    advice = "lower the rates of schedule" if spread else "raise it"
    return (
        f"student {run.spec.seed} took no step in epoch {run.epoch}, because the loss of each, {loss:.3g} on average, "
        f"is not below largest_loss, {run.schedule.largest_loss:g}: it learned nothing; {advice}"
    )


def _level(network: PaiNN, labels: Labels) -> None:
    """Let a network begin at energies of atoms that explain the labels, and at their spread."""
    network.scale.zero_()
    atoms = labels.crystals.composition()[:, :ATOMS]
    rest = labels.energy - _repelled(network, labels)
    counts = np.sqrt(atoms.sum(axis=1, keepdims=True))
    shift, *_ = np.linalg.lstsq(
        np.vstack([atoms / counts, 1e-3 * np.eye(ATOMS)]), np.r_[rest / counts[:, 0], np.zeros(ATOMS)]
    )
    network.shift.copy_(torch.from_numpy(shift))
    network.scale.fill_(float(np.std((rest - atoms @ shift) / counts[:, 0] ** 2)))


def _repelled(network: PaiNN, labels: Labels) -> NDArray[np.float64]:
    """(n,) eV of the fixed repulsion alone."""
    parts = [
        slopes(network, labels.crystals[first : first + 64])[0].detach().numpy()
        for first in range(0, len(labels.crystals), 64)
    ]
    return np.concatenate(parts)
