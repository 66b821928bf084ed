"""The steps between two matrix products of a network, compiled: one pass over cached rows.

Enters and leaves: float32 arrays. What is not finite becomes NaN and stays NaN. The same steps in
training are `assay.models.networks.fused`. This module does not know networks.
"""

import numpy as np

from assay.featurize.threads import njit
from assay.models.networks.fused.loops import sigmoid

_MATH = {"contract", "nsz", "arcp"}
"""Which rules the compiler may bend: products and sums may be fused. Not the order of sums, and NaN
is kept."""
_F = np.float32


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def silu(x, out):  # type: ignore[no-untyped-def]
    """Write x sigmoid(x) of `x` (m, h) to `out`, which may be `x`."""
    for k in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[k, j] = x[k, j] * sigmoid(x[k, j])


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def edge_gates(m, ends, source, target, weight, scale, shift, message, gates, y, last):  # type: ignore[no-untyped-def]
    """Gate the messages of an edge-gated convolution, sum them at their targets, update edges.

    Args:
        m: (e, h) the edges' own part of the gate.
        ends: (n, 4 h) of each node: part of the gate as a source, as a target, and what it sends;
            the rest is not read.
        source: (e,) node each message comes from.
        target: (e,) node it goes to.
        weight: (e,) how often it counts.
        scale: (h,) of the normalisation of edges.
        shift: (h,) of the same.
        message: (n, h) gains the gated messages.
        gates: (n, h) gains the gates.
        y: (e, h) edge states, updated in place.
        last: leave `y` alone, because nothing reads it.
    """
    h = m.shape[1]
    gate = np.empty(h, np.float32)
    for k in range(len(source)):  # one array written per loop: the compiler then makes vector instructions of each
        own, w = m[k], weight[k]
        as_source, as_target, sent = ends[source[k]][:h], ends[target[k]][h : 2 * h], ends[source[k]][2 * h : 3 * h]
        for j in range(h):
            own[j] = own[j] + as_source[j] + as_target[j]
        for j in range(h):
            gate[j] = w * sigmoid(own[j])
        sum_of_gates, sum_of_messages = gates[target[k]], message[target[k]]
        for j in range(h):
            sum_of_gates[j] += gate[j]
        for j in range(h):
            sum_of_messages[j] += gate[j] * sent[j]
        if not last:
            state = y[k]
            for j in range(h):
                v = own[j] * scale[j] + shift[j]
                state[j] += v * sigmoid(v)


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def node_update(x, ends, message, gates, scale, shift):  # type: ignore[no-untyped-def]
    """Finish an edge-gated convolution: x += silu(norm(own part + message / gates)).

    Arrays are as in `edge_gates`.
    """
    h = x.shape[1]
    for i in range(len(x)):
        for j in range(h):
            v = (ends[i, 3 * h + j] + message[i, j] / (gates[i, j] + _F(1e-6))) * scale[j] + shift[j]
            x[i, j] += v * sigmoid(v)


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def crystal_messages(z, ends, source, target, weight, message):  # type: ignore[no-untyped-def]
    """Gate the messages of a crystal graph convolution and add them up where they arrive.

    Args:
        z: (e, 2 h) the edges' own parts of gate and core.
        ends: (n, 4 h) of each node: both parts as a source, then both as a target.
        source: (e,) node each message comes from.
        target: (e,) node it goes to.
        weight: (e,) how often it counts.
        message: (n, h) gains sigmoid(gate) silu(core).
    """
    h = message.shape[1]
    for k in range(len(source)):
        s, t, w = source[k], target[k], weight[k]
        for j in range(h):
            gate = z[k, j] + ends[s, j] + ends[t, 2 * h + j]
            core = z[k, h + j] + ends[s, h + j] + ends[t, 3 * h + j]
            message[t, j] += w * sigmoid(gate) * core * sigmoid(core)


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def crystal_update(x, message, degree, scale, shift):  # type: ignore[no-untyped-def]
    """Finish a crystal graph convolution of nodes (n, h): x = silu(x + norm(message / degree))."""
    for i in range(len(x)):
        share = _F(1.0) / degree[i]
        for j in range(x.shape[1]):
            v = x[i, j] + message[i, j] * share * scale[j] + shift[j]
            x[i, j] = v * sigmoid(v)


@njit(cache=True, nogil=True, fastmath=_MATH | {"reassoc"}, error_model="numpy")
def squares(rows, points, out):  # type: ignore[no-untyped-def]
    """Write the squared distance of every row (m, h) to every point (p, h) to `out` (m, p).

    Each is a sum of its own: its last bits do not depend on the other rows.
    """
    for i in range(len(rows)):
        for k in range(len(points)):
            total = _F(0.0)
            for j in range(rows.shape[1]):
                total += (rows[i, j] - points[k, j]) ** 2
            out[i, k] = total


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def narrow_squares(rows, columns, out):  # type: ignore[no-untyped-def]
    """The same for few dimensions, quicker; each column of `columns` (h, p) is a point."""
    for i in range(len(rows)):
        out[i] = _F(0.0)
        for j in range(rows.shape[1]):
            value = rows[i, j]
            for k in range(columns.shape[1]):
                out[i, k] += (value - columns[j, k]) ** 2


@njit(cache=True, nogil=True, error_model="numpy")
def smallest(rows, out):  # type: ignore[no-untyped-def]
    """Write the smallest numbers of each row (n, m) to `out` (n, k), ascending; NaN where fewer."""
    k = out.shape[1]
    for row in range(len(rows)):
        held = 0
        for column in range(rows.shape[1]):
            value = rows[row, column]
            if held == k and not value < out[row, k - 1]:
                continue
            if np.isnan(value):
                continue
            place = min(held, k - 1)
            while place > 0 and out[row, place - 1] > value:
                out[row, place] = out[row, place - 1]
                place -= 1
            out[row, place] = value
            held = min(held + 1, k)
        out[row, held:] = np.nan
