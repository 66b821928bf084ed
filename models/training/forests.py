"""Fitting the trees of a member: a module that imports scikit-learn, on use.

Enters: a table of features, scaled targets, weights of rows, sizes of the network. Leaves: `Trees`
that predict without scikit-learn. Extremely randomised trees: Geurts, Ernst, Wehenkel, Machine
Learning 63, 3 (2006); random forests: Breiman, Machine Learning 45, 5 (2001). This module does not
know recipes, crystals or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.models.networks.forest import arrays
from assay.models.networks.forest.arrays import Packed
from assay.models.networks.trees import COUNTED, WIDTH, Trees


@dataclass(frozen=True)
class _Rows:
    """Training rows of one property, in an order that depends on their content alone."""

    features: NDArray[np.float32]
    """(R, q) without gaps; no two rows have the same features and value."""
    value: NDArray[np.float32]
    """(R,) scaled."""
    weight: NDArray[np.float32]
    """(R,)"""


def fit(
    features: NDArray[np.float32],
    targets: Mapping[str, NDArray[np.float32]],
    weight: NDArray[np.float64],
    sizes: Mapping[str, Any],
    seed: int,
) -> Trees:
    """Trees that have learned from all rows whose value is known.

    Rows of the same features and value count as one with the sum of their weights: structures of
    one formula, and rows that a resampling drew again.

    Args:
        features: (n, q) of the training rows; NaN where one is not known.
        targets: (n,) scaled values by property; NaN where unknown.
        weight: (n,) of the rows.
        sizes: keyword arguments of `Trees`.
        seed: of the splits and resamplings.

    Raises:
        ImportError: when scikit-learn is not installed.
        ValueError: when a property has fewer than two rows.
    """
    filler, center, axes = _table(features)
    filled = np.where(np.isnan(features), filler, features)
    bare = Trees(features.shape[1], list(targets), **{**sizes, "counts": ()})
    state = {"filler": torch.from_numpy(filler), "center": torch.from_numpy(center), "axes": torch.from_numpy(axes)}
    counts = []
    for name, values in targets.items():
        known = np.isfinite(values)
        if known.sum() < 2:
            raise ValueError(f"{known.sum()} training rows of {name}, expected at least 2")
        rows = _merged(filled[known], values[known], weight[known])
        held = _tensors(_fitted(rows, bare, seed), rows, bare)
        counts.append([len(held[part]) for part in COUNTED])
        state |= {f"heads.heads.{name}.{part}": tensor for part, tensor in held.items()}
    trees = Trees(features.shape[1], list(targets), **{**sizes, "counts": counts})
    trees.load_state_dict(state, strict=True)
    trees.check()
    return trees


def _table(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Median and mean (q,) of the features, and axes (q, w) of their principal components."""
    known = ~np.isnan(features).all(axis=0)
    filler = np.zeros(features.shape[1], np.float32)
    filler[known] = np.nanmedian(features[:, known], axis=0)
    filled = np.where(np.isnan(features), filler, features).astype(np.float64)
    center, deviation = filled.mean(axis=0), filled.std(axis=0)
    deviation[deviation < 1e-6 * np.maximum(abs(center), 1e-6)] = np.inf  # a constant tells no distance
    scaled = (filled - center) / deviation
    _, vectors = np.linalg.eigh(scaled.T @ scaled)  # eigenvalues ascend
    axes = vectors[:, ::-1][:, : min(WIDTH, features.shape[1])]
    axes = axes * np.where(axes[abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    return filler, center.astype(np.float32), (axes / deviation[:, None]).astype(np.float32)


def _merged(features: NDArray[np.float32], value: NDArray[np.float32], weight: NDArray[np.float64]) -> _Rows:
    rows = np.column_stack([features, value]) + np.float32(0.0)  # -0 is 0
    unique, inverse = np.unique(rows, axis=0, return_inverse=True)
    summed = np.bincount(inverse.reshape(-1), weights=weight).astype(np.float32)
    return _Rows(np.ascontiguousarray(unique[:, :-1]), np.ascontiguousarray(unique[:, -1]), summed)


def _fitted(rows: _Rows, bare: Trees, seed: int) -> Packed:
    """Let scikit-learn grow the trees, and pack them; they lead every row to the same leaves."""
    every = np.arange(len(rows.value))
    if bare.bootstrap:
        grown = [_resampled(rows, bare, [seed, k]) for k in range(bare.trees)]
    else:
        grown = [(tree, every) for tree in _forest(rows, bare, seed)]
    reached = [tree.apply(rows.features) for tree, _ in grown]
    parts = [_packed(tree.tree_, at, drawn, bare.features) for (tree, drawn), at in zip(grown, reached, strict=True)]
    code, threshold, entry = (np.concatenate(part) for part in zip(*parts, strict=True))
    short = np.uint16 if len(rows.value) <= 2**16 else np.int32
    packed = Packed(code, threshold, entry.astype(short), rows.value, rows.weight)
    _compare(packed, rows, reached, bare)
    return packed


def _forest(rows: _Rows, bare: Trees, seed: int) -> list[Any]:
    """The trees of scikit-learn on all rows."""
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor

    shape = {"max_features": float(bare.max_features), "min_samples_leaf": bare.min_leaf}
    kind = RandomForestRegressor if bare.splits == "best" else ExtraTreesRegressor
    model = kind(bare.trees, bootstrap=False, random_state=seed, n_jobs=1, **shape)
    found: list[Any] = model.fit(rows.features, rows.value, sample_weight=rows.weight).estimators_
    return found


def _resampled(rows: _Rows, bare: Trees, seed: list[int]) -> tuple[Any, NDArray[np.int64]]:
    """A tree on rows drawn with replacement, and these rows, ascending.

    A row that is drawn twice has twice its weight. (Between its versions, scikit-learn changed what
    its own resampling makes of the weights.)
    """
    from sklearn.tree import DecisionTreeRegressor, ExtraTreeRegressor

    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.integers(0, len(rows.value), len(rows.value)))
    kept, times = np.unique(drawn, return_counts=True)
    shape = {"max_features": float(bare.max_features), "min_samples_leaf": bare.min_leaf}
    kind = DecisionTreeRegressor if bare.splits == "best" else ExtraTreeRegressor
    tree = kind(random_state=int(rng.integers(2**31)), **shape)
    tree.fit(rows.features[kept], rows.value[kept], sample_weight=rows.weight[kept] * times)
    return tree, drawn


def _packed(
    tree: Any, reached: NDArray[np.int64], drawn: NDArray[np.int64], features: int
) -> tuple[NDArray[np.uint16], NDArray[np.float32], NDArray[np.int64]]:
    """Code, thresholds and entries of one tree of scikit-learn, whose nodes are in preorder."""
    inner = tree.children_left >= 0
    held = np.bincount(reached[drawn], minlength=tree.node_count)
    code = np.where(inner, tree.feature, features - 1 + held)
    if code.max() >= 2**16:
        raise ValueError(f"a leaf holds {held.max()} training rows, expected fewer than {2**16 - features}")
    exact = tree.threshold[inner]
    threshold = exact.astype(np.float32)
    above = threshold > exact  # features are float32: what is at most one is at most the other
    threshold[above] = np.nextafter(threshold[above], np.float32(-np.inf))
    return code.astype(np.uint16), threshold, drawn[np.argsort(reached[drawn], kind="stable")]


def _compare(packed: Packed, rows: _Rows, reached: Sequence[NDArray[np.int64]], bare: Trees) -> None:
    """Refuse trees that lead the training rows elsewhere than scikit-learn does."""
    leaves = arrays.unpack(packed, bare.trees, bare.features).reach(rows.features).leaf
    for ours, theirs in zip(leaves.T, reached, strict=True):
        places = np.unique(theirs, return_inverse=True)[1].reshape(-1)
        if not np.array_equal(np.unique(ours, return_inverse=True)[1].reshape(-1), places):
            raise ValueError("this scikit-learn numbers the nodes of a tree in another order; report this as a defect")


def _tensors(packed: Packed, rows: _Rows, bare: Trees) -> dict[str, Tensor]:
    """The arrays of a forest as its network stores them."""
    threshold: NDArray[Any] = packed.threshold
    exact = np.empty(0, np.float32)
    if bare.halved:
        grown = arrays.unpack(packed, bare.trees, bare.features)
        threshold, exact = arrays.halve(grown, packed.entry, rows.features)
    kind, feature, large = arrays.squeeze(packed.code, bare.features)
    parts = {name: getattr(packed, name) for name in ("entry", "value", "weight")}
    every = parts | {"threshold": threshold, "exact": exact, "kind": kind, "feature": feature, "large": large}
    return {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in every.items()}
