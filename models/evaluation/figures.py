"""Which figures belong to an evaluation, and what stands on their axes.

Enters: known values and predictions. Leaves: PNG files in a folder. This module does not know how a
figure is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from assay.models.ensemble.summary import PropertyPrediction
from assay.models.evaluation import assessment, error_bars, metrics, plots, retrieval
from assay.models.evaluation.assessment import OURS, Truth

NAMES = {
    "parity.png": "Predicted against known values.",
    "residuals.png": "Residual against prediction, with the calibrated interval.",
    "calibration.png": "Observed against nominal coverage of central Gaussian intervals.",
    "error-by-range.png": "MAE by range of the known value.",
    "enrichment.png": "Hits found against crystals tested.",
}
"""Files, with what each shows."""


def draw(
    output: Path,
    truth: Truth,
    predicted: PropertyPrediction,
    rivals: Mapping[str, NDArray[np.float64]],
    level: float,
    threshold: float | None,
) -> list[str]:
    """Write the figures into `output`; returns their names. The last one needs a threshold."""
    quantity = truth.property.label
    known, weight, mean = truth.value, truth.weight, predicted.mean
    every = {OURS: mean, **rivals}
    plots.parity(output / "parity.png", known, mean, predicted.std, quantity)
    plots.residuals(output / "residuals.png", known, mean, predicted.hi - mean, quantity)
    curves = {
        name: error_bars.calibration_curve(known, mean, std, weight)
        for name, std in assessment.deviations(predicted, level).items()
    }
    plots.calibration(output / "calibration.png", curves)
    ranges = metrics.ranges(known, assessment.EDGES.get(truth.property.name))
    errors = {
        name: [float(np.average(np.abs(values - known)[rows], weights=weight[rows])) for _, rows in ranges]
        for name, values in every.items()
    }
    shown, unit = [name for name, _ in ranges], truth.property.unit
    plots.error_by_range(output / "error-by-range.png", shown, errors, quantity, unit)
    if threshold is None:
        return list(NAMES)[:-1]
    found = {name: retrieval.curve(known, values, threshold, weight) for name, values in every.items()}
    prevalence = float(np.average(known > threshold, weights=weight))
    hit = f"{truth.property.name} above {threshold:g} {unit}".rstrip()
    plots.enrichment(output / "enrichment.png", found, prevalence, hit)
    return list(NAMES)
