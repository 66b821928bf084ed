"""Loops of the frozen student over pairs of atoms: messages both ways, and their gradients.

Enters and leaves: arrays of one float type, distances and results in float64. A pair is met once
and serves both of its atoms. Its filter, a function of the distance alone, is a row of a table, cut
from cubic B-splines: the filter of a layer with p parts of F features is p F wide. The loops are
compiled for each F, so that the compiler knows how far apart the parts of a row are and makes
vector instructions of a loop with many arrays. Sums over pairs run in the order of the pairs; the
compiler chooses the order of a sum over features. NaN is kept. This module does not know networks.
"""

import math
from functools import cache

import numpy as np

from assay.featurize.threads import njit

_MATH = {"contract", "nsz", "arcp"}
"""Which rules the compiler may bend: products and sums may be fused. Not the order of sums, and NaN
is kept."""
_ORDER = _MATH | {"reassoc"}


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def pair(source, target, vector, distance, low, per_step, last, begin, other, knot, edge):  # type: ignore[no-untyped-def]
    """Keep one of the two edges between atoms; returns how many are kept.

    Args:
        source: (E,) atoms that edges come from.
        target: (E,) atoms that they go to, ascending.
        vector: (E, 3) Å from target to source; those of the pairs are moved to the front.
        distance: (E,) Å; moved likewise.
        low: the first atom; the loops count from it.
        per_step: rows of a table per Å.
        last: the last row at which a distance may start.
        begin: (S + 1,) written: the pairs of each atom.
        other: (E,) written: the second atom of each pair.
        knot: (E,) written: the first of four rows of a table.
        edge: (E, 12) written: unit vector, inverse distance, weights of the rows for the value and
            for the slope.
    """
    kept, atom = 0, 0
    begin[0] = 0
    for e in range(len(source)):
        i, j = target[e] - low, source[e] - low
        x, y, z = vector[e, 0], vector[e, 1], vector[e, 2]
        if j < i or (j == i and (x < 0 or (x == 0 and (y < 0 or (y == 0 and z < 0))))):
            continue
        while atom < i:
            atom += 1
            begin[atom] = kept
        inverse = 1 / max(distance[e], 1e-6)
        place = distance[e] * per_step
        first = min(int(place), last)
        t = place - first
        r = 1 - t
        to = edge[kept]
        other[kept], knot[kept], distance[kept] = j, first, distance[e]
        vector[kept, 0], vector[kept, 1], vector[kept, 2] = x, y, z
        to[0], to[1], to[2], to[3] = x * inverse, y * inverse, z * inverse, inverse
        to[4], to[5], to[6], to[7] = r**3 / 6, 2 / 3 - t * t * (1 - t / 2), 2 / 3 - r * r * (1 - r / 2), t**3 / 6
        to[8], to[9] = -r * r / 2 * per_step, t * (1.5 * t - 2) * per_step
        to[10], to[11] = r * (2 - 1.5 * r) * per_step, t * t / 2 * per_step
        kept += 1
    begin[atom + 1 :] = kept
    return kept


@njit(cache=True, inline="always", fastmath=_MATH)
def _cut(knots, k, width, a, b, c, d):  # type: ignore[no-untyped-def]
    """A number from four rows of a table."""
    return a * knots[k] + b * knots[k + width] + c * knots[k + 2 * width] + d * knots[k + 3 * width]


@njit(cache=True, inline="always", fastmath=_MATH)
def _along(row, k, f, x, y, z):  # type: ignore[no-untyped-def]
    """How far a vector in a row points along another."""
    return row[k] * x + row[k + f] * y + row[k + 2 * f] * z


@njit(cache=True, inline="always", fastmath=_MATH)
def _add(row, k, f, x, y, z):  # type: ignore[no-untyped-def]
    """Add to a vector in a row."""
    row[k] += x
    row[k + f] += y
    row[k + 2 * f] += z


@njit(cache=True, inline="always", fastmath=_MATH)
def _gain(row, more):  # type: ignore[no-untyped-def]
    """Add one row to another."""
    for k in range(len(more)):
        row[k] += more[k]


@cache
def send(f, parts):  # type: ignore[no-untyped-def]
    """A loop that adds all messages to the states (S, 4 F) of the atoms, scalar then vector.

    It takes `begin`, `other`, `knot` and `edge` of `pair`; `table` (rows x `parts` F,); `rows` (S,
    ...), where an atom's row begins with what it sends (`parts` F) and, if there are three parts,
    its vector state (3 F); and the states.
    """
    width = parts * f

    @njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
    def loop(begin, other, knot, edge, table, rows, states):  # type: ignore[no-untyped-def]
        here = np.empty(4 * f, states.dtype)
        for i in range(len(states)):
            here[:], own = 0, rows[i]
            for p in range(begin[i], begin[i + 1]):
                come, to, knots = rows[other[p]], states[other[p]], table[knot[p] * width : (knot[p] + 4) * width]
                x, y, z, _, a, b, c, d, _, _, _, _ = edge[p]
                for k in range(f):
                    w = _cut(knots, k, width, a, b, c, d)
                    here[k] += w * come[k]
                    to[k] += w * own[k]
                    m, n, v = k + f, k + 2 * f, k + 3 * f
                    w = _cut(knots, m, width, a, b, c, d)
                    q, r = w * come[m], -w * own[m]
                    hx, hy, hz, tx, ty, tz = q * x, q * y, q * z, r * x, r * y, r * z
                    if parts == 3:
                        w = _cut(knots, n, width, a, b, c, d)
                        q, r = w * come[n], w * own[n]
                        hx, hy, hz = hx + q * come[v], hy + q * come[v + f], hz + q * come[v + 2 * f]
                        tx, ty, tz = tx + r * own[v], ty + r * own[v + f], tz + r * own[v + 2 * f]
                    _add(here, m, f, hx, hy, hz)
                    _add(to, m, f, tx, ty, tz)
            _gain(states[i], here)

    return loop


@cache
def pull(f, parts):  # type: ignore[no-untyped-def]
    """A loop for the gradients of `send`: of the vectors of pairs, added to `slope` (P, 3).

    The rows end with the gradients of the states (4 F). With three parts `back` (S, 6 F) gains
    those of what the rows begin with, with two it gains nothing.
    """
    width, g = parts * f, (6 if parts == 3 else 2) * f

    @njit(cache=True, nogil=True, fastmath=_ORDER, error_model="numpy")
    def loop(begin, other, knot, edge, table, rows, back, slope):  # type: ignore[no-untyped-def]
        here, zero = np.empty(6 * f, rows.dtype), rows.dtype.type(0)
        for i in range(len(rows)):
            here[:], own = 0, rows[i]
            for p in range(begin[i], begin[i + 1]):
                come, to, knots = rows[other[p]], back[other[p]], table[knot[p] * width : (knot[p] + 4) * width]
                x, y, z, inverse, a, b, c, d, a_, b_, c_, d_ = edge[p]
                longer, sx, sy, sz = zero, zero, zero, zero
                for k in range(f):
                    m, n, v = k + f, k + 2 * f, k + 3 * f
                    w, dw = _cut(knots, k, width, a, b, c, d), _cut(knots, k, width, a_, b_, c_, d_)
                    longer += dw * (come[k] * own[k + g] + own[k] * come[k + g])
                    if parts == 3:
                        here[k] += w * come[k + g]
                        to[k] += w * own[k + g]
                    w, dw = _cut(knots, m, width, a, b, c, d), _cut(knots, m, width, a_, b_, c_, d_)
                    ox, oy, oz, cx, cy, cz = own[m + g], own[n + g], own[v + g], come[m + g], come[n + g], come[v + g]
                    q, r = w * come[m], w * own[m]
                    sx, sy, sz = sx + (q * ox - r * cx), sy + (q * oy - r * cy), sz + (q * oz - r * cz)
                    near, far = ox * x + oy * y + oz * z, cx * x + cy * y + cz * z
                    longer += dw * (come[m] * near - own[m] * far)
                    if parts == 3:
                        here[m] -= w * far
                        to[m] += w * near
                        w, dw = _cut(knots, n, width, a, b, c, d), _cut(knots, n, width, a_, b_, c_, d_)
                        q, r = w * come[n], w * own[n]
                        near, far = _along(come, v, f, ox, oy, oz), _along(own, v, f, cx, cy, cz)
                        longer += dw * (come[n] * near + own[n] * far)
                        here[n] += w * far
                        to[n] += w * near
                        _add(here, v, f, r * cx, r * cy, r * cz)
                        _add(to, v, f, q * ox, q * oy, q * oz)
                along = longer - inverse * (sx * x + sy * y + sz * z)
                _add(slope[p], 0, 1, sx * inverse + x * along, sy * inverse + y * along, sz * inverse + z * along)
            _gain(back[i], here)

    return loop


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def silu(h, e, slope):  # type: ignore[no-untyped-def]
    """Replace `h` (S, F) by h sigmoid(h) and write its slope, from `e`, which is e^-h."""
    for i in range(len(h)):
        x, power, to = h[i], e[i], slope[i]
        for k in range(h.shape[1]):
            s = 1 / (1 + power[k])
            to[k] = s * (1 + x[k] * (1 - s))
        for k in range(h.shape[1]):
            x[k] /= 1 + power[k]


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def measure(mixed, joined, dot):  # type: ignore[no-untyped-def]
    """Write the length of right, and left . right, from `mixed` (S, 6 F): both of x, of y and of z.

    The length, the root of right^2 + 1e-6, goes to the end of `joined` (S, 2 F), the product to
    `dot` (S, F).
    """
    f, tiny = dot.shape[1], dot.dtype.type(1e-6)
    for i in range(len(dot)):
        lx, rx, ly, ry, lz, rz = _six(mixed[i], f)
        to, length = dot[i], joined[i, f:]
        for k in range(f):
            to[k] = lx[k] * rx[k] + ly[k] * ry[k] + lz[k] * rz[k]
        for k in range(f):
            length[k] = math.sqrt(rx[k] * rx[k] + ry[k] * ry[k] + rz[k] * rz[k] + tiny)


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def update(out, mixed, dot, states):  # type: ignore[no-untyped-def]
    """Add own + cross dot, and turn left, to the states (S, 4 F); `out` is (S, 2 F or 3 F)."""
    f = dot.shape[1]
    for i in range(len(dot)):
        own, cross, by, to = out[i, :f], out[i, f : 2 * f], dot[i], states[i, :f]
        for k in range(f):
            to[k] += own[k] + cross[k] * by[k]
        if out.shape[1] > 2 * f:
            turn = out[i, 2 * f :]
            for axis in range(3):
                left = mixed[i, 2 * axis * f : (2 * axis + 1) * f]
                to = states[i, (axis + 1) * f : (axis + 2) * f]
                for k in range(f):
                    to[k] += turn[k] * left[k]


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def update_back(grads, mixed, dot, d_out):  # type: ignore[no-untyped-def]
    """Write the gradients of `out` of `update`, from those of the states (S, 4 F)."""
    f = dot.shape[1]
    for i in range(len(dot)):
        come, by, own, cross = grads[i, :f], dot[i], d_out[i, :f], d_out[i, f : 2 * f]
        for k in range(f):
            own[k] = come[k]
        for k in range(f):
            cross[k] = come[k] * by[k]
        if d_out.shape[1] > 2 * f:
            turn, x, y, z = d_out[i, 2 * f :], grads[i, f : 2 * f], grads[i, 2 * f : 3 * f], grads[i, 3 * f :]
            lx, _, ly, _, lz, _ = _six(mixed[i], f)
            for k in range(f):
                turn[k] = x[k] * lx[k] + y[k] * ly[k] + z[k] * lz[k]


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def measure_back(grads, out, d_joined, joined, mixed, d_mixed):  # type: ignore[no-untyped-def]
    """Write the gradients of `mixed` (S, 6 F), from those of the states and of the lengths."""
    f = grads.shape[1] // 4
    d_dot, per_length = np.empty(f, grads.dtype), np.empty(f, grads.dtype)
    for i in range(len(grads)):
        come, cross, d_length, length = grads[i, :f], out[i, f : 2 * f], d_joined[i, f:], joined[i, f:]
        for k in range(f):
            d_dot[k] = come[k] * cross[k]
        for k in range(f):
            per_length[k] = d_length[k] / length[k]
        for axis in range(3):
            at = 2 * axis * f
            left, right = mixed[i, at : at + f], mixed[i, at + f : at + 2 * f]
            to_left, to_right = d_mixed[i, at : at + f], d_mixed[i, at + f : at + 2 * f]
            for k in range(f):
                to_right[k] = d_dot[k] * left[k] + per_length[k] * right[k]
            for k in range(f):
                to_left[k] = d_dot[k] * right[k]
            if out.shape[1] > 2 * f:
                turn, to = out[i, 2 * f :], grads[i, (axis + 1) * f : (axis + 2) * f]
                for k in range(f):
                    to_left[k] += to[k] * turn[k]


@njit(cache=True, inline="always", fastmath=_MATH)
def _six(row, f):  # type: ignore[no-untyped-def]
    """Left and right of x, y and z."""
    return row[:f], row[f : 2 * f], row[2 * f : 3 * f], row[3 * f : 4 * f], row[4 * f : 5 * f], row[5 * f :]


@njit(cache=True, nogil=True, error_model="numpy")
def collect(site_ptr, begin, other, vector, distance, slope, charge, radius, screening, energy, forces, stress):  # type: ignore[no-untyped-def]
    """Add the repulsion of nuclei, and sum slopes of pairs.

    Args:
        site_ptr: (n + 1,) atoms of each crystal, from 0.
        begin: (S + 1,) pairs of each atom.
        other: (P,) second atoms.
        vector: (P, 3) Å.
        distance: (P,) Å.
        slope: (P, 3) eV/Å of the vectors, without the repulsion.
        charge: (S,) of nuclei.
        radius: (S,) Å, covalent.
        screening: (m, 2) weights in eV Å, and decays in units of the screening length.
        energy: (n,) eV, gains.
        forces: (S, 3) eV/Å, zeros; gains.
        stress: (n, 3, 3) eV, zeros; gains; not yet by volume, nor symmetric.
    """
    for row in range(len(site_ptr) - 1):
        for i in range(site_ptr[row], site_ptr[row + 1]):
            for p in range(begin[i], begin[i + 1]):
                j, r, per_length = other[p], max(distance[p], 1e-6), 0.0
                if r < radius[i] + radius[j]:
                    value, per_length = _repulsion(r, charge[i], charge[j], radius[i] + radius[j], screening)
                    energy[row] += value
                for a in range(3):
                    s = slope[p, a] + vector[p, a] / r * per_length
                    forces[i, a] += s
                    forces[j, a] -= s
                    for b in range(3):
                        stress[row, a, b] += s * vector[p, b]


@njit(cache=True, nogil=True, error_model="numpy")
def _repulsion(r, one, other, reach, screening):  # type: ignore[no-untyped-def]
    """Energy of two nuclei and its slope; see `assay.models.potentials.student.painn.repulsion`."""
    x, per_x = r / reach, (one**0.23 + other**0.23) / 0.46850
    ends, d_ends = 1 - x**6 * (28 - 48 * x + 21 * x * x), -168 * x**5 * (1 - x) ** 2 / reach
    screened, d_screened = 0.0, 0.0
    for k in range(len(screening)):
        term = screening[k, 0] * math.exp(-screening[k, 1] * r * per_x)
        screened += term
        d_screened -= screening[k, 1] * per_x * term
    force = one * other / r
    return force * screened * ends, force * (d_screened * ends + screened * d_ends - screened * ends / r)
