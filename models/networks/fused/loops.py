"""What happens between two matrix products of a graph network, forward and backward: one pass each.

Enters and leaves: float32 arrays, indices int64. An edge of a line graph is a triplet. Sums over
rows run in the order of the rows, so a result does not depend on threads. This module does not know
torch.
"""

import numpy as np

from assay.featurize.threads import njit

_MATH = {"contract", "nsz", "arcp"}
"""Which rules the compiler may bend: products and sums may be fused. Not the order of sums, and NaN
is kept."""
_F = np.float32
_BOUND = _F(87.0)
"""Where the exponential is cut, just inside the range of float32."""
_BLOCK = 256
"""Rows that are added up in float32 before the sum goes on in float64."""
_TINY = _F(1e-6)
"""Added to a sum of gates, which may be zero."""


@njit(cache=True, inline="always", fastmath=_MATH)
def power(x):  # type: ignore[no-untyped-def]
    """Return e^x to 4e-7 relative, in steps that a compiler can vectorise; NaN stays NaN.

    A power of 2 times a polynomial of degree 5 with the smallest relative error within ln 2 / 2 of
    0, 7.5e-8 (Remez's algorithm).
    """
    cut = min(x, _BOUND)  # so written, NaN passes
    cut = max(cut, -_BOUND)
    n = np.floor(cut * _F(1.44269504) + _F(0.5))
    r = cut - n * _F(0.693359375)
    r = r - n * _F(-2.12194440e-4)
    p = _F(8.29765509e-3)
    p = p * r + _F(4.19153820e-2)
    p = p * r + _F(1.66675747e-1)
    p = p * r + _F(4.99988948e-1)
    p = p * r + _F(9.99999692e-1)
    p = p * r + _F(1.00000007)
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(cache=True, inline="always", fastmath=_MATH)
def exponential(x):  # type: ignore[no-untyped-def]
    """Return the same; what is infinite becomes NaN."""
    return power(x) + (x - x)  # the difference is 0, or NaN


@njit(cache=True, inline="always", fastmath=_MATH)
def sigmoid(x):  # type: ignore[no-untyped-def]
    """Return 1 / (1 + e^-x)."""
    return _F(1.0) / (_F(1.0) + exponential(-x))


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def gate(own, parts, source, target, weight, m, gates, message, out):  # type: ignore[no-untyped-def]
    """Open the gates of an edge-gated convolution, and average what comes through.

    Args:
        own: (e, h) the edges' part of the gate.
        parts: (n, 4 h) of each node: part of the gate where it sends, the same where it receives,
            what it sends, and its own part of its update.
        source: (e,) node that each message comes from.
        target: (e,) node that it goes to.
        weight: (e,) how often it counts.
        m: (e, h) written: the gates before the sigmoid.
        gates: (n, h) zeros; gains the sum of the gates.
        message: (n, h) zeros; gains the mean of the messages.
        out: (n, h) written: a node's own part of its update, and the message.
    """
    h = own.shape[1]
    share = np.empty(h, np.float32)
    for k in range(len(source)):  # one array written per loop: the compiler then makes vector instructions of each
        before, edge, w = m[k], own[k], weight[k]
        sends, receives = parts[source[k]], parts[target[k]]
        as_source, as_target, come = sends[:h], receives[h : 2 * h], sends[2 * h : 3 * h]
        for j in range(h):
            before[j] = edge[j] + as_source[j] + as_target[j]
        for j in range(h):
            share[j] = w * sigmoid(before[j])
        sum_of_gates, sum_of_messages = gates[target[k]], message[target[k]]
        for j in range(h):
            sum_of_gates[j] += share[j]
        for j in range(h):
            sum_of_messages[j] += share[j] * come[j]
    for i in range(len(message)):
        mean, total, to, kept = message[i], gates[i], out[i], parts[i][3 * h :]
        for j in range(h):
            mean[j] = mean[j] / (total[j] + _TINY)
        for j in range(h):
            to[j] = kept[j] + mean[j]


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def gate_back(d_m, d_out, m, gates, message, parts, source, target, weight, d_own, d_parts):  # type: ignore[no-untyped-def]
    """Gradients of `gate`, from those of `m` (empty: zero) and `out`, into the last two.

    `d_own` (e, h) is written; `d_parts` (n, 4 h) comes as zeros and gains.
    """
    n, h = message.shape
    of_sum, of_gates = np.empty((n, h), np.float32), np.empty((n, h), np.float32)
    for i in range(n):
        d_parts[i, 3 * h :] = d_out[i]
        for j in range(h):
            of_sum[i, j] = d_out[i, j] / (gates[i, j] + _TINY)
        for j in range(h):
            of_gates[i, j] = -of_sum[i, j] * message[i, j]
    opened, share = np.empty(h, np.float32), np.empty(h, np.float32)
    known = len(d_m) > 0
    for k in range(len(source)):
        out, w, before = d_own[k], weight[k], m[k]
        a, b, sent = of_sum[target[k]], of_gates[target[k]], parts[source[k]][2 * h : 3 * h]
        for j in range(h):
            opened[j] = sigmoid(before[j])
        for j in range(h):
            share[j] = w * opened[j]
        for j in range(h):
            out[j] = (a[j] * sent[j] + b[j]) * share[j] * (_F(1.0) - opened[j])
        if known:
            more = d_m[k]
            for j in range(h):
                out[j] += more[j]
        sends, receives = d_parts[source[k]], d_parts[target[k]]
        to_source, to_target, to_sent = sends[:h], receives[h : 2 * h], sends[2 * h : 3 * h]
        for j in range(h):
            to_source[j] += out[j]
        for j in range(h):
            to_target[j] += out[j]
        for j in range(h):
            to_sent[j] += share[j] * a[j]


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def messages(z, sends, receives, source, target, weight, message):  # type: ignore[no-untyped-def]
    """Sum the gated messages of a crystal graph convolution where they arrive.

    Args:
        z: (e, 2 h) the edges' part of gate and core; gains those of its ends.
        sends: (n, 2 h) both parts of a node that sends.
        receives: (n, 2 h) the same of one that receives.
        source: (e,) node that each message comes from.
        target: (e,) node that it goes to.
        weight: (e,) how often it counts.
        message: (n, h) zeros; gains sigmoid(gate) silu(core).
    """
    h = message.shape[1]
    for k in range(len(source)):
        row, as_source, as_target, w = z[k], sends[source[k]], receives[target[k]], weight[k]
        for j in range(2 * h):
            row[j] = row[j] + as_source[j] + as_target[j]
        out, core = message[target[k]], row[h:]
        for j in range(h):
            out[j] += w * sigmoid(row[j]) * core[j] * sigmoid(core[j])


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def messages_back(d_message, z, source, target, weight, d_z, d_sends, d_receives):  # type: ignore[no-untyped-def]
    """Gradients of `messages`; `d_z` (e, 2 h) is written, the others (n, 2 h) gain."""
    h = d_message.shape[1]
    gates, cores = np.empty(h, np.float32), np.empty(h, np.float32)
    for k in range(len(source)):
        gate_in, core_in, come, w = z[k][:h], z[k][h:], d_message[target[k]], weight[k]
        for j in range(h):
            gates[j] = sigmoid(gate_in[j])
        for j in range(h):
            cores[j] = sigmoid(core_in[j])
        to_gate, to_core = d_z[k][:h], d_z[k][h:]
        for j in range(h):
            to_gate[j] = w * come[j] * core_in[j] * cores[j] * gates[j] * (_F(1.0) - gates[j])
        for j in range(h):
            to_core[j] = w * come[j] * gates[j] * cores[j] * (_F(1.0) + core_in[j] * (_F(1.0) - cores[j]))
        whole, to_source, to_target = d_z[k], d_sends[source[k]], d_receives[target[k]]
        for j in range(2 * h):
            to_source[j] += whole[j]
        for j in range(2 * h):
            to_target[j] += whole[j]


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def moments(values, count):  # type: ignore[no-untyped-def]
    """Mean and variance (h,) float64 of each column of values (m, h); row i counts `count[i]`."""
    m, h = values.shape
    mean, variance, rows = np.zeros(h), np.zeros(h), 0.0
    part = np.empty(h, np.float32)
    for low in range(0, m, _BLOCK):
        part[:] = _F(0.0)
        for k in range(low, min(low + _BLOCK, m)):
            row, w = values[k], count[k]
            for j in range(h):
                part[j] += w * row[j]
            rows += w
        for j in range(h):
            mean[j] += part[j]
    centre = np.empty(h, np.float32)
    for j in range(h):
        mean[j] /= rows
        centre[j] = mean[j]
    for low in range(0, m, _BLOCK):
        part[:] = _F(0.0)
        for k in range(low, min(low + _BLOCK, m)):
            row, w = values[k], count[k]
            for j in range(h):
                part[j] += w * (row[j] - centre[j]) ** 2
        for j in range(h):
            variance[j] += part[j]
    for j in range(h):
        variance[j] /= rows
    return mean, variance, rows


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def normalise(values, scale, shift, state, out):  # type: ignore[no-untyped-def]
    """Write state + silu(values scale + shift) to `out`; `state` may be empty.

    Values, state and out are (m, h), the others (h,).
    """
    stated = len(state) > 0
    for k in range(len(values)):
        row, to = values[k], out[k]
        for j in range(values.shape[1]):
            v = row[j] * scale[j] + shift[j]
            to[j] = v * sigmoid(v)
        if stated:
            before = state[k]
            for j in range(values.shape[1]):
                to[j] += before[j]


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def expand(values, centers, gamma, out):  # type: ignore[no-untyped-def]
    """Write exp(-gamma (value - center)^2) of values (m,) and centers (b,) to `out` (m, b)."""
    for k in range(len(values)):
        row, value = out[k], values[k]
        for j in range(len(centers)):
            away = value - centers[j]
            row[j] = exponential(-gamma * away * away)


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def normalise_back(d_out, values, count, centre, inverse, gain, offset, d_values):  # type: ignore[no-untyped-def]
    """Gradients of silu((values - centre) inverse gain + offset), where the batch gives the centre.

    Args:
        d_out: (m, h).
        values: (m, h).
        count: (m,) how often a row counts in mean and deviation.
        centre: (h,) mean.
        inverse: (h,) of the deviation.
        gain: (h,).
        offset: (h,).
        d_values: (m, h) written.

    Returns:
        Gradients of gain and offset, (h,) each.
    """
    m, h = values.shape
    of_gain, of_offset, rows = np.zeros(h), np.zeros(h), 0.0
    part, other = np.empty(h, np.float32), np.empty(h, np.float32)
    for low in range(0, m, _BLOCK):
        part[:] = _F(0.0)
        other[:] = _F(0.0)
        for k in range(low, min(low + _BLOCK, m)):
            row, come, to = values[k], d_out[k], d_values[k]
            rows += count[k]
            for j in range(h):
                v = (row[j] - centre[j]) * inverse[j] * gain[j] + offset[j]
                s = sigmoid(v)
                to[j] = come[j] * s * (_F(1.0) + v * (_F(1.0) - s))
            for j in range(h):
                other[j] += to[j]
            for j in range(h):
                part[j] += to[j] * (row[j] - centre[j]) * inverse[j]
        for j in range(h):
            of_gain[j] += part[j]
            of_offset[j] += other[j]
    d_gain, d_offset, factor = np.empty(h, np.float32), np.empty(h, np.float32), np.empty(h, np.float32)
    for j in range(h):
        d_gain[j], d_offset[j], factor[j] = of_gain[j], of_offset[j], gain[j] * inverse[j]
    for k in range(m):
        row, to, share = values[k], d_values[k], _F(count[k] / rows)
        for j in range(h):
            to[j] = factor[j] * (to[j] - share * (d_offset[j] + (row[j] - centre[j]) * inverse[j] * d_gain[j]))
    return d_gain, d_offset


@njit(cache=True, inline="always", fastmath=_MATH)
def _place(value, low, per_step, end):  # type: ignore[no-untyped-def]
    """Of a value: the first of the four rows of a table that it lies between, and their shares."""
    place = min(max((value - low) * per_step, _F(0.0)), end)
    row = int(place)
    t = place - _F(row) + (value - value)
    a = t * (t - _F(1.0)) * (_F(2.0) - t) * _F(1 / 6)
    b = (t + _F(1.0)) * (t - _F(1.0)) * (t - _F(2.0)) * _F(0.5)
    c = t * (t + _F(1.0)) * (_F(2.0) - t) * _F(0.5)
    d = t * (t + _F(1.0)) * (t - _F(1.0)) * _F(1 / 6)
    return row, a, b, c, d


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def look_up(values, low, per_step, table, out):  # type: ignore[no-untyped-def]
    """Write a smooth function of one number, by cubic interpolation in a table, to `out` (m, w).

    Args:
        values: (m,) where; beyond the table, its end.
        low: where the second row of the table stands.
        per_step: rows per unit.
        table: (rows, w) the function, equidistant.
        out: (m, w).
    """
    end = _F(table.shape[0] - 4)
    for k in range(len(values)):
        row, a, b, c, d = _place(values[k], low, per_step, end)
        for j in range(table.shape[1]):
            out[k, j] = a * table[row, j] + b * table[row + 1, j] + c * table[row + 2, j] + d * table[row + 3, j]


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def look_up_back(d_out, values, low, per_step, d_table):  # type: ignore[no-untyped-def]
    """Gradient of the table of `look_up`: `d_table` (rows, w) comes as zeros and gains."""
    end = _F(d_table.shape[0] - 4)
    for k in range(len(values)):
        row, a, b, c, d = _place(values[k], low, per_step, end)
        come, first, second, third, fourth = (
            d_out[k],
            d_table[row],
            d_table[row + 1],
            d_table[row + 2],
            d_table[row + 3],
        )
        for j in range(len(come)):
            first[j] += a * come[j]
        for j in range(len(come)):
            second[j] += b * come[j]
        for j in range(len(come)):
            third[j] += c * come[j]
        for j in range(len(come)):
            fourth[j] += d * come[j]


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def spread(count, values, low, per_step, total):  # type: ignore[no-untyped-def]
    """Add how often each value (m,) counts to the rows of a table that stand for it, `total`."""
    end = _F(len(total) - 4)
    for k in range(len(values)):
        row, a, b, c, d = _place(values[k], low, per_step, end)
        total[row] += count[k] * a
        total[row + 1] += count[k] * b
        total[row + 2] += count[k] * c
        total[row + 3] += count[k] * d
