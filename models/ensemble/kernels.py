"""The steps between two matrix products of a network, compiled: one pass over cached rows.

Enters and leaves: float32 arrays. What is not finite becomes NaN and stays NaN. The same steps in
training are `assay.models.networks.fused`. This module does not know networks.
"""

import numpy as np

from assay.featurize.threads import njit
from assay.models.networks.fused.loops import look_up, power, sigmoid

_MATH = {"contract", "nsz", "arcp"}
"""Which rules the compiler may bend: products and sums may be fused. Not the order of sums, and NaN
is kept."""
_F = np.float32
_EDGES = 128
"""Edges whose messages are made at once."""


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def product(x, weight, bias, out):  # type: ignore[no-untyped-def]
    """Write x (m, k) times weight (k, w) plus bias (w,) to `out` (m, w); m is a multiple of 4.

    Four rows meet four rows of weights at once: 16 products for 12 numbers that move. The last bits
    of a row depend on that row alone.
    """
    whole = x.shape[1] // 4 * 4
    for i in range(0, x.shape[0], 4):
        a, b, c, d = out[i], out[i + 1], out[i + 2], out[i + 3]
        for j in range(len(bias)):
            a[j] = b[j] = c[j] = d[j] = bias[j]
        for k in range(0, whole, 4):
            p, q, r, s = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
            a0, a1, a2, a3 = x[i, k], x[i, k + 1], x[i, k + 2], x[i, k + 3]
            b0, b1, b2, b3 = x[i + 1, k], x[i + 1, k + 1], x[i + 1, k + 2], x[i + 1, k + 3]
            c0, c1, c2, c3 = x[i + 2, k], x[i + 2, k + 1], x[i + 2, k + 2], x[i + 2, k + 3]
            d0, d1, d2, d3 = x[i + 3, k], x[i + 3, k + 1], x[i + 3, k + 2], x[i + 3, k + 3]
            for j in range(len(bias)):
                w0, w1, w2, w3 = p[j], q[j], r[j], s[j]
                a[j] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                b[j] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
                c[j] += c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
                d[j] += d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3
        for k in range(whole, x.shape[1]):
            p = weight[k]
            for j in range(len(bias)):
                a[j] += x[i, k] * p[j]
                b[j] += x[i + 1, k] * p[j]
                c[j] += x[i + 2, k] * p[j]
                d[j] += x[i + 3, k] * p[j]


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
            message[t, j] += w * core / ((_F(1.0) + power(-gate)) * (_F(1.0) + power(-core)))


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def send(values, low, per_step, table, ends, source, target, weight, message):  # type: ignore[no-untyped-def]
    """`look_up` and `crystal_messages` of all edges, a few at a time for the sake of the cache.

    `message` (n, h) gains the gated messages.
    """
    room = np.empty((min(_EDGES, len(values)), table.shape[1]), np.float32)
    for start in range(0, len(values), _EDGES):
        stop = min(start + _EDGES, len(values))
        z = room[: stop - start]
        look_up(values[start:stop], low, per_step, table, z)
        crystal_messages(z, ends, source[start:stop], target[start:stop], weight[start:stop], message)


@njit(cache=True, nogil=True, error_model="numpy")
def degrees(target, weight, out):  # type: ignore[no-untyped-def]
    """Write the weight of all edges into each node, at least 1, to `out` (n,)."""
    out[:] = _F(0.0)
    for k in range(len(target)):
        out[target[k]] += weight[k]
    for i in range(len(out)):
        out[i] = max(out[i], _F(1.0))


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def pool(x, node_ptr, count, out):  # type: ignore[no-untyped-def]
    """Write mean and deviation of the nodes of each crystal, side by side, to `out` (n, 2 h)."""
    h = x.shape[1]
    for c in range(len(node_ptr) - 1):
        size = _F(0.0)
        mean, spread = out[c, :h], out[c, h:]
        mean[:] = _F(0.0)
        spread[:] = _F(0.0)
        for i in range(node_ptr[c], node_ptr[c + 1]):
            size += count[i]
            for j in range(h):
                mean[j] += count[i] * x[i, j]
        for j in range(h):
            mean[j] = mean[j] / size
        for i in range(node_ptr[c], node_ptr[c + 1]):
            for j in range(h):
                spread[j] += count[i] * (x[i, j] - mean[j]) ** 2
        for j in range(h):
            spread[j] = np.sqrt(spread[j] / size + _F(1e-6))


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def crystal_update(x, message, degree, scale, shift):  # type: ignore[no-untyped-def]
    """Finish a crystal graph convolution of nodes (n, h): x = silu(x + norm(message / degree))."""
    for i in range(len(x)):
        share = _F(1.0) / degree[i]
        for j in range(x.shape[1]):
            v = x[i, j] + message[i, j] * share * scale[j] + shift[j]
            x[i, j] = v * sigmoid(v)


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def squares(rows, columns, out):  # type: ignore[no-untyped-def]
    """Write the squared distance of every row (m, h) to every column (h, p) to `out` (m, p).

    m is a multiple of 4; four rows meet four dimensions at once, as in `product`. The last bits of
    a row depend on that row alone.
    """
    whole = rows.shape[1] // 4 * 4
    out[:] = _F(0.0)
    for i in range(0, len(rows), 4):
        a, b, c, d = out[i], out[i + 1], out[i + 2], out[i + 3]
        for k in range(0, whole, 4):
            p, q, r, s = columns[k], columns[k + 1], columns[k + 2], columns[k + 3]
            a0, a1, a2, a3 = rows[i, k], rows[i, k + 1], rows[i, k + 2], rows[i, k + 3]
            b0, b1, b2, b3 = rows[i + 1, k], rows[i + 1, k + 1], rows[i + 1, k + 2], rows[i + 1, k + 3]
            c0, c1, c2, c3 = rows[i + 2, k], rows[i + 2, k + 1], rows[i + 2, k + 2], rows[i + 2, k + 3]
            d0, d1, d2, d3 = rows[i + 3, k], rows[i + 3, k + 1], rows[i + 3, k + 2], rows[i + 3, k + 3]
            for j in range(columns.shape[1]):
                w0, w1, w2, w3 = p[j], q[j], r[j], s[j]
                a[j] += (a0 - w0) ** 2 + (a1 - w1) ** 2 + (a2 - w2) ** 2 + (a3 - w3) ** 2
                b[j] += (b0 - w0) ** 2 + (b1 - w1) ** 2 + (b2 - w2) ** 2 + (b3 - w3) ** 2
                c[j] += (c0 - w0) ** 2 + (c1 - w1) ** 2 + (c2 - w2) ** 2 + (c3 - w3) ** 2
                d[j] += (d0 - w0) ** 2 + (d1 - w1) ** 2 + (d2 - w2) ** 2 + (d3 - w3) ** 2
        for k in range(whole, rows.shape[1]):
            p = columns[k]
            for j in range(columns.shape[1]):
                a[j] += (rows[i, k] - p[j]) ** 2
                b[j] += (rows[i + 1, k] - p[j]) ** 2
                c[j] += (rows[i + 2, k] - p[j]) ** 2
                d[j] += (rows[i + 3, k] - p[j]) ** 2


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
