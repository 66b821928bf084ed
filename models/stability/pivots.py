"""The linear programme behind a hull energy, compiled: the mixture of phases of least energy.

Enters: the phases of one chemical system, as shares of its elements, with their energies. Leaves:
for each composition the phases of the best mixture, and its energy. It is the simplex method. The
elements themselves are a first mixture of every composition, and each pivot takes in the phase that
lies farthest below the plane through the phases of the mixture, until none does. So the result is
proven: the plane lies under every phase, and the mixture lies on the plane. This module does not
know names, nor elements that no phase holds.
"""

import numpy as np

from assay.featurize.threads import njit

TOLERANCE = 1e-10
"""eV/atom: a phase that lies less below the plane does not change the mixture."""
_SMALL = 1e-12
"""Parts of a mixture that count as none."""
_GREEDY = 200
"""Pivots after which the first phase below the plane is taken, not the farthest one: the greedy
choice can turn in a circle where parts are 0, this one cannot (Bland, Math. Oper. Res. 2, 103)."""


@njit(cache=True, nogil=True)
def within(sets, wanted, rows):  # type: ignore[no-untyped-def]
    """Write to `rows` the phases whose elements (m, 2), as bits, are in `wanted`; their count."""
    count = 0
    for row in range(len(sets)):
        if not (sets[row, 0] & ~wanted[0]) and not (sets[row, 1] & ~wanted[1]):
            rows[count] = row
            count += 1
    return count


@njit(cache=True, nogil=True)
def gather(rows, ptr, numbers, shares, place, out):  # type: ignore[no-untyped-def]
    """Write the shares of some phases to `out` (m, d); `place` is the column of each number."""
    for k in range(len(rows)):
        for at in range(ptr[rows[k]], ptr[rows[k] + 1]):
            out[k, place[numbers[at]]] = shares[at]


@njit(cache=True, nogil=True)
def mix(shares, energy, wanted, phases, parts, lowest):  # type: ignore[no-untyped-def]
    """Find the mixture of least energy for each composition.

    Args:
        shares: (m, d) of the d elements in each phase; the first d phases are the elements.
        energy: (m,) eV/atom.
        wanted: (n, d) shares of the elements in each composition, in sum 1.
        phases: (n, d) gains the phases of each mixture.
        parts: (n, d) gains their parts of the atoms, 0 for a phase that takes no part.
        lowest: (n,) gains the energy of the mixture, eV/atom.
    """
    d = shares.shape[1]
    inverse, along, plane = np.empty((d, d)), np.empty(d), np.empty(d)
    for k in range(len(wanted)):
        phase, part = phases[k], parts[k]
        for i in range(d):
            phase[i], part[i] = i, wanted[k, i]
            for j in range(d):
                inverse[i, j] = 1.0 if i == j else 0.0
        pivots = 0
        while True:
            for i in range(d):
                plane[i] = 0.0
                for j in range(d):
                    plane[i] += inverse[i, j] * energy[phase[j]]
            entering = _below(shares, energy, plane, pivots > _GREEDY)
            if entering < 0:
                break
            for j in range(d):
                along[j] = 0.0
                for i in range(d):
                    along[j] += shares[entering, i] * inverse[i, j]
            leaving = _leaving(part, along, phase)
            for i in range(d):
                inverse[i, leaving] /= along[leaving]
                for j in range(d):
                    if j != leaving:
                        inverse[i, j] -= inverse[i, leaving] * along[j]
            phase[leaving] = entering
            _parts(wanted[k], inverse, part)
            pivots += 1
        lowest[k] = 0.0
        for i in range(d):
            lowest[k] += wanted[k, i] * plane[i]


@njit(cache=True, nogil=True)
def _below(shares, energy, plane, first):  # type: ignore[no-untyped-def]
    """The phase farthest below a plane, or the first one below it; -1 for none."""
    found, least = -1, -TOLERANCE
    for row in range(len(energy)):
        height = energy[row]
        for i in range(len(plane)):
            height -= shares[row, i] * plane[i]
        if height < least:
            found, least = row, height
            if first:
                break
    return found


@njit(cache=True, nogil=True)
def _leaving(part, along, phase):  # type: ignore[no-untyped-def]
    """The place in the mixture whose part comes to 0 first; of equal ones the lowest phase."""
    found, least = -1, np.inf
    for i in range(len(part)):
        if along[i] > _SMALL:
            ratio = part[i] / along[i]
            if ratio < least or (ratio == least and phase[i] < phase[found]):
                found, least = i, ratio
    return found


@njit(cache=True, nogil=True)
def _parts(wanted, inverse, part):  # type: ignore[no-untyped-def]
    for j in range(len(part)):
        part[j] = 0.0
        for i in range(len(wanted)):
            part[j] += wanted[i] * inverse[i, j]
        if part[j] < _SMALL:
            part[j] = 0.0
