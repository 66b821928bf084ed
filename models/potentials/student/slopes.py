"""Energies, forces and stresses of a network that gives the energy of each atom.

Enters: `Crystals`, a `PaiNN`. Leaves: tensors, through which gradients of the weights can flow.
This module does not know files or training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from assay.featurize import neighbours

if TYPE_CHECKING:
    from assay.models.potentials.student.painn import PaiNN
    from assay.sources.crystals import Crystals


def slopes(network: PaiNN, crystals: Crystals, *, learn: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate ordered crystals in the float type of the network.

    Args:
        network: gives energies of atoms.
        crystals: n crystals with S sites.
        learn: whether gradients of the weights are wanted.

    Returns:
        (n,) float64 energies in eV, (S, 3) forces in eV/Å, (n, 3, 3) stresses in eV/Å^3, positive
        under tension.
    """
    kind = next(network.parameters()).dtype
    found = neighbours.within(crystals.lattice, crystals.frac, crystals.site_ptr, network.cutoff)
    ends = found[1].astype(np.int64), found[2].astype(np.int64)
    source, target, crystal = (torch.from_numpy(where) for where in (*ends, crystals.site_crystal))
    vector = torch.from_numpy(found[3]).to(kind).requires_grad_()
    atoms = network(torch.from_numpy(crystals.numbers.astype(np.int64)), ends, vector)
    energy = atoms.new_zeros(len(crystals)).index_add(0, crystal, atoms)
    (slope,) = torch.autograd.grad(atoms.sum(), vector, create_graph=learn, materialize_grads=True)
    forces = slope.new_zeros(len(crystals.frac), 3).index_add(0, target, slope).index_add(0, source, -slope)
    pull = vector.unsqueeze(2) * slope.unsqueeze(1)
    stress = slope.new_zeros(len(crystals), 3, 3).index_add(0, crystal[target], (pull + pull.mT) / 2)
    return energy, forces, stress / torch.from_numpy(crystals.volume).to(kind)[:, None, None]
