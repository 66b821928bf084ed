"""Random batches of crystals for property tests: small cells, disorder and vacancies included."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from assay.sources.crystals import Crystals


@st.composite
def batches(draw: st.DrawFn, min_size: int = 0, max_size: int = 5) -> Crystals:
    """Valid crystals with 1 to 4 sites of 1 to 3 species, occupancies on a grid of 0.05, and three columns."""
    n = draw(st.integers(min_size, max_size))
    sites = draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))
    species = draw(st.lists(st.integers(1, 3), min_size=sum(sites), max_size=sum(sites)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    occupancy = [share for count in species for share in _shares(rng, count)]
    return Crystals(
        ids=np.array([f"test/{rng.integers(1e9)}é{row}" for row in range(n)], dtype=np.str_),
        lattice=np.eye(3) * rng.uniform(3, 4.5, (n, 1, 3)) + rng.uniform(-0.4, 0.4, (n, 3, 3)),
        site_ptr=np.concatenate([[0], np.cumsum(np.array(sites, dtype=np.int64))]),
        frac=rng.random((sum(sites), 3)),
        species_ptr=np.concatenate([[0], np.cumsum(np.array(species, dtype=np.int64))]),
        numbers=np.concatenate([np.empty(0), *(rng.choice(np.arange(1, 119), k, replace=False) for k in species)]),
        occupancy=np.array(occupancy, dtype=np.float32),
        columns={
            "energy": np.where(rng.random(n) < 0.3, np.nan, rng.normal(size=n)),
            "label": np.array([draw(st.sampled_from(["", "a", "α β", "x" * 40])) for _ in range(n)], dtype=np.str_),
            "count": rng.integers(0, 100, n),
        },
    )


def _shares(rng: np.random.Generator, count: int) -> list[float]:
    """Occupancies of one site: whole, or multiples of 0.05 from 0.2 on that leave room for the others."""
    if count == 1 and rng.random() < 0.6:
        return [1.0]
    return [round(0.05 * int(rng.integers(4, 1 + 20 // count)), 5) for _ in range(count)]
