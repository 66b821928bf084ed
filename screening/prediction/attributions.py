"""Attributions of the members of an ensemble, per site and per kind of species, and their means.

Enters: the attribution of one member for one crystal. Leaves: `Share` objects in the unit of the
property. It does not know how an attribution is computed, nor how it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.featurize import standard
from assay.screening.prediction.describe import species

if TYPE_CHECKING:
    from assay.models.ensemble.checkpoint import Checkpoint
    from assay.models.ensemble.explain import Attribution
    from assay.models.target import Property
    from assay.sources.crystals import Crystals

SCALED = "scaled"
"""As a unit: the network's own scale, where that of the property is bent (`Property.transform`)."""


@dataclass(frozen=True)
class Share:
    """The attribution by a member, or the mean of several, in the property's unit or `SCALED`."""

    of: str
    """`member-<k>`, `graphs`, `pictures` or `all`."""
    network: str
    """Name of the network; empty for a mean."""
    sites: NDArray[np.float64] | None
    """(s,) per site of the file; None for networks that read pictures."""
    kinds: NDArray[np.float64]
    """(m,) per kind of species."""
    rest: float
    """The contribution of pixels that show no atom."""
    prediction: float
    """The prediction, before the property's minimum is applied."""
    baseline: float
    """The prediction for the baseline: an empty picture, or unnamed atoms."""

    @property
    def error(self) -> float:
        """The remainder of the quadrature."""
        return self.prediction - self.baseline - float(self.kinds.sum()) - self.rest

    @property
    def family(self) -> str:
        """The kind of network: `graphs` or `pictures`."""
        return "pictures" if self.sites is None else "graphs"


def kinds(crystal: Crystals) -> tuple[NDArray[np.int64], list[str]]:
    """The kind of species of each site (s,), in the order of the file, and the label of each."""
    every = standard.kinds_of(crystal, np.arange(len(crystal.frac)))
    _, first, owner = np.unique(every, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return rank[owner.reshape(-1)].astype(np.int64), [species(crystal, int(site)) for site in np.sort(first)]


def means(shares: Sequence[Share], weights: Sequence[float] | None) -> list[Share]:
    """The plain mean of each family of networks, and the weighted mean of all members."""
    families = {family: [s for s in shares if s.family == family] for family in ("graphs", "pictures")}
    averages = [_mean(of, members, None) for of, members in families.items() if members]
    return [*averages, _mean("all", shares, weights)]


def _mean(of: str, shares: Sequence[Share], weights: Sequence[float] | None) -> Share:
    def over(values: Sequence[Any]) -> Any:
        return np.average(np.array(values), axis=0, weights=weights)

    sites = [share.sites for share in shares if share.sites is not None]
    return Share(
        of=of,
        network="",
        sites=over(sites) if len(sites) == len(shares) else None,
        kinds=over([share.kinds for share in shares]),
        rest=float(over([share.rest for share in shares])),
        prediction=float(over([share.prediction for share in shares])),
        baseline=float(over([share.baseline for share in shares])),
    )


def of_member(
    of: str, member: Checkpoint, found: Attribution, owner: NDArray[np.int64], scaler: Property | None
) -> Share:
    """The attribution by one member in the unit of `scaler`; None: in the scale of the network."""
    factor, offset = (1.0, 0.0) if scaler is None else (scaler.scale, scaler.center)
    sites = factor * found.sites
    summed = np.zeros(int(owner.max()) + 1)
    np.add.at(summed, owner, sites)
    return Share(
        of=of,
        network=member.name,
        sites=None if member.kind.views else sites,
        kinds=summed,
        rest=factor * found.rest,
        prediction=factor * found.prediction + offset,
        baseline=factor * found.baseline + offset,
    )
