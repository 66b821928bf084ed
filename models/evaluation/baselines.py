"""What a network must beat: a constant, a look-up, and trees on the composition alone.

Enters: crystals and targets of the development and test rows of a split. Leaves: predictions for
the test rows. Scikit-learn is needed only here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.featurize import composition

if TYPE_CHECKING:
    from assay.models.target import Property
    from assay.sources.crystals import Crystals

NAMES = ("constant (median)", "element-set mean", "gradient boosting", "extra trees")
"""Every baseline; on a transformed target the trees come twice."""

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
    """Predictions (len(test),) of each baseline, in the property's unit, not below its minimum.

    Trees are trained on the property itself and, where the property is learned on a transformed
    scale, on that scale too: a network must beat the better of the two. The element-set mean knows
    only sets it has seen, and gives the constant for others: on a split by element set it is the
    constant.
    """
    from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor

    features = composition.features(crystals.composition())
    middle = _weighted_median(target[train], weight[train])
    found = {"constant (median)": np.full(len(test), middle)}
    found["element-set mean"] = _set_means(crystals.elements(), target, weight, train, test, middle)
    scales: dict[str, tuple[Any, Any]] = {"": (lambda y: y, lambda z: z)}
    if prop.transform != "identity":
        fitted = prop.fit(target[train])
        scales[f", {prop.transform} target"] = fitted.encode, fitted.decode
    for label, (encode, decode) in scales.items():
        boosting = HistGradientBoostingRegressor(
            max_iter=500, learning_rate=0.06, l2_regularization=1.0, random_state=_SEED
        )
        trees = ExtraTreesRegressor(n_estimators=300, max_features=0.3, n_jobs=jobs, random_state=_SEED)
        for name, model in (("gradient boosting", boosting), ("extra trees", trees)):
            model.fit(features[train], encode(target[train]), sample_weight=weight[train])
            values = decode(np.asarray(model.predict(features[test]), np.float64))
            found[name + label] = values if prop.minimum is None else np.maximum(values, prop.minimum)
    return found


def _set_means(
    sets: NDArray[Any],
    target: NDArray[np.float64],
    weight: NDArray[np.float64],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    otherwise: float,
) -> NDArray[np.float64]:
    """(len(test),) weighted mean of the training rows with the same element set."""
    names, inverse = np.unique(sets, return_inverse=True)
    mass = np.bincount(inverse[train], weights=weight[train], minlength=len(names))
    total = np.bincount(inverse[train], weights=(weight * target)[train], minlength=len(names))
    means = np.where(mass > 0, total / np.where(mass > 0, mass, 1), otherwise)
    return np.asarray(means[inverse[test]], dtype=np.float64)


def _weighted_median(values: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weight[order])
    return float(values[order[np.searchsorted(reached, reached[-1] / 2)]])
