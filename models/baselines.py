"""What a network must beat: a constant, and trees on the composition alone.

Enters: crystals and targets of the development and test rows of a split. Leaves: predictions for the test rows.
Scikit-learn is needed only here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurize import composition

if TYPE_CHECKING:
    from models.target import Property
    from sources.crystals import Crystals

_SEED = 0


def predict(
    crystals: Crystals,
    target: NDArray[np.float64],
    weight: NDArray[np.float64],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    prop: Property,
    jobs: int = 1,
) -> dict[str, NDArray[np.float64]]:
    """Predictions (len(test),) of each baseline, in the property's unit.

    Trees are trained on the property itself and, where the property is learned on a transformed scale, on that scale
    too: a network must beat the better of the two.
    """
    from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor

    features = composition.features(crystals.composition())
    middle = _weighted_median(target[train], weight[train])
    found = {"constant (median)": np.full(len(test), middle)}
    scales: dict[str, tuple[Any, Any]] = {"": (lambda y: y, lambda z: z)}
    if prop.transform != "identity":
        fitted = prop.fit(target[train])
        scales[f", {prop.transform} target"] = fitted.encode, fitted.decode
    for label, (encode, decode) in scales.items():
        boosting = HistGradientBoostingRegressor(
            max_iter=500, learning_rate=0.06, l2_regularization=1.0, random_state=_SEED
        )
        trees = ExtraTreesRegressor(n_estimators=300, min_samples_leaf=1, n_jobs=jobs, random_state=_SEED)
        for name, model in (("gradient boosting", boosting), ("extra trees", trees)):
            model.fit(features[train], encode(target[train]), sample_weight=weight[train])
            found[name + label] = decode(np.asarray(model.predict(features[test])))
    return found


def _weighted_median(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weight[order])
    return float(values[order[np.searchsorted(reached, reached[-1] / 2)]])
