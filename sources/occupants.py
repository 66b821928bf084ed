"""The occupants of sites, as texts that can be compared.

Enters: `Crystals`. Leaves: one text per site, such as `La` or `La0.92Sr0.08`, and the unrounded
occupancies. This module does not know symmetry or geometry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from assay.sources.crystals import Crystals
from assay.sources.elements import SYMBOLS


def occupants(crystals: Crystals) -> list[str]:
    """(S,) composition of each site: one symbol, or symbols with occupancies.

    Occupancies are rounded to 0.01, and at least 0.01. Where they sum to less than 1, the site has
    vacancies.
    """
    percent = np.maximum(1, np.rint(100 * _exact(crystals))).astype(np.int64)
    first = crystals.species_ptr[:-1]
    texts = np.array(SYMBOLS, dtype=object)[crystals.numbers[first]]
    for site in np.flatnonzero((np.diff(crystals.species_ptr) > 1) | (percent[first] < 100)):
        species = range(crystals.species_ptr[site], crystals.species_ptr[site + 1])
        parts = [f"{SYMBOLS[crystals.numbers[k]]}{'' if percent[k] == 100 else percent[k] / 100}" for k in species]
        texts[site] = "".join(sorted(parts))
    return list(texts)


def shares(crystals: Crystals, texts: Sequence[str]) -> Iterator[NDArray[np.float64]]:
    """Yield per crystal the unrounded occupancies behind the texts of `occupants`.

    The array has one number per distinct text and element in it: the mean over the sites with this
    text. Texts are in alphabetical order, and so are the elements of a text. Two crystals with the
    same set of texts therefore have arrays of one length.
    """
    exact, bounds = _exact(crystals).tolist(), crystals.species_ptr.tolist()
    ends = crystals.site_ptr.tolist()
    for start, stop, ordered in zip(ends[:-1], ends[1:], crystals.is_ordered.tolist()):
        if ordered:
            yield np.ones(len(set(texts[start:stop])))
            continue
        found: dict[tuple[str, str], list[float]] = {}
        for site in range(start, stop):
            for k in range(bounds[site], bounds[site + 1]):
                found.setdefault((texts[site], SYMBOLS[crystals.numbers[k]]), []).append(exact[k])
        yield np.array([math.fsum(found[key]) / len(found[key]) for key in sorted(found)])


def _exact(crystals: Crystals) -> NDArray[np.float64]:
    return np.asarray(np.round(crystals.occupancy.astype(np.float64), 5))  # noise of float32 must not decide a rounding
