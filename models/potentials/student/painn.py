"""PaiNN in torch: the energy of each atom, from the vectors to its neighbours.

Enters: atomic numbers and edges. Leaves: (S,) energies in eV; forces and stress are their slopes
along the vectors of the edges. Every state fades in smoothly at the cutoff. At short range a fixed
repulsion (Ziegler, Biersack and Littmark, 1985) takes over from what was learned. This module does
not know crystals, files or training.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.featurize import elements
from assay.models.potentials.student.message import Ends, sent

COULOMB = 14.399645
"""eV Å, the energy of two elementary charges 1 Å apart."""
SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
"""Weight and decay of the terms of the universal screening function."""
_HEAVY = 1.7
"""Å, covalent radius of the heaviest elements, which the table does not have."""
_TYPICAL = 30.0
"""Neighbours of an atom; messages are scaled by their root."""
ATOMS = 104
"""Rows of a table over atomic numbers."""


class PaiNN(nn.Module):
    """Equivariant message passing (Schütt, Unke and Gastegger, ICML 2021).

    The first layer has no vector states to send, and the last one makes none.
    """

    shift: Tensor
    """(104,) float64 eV, energy of an atom of each element, to which the network adds."""
    scale: Tensor
    """() float64 eV, by which the network's output is multiplied."""
    radii: Tensor
    """(104,) float64 Å, covalent radii."""

    def __init__(self, features: int = 64, layers: int = 2, radial: int = 12, cutoff: float = 5.0) -> None:
        """`radial` Bessel functions of the distance describe an edge up to `cutoff` (Å)."""
        super().__init__()
        self.sizes: dict[str, Any] = {"features": features, "layers": layers, "radial": radial, "cutoff": cutoff}
        self.embed = nn.Embedding(ATOMS, features)
        self.layers = nn.ModuleList(_Layer(features, radial, first=k == 0, last=k == layers - 1) for k in range(layers))
        self.readout = nn.Sequential(nn.Linear(features, features), nn.SiLU(), nn.Linear(features, 1))
        self.register_buffer("shift", torch.zeros(ATOMS, dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer(
            "radii", torch.from_numpy(np.nan_to_num(elements.column("covalent_radius"), nan=_HEAVY)), persistent=False
        )

    @property
    def cutoff(self) -> float:
        """Å, beyond which atoms do not meet."""
        return float(self.sizes["cutoff"])

    def forward(self, numbers: Tensor, ends: Ends, vector: Tensor) -> Tensor:
        """(S,) float64 energies in eV; `numbers` (S,), `vector` (E, 3) Å from target to source."""
        distance = (vector * vector).sum(1, keepdim=True).clamp(min=1e-12).sqrt()
        basis = self.basis(distance)
        s, v = self.embed(numbers), None
        for layer in self.layers:
            s, v = layer(s, v, basis, vector / distance, ends)
        learned = self.readout(s)[:, 0].double() * self.scale + self.shift[numbers]
        pair = repulsion(numbers, ends, distance[:, 0].double(), self.radii)
        energies: Tensor = learned.index_add(0, torch.from_numpy(ends[1]), pair / 2)
        return energies

    def basis(self, distance: Tensor) -> Tensor:
        """(E, radial) Bessel functions of distances (E, 1), which end smoothly at the cutoff."""
        x = (distance / self.cutoff).clamp(max=1.0)
        wave = torch.arange(1, self.sizes["radial"] + 1, dtype=distance.dtype) * math.pi
        ends = envelope(x, 5) * (2 * math.sqrt(2 / self.cutoff / _TYPICAL))
        return torch.sin(wave * x) / distance * ends


class _Layer(nn.Module):
    """Messages from the neighbours, then a mix of the scalar and vector states of each atom."""

    def __init__(self, features: int, radial: int, *, first: bool, last: bool) -> None:
        super().__init__()
        parts = 2 if first else 3
        self.filters = nn.Linear(radial, parts * features, bias=False)
        self.send = nn.Sequential(nn.Linear(features, features), nn.SiLU(), nn.Linear(features, parts * features))
        self.mix = nn.Linear(features, 2 * features, bias=False)
        self.update = nn.Sequential(
            nn.Linear(2 * features, features), nn.SiLU(), nn.Linear(features, (2 if last else 3) * features)
        )

    def forward(
        self, s: Tensor, v: Tensor | None, basis: Tensor, unit: Tensor, ends: Ends
    ) -> tuple[Tensor, Tensor | None]:
        features = s.shape[1]
        before = s.new_zeros(len(s), 3, features) if v is None else v
        scalar, vector = sent(self.send(s), self.filters(basis), unit, before, ends)
        s, v = s + scalar, vector if v is None else v + vector
        left, right = self.mix(v).split(features, 2)
        length = ((right * right).sum(1) + 1e-6).sqrt()
        own, cross, *turn = self.update(torch.cat([s, length], 1)).split(features, 1)
        s = s + own + cross * (left * right).sum(1)
        return s, v + turn[0].unsqueeze(1) * left if turn else None


def envelope(x: Tensor, p: int) -> Tensor:
    """A polynomial from 1 at 0 to 0 at 1, where its first two derivatives are 0; 0 beyond.

    Source: Gasteiger, Groß and Günnemann, ICLR 2020; `p` >= 3 says how late it falls.
    """
    x = x.clamp(max=1.0)
    q = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
    return functional.relu(q)


def repulsion(numbers: Tensor, ends: Ends, distance: Tensor, radii: Tensor) -> Tensor:
    """(E,) eV, the screened repulsion of two nuclei, up to the sum of their covalent radii."""
    one, other = (numbers[torch.from_numpy(end)] for end in ends)
    charges = one.to(distance.dtype), other.to(distance.dtype)
    reach = (radii[one] + radii[other]).to(distance.dtype)
    x = distance * (charges[0] ** 0.23 + charges[1] ** 0.23) / 0.46850
    screened = sum(weight * torch.exp(-decay * x) for weight, decay in SCREENING)
    return COULOMB * charges[0] * charges[1] / distance * screened * envelope(distance / reach, 6)
