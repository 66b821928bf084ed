"""Messages of PaiNN along the edges: their sum, its gradients, and the gradients of those.

Enters and leaves: arrays of one float type, indices int64. A message along an edge from j to i is a
product of three to four factors, so all derivatives are written out. In what follows S atoms have F
features: s is a scalar state, v a vector state, phi (S, 2 F or 3 F) what an atom sends, w (E, 2 F
or 3 F) the filter of each edge, u (E, 3) its unit vector. With 2 F there is no third part. Sums run
in the order of the edges. This module does not know torch.
"""

import numpy as np

from assay.featurize.threads import njit

_MATH = {"contract", "nsz", "arcp"}
"""Which rules the compiler may bend: products and sums may be fused. Not the order of sums, and NaN
is kept."""
_LANES = 16
"""A sum over the features runs in so many partial sums, which fit the vector registers of a CPU."""


@njit(cache=True, inline="always", fastmath=_MATH)
def _dot(a, b, lanes):  # type: ignore[no-untyped-def]
    """Sum of products of two rows, in an order that no compiler changes."""
    for k in range(_LANES):
        lanes[k] = 0
    whole = len(a) // _LANES * _LANES
    for first in range(0, whole, _LANES):
        for k in range(_LANES):
            lanes[k] += a[first + k] * b[first + k]
    for k in range(whole, len(a)):
        lanes[0] += a[k] * b[k]
    for width in (8, 4, 2, 1):
        for k in range(width):
            lanes[k] += lanes[k + width]
    return lanes[0]


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def send(phi, w, u, v, source, target, s, out):  # type: ignore[no-untyped-def]
    """Add phi1 w1 to `s` (S, F) of each target, and phi2 w2 u + phi3 w3 v to `out` (S, 3, F)."""
    f = s.shape[1]
    q = np.empty(f, s.dtype)
    for e in range(len(source)):
        j, i = source[e], target[e]
        p, filters, to = phi[j], w[e], s[i]
        for c in range(f):
            to[c] += p[c] * filters[c]
        for c in range(f):
            q[c] = p[f + c] * filters[f + c]
        for k in range(3):
            axis, x = out[i, k], u[e, k]
            for c in range(f):
                axis[c] += q[c] * x
        if phi.shape[1] > 2 * f:
            for c in range(f):
                q[c] = p[2 * f + c] * filters[2 * f + c]
            for k in range(3):
                axis, come = out[i, k], v[j, k]
                for c in range(f):
                    axis[c] += q[c] * come[c]


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def back(gs, gv, phi, w, u, v, source, target, d_phi, d_w, d_u, d_v):  # type: ignore[no-untyped-def]
    """Gradients of `send`, from those of its sums, `gs` (S, F) and `gv` (S, 3, F).

    `d_w` and `d_u` are written; `d_phi` and `d_v` come as zeros and gain.
    """
    f = gs.shape[1]
    q, t, lanes = np.empty(f, gs.dtype), np.empty(f, gs.dtype), np.empty(_LANES, gs.dtype)
    for e in range(len(source)):
        j, i = source[e], target[e]
        p, filters, come, to_p, to_w = phi[j], w[e], gs[i], d_phi[j], d_w[e]
        for c in range(f):
            to_w[c] = p[c] * come[c]
        for c in range(f):
            to_p[c] += filters[c] * come[c]
        _along(gv[i], u[e], t)
        for c in range(f):
            to_w[f + c] = p[f + c] * t[c]
        for c in range(f):
            to_p[f + c] += filters[f + c] * t[c]
        for c in range(f):
            q[c] = p[f + c] * filters[f + c]
        for k in range(3):
            d_u[e, k] = _dot(q, gv[i, k], lanes)
        if phi.shape[1] > 2 * f:
            _across(gv[i], v[j], t)
            for c in range(f):
                to_w[2 * f + c] = p[2 * f + c] * t[c]
            for c in range(f):
                to_p[2 * f + c] += filters[2 * f + c] * t[c]
            for c in range(f):
                q[c] = p[2 * f + c] * filters[2 * f + c]
            for k in range(3):
                axis, come = d_v[j, k], gv[i, k]
                for c in range(f):
                    axis[c] += q[c] * come[c]


@njit(cache=True, nogil=True, fastmath=_MATH, error_model="numpy")
def back_again(a, b, x, y, gs, gv, phi, w, u, v, source, target, h_s, h_g, h_phi, h_w, h_u, h_v):  # type: ignore[no-untyped-def]
    """Gradients of `back`, from those of its results: `a`, `b`, `x`, `y` of d_phi, d_w, d_u, d_v.

    `h_w` and `h_u` are written; `h_s`, `h_g` (of gs and gv), `h_phi` and `h_v` come as zeros and
    gain.
    """
    f = gs.shape[1]
    q, r, lanes = np.empty(f, gs.dtype), np.empty(f, gs.dtype), np.empty(_LANES, gs.dtype)
    t, t_too = np.empty(f, gs.dtype), np.empty(f, gs.dtype)
    for e in range(len(source)):
        j, i = source[e], target[e]
        first, second, p, filters, to_p, to_w = a[j, :f], b[e, :f], phi[j, :f], w[e, :f], h_phi[j, :f], h_w[e, :f]
        come, to = gs[i], h_s[i]
        for c in range(f):
            to[c] += first[c] * filters[c] + second[c] * p[c]
        for c in range(f):
            to_p[c] += second[c] * come[c]
        for c in range(f):
            to_w[c] = first[c] * come[c]
        first, second, p, filters = a[j, f : 2 * f], b[e, f : 2 * f], phi[j, f : 2 * f], w[e, f : 2 * f]
        _along(gv[i], u[e], t)
        _along(gv[i], x[e], t_too)
        _factors(first, second, p, filters, r, q)
        _shares(first, second, p, filters, t, t_too, h_phi[j, f : 2 * f], h_w[e, f : 2 * f])
        for k in range(3):
            h_u[e, k] = _dot(r, gv[i, k], lanes)
        for k in range(3):
            axis, one, other = h_g[i, k], u[e, k], x[e, k]
            for c in range(f):
                axis[c] += r[c] * one + q[c] * other
        if phi.shape[1] > 2 * f:
            first, second, p, filters = a[j, 2 * f :], b[e, 2 * f :], phi[j, 2 * f :], w[e, 2 * f :]
            _across(gv[i], v[j], t)
            _across(gv[i], y[j], t_too)
            _factors(first, second, p, filters, r, q)
            _shares(first, second, p, filters, t, t_too, h_phi[j, 2 * f :], h_w[e, 2 * f :])
            for k in range(3):
                axis, state, change, back_to, slope = h_g[i, k], v[j, k], y[j, k], h_v[j, k], gv[i, k]
                for c in range(f):
                    axis[c] += r[c] * state[c] + q[c] * change[c]
                for c in range(f):
                    back_to[c] += r[c] * slope[c]


@njit(cache=True, inline="always", fastmath=_MATH)
def _factors(first, second, p, filters, r, q):  # type: ignore[no-untyped-def]
    """Write what an axis of the message is multiplied with, and how that changes: `q` and `r`."""
    for c in range(len(q)):
        r[c] = first[c] * filters[c] + second[c] * p[c]
    for c in range(len(q)):
        q[c] = p[c] * filters[c]


@njit(cache=True, inline="always", fastmath=_MATH)
def _shares(first, second, p, filters, t, t_too, to_p, to_w):  # type: ignore[no-untyped-def]
    """Add to what an atom sends, and write to the filter, the parts of one kind of message."""
    for c in range(len(t)):
        to_p[c] += second[c] * t[c] + filters[c] * t_too[c]
    for c in range(len(t)):
        to_w[c] = first[c] * t[c] + p[c] * t_too[c]


@njit(cache=True, inline="always", fastmath=_MATH)
def _along(g, unit, t):  # type: ignore[no-untyped-def]
    """Write g . u of each feature, from g (3, F) and u (3,)."""
    one, two, three = g[0], g[1], g[2]
    x, y, z = unit[0], unit[1], unit[2]
    for c in range(len(t)):
        t[c] = one[c] * x + two[c] * y + three[c] * z


@njit(cache=True, inline="always", fastmath=_MATH)
def _across(g, v, t):  # type: ignore[no-untyped-def]
    """Write g . v of each feature, both (3, F)."""
    one, two, three = g[0], g[1], g[2]
    x, y, z = v[0], v[1], v[2]
    for c in range(len(t)):
        t[c] = one[c] * x[c] + two[c] * y[c] + three[c] * z[c]
