"""A potential as a model of torch-sim: for its optimisers and its dynamics, many systems at once.

Enters: the name of a potential. Leaves: a model with energies, forces and stresses, which also
makes the states that torch-sim moves. It refuses whatever the potential cannot know, and gives no
number that is not finite. This module is the door to torch-sim (`pip install 'assay[torchsim]'`):
0.3 on Python 3.11, later ones from Python 3.12 on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from assay.models.potentials import potential as potentials
from assay.models.potentials.potential import Evaluation, Potential
from assay.sources.crystals import Crystals, wrap
from assay.sources.formats.convert import to_ase

DEVICE, DTYPE = torch.device("cpu"), torch.float64


def torchsim_model(name: str = "potential") -> Any:
    """Make a `ModelInterface` of torch-sim of a potential, on the CPU and in double precision.

    `model.state(crystals)` makes a state of `Crystals`, in right-handed cells. Make states with it:
    torch-sim itself takes the main element of a shared site for the whole of it. The model gives
    `energy` (n,) in eV, `forces` (S, 3) in eV/Å and `stress` (n, 3, 3) in eV/Å^3, positive under
    tension, of systems that are periodic in three dimensions. Asked about others it raises a
    ValueError; where the potential fails, or gives a number that is not finite, a RuntimeError.

    Args:
        name: as `assay.models.potentials.potential.load` takes it.

    Raises:
        ValueError: for an unknown potential.
        ImportError: when the potential or torch-sim is not installed.
    """
    try:
        import torch_sim
        from torch_sim.models.interface import ModelInterface
    except ImportError as error:
        raise ImportError(f"torch-sim cannot be imported ({error}); pip install 'assay[torchsim]'") from error
    potential = potentials.load(name)

    class Model(ModelInterface):  # type: ignore[misc]
        """Asks a potential about the systems of a state."""

        _device, _dtype, _compute_stress, _compute_forces = DEVICE, DTYPE, True, True

        def forward(self, state: Any, **_: Any) -> dict[str, torch.Tensor]:
            """Evaluate all systems of a state."""
            return measured(potential, state)

        def state(self, crystals: Crystals) -> Any:
            """Make a state of crystals that the potential knows, one system each.

            Raises:
                ValueError: when it does not know one, which the message names.
            """
            _refuse_unknown(potential, crystals)
            return torch_sim.initialize_state(to_ase(potentials.right_handed(crystals)), DEVICE, DTYPE)

        def __reduce__(self) -> tuple[Any, ...]:
            return torchsim_model, (name,)

    return Model()


def measured(potential: Potential, state: Any) -> dict[str, torch.Tensor]:
    """What a potential says of the systems of a state.

    Raises:
        ValueError: when one is not periodic, not right-handed, or not of elements that it knows.
        RuntimeError: when the potential fails.
    """
    crystals = _crystals(potential, state)
    found = potential.evaluate(crystals)
    for system, message in found.failed.items():
        raise RuntimeError(f"system {system}: {message}")
    for system in np.flatnonzero(~_finite(found, crystals)).tolist():
        raise RuntimeError(f"system {system}: energy, forces or stress of {potential.name} are not finite")
    values = {"energy": found.energy, "forces": found.forces, "stress": found.stress}
    return {name: torch.as_tensor(value).to(state.positions) for name, value in values.items()}


def _finite(found: Evaluation, crystals: Crystals) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(n,) whether all numbers of a crystal are finite."""
    finite = np.isfinite(found.energy) & np.isfinite(found.stress).all(axis=(1, 2))
    finite[crystals.site_crystal[~np.isfinite(found.forces).all(axis=1)]] = False
    return finite


def _crystals(potential: Potential, state: Any) -> Crystals:
    """The systems of a state as crystals, called system 0 and so on."""
    if not torch.as_tensor(state.pbc).all():
        raise ValueError(f"the systems have an open axis; {potential.name} needs crystals: set pbc=True")
    lattice = _array(state.row_vector_cell)
    owner = state.system_idx.cpu().numpy()
    for system, volume in enumerate(np.linalg.det(lattice)):
        if volume < 0:  # its stress is right, and torch-sim multiplies it by the signed volume
            raise ValueError(f"system {system}: the cell is left-handed; model.state(crystals) turns it")
        if not volume > 0:
            raise ValueError(f"system {system}: the cell has no volume; {potential.name} needs a crystal")
    crystals = Crystals(
        ids=np.array([f"system {system}" for system in range(len(lattice))]),
        lattice=lattice,
        site_ptr=np.append(0, np.cumsum(np.bincount(owner, minlength=len(lattice)))),
        frac=wrap(np.einsum("si,sij->sj", _array(state.positions), np.linalg.inv(lattice)[owner])),
        species_ptr=np.arange(len(owner) + 1),
        numbers=state.atomic_numbers.cpu().numpy().astype(np.int64),
        occupancy=np.ones(len(owner), np.float32),
    )
    _refuse_unknown(potential, crystals)
    return crystals


def _refuse_unknown(potential: Potential, crystals: Crystals) -> None:
    for record in potentials.known(potential, crystals)[1]:
        raise ValueError(f"{record.id}: {record.message}")


def _array(tensor: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return tensor.detach().cpu().double().numpy()
