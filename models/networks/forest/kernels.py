"""The compiled loops of a forest: unpacking trees, walking down them, medians of leaves.

Enters and leaves: arrays, see `assay.models.networks.forest.arrays`. This module does not know what
a row or a value means.
"""

import numpy as np

from assay.featurize.threads import njit

_TIE = 1e-6
"""Difference of two sums of weights that counts as rounding."""
_FEW = 16
"""Values that are sorted by insertion."""


@njit(cache=True, nogil=True)
def grow(code, features, entries, node, root, leaf_ptr):  # type: ignore[no-untyped-def]
    """Fill the arrays of a `Forest`; False when the codes are no whole trees."""
    waiting = np.empty(len(node) + 1, np.int32)  # splits whose right part is not there yet
    at, split, leaf, filled = 0, 0, 0, 0
    for tree in range(len(root)):
        depth, parent, right = 0, -1, False
        while True:
            if at == len(code):
                return False
            found = np.int64(code[at])
            at += 1
            if found < features:
                if split == len(node):
                    return False
                place = split
                node[split].feature = found
                split += 1
            else:
                filled += found - features + 1
                if leaf + 1 == len(leaf_ptr) or filled > entries:
                    return False
                place = -1 - leaf
                leaf += 1
                leaf_ptr[leaf] = filled
            if parent < 0:
                root[tree] = place
            elif right:
                node[parent].further = place - node[parent].left
            else:
                node[parent].left = place
            if found < features:
                waiting[depth] = place
                depth += 1
                parent, right = place, False
            elif depth == 0:
                break
            else:
                depth -= 1
                parent, right = waiting[depth], True
    return at == len(code) and split == len(node) and filled == entries


@njit(cache=True, nogil=True)
def gaps(node, leaf_ptr, entry, rows, low, high):  # type: ignore[no-untyped-def]
    """Write the gap in which each split may lie to `low` and `high` (S,).

    Its training rows go left where their feature is at most `low`, and right from `high` on.
    """
    start, end = np.empty(len(node), np.int64), np.empty(len(node), np.int64)
    for k in range(len(node) - 1, -1, -1):  # parts come after their split
        split = node[k]
        left, right = split.left, split.left + split.further
        start[k] = leaf_ptr[-1 - left] if left < 0 else start[left]
        middle = leaf_ptr[-1 - right] if right < 0 else start[right]
        end[k] = leaf_ptr[-right] if right < 0 else end[right]
        low[k], high[k] = -np.inf, np.inf
        for place in range(start[k], middle):
            low[k] = max(low[k], rows[entry[place], split.feature])
        for place in range(middle, end[k]):
            high[k] = min(high[k], rows[entry[place], split.feature])


@njit(cache=True, nogil=True)
def project(rows, center, axes, out):  # type: ignore[no-untyped-def]
    """Write (rows - center) @ axes to `out` (n, w), each row by itself."""
    for row in range(len(rows)):
        for k in range(out.shape[1]):
            out[row, k] = 0.0
        for column in range(rows.shape[1]):
            value = rows[row, column] - center[column]
            for k in range(out.shape[1]):
                out[row, k] += value * axes[column, k]


@njit(cache=True, nogil=True)
def walk(rows, node, root, leaf_mean, found, reached):  # type: ignore[no-untyped-def]
    """Write mean and number of the leaf of every row (n, q) in every tree to (n, T) arrays.

    All rows walk down one tree before the next: it stays in the cache. Nodes and features are not
    negative, and numbers without a sign say so to the compiler.
    """
    for tree in range(len(root)):
        for k in range(len(rows)):
            row, at = rows[k], root[tree]
            while at >= 0:
                split = node[np.uint32(at)]
                at = split.left + split.further * np.int32(row[np.uint32(split.feature)] > split.threshold)
            reached[k, tree] = -1 - at
            found[k, tree] = leaf_mean[np.uint32(-1 - at)]


@njit(cache=True, nogil=True)
def decide(found, reached, leaf_ptr, value, share, most, median, out):  # type: ignore[no-untyped-def]
    """Write the median or the interquartile mean of the entries that rows reach to `out` (n,)."""
    n, trees = reached.shape
    values, weights = np.empty(most, np.float64), np.empty(most, np.float64)
    single = len(leaf_ptr) - 1 == len(value)
    for row in range(n):
        m = 0
        for tree in range(trees):
            leaf = reached[row, tree]
            if single or leaf_ptr[leaf + 1] == leaf_ptr[leaf] + 1:
                values[m], weights[m] = found[row, tree], 1.0 / trees
                m += 1
                continue
            for entry in range(leaf_ptr[leaf], leaf_ptr[leaf + 1]):
                values[m], weights[m] = value[entry], share[entry] / trees
                m += 1
        if median:
            out[row] = _median(values, weights, m)
        else:
            _sort(values, weights, 0, m)
            out[row] = _middle_half(values, weights, m)


@njit(cache=True, nogil=True)
def spread(found, reached, leaf_ptr, value, share, out):  # type: ignore[no-untyped-def]
    """Write the variance of the entries that rows reach to `out` (n,)."""
    n, trees = reached.shape
    for row in range(n):
        mean = found[row].mean()
        total = 0.0
        for tree in range(trees):
            leaf = reached[row, tree]
            for entry in range(leaf_ptr[leaf], leaf_ptr[leaf + 1]):
                total += share[entry] * (value[entry] - mean) ** 2
        out[row] = total / trees


@njit(cache=True, nogil=True)
def _insertion(values, weights, low, high):  # type: ignore[no-untyped-def]
    for k in range(low + 1, high):
        v, w = values[k], weights[k]
        place = k
        while place > low and values[place - 1] > v:
            values[place], weights[place] = values[place - 1], weights[place - 1]
            place -= 1
        values[place], weights[place] = v, w


@njit(cache=True, nogil=True)
def _pivot(values, low, high):  # type: ignore[no-untyped-def]
    """The middle one of three values of a range."""
    a, b, c = values[low], values[(low + high) // 2], values[high - 1]
    return max(min(a, b), min(max(a, b), c))


@njit(cache=True, nogil=True)
def _below(values, weights, low, high, pivot):  # type: ignore[no-untyped-def]
    """Bring what is below the pivot to the front of a range: where that ends, and its weight.

    There are no branches, because nobody can foresee on which side a value lies.
    """
    first, mass = low, 0.0
    for k in range(low, high):
        v, w = values[k], weights[k]
        values[k], weights[k] = values[first], weights[first]
        values[first], weights[first] = v, w
        small = v < pivot
        first += small
        mass += w * small
    return first, mass


@njit(cache=True, nogil=True)
def _at_most(values, weights, low, high, pivot):  # type: ignore[no-untyped-def]
    """The same for what is at most the pivot."""
    last, mass = low, 0.0
    for k in range(low, high):
        v, w = values[k], weights[k]
        values[k], weights[k] = values[last], weights[last]
        values[last], weights[last] = v, w
        small = v <= pivot
        last += small
        mass += w * small
    return last, mass


@njit(cache=True, nogil=True)
def _sort(values, weights, low, high):  # type: ignore[no-untyped-def]
    """Sort a range by value, with its weights; the larger part of each cut waits."""
    waiting = [(low, high)]
    while len(waiting) > 0:
        low, high = waiting.pop()
        while high - low > _FEW:
            pivot = _pivot(values, low, high)
            first, _ = _below(values, weights, low, high, pivot)
            last, _ = _at_most(values, weights, first, high, pivot)
            if first - low > high - last:
                waiting.append((low, first))
                low = last
            else:
                waiting.append((last, high))
                high = first
        _insertion(values, weights, low, high)


@njit(cache=True, nogil=True)
def _median(values, weights, n):  # type: ignore[no-untyped-def]
    """The value at half of the weights, which sum to 1; the order of the values is lost."""
    low, high, below = 0, n, 0.0
    while high - low > _FEW:
        pivot = _pivot(values, low, high)
        first, mass = _below(values, weights, low, high, pivot)
        if below + mass >= 0.5 - _TIE:
            high = first
            continue
        last, more = _at_most(values, weights, first, high, pivot)
        middle = below + mass + more
        if middle >= 0.5 + _TIE:
            return pivot
        if middle >= 0.5 - _TIE:
            return 0.5 * (pivot + _least(values, last, n))
        low, below = last, middle
    _insertion(values, weights, low, high)
    for k in range(low, high):
        below += weights[k]
        if below >= 0.5 + _TIE:
            return values[k]
        if below >= 0.5 - _TIE:
            return 0.5 * (values[k] + (values[k + 1] if k + 1 < high else _least(values, high, n)))
    return values[high - 1]


@njit(cache=True, nogil=True)
def _least(values, first, n):  # type: ignore[no-untyped-def]
    """The smallest of the values from `first` on; the one before them where there is none."""
    found = values[first] if first < n else values[first - 1]
    for k in range(first, n):
        found = min(found, values[k])
    return found


@njit(cache=True, nogil=True)
def _middle_half(values, weights, n):  # type: ignore[no-untyped-def]
    """Mean of sorted values between a quarter and three quarters of their weights."""
    below, total, mass = 0.0, 0.0, 0.0
    for k in range(n):
        part = min(below + weights[k], 0.75) - max(below, 0.25)
        below += weights[k]
        if part > 0:
            total += part * values[k]
            mass += part
    return total / mass
