"""Draws of true values: what a predicted property may be, by its calibrated error.

Enters: predictions as arrays, and the ids of their crystals. Leaves: for each crystal a law, as the
numbers that `kernels` reads, and a key. The draws of a crystal are equally likely quantiles of its
law, one from each of `2**bits` strata, in an order that its key shuffles. They depend on its id, on
the model that errs and on nothing else: neither on other rows nor on their order. So a campaign
gives the same bytes on any number of workers. Crystals err independently of one another. This
module does not know what is done with the draws.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.screening.folder.summary import Target
from assay.screening.ranking.compared import kernels
from assay.screening.settings.names import QUANTILES

Floats = NDArray[np.float64]
Keys = NDArray[np.uint64]
NORMAL = statistics.NormalDist()


def deviation(values: Mapping[str, Floats], target: Target) -> Floats:
    """(n,) standard deviations of a normal error.

    `std` where that is calibrated, else the one that the upper half of the interval implies (the
    lower half may be cut at the smallest possible value).
    """
    if target.calibrated:
        return values["std"]
    return (values["hi"] - values["mean"]) / NORMAL.inv_cdf((1 + target.level) / 2)


def keys(ids: pa.Array | pa.ChunkedArray, salt: str) -> Keys:
    """(n,) numbers that seed the draws of crystals, for one source of error."""
    column = pa.concat_arrays([pa.array([], pa.large_string()), *_chunks(ids)])
    _, borders, content = column.buffers()
    out = np.empty(len(column), np.uint64)
    if not len(out):
        return out
    ends = np.frombuffer(borders, np.int64)[column.offset : column.offset + len(column) + 1]
    texts = np.frombuffer(content, np.uint8) if content else np.empty(0, np.uint8)
    digest = hashlib.blake2b(salt.encode("utf-8"), digest_size=8).digest()
    kernels.hashed(ends, texts, np.uint64(int.from_bytes(digest, "little")), out)
    return out


def _chunks(ids: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    whole = ids.cast(pa.large_string())
    return whole.chunks if isinstance(whole, pa.ChunkedArray) else [whole]


@dataclass(frozen=True)
class Law:
    """How a property of a crystal is distributed, as its prediction says; higher is better.

    Where quantiles of a predictive distribution are predicted, it is uniform between two of them,
    and what lies beyond the outermost ones lies on them. Elsewhere the error is normal.
    """

    target: Target
    lowest_first: bool
    """Whether low values are wanted: all numbers then change their sign."""

    @property
    def source(self) -> str:
        """The predicted property that errs; two laws of one source err together."""
        return self.target.derived_from or self.target.name

    @property
    def parts(self) -> tuple[str, ...]:
        """What is read of the property."""
        return tuple(QUANTILES) if self.target.distribution else ("mean", "std", "hi")

    def columns(self) -> dict[str, str]:
        """Part -> column of the scored crystals."""
        return {part: f"{self.target.name}_{part}" for part in self.parts}

    def numbers(self, values: Mapping[str, Floats]) -> Floats:
        """(n, m) numbers of each law, from (n,) arrays by part; not finite: no error known."""
        sign = -1.0 if self.lowest_first else 1.0
        if not self.target.distribution:
            return np.stack([sign * values["mean"], deviation(values, self.target)], axis=1)
        stacked = np.stack([values[part] for part in QUANTILES], axis=1)[:, :: int(sign)]
        return np.ascontiguousarray(np.maximum.accumulate(sign * stacked, axis=1))

    def strata(self, bits: int) -> Strata:
        """The middles of `2**bits` equally likely parts of the law, the worst first."""
        middles = (np.arange(2**bits) + 0.5) / 2**bits
        if not self.target.distribution:
            weight = np.array([NORMAL.inv_cdf(share) for share in middles])
            return Strata(np.zeros(len(middles), np.int64), weight, True, bits)  # noqa: FBT003
        shares = np.array([*QUANTILES.values()])
        shares = 1 - shares[::-1] if self.lowest_first else shares
        left = np.clip(np.searchsorted(shares, middles, "right") - 1, 0, len(shares) - 2)
        weight = np.clip((middles - shares[left]) / (shares[left + 1] - shares[left]), 0.0, 1.0)
        return Strata(left, weight, False, bits)  # noqa: FBT003


@dataclass(frozen=True)
class Strata:
    """Where the draws of a law lie, as `kernels.value` reads it."""

    left: NDArray[np.int64]
    """(2**bits,) the quantile to the left."""
    weight: Floats
    """(2**bits,) part of the way to the next quantile; of a normal law, deviations to add."""
    normal: bool
    bits: int

    @property
    def arguments(self) -> tuple[Any, ...]:
        """As the kernels take them."""
        return self.left, self.weight, self.normal

    def ends(self, numbers: Floats) -> tuple[Floats, Floats]:
        """(n,) the lowest and the highest value that a draw can give."""
        lowest, highest = np.empty(len(numbers)), np.empty(len(numbers))
        kernels.ends(numbers, *self.arguments, lowest, highest)
        return lowest, highest

    def drawn(self, numbers: Floats, keys: Keys, draw: int) -> Floats:
        """(n,) the value of each row in one draw."""
        out = np.empty(len(numbers))
        kernels.drawn(numbers, keys, *self.arguments, np.uint64(self.bits), draw, out)
        return out
