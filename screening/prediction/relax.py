"""Relaxes crystals with a force field, in this process.

Enters: anything that holds crystals, and the name of a potential. Leaves: `Relaxations`: the
crystals where they arrived, with what was measured there, and a record of each of the others. This
module does not know campaigns, nor how a relaxation is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from assay.models.potentials import columns, potential as potentials, relax as relaxing
from assay.models.potentials.columns import MEASURED
from assay.models.potentials.relax import Settings
from assay.screening.prediction import inputs
from assay.screening.settings import digits
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.printable import escaped
from assay.sources import table

if TYPE_CHECKING:
    from assay.models.potentials.potential import Potential, Scale
    from assay.screening.prediction.inputs import Item
    from assay.sources.crystals import Crystals
    from assay.sources.quarantine import Quarantined

SHOWN = 20


@dataclass(frozen=True)
class Relaxations:
    """What became of some crystals."""

    crystals: Crystals
    """Those that arrived, in the order of the input, with the columns `MEASURED`. A column of the
    input that has one of these names is called `reported_...`."""
    refused: list[Quarantined]
    """One record of each of the others: stage, reason, message."""
    potential: str
    """Its name."""
    scale: Scale
    """Of the energies: comparable with energies on the same scale only."""

    def __len__(self) -> int:
        return len(self.crystals)

    def to_arrow(self) -> pa.Table:
        """The crystals as a table that every command of Assay reads; units are in the fields."""
        return columns.to_table(self.crystals, self.potential, self.scale)


def relax(what: Crystals | Item | Iterable[Item], model: str = "potential", **settings: Any) -> Relaxations:
    """Relax atoms and cells of ordered crystals.

    Args:
        what: `Crystals`, paths of files or folders, structures of pymatgen, or `ase.Atoms`; one or
            several of one sort.
        model: `chgnet`, `sevennet`, or `ase:MODULE:CLASS` for a calculator of ASE.
        settings: of `assay.models.potentials.relax.Settings`, for example `fmax=0.02`.

    Raises:
        FileNotFoundError: when a path is not there.
        TypeError: for anything else than the above.
        ValueError: for an unknown potential, or a setting out of its range.
        ImportError: when the potential is not installed.
    """
    chosen = Settings(**settings)
    return relax_with(what, potentials.load(model), chosen)


def relax_with(what: Crystals | Item | Iterable[Item], field: Potential, settings: Settings) -> Relaxations:
    """Relax crystals with a potential that is loaded.

    Raises:
        FileNotFoundError: when a path is not there.
        TypeError: as `relax` does.
    """
    crystals, refused = inputs.crystals_of(what)
    found = relaxing.relax(crystals, field, settings)
    return Relaxations(columns.measured(found), [*refused, *found.refused], field.name, field.scale)


def lines(found: Relaxations, most: int | None = SHOWN) -> Iterator[str]:
    """One line about each of the first crystals, and one about the scale of the energies."""
    shown = found.crystals[: len(found) if most is None else most]
    rows = zip(shown.ids.tolist(), shown.formulas().tolist(), *(shown.columns[name].tolist() for name in MEASURED))
    for id, formula, energy, change, steps, force, stress in rows:
        ends = f"{digits.alone(force)} eV/Å, {digits.alone(stress)} GPa left after {int(steps)} step{'s' * (steps > 1)}"
        yield f"{escaped(id)}  {formula}  {energy:.3f} eV/atom  volume {change:+.1%}  {ends}"
    if len(found) > len(shown):
        yield f"... and {len(found) - len(shown):,} more"
    if len(found):
        yield f"energies by {found.potential}: {found.scale}; compare them with no others"


def check(path: Path, files: Sequence[Path] = ()) -> None:
    """Check that relaxed crystals can be written to a path, before there are any.

    Raises:
        Failure: USAGE, when the name does not end in .parquet; CONFIG, when a file is there that
            holds anything else than relaxed crystals, or is itself one of the `files` to relax.
    """
    if path.suffix.lower() != ".parquet":
        raise Failure(
            Exit.USAGE, f"--output {path}: relaxed crystals are written as .parquet, which every command reads"
        )
    if not path.exists() and not path.is_symlink():
        return
    try:
        known = path.is_file() and set(MEASURED) <= set(table.schema(path).names)
    except ValueError:
        known = False
    if not known:
        raise Failure(Exit.CONFIG, f"{path} is there and holds no relaxed crystals; choose another --output")
    here = path.resolve()
    if any(given.resolve() in (here, *(here.parents if given.is_dir() else ())) for given in files):
        raise Failure(Exit.CONFIG, f"{path} is one of the files to read; choose another --output, or move it away")


def write(found: Relaxations, path: Path) -> None:
    """Write the crystals to a path that `check` accepts, and the others beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write(found.to_arrow(), path)
    beside = path.with_suffix(f".quarantine{path.suffix}")
    beside.unlink(missing_ok=True)
    if found.refused:
        table.write(table.quarantine_table(found.refused), beside)
