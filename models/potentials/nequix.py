"""Nequix (Koker and others, arXiv:2508.16067), from a `.nqx` file: `nequix:PATH`, `nequix:NAME`.

Enters: `Crystals`. Leaves: an `Evaluation`. Its energies are totals of PBE(+U) without corrections.
The network runs in torch, many crystals at once, on the edges of `assay.featurize.neighbours`; jax
is needed once, to read the file. This module is the door to nequix.
"""

from __future__ import annotations

import hashlib
import os
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from assay.featurize import neighbours
from assay.models.potentials.potential import Evaluation, Scale

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from assay.sources.crystals import Crystals

_EDGES_AT_ONCE = 4_000
"""Neighbours in one batch; this bounds the memory, and the caches of a CPU like few."""


class Nequix:
    """A published network."""

    scale = Scale("PBE(+U)", "totals")

    def __init__(self, name: str, path: Path) -> None:
        """Load weights; the file holds JSON and plain arrays.

        Raises:
            ImportError: when nequix is not installed.
            OSError: when the file cannot be read.
        """
        self.name = name
        self._network, config = _network(path)
        self.version = f"nequix {metadata.version('nequix')}, {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
        numbers = [int(number) for number in config["atomic_numbers"]]
        self.elements = frozenset(numbers)
        self._cutoff = float(config["cutoff"])
        self._species = np.zeros(max(numbers) + 1, np.int64)
        self._species[numbers] = np.arange(len(numbers))

    def evaluate(self, crystals: Crystals) -> Evaluation:
        """Evaluate crystals, some at a time, on the CPU, in single precision."""
        energy, stress = np.full(len(crystals), np.nan), np.full((len(crystals), 3, 3), np.nan)
        forces = np.full((len(crystals.frac), 3), np.nan)
        edges = neighbours.within(crystals.lattice, crystals.frac, crystals.site_ptr, self._cutoff)
        for first, last in _batches(edges[0]):
            sites = slice(crystals.site_ptr[first], crystals.site_ptr[last])
            energy[first:last], forces[sites], stress[first:last] = self._some(crystals, edges, first, last)
        return Evaluation(energy, forces, stress)

    def _some(self, crystals: Crystals, edges: neighbours.Edges, first: int, last: int) -> tuple[NDArray[Any], ...]:
        """Energies, forces and stresses of consecutive crystals."""
        begin, end = crystals.site_ptr[first], crystals.site_ptr[last]
        some = slice(edges[0][first], edges[0][last])
        source, target = (edges[k][some].astype(np.int64) - begin for k in (1, 2))
        vector = torch.from_numpy(edges[3][some].astype(np.float32)).requires_grad_()
        species = torch.from_numpy(self._species[crystals.numbers[begin:end]])
        atoms = self._network.node_energies(vector, species, torch.from_numpy(source), torch.from_numpy(target))
        slope = np.zeros((len(vector), 3))
        if len(vector):
            slope = torch.autograd.grad(atoms.sum(), vector)[0].numpy().astype(np.float64)
        forces = np.zeros((end - begin, 3))
        np.add.at(forces, target, slope)
        np.subtract.at(forces, source, slope)
        crystal = crystals.site_crystal[begin:end] - first
        pull = np.einsum("ei,ej->eij", edges[3][some], slope)
        stress = np.zeros((last - first, 3, 3))
        np.add.at(stress, crystal[target], (pull + pull.swapaxes(1, 2)) / 2)
        energy = np.bincount(crystal, atoms.detach().numpy()[:, 0].astype(np.float64), last - first)
        return energy, forces, stress / crystals.volume[first:last, None, None]


def load(detail: str) -> Nequix:
    """Load a `.nqx` file: its path, or its name in `potentials/teachers` of the data folder.

    Raises:
        ValueError: when there is no such file.
        ImportError: when nequix is not installed.
    """
    data = Path(os.environ.get("ASSAY_DATA", "")) / "potentials" / "teachers" / f"{detail}.nqx"
    path = next((path for path in (Path(detail), data) if detail and path.is_file()), None)
    if path is None:
        raise ValueError(
            f"nequix:{detail}: there is no such file; expected the path of a .nqx file, or its name in {data.parent}"
        )
    return Nequix(f"nequix:{detail}", path)


def _network(path: Path) -> tuple[Any, Any]:
    try:
        from nequix.model import load_model
        from nequix.torch_impl.utils import convert_model_jax_to_torch
    except ImportError as error:
        told = "docs/relaxation.md says how to install it without its GPU libraries"
        raise ImportError(f"nequix cannot be imported ({error}); {told}") from error
    network, config = convert_model_jax_to_torch(*load_model(str(path), kernel=False), use_kernel=False)
    network.atom_energies = torch.tensor([config["atom_energies"][str(z)] for z in config["atomic_numbers"]])
    for weight in network.parameters():
        weight.requires_grad = False
    return network.eval(), config


def _batches(edge_ptr: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Consecutive crystals, at least one, with about `_EDGES_AT_ONCE` edges."""
    first = 0
    while first < len(edge_ptr) - 1:
        last = int(np.searchsorted(edge_ptr, edge_ptr[first] + _EDGES_AT_ONCE, "right")) - 1
        last = max(first + 1, last)
        yield first, last
        first = last
