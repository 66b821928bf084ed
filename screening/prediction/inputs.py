"""Anything that holds crystals -> predictions: files, structures of pymatgen and ASE, batches.

Enters: paths, structures or `Crystals`, and an ensemble or its name. Leaves: `Crystals` or
`Predictions`. It does not know campaigns.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias

from assay.featurize.standard import Standard
from assay.models.ensemble.ensemble import Ensemble
from assay.screening.prediction import formulas, predict as prediction
from assay.screening.prediction.predict import Predictions
from assay.sources import files
from assay.sources.assemble import Assembler, join
from assay.sources.crystals import Crystals
from assay.sources.formats import convert
from assay.sources.quarantine import Quarantined
from assay.sources.sift import MAX_SITES

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core.structure import Structure

    Item: TypeAlias = str | Path | Structure | Atoms


def read(paths: str | Path | Iterable[str | Path]) -> Crystals:
    """Read every crystal in a file, a folder, or several of them.

    An unreadable crystal is left out with a warning; `predict(...).refused` has the records.

    Raises:
        FileNotFoundError: when there is no such path.
        ValueError: when a file is of no known kind, or nothing in the paths can be read.
    """
    crystals, refused = files.read_many([paths] if isinstance(paths, str | Path) else paths)
    if refused:
        first = f"{refused[0].id}: {refused[0].reason}: {refused[0].message}"
        warnings.warn(f"{len(refused)} crystals could not be read, for example {first}", stacklevel=2)
    return crystals


def from_pymatgen(structures: Structure | Iterable[Structure], ids: Sequence[str] | None = None) -> Crystals:
    """Convert structures of pymatgen; partial occupancy is kept.

    An id is that of `structure.properties["id"]`, else `memory/<position>`.

    Raises:
        ValueError: when a structure is no sound crystal; the message names its id.
    """
    every = _listed(structures)
    return convert.from_pymatgen(every, _ids(every) if ids is None else ids)


def from_ase(atoms: Atoms | Iterable[Atoms], ids: Sequence[str] | None = None) -> Crystals:
    """Convert `ase.Atoms`; partial occupancy is read from `info["occupancy"]`.

    An id is that of `atoms.info["id"]`, else `memory/<position>`.

    Raises:
        ValueError: when one is no sound crystal; the message names its id.
    """
    every = _listed(atoms)
    return convert.from_ase(every, _ids(every) if ids is None else ids)


def load(model: str | Path) -> Ensemble:
    """Load a bundled ensemble by its name, or any ensemble from its folder.

    Raises:
        FileNotFoundError: when there is neither; the message lists the bundled ones.
    """
    return prediction.load(model)


def predict(
    what: Crystals | Item | Iterable[Item],
    model: str | Path | Ensemble = "tc",
    *,
    standardize: Literal["primitive", "conventional"] | None = None,
) -> Predictions:
    """Predict crystals with an ensemble.

    Args:
        what: `Crystals`, paths of files or folders, structures of pymatgen, or `ase.Atoms`; one or
            several of one sort.
        model: a loaded ensemble, the name of a bundled one, or an ensemble folder.
        standardize: the cell in which the ensemble sees every crystal, for one that depends on the
            cell; None: that in which it came.

    Raises:
        FileNotFoundError: when a path or the ensemble is not there.
        TypeError: for anything else than the above.
    """
    return predict_with(what, [model if isinstance(model, Ensemble) else load(model)], standardize)


def predict_with(
    what: Crystals | Item | Iterable[Item],
    ensembles: Sequence[Ensemble],
    standardize: Literal["primitive", "conventional"] | None = None,
) -> Predictions:
    """Predict crystals with several ensembles, whose columns stand side by side.

    Raises:
        FileNotFoundError: when a path is not there.
        TypeError: as `predict` does.
        Failure: when two ensembles would fill the same columns.
    """
    crystals, refused = crystals_of(what)
    return prediction.predict(crystals, ensembles, refused, Standard(standardize) if standardize else None)


def predict_paths(
    paths: Sequence[Path],
    ensembles: Sequence[Ensemble],
    standardize: Literal["primitive", "conventional"] | None = None,
    stdin: BinaryIO | None = None,
) -> Predictions:
    """Predict the crystals of files, folders and patterns, then those of a stream.

    Raises:
        FileNotFoundError: when a path is not there, or a pattern names nothing.
        ValueError: when the stream is of no kind that its content shows.
        Failure: when two ensembles would fill the same columns.
    """
    crystals, refused = files.read_many(paths)
    if stdin is not None:
        more, bad = files.read_stream(stdin)
        crystals, refused = join([crystals, more]), [*refused, *bad]
    return prediction.predict(crystals, ensembles, refused, Standard(standardize) if standardize else None)


def predict_formulas(what: str | Iterable[str], model: str | Path | Ensemble) -> Predictions:
    """Predict formulas without a structure, with an ensemble whose members read compositions alone.

    The id of a formula is its text; a text that is no formula is in `refused`, with the reason.

    Raises:
        TypeError: when a formula is no text, or the model none of these.
        FileNotFoundError: when the ensemble is not there.
        Failure: when a member of it reads the structure.
    """
    ensemble = model if isinstance(model, Ensemble) else load(model)
    return formulas.predict(formulas.listed([what] if isinstance(what, str) else what), [ensemble])


def crystals_of(what: Any) -> tuple[Crystals, list[Quarantined]]:
    """The crystals of any accepted input, and the records of those that are no sound crystals."""
    if isinstance(what, Crystals):
        return what, []
    every = _listed(what)
    sorts = {_sort(one) for one in every}
    if sorts <= {"path"}:
        return files.read_many(every)
    if len(sorts) > 1:
        raise TypeError(f"got a mixture of {' and '.join(sorted(sorts))}, expected one sort; predict them apart")
    add = convert.add_pymatgen if sorts == {"pymatgen"} else convert.add_ase
    assembler = Assembler(MAX_SITES)
    for one, id in zip(every, _ids(every), strict=True):
        add(assembler, one, id, "memory")
    return assembler.finish()


def _listed(what: Any) -> list[Any]:
    """A list of one thing or of several."""
    single = isinstance(what, str | Path) or _library(what) is not None
    return [what] if single else list(what)


def _sort(one: Any) -> str:
    sort = "path" if isinstance(one, str | Path) else _library(one)
    if sort is None:
        expected = "Crystals, paths, pymatgen Structures or ase.Atoms"
        raise TypeError(f"cannot predict a {type(one).__module__}.{type(one).__qualname__}, expected {expected}")
    return sort


def _library(one: Any) -> str | None:
    """`pymatgen` or `ase` for their structures, found without importing either."""
    kinds = {(base.__module__.partition(".")[0], base.__name__) for base in type(one).__mro__}
    if ("pymatgen", "Structure") in kinds or ("pymatgen", "IStructure") in kinds:
        return "pymatgen"
    return "ase" if ("ase", "Atoms") in kinds else None


def _ids(every: Sequence[Any]) -> list[str]:
    """The ids that the structures carry, where they are distinct; else their positions."""
    notes = [one.properties if _library(one) == "pymatgen" else one.info for one in every]
    own = [str(note.get("id") or f"memory/{position}") for position, note in enumerate(notes)]
    return own if len(set(own)) == len(own) else [f"memory/{position}" for position in range(len(every))]
