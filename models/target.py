"""The predicted property: its name, its unit, and the scale on which a network learns it.

Enters: values in the property's unit. Leaves: scaled values of order one, and back.
This module does not know networks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

LOG_VARIANCE = "/log-variance"
"""Suffix of a head's second output."""
DRAWS = "/draws"
"""Suffix of the scaled values of all trees of a forest, (n, T)."""
VIEWS = "/views"
"""Suffix of what a vision network predicts from each view alone, (V,)."""

_FORWARD: dict[str, Any] = {
    "identity": lambda y: y,
    "arcsinh": np.arcsinh,
    "log1p": np.log1p,
    "sqrt": lambda y: np.sign(y) * np.sqrt(abs(y)),
}
_BACKWARD: dict[str, Any] = {
    "identity": lambda z: z,
    "arcsinh": np.sinh,
    "log1p": np.expm1,
    "sqrt": lambda z: z * abs(z),
}
_ROUNDING = 1e-6
"""Difference of two scaled values that counts as rounding."""


@dataclass(frozen=True)
class Property:
    """A property and its scaler: z = (transform(y) - center) / scale."""

    name: str
    """Prefix of the prediction columns, for example `tc` in `tc_mean`; no dot, which parts the keys
    of a config."""
    unit: str
    """Unit of every value that leaves the room, for example `K` or `eV/atom`."""
    transform: Literal["identity", "arcsinh", "log1p", "sqrt"] = "identity"
    """Applied before scaling; for targets with a long tail."""
    minimum: float | None = None
    """Physical lower bound in the property's unit; predictions are clipped to it."""
    center: float = 0.0
    """Mean of the transformed training targets."""
    scale: float = 1.0
    """Standard deviation of the transformed training targets."""

    def __post_init__(self) -> None:
        if not self.name.strip() or "." in self.name:
            raise ValueError(f"name of a property is {self.name!r}, expected a text without a dot, such as 'band_gap'")
        if self.transform not in _FORWARD:
            raise ValueError(f"transform is {self.transform!r}, expected one of {sorted(_FORWARD)}")
        if not self.scale > 0:
            raise ValueError(f"scale of {self.name} is {self.scale}, expected above 0: are all targets equal?")

    @property
    def label(self) -> str:
        """The name with its unit, for axes and heads of columns.

        >>> Property("bulk_modulus", "log10(GPa)").label, Property("ratio", "").label
        ('bulk_modulus (log10(GPa))', 'ratio')
        """
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def fit(self, values: NDArray[Any]) -> Property:
        """The same property scaled to the finite training targets `values` (n,)."""
        transformed = _FORWARD[self.transform](values[np.isfinite(values)].astype(np.float64))
        return replace(self, center=float(transformed.mean()), scale=float(transformed.std()))

    def refused(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Rows of finite targets that cannot be learned: below `minimum`, or not to be transformed.

        >>> Property("energy", "eV", "log1p").refused(np.array([-2.0, 0.0, np.nan]))
        array([0])
        >>> Property("gap", "eV", minimum=0.0).refused(np.array([1.0, -999.0]))
        array([1])
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            wrong = ~np.isfinite(_FORWARD[self.transform](values.astype(np.float64)))
        low = np.zeros(len(values), bool) if self.minimum is None else values < self.minimum
        return np.flatnonzero((wrong | low) & np.isfinite(values))

    def encode(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Targets in the unit -> scaled targets; NaN stays NaN."""
        scaled = (_FORWARD[self.transform](values.astype(np.float64)) - self.center) / self.scale
        return np.asarray(scaled, dtype=np.float32)

    def decode(self, scaled: NDArray[Any]) -> NDArray[np.float64]:
        """Scaled predictions -> values in the unit."""
        values = _BACKWARD[self.transform](scaled.astype(np.float64) * self.scale + self.center)
        return np.asarray(values if self.minimum is None else np.maximum(values, self.minimum), dtype=np.float64)

    def decode_draws(self, scaled: NDArray[Any]) -> NDArray[np.float64]:
        """The same for draws: the minimum comes back as it went in, in spite of rounding.

        Without that, an interval that begins at the draw of a training zero would leave out 0.

        >>> Property("tc", "K", "log1p", 0.0, center=0.7).decode_draws(np.array([-0.7 + 1e-8]))
        array([0.])
        """
        values = self.decode(scaled)
        if self.minimum is not None:
            values[scaled <= self.encode(np.array([self.minimum]))[0] + _ROUNDING] = self.minimum
        return values
