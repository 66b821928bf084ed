"""How good a trained ensemble is: scores, their uncertainty, and baselines, in one folder.

Enters: an ensemble folder, a dataset, a part of its split. Leaves: `evaluation.json`,
`evaluation.md`, `predictions.csv`, figures. This module does not know training.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.models import memory
from assay.models.ensemble.checkpoint import to_json, write_whole
from assay.models.ensemble.ensemble import Ensemble
from assay.models.ensemble.summary import PropertyPrediction
from assay.models.evaluation import (
    assessment,
    baselines,
    figures,
    heldout,
    page,
    retrieval,
)
from assay.models.evaluation.assessment import OURS, Truth
from assay.models.evaluation.heldout import HeldOut
from assay.sources import crystals as batches

if TYPE_CHECKING:
    from assay.sources.datasets import Dataset


@dataclass(frozen=True)
class Judged:
    """The evaluated crystals with all predictions of them."""

    data: Dataset
    """The `m` crystals that every compared ensemble could predict."""
    truth: Truth
    """Their known values."""
    predicted: PropertyPrediction
    """What the ensemble says."""
    against: dict[str, NDArray[np.float64]]
    """(m,) by name: the other ensemble, if there is one."""
    simple: dict[str, NDArray[np.float64]]
    """(m,) by name: the baselines."""
    kept: NDArray[np.int64]
    """(m,) rows of `HeldOut.data`."""
    refused: tuple[str, ...]
    """Why a crystal could not be predicted."""

    @property
    def rivals(self) -> dict[str, NDArray[np.float64]]:
        """(m,) by name: everything the ensemble is compared with."""
        return {**self.against, **self.simple}

    @property
    def shown(self) -> dict[str, NDArray[np.float64]]:
        """(m,) by name: the other ensemble and the best baseline, where there is little room."""
        errors = {k: assessment.score(self.truth, values)["mae"] for k, values in self.simple.items()}
        best = min(errors, key=lambda name: errors[name], default=None)
        return {**self.against, **({best: self.simple[best]} if best else {})}


def run(
    folder: Path,
    output: Path,
    *,
    against: Path | None = None,
    dataset: str | None = None,
    part: str = "test",
    threshold: float | None = None,
    workers: int = 1,
) -> dict[str, Any]:
    """Evaluate the ensemble in `folder` on a part of a dataset; returns `evaluation.json`.

    `dataset` defaults to the one it was trained on; `part` is `test`, `calibration`, `development`
    or `all`. `against` is a second ensemble, compared on the same rows. `threshold`, in the
    property's unit, adds how well a screening for values above it would have done. `workers`
    processors train the baselines.

    Raises:
        FileNotFoundError: when an ensemble or the data are not there.
        ValueError: when the rows cannot be identified, units differ, `against` was trained on the
            rows, or nothing is above the threshold.
    """
    memory.keep()
    loaded = Ensemble.load(folder)
    held = heldout.find(loaded, dataset, part)
    if threshold is not None:
        retrieval.hits(held.data.target, threshold)  # refuses a useless one now, not after the predictions
    other = None if against is None else Ensemble.load(against)
    warnings = [*held.warnings, *(() if other is None else heldout.rival_warnings(other, held, part))]
    judged = _judge(loaded, other, held, workers)
    level = loaded.calibration[held.property.name].level
    found = {
        **_described(loaded, other, held, judged, part),
        "warnings": warnings,
        **assessment.measure(judged.truth, judged.predicted, judged.rivals, level),
        **_subsets(held, judged),
    }
    if threshold is not None:
        rankings = {OURS: judged.predicted.mean, **judged.rivals}
        found["retrieval"] = assessment.found_above(judged.truth, rankings, threshold)
    output.mkdir(parents=True, exist_ok=True)
    found["figures"] = figures.draw(output, judged.truth, judged.predicted, judged.shown, level, threshold)
    write_whole(output / "predictions.csv", _table(judged).encode())
    write_whole(output / "evaluation.json", to_json(found))
    write_whole(output / "evaluation.md", page.text(found).encode())
    return found


def _judge(loaded: Ensemble, other: Ensemble | None, held: HeldOut, workers: int) -> Judged:
    name = held.property.name
    index, predicted, refused = _predict(loaded, held.data, name)
    kept, against = index, {}
    if other is not None:
        theirs_index, theirs, more = _predict(other, held.data, name)
        kept = np.intersect1d(index, theirs_index)
        predicted, refused = _rows(predicted, np.isin(index, kept)), tuple(dict.fromkeys((*refused, *more)))
        label = other.name if other.name != loaded.name else f"{other.name} ({other.folder})"
        against[label] = theirs.mean[np.isin(theirs_index, kept)]
    if not len(kept):
        raise ValueError(f"none of the {len(held.data.target)} crystals could be predicted: {refused[0]}")
    data = held.data.select(kept)
    truth = Truth(data.target, data.weight, data.groups, held.property)
    return Judged(data, truth, predicted, against, _baselines(held, data, workers), kept, refused)


def _predict(
    loaded: Ensemble, data: Dataset, name: str
) -> tuple[NDArray[np.int64], PropertyPrediction, tuple[str, ...]]:
    units = {prop.name: prop.unit for prop in loaded.properties}
    if name not in units:
        raise ValueError(f"{loaded.folder} predicts {', '.join(units)}, not {name}")
    if data.spec.unit not in ("unknown", units[name]):
        raise ValueError(f"{data.name} is in {data.spec.unit}, {loaded.folder} predicts {name} in {units[name]}")
    predictions, refused = loaded.predict(data.crystals)
    return predictions.index, predictions.values[name], tuple(f"{one.id}: {one.message}" for one in refused)


def _rows(predicted: PropertyPrediction, rows: NDArray[np.bool_]) -> PropertyPrediction:
    return PropertyPrediction(
        mean=predicted.mean[rows],
        std=predicted.std[rows],
        lo=predicted.lo[rows],
        hi=predicted.hi[rows],
        members=predicted.members[rows],
        spread=predicted.spread[rows],
    )


def _baselines(held: HeldOut, data: Dataset, workers: int) -> dict[str, NDArray[np.float64]]:
    """Trained on what the members learned from; none where that is not known."""
    learned = held.trained
    if learned is None:
        return {}
    n, m = len(learned.target), len(data.target)
    plain = [replace(part.crystals, columns={}) for part in (learned, data)]
    target, weight = np.concatenate([learned.target, data.target]), np.concatenate([learned.weight, data.weight])
    rows = np.arange(n + m)
    return baselines.predict(batches.concat(plain), target, weight, rows[:n], rows[n:], held.property, workers)


def _described(loaded: Ensemble, other: Ensemble | None, held: HeldOut, judged: Judged, part: str) -> dict[str, Any]:
    data, weighted = judged.data, bool(np.ptp(judged.data.weight))
    return {
        "ensemble": {"name": loaded.name, "folder": str(loaded.folder), "weights_sha256": list(loaded.sha256)},
        "against": None
        if other is None
        else {"name": next(iter(judged.against)), "folder": str(other.folder), "weights_sha256": list(other.sha256)},
        "property": held.property.name,
        "unit": held.property.unit,
        "dataset": {"name": data.name, "sha256": data.sha256, "origin": data.spec.origin, "weighted": weighted},
        "part": part,
        "split": held.split,
        "rows": {
            "evaluated": len(data.target),
            "refused": len(held.data.target) - len(data.target),
            "reasons": list(judged.refused[:10]),
            "element_sets": len(np.unique(data.groups)),
            "formulas": len(np.unique(data.keys["formula"])),
            "trained_on": int(held.seen[judged.kept].sum()),
            "same_composition_trained_on": int(held.related[judged.kept].sum()),
            "element_set_trained_on": 0
            if held.trained is None
            else int(np.isin(data.groups, held.trained.groups).sum()),
            "learned_from": None if held.trained is None else len(held.trained.target),
        },
    }


def _subsets(held: HeldOut, judged: Judged) -> dict[str, Any]:
    """Scores by family, and of the rows whose composition no member learned from, if only some."""
    found: dict[str, Any] = {"by_family": []}
    if "family" in judged.data.keys:
        families = judged.data.keys["family"]
        found["by_family"] = assessment.by_family(judged.truth, judged.predicted, judged.rivals, families)
    new = ~(held.seen | held.related)[judged.kept]
    if new.any() and not new.all():
        found["new_compositions"] = {
            "rows": int(new.sum()),
            **assessment.score(judged.truth.select(new), judged.predicted.mean[new]),
        }
    return found


def _table(judged: Judged) -> str:
    """One line per crystal, in the order of the data."""
    text, predicted, name = io.StringIO(), judged.predicted, judged.truth.property.name
    lines = csv.writer(text, lineterminator="\n")
    columns = [f"{name}_{part}" for part in ("known", "mean", "std", "lo", "hi")]
    lines.writerow(["id", "element_set", "weight", *columns, *judged.rivals])
    numbers = [judged.truth.weight, judged.truth.value, predicted.mean, predicted.std, predicted.lo, predicted.hi]
    rows = np.column_stack([*numbers, *judged.rivals.values()]).tolist()
    for id, group, values in zip(judged.data.crystals.ids.tolist(), judged.truth.groups.tolist(), rows, strict=True):
        lines.writerow([id, group, *(f"{value:.7g}" for value in values)])
    return text.getvalue()
