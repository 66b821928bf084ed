"""Compiled loops: keys of ids, shuffled strata, the best rows of each draw, domination.

Enters: arrays. Leaves: arrays. Nothing is random: a draw is a function of the key of a row and of
its number, in whole numbers alone. This module does not know columns, properties or rules.
"""

import numpy as np

from assay.featurize.threads import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_ONE, _B27, _B30, _B31 = np.uint64(1), np.uint64(27), np.uint64(30), np.uint64(31)
TURNS = 3
OFTEN = 64
"""Rows after which the lowest threshold of all draws is looked up again."""


@njit(cache=True, nogil=True)
def mixed(x):  # type: ignore[no-untyped-def]
    """64 bits, each of which depends on every bit of x (the finaliser of splitmix64)."""
    x = (x ^ (x >> _B30)) * _FIRST
    x = (x ^ (x >> _B27)) * _SECOND
    return x ^ (x >> _B31)


@njit(cache=True, nogil=True)
def hashed(ends, content, salt, out):  # type: ignore[no-untyped-def]
    """Write to `out` (n,) a key of each text, the bytes from one of `ends` (n + 1,) to the next."""
    for row in range(len(out)):
        code = _BASIS
        for at in range(ends[row], ends[row + 1]):
            code = (code ^ np.uint64(content[at])) * _PRIME
        out[row] = mixed(code ^ salt)


@njit(cache=True, nogil=True)
def shuffled(x, key, bits):  # type: ignore[no-untyped-def]
    """The place of x below 2**bits in an order that the key shuffles; each place is taken once."""
    mask, half = (_ONE << bits) - _ONE, (bits >> _ONE) | _ONE
    for _ in range(TURNS):
        key = key * _SECOND + _GOLDEN
        x = ((x + (key >> np.uint64(20))) * ((key >> np.uint64(40)) | _ONE)) & mask
        x ^= x >> half
    return x


@njit(cache=True, nogil=True)
def value(numbers, row, stratum, left, weight, normal):  # type: ignore[no-untyped-def]
    """A quantile of a row's distribution; it never falls from one stratum to the next.

    `numbers` (n, 2) are mean and deviation of a normal law, with `weight` deviations to add; else
    (n, m) quantiles, between two of which the law is uniform.
    """
    if normal:
        return numbers[row, 0] + weight[stratum] * numbers[row, 1]
    low, high = numbers[row, left[stratum]], numbers[row, left[stratum] + 1]
    return min(low + weight[stratum] * (high - low), high)


@njit(cache=True, nogil=True)
def ends(numbers, left, weight, normal, lowest, highest):  # type: ignore[no-untyped-def]
    """Write the lowest and the highest value (n,) that a draw can give to each row."""
    for row in range(len(numbers)):
        lowest[row] = value(numbers, row, 0, left, weight, normal)
        highest[row] = value(numbers, row, len(weight) - 1, left, weight, normal)


@njit(cache=True, nogil=True)
def drawn(numbers, keys, left, weight, normal, bits, draw, out):  # type: ignore[no-untyped-def]
    """Write to `out` (n,) the value of each row in one draw."""
    for row in range(len(keys)):
        stratum = np.int64(shuffled(np.uint64(draw), keys[row], bits))
        out[row] = value(numbers, row, stratum, left, weight, normal)


@njit(cache=True, nogil=True)
def _before(a, b, draw, value_a, value_b, keys):  # type: ignore[no-untyped-def]
    """Whether row a is better than b in a draw; equal values stand in an order of that draw."""
    if value_a != value_b:
        return value_a > value_b
    if a < 0 or b < 0:
        return b < 0 <= a
    return mixed(keys[a] ^ mixed(np.uint64(draw))) > mixed(keys[b] ^ mixed(np.uint64(draw)))


@njit(cache=True, nogil=True)
def _replace(values, rows, keys, draw, found, row):  # type: ignore[no-untyped-def]
    """Put a row in the place of the worst one of a heap, which stands first."""
    at, size = 0, len(rows)
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _before(rows[child], rows[child + 1], draw, values[child], values[child + 1], keys):
            child += 1
        if not _before(row, rows[child], draw, found, values[child], keys):
            break
        values[at], rows[at] = values[child], rows[child]
        at = child
    values[at], rows[at] = found, row


@njit(cache=True, nogil=True)
def best(numbers, keys, order, left, weight, normal, bits, first, values, rows):  # type: ignore[no-untyped-def]
    """Write to `rows` (draws, k) the best k rows of each draw, from number `first` on.

    The draws of a row are its strata, shuffled. A row is walked down from its best stratum, and no
    farther than to the lowest of all thresholds, which only rise: what is left out cannot count.

    Args:
        numbers: (n, m) see `value`.
        keys: (n,) see `hashed`.
        order: (n,) rows, those that can be best first; a good order saves time.
        left: (2**bits,) see `value`.
        weight: (2**bits,) see `value`.
        normal: see `value`.
        bits: logarithm of the number of draws.
        first: number of the first draw that is looked at.
        values: (draws, k) room.
        rows: (draws, k) gains the rows of each draw, in no order.
    """
    values[:], rows[:] = -np.inf, -1
    low, last = -np.inf, first + len(rows)
    for count in range(len(order)):
        if count % OFTEN == 0:
            low = np.inf  # no `min()`: to load it, numba would import scipy
            for at in range(len(values)):
                low = min(low, values[at, 0])
        row = order[count]
        for stratum in range(len(weight) - 1, -1, -1):
            found = value(numbers, row, stratum, left, weight, normal)
            if found < low:
                break
            draw = np.int64(shuffled(np.uint64(stratum), keys[row], bits))
            at = draw - first
            if draw < first or draw >= last or found < values[at, 0]:
                continue
            if _before(row, rows[at, 0], draw, found, values[at, 0], keys):
                _replace(values[at], rows[at], keys, draw, found, row)


@njit(cache=True, nogil=True)
def outdone(points, front, strictly, out):  # type: ignore[no-untyped-def]
    """Write to `out` (n,) whether a point of `front` is at least as good everywhere, higher better.

    `strictly`: and better somewhere. The front is walked in its order: strong points first.
    """
    for row in range(len(points)):
        out[row] = False
        for other in range(len(front)):
            worse, better = False, not strictly
            for at in range(points.shape[1]):
                worse |= front[other, at] < points[row, at]
                better |= front[other, at] > points[row, at]
            if better and not worse:
                out[row] = True
                break


@njit(cache=True, nogil=True)
def crowded(points, others, k, out):  # type: ignore[no-untyped-def]
    """Write to `out` (n,) whether k of some others or more dominate a point, higher better."""
    for row in range(len(points)):
        count = 0
        for other in range(len(others)):
            worse, better = False, False
            for at in range(points.shape[1]):
                worse |= others[other, at] < points[row, at]
                better |= others[other, at] > points[row, at]
            if better and not worse:
                count += 1
                if count == k:
                    break
        out[row] = count >= k


@njit(cache=True, nogil=True)
def _behind(second, third, start, size, y, z):  # type: ignore[no-untyped-def]
    """Whether a point (y, z) lies under the stairs of a front, and how many steps lie before it.

    Steps stand by `second`, the highest first; `third` then rises.
    """
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        if second[start + middle] >= y:
            low = middle + 1
        else:
            high = middle
    return low > 0 and third[start + low - 1] >= z, low


@njit(cache=True, nogil=True)
def layers(points, order, front):  # type: ignore[no-untyped-def]
    """Write to `front` (n,) the front of each of some points (n, 3), from 1; higher is better.

    `order` has the points by the first, second and third coordinate, the highest first: so a point
    is dominated by earlier ones alone. A point that some point of a front dominates is dominated by
    all fronts before it: its own is found by halving. Of each front the stairs are kept, which are
    its points that no other one of it exceeds in the second and third coordinate.
    """
    n = len(order)
    start, size, room = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    second, third, used, count = np.empty(4 * n + 16), np.empty(4 * n + 16), 0, 0
    for turn in range(n):
        row = order[turn]
        y, z = points[row, 1], points[row, 2]
        if turn and (points[row] == points[order[turn - 1]]).all():
            front[row] = front[order[turn - 1]]
            continue
        low, high = 0, count
        while low < high:
            middle = (low + high) // 2
            if _behind(second, third, start[middle], size[middle], y, z)[0]:
                low = middle + 1
            else:
                high = middle
        front[row] = low + 1
        count = max(count, low + 1)
        at = _behind(second, third, start[low], size[low], y, z)[1]
        while at > 0 and second[start[low] + at - 1] == y:
            at -= 1
        last = at
        while last < size[low] and third[start[low] + last] <= z:
            last += 1
        if last == at and size[low] == room[low]:
            room[low] = max(1, 2 * room[low])
            if used + room[low] > len(second):
                second, third = np.append(second, np.empty(len(second))), np.append(third, np.empty(len(third)))
            for step in range(size[low]):
                second[used + step], third[used + step] = second[start[low] + step], third[start[low] + step]
            start[low], used = used, used + room[low]
        begin, shift = start[low], 1 - (last - at)
        if shift > 0:
            for step in range(begin + size[low] - 1, begin + last - 1, -1):
                second[step + 1], third[step + 1] = second[step], third[step]
        elif shift < 0:
            for step in range(begin + last, begin + size[low]):
                second[step + shift], third[step + shift] = second[step], third[step]
        second[begin + at], third[begin + at] = y, z
        size[low] += shift


@njit(cache=True, nogil=True)
def fill(points, lower, upper, volume):  # type: ignore[no-untyped-def]
    """Add to each volume (n,) that of the part of disjoint boxes (b, m) below a point (n, m)."""
    for row in range(len(points)):
        for box in range(len(lower)):
            part = 1.0
            for k in range(points.shape[1]):
                part *= max(0.0, min(points[row, k], upper[box, k]) - lower[box, k])
            volume[row] += part
