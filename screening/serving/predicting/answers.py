"""Predictions as JSON.

Enters: `Predictions` and the ensemble that made them. Leaves: plain lists and dicts in the unit of
each property; a number that is not finite is null. This module does not know HTTP.
"""

from __future__ import annotations

from typing import Any

from assay.models.ensemble.ensemble import Ensemble
from assay.screening.prediction import describe
from assay.screening.prediction.predict import Predictions
from assay.sources.crystals import WARNINGS
from assay.sources.formats.writing.optimade import finite
from assay.sources.quarantine import REMEDIES, Quarantined

PARTS = {"mean": "mean", "std": "std", "lo": "low", "hi": "high"}
"""Part of a column's name -> key of the JSON."""


def answer(found: Predictions, ensemble: Ensemble) -> dict[str, Any]:
    """Everything about some crystals: model, one entry per crystal, one per refused crystal."""
    formulas = found.formulas().tolist()
    notes = list(describe.notes(found, [ensemble]))
    rows = zip(found.table.to_pylist(), formulas, notes, strict=True)
    return {
        "model": model(ensemble),
        "predictions": [_one(row, formula, said, found) for row, formula, said in rows],
        "refused": [refusal(row) for row in found.refused],
    }


def model(ensemble: Ensemble) -> dict[str, Any]:
    """The ensemble: name, members, whether it says what each atom adds, properties with units."""
    return {
        "name": ensemble.name,
        "members": [member.name for member in ensemble.members],
        "explains": all(member.kind.family != "composition" for member in ensemble.members),
        "properties": {item.name: {"unit": item.unit, "label": item.label} for item in ensemble.properties},
    }


def refusal(row: Quarantined) -> dict[str, str]:
    """A refused crystal: why, and what helps."""
    reason = {"stage": row.stage.value, "reason": row.reason.value}
    return {"id": row.id, **reason, "message": row.message, "remedy": REMEDIES.get(row.reason, "")}


def _one(row: dict[str, Any], formula: str, notes: list[str], found: Predictions) -> dict[str, Any]:
    values = {}
    for item in found.properties:
        values[item.name] = {
            **{key: finite(row[f"{item.name}_{part}"]) for part, key in PARTS.items()},
            "unit": item.unit,
            "members": [finite(value) for name, value in row.items() if name.startswith(f"{item.name}_member_")],
        }
    beside: dict[str, Any] = {name: finite(row[name]) for name in ("in_training", "ood", "ood_distance") if name in row}
    warnings = [text for text in str(row.get(WARNINGS) or "").split("; ") if text]
    return {"id": row["id"], "formula": formula, "values": values, **beside, "warnings": warnings, "notes": notes}
