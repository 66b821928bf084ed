"""A folder of students as one potential: the mean of their energies, and how far they disagree.

Enters: a folder (`potential.json`, one `.safetensors` per student), or the name of the bundled one.
Leaves: a `Potential`. Every file is checked against its recorded digest. This module does not know
how students are trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from assay.models.networks import tensors
from assay.models.potentials.potential import Evaluation, Scale
from assay.models.potentials.student.painn import PaiNN
from assay.models.potentials.student.slopes import slopes
from assay.sources.crystals import Crystals
from assay.sources.durable import whole
from assay.sources.elements import NUMBERS, SYMBOLS

ZOO = Path(__file__).resolve().parents[2] / "zoo"
"""Holds the bundled potential, `potential`."""
_DESCRIPTION = "potential.json"
_FORMAT = 1
_MOST_BYTES = 2**24
"""Of a description, or of the weights of one student."""
_LARGEST = {"features": 1024, "layers": 16, "radial": 128, "cutoff": 12.0}
"""Of the sizes of a student."""


@dataclass(frozen=True)
class Student:
    """Networks of one kind, trained from different seeds."""

    name: str
    scale: Scale
    elements: frozenset[int]
    networks: tuple[PaiNN, ...]
    facts: Mapping[str, Any]
    """Teacher, data and errors, for people."""
    at_once: int = 1_024
    """Atoms in one batch."""

    def evaluate(self, crystals: Crystals) -> Evaluation:
        """The mean of the networks, which is the slope of the mean of their energies."""
        every = self._each(crystals)
        return Evaluation(*(np.mean([getattr(one, what) for one in every], axis=0) for what in _WHAT))

    def _each(self, crystals: Crystals) -> list[Evaluation]:
        """What every network says."""
        return [self._one(network, crystals) for network in self.networks]

    def _one(self, network: PaiNN, crystals: Crystals) -> Evaluation:
        parts = [slopes(network, crystals[first:last]) for first, last in self._batches(crystals)]
        joined = [torch.cat([part[which] for part in parts]) if parts else torch.empty(0) for which in range(3)]
        energy, forces, stress = (values.detach().double().numpy() for values in joined)
        return Evaluation(energy, forces.reshape(-1, 3), stress.reshape(-1, 3, 3))

    def disagreement(self, crystals: Crystals) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Standard deviations over the networks: (n,) eV/atom, (S,) eV/Å.

        That of a force is the root of the mean square over its three components.
        """
        every = self._each(crystals)
        energy = np.std([one.energy for one in every], axis=0, ddof=1) / crystals.nsites
        forces = np.std([one.forces for one in every], axis=0, ddof=1)
        return energy, np.sqrt((forces**2).mean(axis=1))

    def _batches(self, crystals: Crystals) -> list[tuple[int, int]]:
        """Consecutive crystals, at least one, with up to `at_once` atoms."""
        ranges, first = [], 0
        while first < len(crystals):
            most = crystals.site_ptr[first] + self.at_once
            last = max(first + 1, int(np.searchsorted(crystals.site_ptr, most, "right")) - 1)
            ranges.append((first, last))
            first = last
        return ranges


_WHAT = ("energy", "forces", "stress")


def alone(student: Student, k: int) -> Student:
    """Network `k` as a potential of its own."""
    return replace(student, networks=(student.networks[k],))


def load(detail: str) -> Student:
    """The students in a folder, the bundled ones where `detail` is empty.

    Raises:
        FileNotFoundError: when there is no such folder, or a file is missing.
        ValueError: when a file is damaged, or says what cannot be.
    """
    folder = Path(detail) if detail else ZOO / "potential"
    described = _described(folder)
    try:
        networks = tuple(_network(folder, entry) for entry in described["networks"])
        elements = frozenset(NUMBERS[symbol] for symbol in described["elements"])
        scale = Scale(str(described["functional"]), str(described["reference"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / _DESCRIPTION} lacks or has a wrong {error}") from None
    if not networks:
        raise ValueError(f"{folder / _DESCRIPTION} names no network")
    return Student(f"potential:{detail}" if detail else "potential", scale, elements, networks, described)


def write(
    networks: Sequence[PaiNN], elements: frozenset[int], scale: Scale, facts: Mapping[str, Any], folder: Path
) -> None:
    """Write a folder that `load` reads; the description comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for k, network in enumerate(networks):
        weights = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
        name = f"student-{k}.safetensors"
        with whole(folder / name) as file:
            file.write(weights)
        entries.append({"sizes": network.sizes, "weights": name, "sha256": hashlib.sha256(weights).hexdigest()})
    told = {"format": _FORMAT, "functional": scale.functional, "reference": scale.reference}
    told |= {"elements": [SYMBOLS[z] for z in sorted(elements)], "networks": entries, **facts}
    with whole(folder / _DESCRIPTION) as file:
        file.write((json.dumps(told, indent=1, allow_nan=False) + "\n").encode())


def digest(folder: Path) -> str:
    """Digest of the description, which names the digests of the weights."""
    return hashlib.sha256((folder / _DESCRIPTION).read_bytes()).hexdigest()


def _described(folder: Path) -> dict[str, Any]:
    path = folder / _DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {_DESCRIPTION}, so it is no folder of assay distil")
    try:
        found = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        got = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise ValueError(f"{path}: format is {got!r}, expected {_FORMAT}")
    return found


def _network(folder: Path, entry: Mapping[str, Any]) -> PaiNN:
    """One network; its sizes are bounded before anything is made."""
    path, sizes = folder / Path(str(entry["weights"])).name, dict(entry["sizes"])
    for name, most in _LARGEST.items():
        value = sizes.get(name)
        if not isinstance(value, type(most)) or not 0 < value <= most:
            raise ValueError(f"{folder / _DESCRIPTION}: {name} is {value!r}, expected above 0, at most {most}")
    weights = _read(path)
    found = hashlib.sha256(weights).hexdigest()
    if found != entry["sha256"]:
        raise ValueError(f"{path} is damaged or replaced: sha256 {found[:12]}, recorded {str(entry['sha256'])[:12]}")
    network = PaiNN(**sizes).eval()
    try:
        network.load_state_dict(tensors.read(weights, path))
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the sizes {sizes}: {' '.join(str(error).split())[:200]}") from None
    for weight in network.parameters():
        weight.requires_grad = False
    return network


def _read(path: Path) -> bytes:
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(f"{path} has {size} bytes, expected at most {_MOST_BYTES}")
    return path.read_bytes()
