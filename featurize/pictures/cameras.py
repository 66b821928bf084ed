"""The cameras of a crystal: along its axes, and in random directions.

Enters: a cell and a `ViewSpec`. Leaves: rotations. This module does not know atoms or pixels.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def cameras(cell: NDArray[np.float64], *, axes: bool, random: int, seed: int) -> NDArray[np.float64]:
    """(v, 3, 3) cameras of one block: rows point to the right, up, and towards the viewer.

    With `axes` the viewer looks from +a, +b and +c; up is c, and b for the view along c. `random`
    orientations by `seed` follow.
    """
    turned = [_looking(cell[k], cell[1 if k == 2 else 2]) for k in range(3)] if axes else []
    return np.array([*turned, *_orientations(random, seed)])


def _looking(towards: NDArray[np.float64], up: NDArray[np.float64]) -> NDArray[np.float64]:
    z = towards / math.sqrt(towards @ towards)
    y = up - (up @ z) * z
    y /= math.sqrt(y @ y)
    (a, b, c), (d, e, f) = y.tolist(), z.tolist()
    return np.array([[b * f - c * e, c * d - a * f, a * e - b * d], [a, b, c], [d, e, f]])


@lru_cache(maxsize=16)
def _orientations(n: int, seed: int) -> NDArray[np.float64]:
    """(n, 3, 3) rotations, uniform over all (Shoemake, 1992)."""
    quaternion = np.random.default_rng(seed).normal(size=(n, 4))
    w, x, y, z = (quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)
