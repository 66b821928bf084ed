"""Names, units and meanings of the columns of a table of predictions.

Enters: the ensembles that predict. Leaves: the name of each property of each of them, distinct
within the table, and fields with metadata. This module predicts nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from assay.screening.settings import names
from assay.screening.settings.exits import Exit, Failure
from assay.sources.crystals import GIVEN

if TYPE_CHECKING:
    from assay.models.ensemble.ensemble import Ensemble
    from assay.models.target import Property


def named(ensembles: Sequence[Ensemble]) -> list[list[Property]]:
    """Return the properties of each ensemble, with distinct names.

    A property that several ensembles predict is called `<ensemble>_<property>`, as in `tc_fast_tc`.

    Raises:
        Failure: when an ensemble is given twice, or two have one name and predict one property.
    """
    count = Counter(item.name for ensemble in ensembles for item in ensemble.properties)
    found = [
        [_apart(item, ensemble) if count[item.name] > 1 else item for item in ensemble.properties]
        for ensemble in ensembles
    ]
    owners: dict[str, Ensemble] = {}
    for ensemble, properties in zip(ensembles, found, strict=True):
        for item in properties:
            if item.name in owners:
                raise _clash(owners[item.name], ensemble, item.name)
            owners[item.name] = ensemble
    return found


def _clash(first: Ensemble, second: Ensemble, name: str) -> Failure:
    if first.folder == second.folder:
        return Failure(Exit.USAGE, f"--model {second.folder} is given twice; keep one")
    message = f"--model {first.folder} and --model {second.folder} would both fill {name}_mean"
    advice = "keep one of them, or change the name in its ensemble.json and call assay.models.ensemble.stored.seal"
    return Failure(Exit.CONFIG, f"{message}; {advice}")


def _apart(item: Property, ensemble: Ensemble) -> Property:
    return replace(item, name=f"{re.sub(r'[^A-Za-z0-9]', '_', ensemble.name)}_{item.name}")


def functionals(ensembles: Sequence[Ensemble], properties: Sequence[Sequence[Property]]) -> dict[str, str]:
    """Property, as the table names it -> functional, where the card of its ensemble says it."""
    return {
        own.name: ensemble.functional(item.name)
        for ensemble, named in zip(ensembles, properties, strict=True)
        for item, own in zip(ensemble.properties, named, strict=True)
        if ensemble.functional(item.name)
    }


def described(table: pa.Table, properties: Sequence[Property], functionals: Mapping[str, str]) -> pa.Table:
    """Return the table with unit, meaning and functional of each column in its field's metadata."""
    fields = [field.with_metadata(_metadata(field.name, properties, functionals)) for field in table.schema]
    return table.cast(pa.schema(fields))


def _metadata(name: str, properties: Sequence[Property], functionals: Mapping[str, str]) -> dict[str, str]:
    for item in properties:
        if names.predicted(name, item.name):
            part = name.removeprefix(f"{item.name}_")
            meaning = names.PARTS.get(part, f"predicted by {part.replace('_', ' ')} alone")
            said = {"functional": functionals[item.name]} if item.name in functionals else {}
            return {"unit": item.unit, "meaning": meaning, **said}
    listed = f"value {name.removeprefix(GIVEN)} of the crystal in id_prop.csv" if name.startswith(GIVEN) else ""
    return {"unit": "", "meaning": names.COLUMNS.get(name, listed)}
