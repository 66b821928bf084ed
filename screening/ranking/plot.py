"""A plot of the first front: two objectives, with error bars.

Enters: the best rows of a ranking, and its objectives. Leaves: numbers in pixels, which a template
draws. This module knows no HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from assay.screening.folder.summary import Target

WIDTH, HEIGHT = 560.0, 300.0
"""Pixels of the plot inside its axes."""


def front(rows: Sequence[Mapping[str, Any]], objectives: Sequence[Target]) -> dict[str, Any] | None:
    """The rows along the first two objectives; None without rows or without fronts.

    A point has its place in pixels and the ends of its error bars: one calibrated standard
    deviation either way, nothing for a column that counts as exact.
    """
    if not rows or "front" not in rows[0] or len(objectives) < 2:
        return None
    axes = objectives[0], objectives[1]
    values = np.array([[_value(row, target) for target in axes] for row in rows])
    errors = np.array([[row[f"{target.name}_std"] if target.model else 0.0 for target in axes] for row in rows])
    first = np.array([row["front"] == 1 for row in rows])
    shown = errors * first[:, None]
    low, high = (values - shown).min(axis=0), (values + shown).max(axis=0)
    scale = np.array([WIDTH, HEIGHT]) / np.where(high > low, high - low, 1.0)
    x, y = ((values - low) * scale).T
    dx, dy = (shown * scale).T
    points = [
        {"x": x[k], "y": HEIGHT - y[k], "dx": dx[k], "dy": dy[k], "first": bool(first[k]), "row": row}
        for k, row in enumerate(rows)
    ]
    ends = [{"name": t.name, "unit": t.unit, "low": float(low[k]), "high": float(high[k])} for k, t in enumerate(axes)]
    return {"points": points[::-1], "ends": ends, "width": WIDTH, "height": HEIGHT, "first": int(first.sum())}


def _value(row: Mapping[str, Any], target: Target) -> float:
    return float(row[f"{target.name}_mean" if target.model else target.name])
