"""The hull of a campaign: its reference phases, and whether their energies may be compared.

Enters: the `stability` section of a config, the ensembles or the potential, later the ledger.
Leaves: a `Reference`, checked before anything is pulled, and the judge of scored rows that follows
from it.
An energy is never compared with one of another functional, set of corrections or reference: who
names them is the table of the phases, the ensemble and the config, and all that do must agree. The
totals of a potential get the corrections that the phases have, where they are known.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from assay.models.ensemble.ensemble import Ensemble
from assay.models.potentials import formation as forming
from assay.models.potentials.columns import FORMATION
from assay.models.potentials.formation import Formation
from assay.models.potentials.potential import Potential
from assay.models.stability import corrections
from assay.models.stability.hull import Hull, Phases
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.summary import Target
from assay.screening.prediction import phases
from assay.screening.ranking.stability import UNIT, Judge
from assay.screening.settings import config, nearest
from assay.screening.settings.exits import Exit, Failure
from assay.sources import datasets, durable, table
from assay.sources.elements import NUMBERS

UNSAID = "unknown"
_OF_ELEMENTS = "potentials/mp_element_references.parquet"
"""Energies of the elements among the data packs, totals of PBE(+U)."""


@dataclass(frozen=True)
class Reference:
    """The reference phases of a campaign, checked and not read yet."""

    settings: config.Stability
    energy: Target
    """The formation energy that is compared with them."""
    functional: str
    """That of all energies."""
    formation: Formation | None = None
    """What makes it of the energies of a potential; None where an ensemble predicts it."""

    def judge(self, ledger: Ledger) -> Judge:
        """Read the phases, and make the judge of scored rows.

        Raises:
            Failure: CONFIG, when the campaign's own phases are of another functional.
        """
        return Judge(Hull(self._phases(ledger)), self.energy, self.settings.threshold)

    def _phases(self, ledger: Ledger) -> Phases:
        column = self.settings.reported()
        if column is not None:
            return _reported(ledger, column, self.functional)
        return phases.load(self.settings.hull)


def find(settings: config.Stability, ensemble: Ensemble, energy: Target) -> Reference:
    """Check a `stability` section; `energy` is the property that it names, of this ensemble.

    Raises:
        Failure: CONFIG, when a table or column is missing, a unit is another one, or two energies
            are not comparable, with the names of both.
    """
    if energy.unit != UNIT:
        raise _refused(f"property: {energy.name} is predicted in {energy.unit!r}, a hull needs {UNIT}")
    said = {f"ensemble {energy.model} predicts": ensemble.functional(energy.name) or UNSAID, **_said(settings)}
    return Reference(settings, energy, _agreed(said, settings.functional))


def of_potential(settings: config.Stability, potential: Potential) -> Reference:
    """Check a `stability` section that takes the energies of the potential which relaxes.

    Raises:
        Failure: CONFIG, as `find` does, and when the energies of the potential cannot be had on the
            scale of the hull, or nobody says how far they err.
    """
    functional, scale = _agreed(_said(settings), settings.functional), str(potential.scale)
    if not corrections.convertible(scale, functional):
        text = f"{potential.name} gives {scale!r}, the hull holds {functional!r}"
        raise _refused(f"{text}: such energies are not comparable")
    error = forming.on_card(potential) if settings.error is None else forming.stated(settings.error)
    if error is None:
        raise _refused(f"error: {potential.name} does not say how far its energies err; say it here, in {UNIT}")
    references = corrections.of_elements(_of_elements(settings, scale), functional)
    energy = Target(potential.name, FORMATION, UNIT, error.level, calibrated=True)
    return Reference(settings, energy, functional, Formation(functional, references, error))


def _said(settings: config.Stability) -> dict[str, str]:
    """Who names the functional of the hull, and which; nobody does for reported numbers."""
    if settings.reported() is not None:
        return {}
    try:
        _, spec = datasets.described(settings.hull)
    except (ValueError, FileNotFoundError) as error:
        raise _refused(f"hull: {error}") from None
    if spec.unit not in (UNIT, UNSAID) or not spec.target:
        raise _refused(f"hull: {settings.hull} holds values in {spec.unit!r}, expected {UNIT}")
    return {f"hull {settings.hull} holds": spec.functional}


def _of_elements(settings: config.Stability, scale: str) -> dict[str, float]:
    """The energy of each element, eV/atom: totals on the scale of a potential."""
    if settings.references is None and not corrections.convertible(scale, corrections.TOTALS):
        raise _refused(f"references: name a table with the energies of the elements on the scale {scale!r}")
    try:
        path = _references(settings)
        content = table.read(path, ["element", "energy_per_atom"])
    except (ValueError, OSError) as error:
        raise _refused(f"references: {error}") from None
    found = dict(zip(content["element"].to_pylist(), content["energy_per_atom"].to_pylist(), strict=True))
    for symbol, energy in found.items():
        if symbol not in NUMBERS or not isinstance(energy, float) or not np.isfinite(energy):
            raise _refused(f"references: {path} says {energy!r} of {symbol!r}, expected eV/atom of an element")
    return found


def _references(settings: config.Stability) -> Path:
    return datasets.folder() / _OF_ELEMENTS if settings.references is None else Path(settings.references)


def stamp(settings: config.Stability | None) -> dict[str, str]:
    """The hull for a fingerprint: its name, and the digest of its table where there is one here."""
    if settings is None:
        return {}
    found = {"stability.hull": settings.hull.rpartition("/")[2]}
    if settings.reported() is None:
        with contextlib.suppress(ValueError, FileNotFoundError):
            found["stability.sha256"] = durable.sha256(datasets.described(settings.hull)[0])[:16]
    if settings.energy == "potential":  # these energies stand in the parts
        found["stability.energy"] = f"potential, {settings.functional}, {settings.error}"
        found["stability.corrections"] = f"pymatgen {metadata.version('pymatgen')}"
        with contextlib.suppress(OSError):
            found["stability.references"] = durable.sha256(_references(settings))[:16]
    return found


def _agreed(said: dict[str, str], stated: str | None) -> str:
    """The one functional that everybody names."""
    named = {who: text for who, text in said.items() if text != UNSAID}
    silent = [who.rpartition(" ")[0] for who in said if who not in named]
    if silent and stated is None:
        raise _refused(f"functional: {' and '.join(silent)} does not name one; say it here")
    if stated is not None:
        named["stability.functional says"] = stated
    (first, functional), *others = named.items()
    for who, text in others:
        if text != functional:
            raise _refused(f"{first} {functional!r}, {who} {text!r}: such energies are not comparable")
    return functional


def _reported(ledger: Ledger, column: str, functional: str) -> Phases:
    """The crystals of the snapshot with a reported formation energy."""
    parts, seen = [], set[str]()
    for record in ledger.all("chunks"):
        for chunk in record.detail["chunks"]:
            content = ledger.read(record, chunk["path"])
            seen |= {*content.column_names}
            if column not in content.column_names or table.kind_of(content.schema.field(column).type) != "number":
                continue
            _check_functionals(content, column, functional)
            crystals, _ = table.from_table(content, "snapshot")
            parts.append(Phases.of(crystals.ids, crystals.composition(), crystals.columns[column].astype(np.float64)))
    if not parts:
        hint = nearest.hint(column, sorted(seen), "they report")
        raise _refused(f"hull: no source reports numbers in a column {column!r}; {hint}")
    return Phases.joined(parts)


def _check_functionals(content: pa.Table, column: str, functional: str) -> None:
    name = f"{column}_functional"
    if name not in content.column_names:
        return
    for found in pc.unique(content[name]).to_pylist():
        if found and found != functional:
            text = f"the campaign reports {column} by {found!r}, stability.functional says {functional!r}"
            raise _refused(f"{text}: such energies are not comparable")


def _refused(what: str) -> Failure:
    return Failure(Exit.CONFIG, f"stability: {what}")
