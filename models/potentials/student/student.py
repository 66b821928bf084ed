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
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

from assay.models.networks import tensors
from assay.models.potentials.potential import Evaluation, Scale
from assay.models.potentials.student.frozen import Frozen, freeze, together
from assay.models.potentials.student.painn import PaiNN
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
    version: str = ""
    """Digest of the description, which names those of the weights."""

    @cached_property
    def _frozen(self) -> list[Frozen]:
        return [freeze(network) for network in self.networks]

    def evaluate(self, crystals: Crystals) -> Evaluation:
        """The mean of the networks, which is the slope of the mean of their energies."""
        every = self._each(crystals)
        return Evaluation(*(np.mean([getattr(one, what) for one in every], axis=0) for what in _WHAT))

    def _each(self, crystals: Crystals) -> list[Evaluation]:
        """What every network says."""
        return [Evaluation(*one) for one in together(self._frozen, crystals)]

    def disagreement(self, crystals: Crystals) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Standard deviations over the networks: (n,) eV/atom, (S,) eV/Å.

        That of a force is the root of the mean square over its three components.
        """
        every = self._each(crystals)
        energy = np.std([one.energy for one in every], axis=0, ddof=1) / crystals.nsites
        forces = np.std([one.forces for one in every], axis=0, ddof=1)
        return energy, np.sqrt((forces**2).mean(axis=1))


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
    path = folder / _DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {_DESCRIPTION}, so it is no folder of assay distil")
    content = _read(path)
    described = _described(content, path)
    try:
        networks = tuple(_network(folder, entry) for entry in described["networks"])
        elements = frozenset(NUMBERS[symbol] for symbol in described["elements"])
        scale = Scale(str(described["functional"]), str(described["reference"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} lacks or has a wrong {error}") from None
    if not networks:
        raise ValueError(f"{path} names no network")
    name = f"potential:{detail}" if detail else "potential"
    return Student(name, scale, elements, networks, described, hashlib.sha256(content).hexdigest())


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
        file.write((json.dumps(told | {"sha256": _seal(told)}, indent=1, allow_nan=False) + "\n").encode())


def _seal(told: Mapping[str, Any]) -> str:
    """Digest of a description."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _described(content: bytes, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        got = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise ValueError(f"{path}: format is {got!r}, expected {_FORMAT}")
    seal = found.pop("sha256", None)
    if seal != _seal(found):
        raise ValueError(f"{path} is damaged or was edited: its digest is not the recorded one")
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
