"""Regression trees as flat arrays: packed in a file, unpacked to be walked.

Enters: the packed nodes of a forest (`Packed`), and a table of features. Leaves: one number per
row. A packed tree is a list of nodes in preorder, so no child can be named that is not there, and
no walk can go in a circle. This module does not know properties, crystals or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.models.networks.forest import kernels

DECISIONS = ("median", "interquartile-mean", "mean")
"""How the leaves that a row reaches become one number."""


@dataclass(frozen=True)
class Packed:
    """`T` trees of `N` nodes, `S` of them splits, with `E` entries in their leaves, as stored."""

    code: NDArray[np.uint16]
    """(N,) nodes, tree after tree, each before its left part and that before its right part. A
    number below that of the features is a split by that feature, and the numbers from there on are
    leaves with 1, 2, ... entries."""
    threshold: NDArray[np.float32]
    """(S,) of the splits, in order; a row goes left where its feature is at most this."""
    entry: NDArray[Any]
    """(E,) rows of `value`, leaf after leaf."""
    value: NDArray[np.float32]
    """(R,) of the training rows."""
    weight: NDArray[np.float32]
    """(R,) of the training rows, above 0."""


_MANY = 3
"""Entries from which on the number in a leaf is written out."""
ELSEWHERE = np.float32(65504.0)
"""Largest number of 16 bits; among halved thresholds: the next of the exact ones."""
NODE = np.dtype([("threshold", np.float32), ("feature", np.int32), ("left", np.int32), ("further", np.int32)])
"""A split; its right part is `left + further`, so that the processor has no branch to predict."""


@dataclass(frozen=True)
class Reached:
    """The leaves that `n` rows reach in `T` trees."""

    mean: NDArray[np.float64]
    """(n, T) weighted mean of the entries of each leaf: the value of the tree."""
    leaf: NDArray[np.int32]
    """(n, T) numbers of the leaves."""


@dataclass(frozen=True)
class Forest:
    """Trees with `S` splits and `L` leaves, ready to be walked."""

    node: NDArray[Any]
    """(S,) of `NODE`; its parts are splits, or -1 - number of a leaf."""
    root: NDArray[np.int32]
    """(T,) likewise."""
    leaf_ptr: NDArray[np.int64]
    """(L + 1,) entries of each leaf."""
    leaf_mean: NDArray[np.float64]
    """(L,) weighted mean of the entries of each leaf."""
    value: NDArray[np.float32]
    """(E,) of the entries."""
    share: NDArray[np.float32]
    """(E,) weight of an entry in its leaf; those of a leaf sum to 1."""

    def predict(self, rows: NDArray[np.float32], decision: str) -> NDArray[np.float64]:
        """(n,) values for rows (n, q) without NaN, see `decide`."""
        return self.decide(self.reach(rows), decision)

    def decide(self, reached: Reached, decision: str) -> NDArray[np.float64]:
        """(n,) one value out of the training rows in the leaves that were reached.

        Every tree has the same say, and within a leaf the training rows have their weights
        (Meinshausen, JMLR 7, 983, 2006). The median is the value at half of the weights, or the
        mean of two where it lies between them; the interquartile mean is that of the middle half.
        """
        if decision == "mean":
            return np.asarray(reached.mean.mean(axis=1), np.float64)
        out = np.empty(len(reached.leaf))
        most = min(int(np.diff(self.leaf_ptr).max()) * len(self.root), len(self.value))
        leaves = reached.mean, reached.leaf, self.leaf_ptr, self.value, self.share
        kernels.decide(*leaves, most, decision == "median", out)
        return out

    def variance(self, reached: Reached) -> NDArray[np.float64]:
        """(n,) variance of the training rows in the leaves that were reached, around their mean."""
        out = np.empty(len(reached.leaf))
        kernels.spread(reached.mean, reached.leaf, self.leaf_ptr, self.value, self.share, out)
        return out

    def reach(self, rows: NDArray[np.float32]) -> Reached:
        """The leaves that rows (n, q) without NaN reach."""
        shape = len(rows), len(self.root)
        found = Reached(np.empty(shape), np.empty(shape, np.int32))
        kernels.walk(np.ascontiguousarray(rows), self.node, self.root, self.leaf_mean, found.mean, found.leaf)
        return found


def halve(forest: Forest, entry: NDArray[Any], rows: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Thresholds (S,) of 16 bits that divide the training rows as before, and exact ones (x,).

    A split between two rows may lie anywhere between them. Where no number of 16 bits lies there,
    the threshold is `ELSEWHERE`, and the exact one is the next of the second array.

    Args:
        forest: with `E` entries.
        entry: (E,) training rows in the leaves.
        rows: (R, q) features of the training rows.
    """
    low, high = np.empty(len(forest.node), np.float32), np.empty(len(forest.node), np.float32)
    kernels.gaps(forest.node, forest.leaf_ptr, entry.astype(np.int64), rows, low, high)
    wanted = forest.node["threshold"]
    with np.errstate(over="ignore"):
        near = wanted.astype(np.float16)
    found = np.full(len(wanted), ELSEWHERE, np.float16)
    for tried in (np.nextafter(near, np.float16(-np.inf)), np.nextafter(near, np.float16(np.inf)), near):
        value = tried.astype(np.float32)
        fits = (low <= value) & (value < high) & (abs(value) < ELSEWHERE)
        found[fits] = tried[fits]
    return found, wanted[found == ELSEWHERE]


def squeeze(code: NDArray[np.uint16], features: int) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[Any]]:
    """The codes of `N` nodes in less room: kinds of nodes, features of splits, entries of leaves.

    A kind has two bits, four to a byte (`N / 4`, rounded up): a split, a leaf with one entry, with
    two, or with more, whose number is the next of the third array.
    """
    count = code.astype(np.int64) - features + 1
    kind = np.clip(count, 0, _MANY).astype(np.uint8)
    filled = np.zeros(-(-len(kind) // 4) * 4, np.uint8)
    filled[: len(kind)] = kind
    packed = (filled.reshape(-1, 4) << np.arange(0, 8, 2, dtype=np.uint8)).sum(axis=1, dtype=np.uint8)
    return packed, code[kind == 0], count[kind == _MANY].astype(np.uint16)


def codes(
    nodes: int, kind: NDArray[np.uint8], feature: NDArray[Any], large: NDArray[Any], features: int
) -> NDArray[np.uint16]:
    """The codes of so many nodes from the arrays of `squeeze`.

    Raises:
        ValueError: when the arrays have other lengths than the kinds of nodes ask for, or a number
            is out of its range.
    """
    every = ((kind[:, None] >> np.arange(0, 8, 2, dtype=np.uint8)) & _MANY).reshape(-1)
    each, beyond = every[:nodes].astype(np.int64), every[nodes:]
    split, larger = each == 0, each == _MANY
    found = [len(each), int(split.sum()), int(larger.sum())]
    if found != [nodes, len(feature), len(large)] or beyond.any() or len(beyond) > _MANY:
        raise ValueError(
            f"{found[0]} nodes, {found[1]} splits and {found[2]} large leaves are said to be there, expected "
            f"{nodes}, {len(feature)} and {len(large)}"
        )
    if len(feature) and int(feature.max()) >= features:
        raise ValueError(f"a split asks for feature {int(feature.max())}, expected less than {features}")
    if len(large) and not _MANY <= int(large.min()) <= int(large.max()) <= 2**16 - features:
        raise ValueError(f"large leaves hold {int(large.min())} to {int(large.max())} entries, expected at least 3")
    each[larger] = large
    each += features - 1
    each[split] = feature
    return each.astype(np.uint16)


def whole(threshold: NDArray[Any], exact: NDArray[np.float32]) -> NDArray[np.float32]:
    """Thresholds (S,) of 32 bits from those of `halve`.

    Raises:
        ValueError: when there are not as many exact ones as are looked for.
    """
    found = threshold.astype(np.float32)
    elsewhere = found == ELSEWHERE
    if elsewhere.sum() != len(exact):
        raise ValueError(f"{elsewhere.sum()} thresholds are said to be exact, and {len(exact)} exact ones are there")
    found[elsewhere] = exact
    return found


def unpack(packed: Packed, trees: int, features: int) -> Forest:
    """The trees, ready to be walked.

    Raises:
        ValueError: when the arrays are not `trees` whole trees on so many features.
    """
    splits = len(packed.threshold)
    node, root = np.empty(splits, NODE), np.empty(trees, np.int32)
    node["threshold"] = packed.threshold
    leaf_ptr = np.zeros(max(len(packed.code) - splits, 0) + 1, np.int64)
    whole = len(packed.code) == 2 * splits + trees
    if not (whole and kernels.grow(packed.code, features, len(packed.entry), node, root, leaf_ptr)):
        raise ValueError(
            f"{len(packed.code)} nodes, {splits} thresholds and {len(packed.entry)} entries are not "
            f"{trees} whole trees on {features} features"
        )
    _check(packed)
    entry = packed.entry.astype(np.int64)
    value, weight = packed.value[entry], packed.weight[entry].astype(np.float64)
    share = weight / np.repeat(np.add.reduceat(weight, leaf_ptr[:-1]), np.diff(leaf_ptr))
    mean = np.add.reduceat(share * value, leaf_ptr[:-1])
    return Forest(node, root, leaf_ptr, mean, value, share.astype(np.float32))


def _check(packed: Packed) -> None:
    rows = len(packed.value)
    if len(packed.entry) and int(packed.entry.max()) >= rows:
        raise ValueError(f"a leaf holds training row {int(packed.entry.max())}, expected less than {rows}")
    if len(packed.entry) and int(packed.entry.min()) < 0:
        raise ValueError(f"a leaf holds training row {int(packed.entry.min())}, expected 0 or more")
    if not np.isfinite(packed.threshold).all():
        raise ValueError("a threshold is not finite")
    if not (np.isfinite(packed.value).all() and np.isfinite(packed.weight).all() and (packed.weight > 0).all()):
        raise ValueError("a value is not finite, or a weight is not above 0")
