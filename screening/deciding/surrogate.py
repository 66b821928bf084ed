"""The surrogate of a rehearsal: a forest on the composition that learns again in each round.

Enters: atoms of each formula, and the values measured so far. Leaves: a belief about the formulas
that are left. It does not know which of them are chosen, nor the values that are hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay.featurize.composition import CompositionSpec
from assay.models.ensemble.distribution import draws
from assay.models.ensemble.distribution.acquisition import Empirical
from assay.models.networks.inputs import CompositionInputs
from assay.models.target import DRAWS, Property
from assay.models.training import forests

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Surrogate:
    """A forest that is fitted anew each time it is asked."""

    inputs: CompositionInputs
    """Of all formulas; their features are made once."""
    property: Property
    sizes: dict[str, Any]
    """Keyword arguments of `Trees`."""

    @classmethod
    def of(cls, atoms: Floats, spec: CompositionSpec, target: Property, sizes: dict[str, Any]) -> Surrogate:
        """The surrogate for formulas with these atoms, (n, 119)."""
        return cls(CompositionInputs(atoms, spec), target, sizes)

    def believe(self, measured: Rows, value: Floats, asked: Rows, seed: int, sign: float) -> Empirical:
        """What the values (m,) of the rows `measured` say of the rows `asked`.

        The draws are the values of the trees, their mean is the predicted value, and their root
        mean square distance from it the standard deviation; it is not calibrated. With `sign` -1
        all values are turned over, so that a higher one is better.

        Raises:
            ValueError: when all measured values are equal.
        """
        scaled = self.property.fit(value)
        learned = {scaled.name: scaled.encode(value)}
        trees = forests.fit(self.inputs.features[measured], learned, np.ones(len(measured)), self.sizes, seed)
        batch = self.inputs.batch(asked, trees)
        with torch.inference_mode():
            _, out = trees.conclude(trees.states(batch), batch)
        found = draws.ascending(sign * scaled.decode_draws(out[scaled.name + DRAWS].numpy()))
        mean = np.asarray(found.mean(axis=1), np.float64)
        return Empirical(mean, draws.spread(found, mean), found, draws.levels(found.shape[1]))
