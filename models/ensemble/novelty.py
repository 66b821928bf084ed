"""How far a crystal lies from the training set, and whether its composition was learned.

Enters: embeddings of crystals, formulas. Leaves: `ood_distance`, 1 at the distance that 95 % of the
calibration crystals keep in the embedding of a network, after the latent distance of Janet et al.,
Chem. Sci. 10, 7913 (2019); and `in_training`. This module does not know properties or errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from assay.models.ensemble import kernels
from assay.models.ensemble.checkpoint import arrays_of, write_whole
from assay.models.ensemble.lean.convolutions import Convolutions, padded
from assay.models.networks.inputs import GraphInputs
from assay.sources.checks import importing

if TYPE_CHECKING:
    import torch

    from assay.models.networks.inputs import Inputs
    from assay.models.networks.layers import Network
else:
    torch = importing.later("torch")

FILE = "reference.safetensors"
"""In the ensemble's folder."""
LEARNED = "learned.safetensors"
"""Likewise."""
MOST = 1_500
"""Training crystals kept."""
NEAREST = 5
"""Training crystals whose mean distance counts."""
LIMIT = 0.95
"""Share of the calibration crystals that lie within an `ood_distance` of 1."""
SMALLEST = 1e-3
"""Distance, in standard deviations, below which float16 cannot tell two crystals apart."""
_SHARES = (0.5, 0.9, LIMIT, 0.99)
_BATCH = 64
"""Crystals that are embedded, or compared with the training crystals, at once."""


@dataclass(frozen=True)
class Reference:
    """Training crystals in the standardised embedding of one member."""

    points: NDArray[np.float32]
    """(r, width) float32 that float16 holds exactly: standardised embeddings of training
    crystals."""
    mean: NDArray[np.float32]
    """(width,) float32, of the embeddings of the training crystals."""
    deviation: NDArray[np.float32]
    """(width,) float32, likewise; nowhere below a hundredth of its mean."""
    quantiles: dict[str, float]
    """Share of the calibration crystals, for example "0.95" -> the distance they keep, in standard
    deviations."""
    k: int = NEAREST
    """Training crystals whose mean distance counts."""
    member: int = 0
    """Position in the ensemble of the network that embeds."""

    def apart(self, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) mean Euclidean distance of embeddings (n, width) to the k nearest training crystals.

        Every pair is one sum of its own, without a matrix product: the last bits of a row do not
        depend on its neighbours in the batch, nor on the number of threads.
        """
        scaled = (embedding - self.mean) / self.deviation
        pairs = np.empty((_BATCH, len(self.points)), np.float32)
        nearest = np.empty((len(scaled), min(self.k, len(self.points))), np.float32)
        for start in range(0, len(scaled), _BATCH):
            some = scaled[start : start + _BATCH]
            rows = padded(some)
            kernels.squares(rows, self._columns, pairs[: len(rows)])
            kernels.smallest(pairs[: len(some)], nearest[start : start + _BATCH])
        return np.asarray(np.sqrt(nearest).astype(np.float64).mean(axis=1), dtype=np.float64)

    @cached_property
    def _columns(self) -> NDArray[np.float32]:
        return np.ascontiguousarray(self.points.T)

    def distance(self, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n,) the same, divided by the distance that 95 % of the calibration crystals keep."""
        return self.apart(embedding) / self.limit

    @property
    def limit(self) -> float:
        """The distance that 95 % of the calibration crystals keep, in standard deviations."""
        return max(self.quantiles[str(LIMIT)], SMALLEST)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write `reference.safetensors`; returns the section `novelty` of `ensemble.json`."""
        parts: dict[str, Any]
        parts = {"points": self.points.astype(np.float16), "mean": self.mean, "deviation": self.deviation}
        content = save(parts)
        write_whole(folder / FILE, content)
        digest = hashlib.sha256(content).hexdigest()
        return {"k": self.k, "member": self.member, "quantiles": self.quantiles, "sha256": digest}

    @classmethod
    def read(cls, folder: Path, described: dict[str, Any]) -> Reference:
        """Read the file that `described`, the section `novelty` of `ensemble.json`, tells of.

        Raises:
            FileNotFoundError: when it is missing.
            ValueError: when it is another one.
        """
        path = folder / FILE
        parts = arrays_of(path, described["sha256"])
        _check(parts, described, path)
        quantiles, k, member = described["quantiles"], described["k"], described["member"]
        return cls(parts["points"].astype(np.float32), parts["mean"], parts["deviation"], quantiles, k, member)


@dataclass(frozen=True)
class Learned:
    """The compositions of the rows that the members of an ensemble learned from."""

    digests: NDArray[np.int64]
    """(m,) ascending, one of each reduced formula (`assay.sources.elements.reduced_formulas`)."""

    @classmethod
    def of(cls, formulas: Iterable[str]) -> Learned:
        """Those of some reduced formulas."""
        return cls(np.unique(_digests(formulas)))

    def holds(self, formulas: Iterable[str]) -> NDArray[np.bool_]:
        """(n,) whether each reduced formula is among them; of 10^14 others one is taken for one."""
        return np.isin(_digests(formulas), self.digests)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write `learned.safetensors`; returns the section `learned` of `ensemble.json`."""
        content = save({"digests": self.digests})
        write_whole(folder / LEARNED, content)
        return {"compositions": len(self.digests), "sha256": hashlib.sha256(content).hexdigest()}

    @classmethod
    def read(cls, folder: Path, described: dict[str, Any]) -> Learned:
        """Read the file that `described`, the section `learned` of `ensemble.json`, tells of.

        Raises:
            FileNotFoundError: when it is missing.
            ValueError: when it is another one.
        """
        parts = arrays_of(folder / LEARNED, described["sha256"])
        digests = parts.get("digests", np.empty(0))
        if set(parts) != {"digests"} or digests.dtype != np.int64 or digests.shape != (described["compositions"],):
            raise ValueError(f"{folder / LEARNED} holds other tensors than digests ({described['compositions']},)")
        return cls(digests)


def _digests(formulas: Iterable[str]) -> NDArray[np.int64]:
    found = [hashlib.blake2b(str(formula).encode(), digest_size=8).digest() for formula in formulas]
    return np.frombuffer(b"".join(found), ">i8").astype(np.int64)


def _check(parts: dict[str, NDArray[Any]], described: dict[str, Any], path: Path) -> None:
    """Refuse tensors that do not fit together, or a limit that is not there."""
    if str(LIMIT) not in described["quantiles"]:
        raise ValueError(f"novelty.quantiles beside {path} has no {str(LIMIT)!r}, the limit of an `ood_distance` of 1")
    width = tuple(parts["points"].shape[1:]) if "points" in parts else ()
    good = set(parts) == {"points", "mean", "deviation"} and len(width) == 1 and len(parts["points"]) > 0
    good = good and all(part.dtype.kind == "f" for part in parts.values())
    if not (good and all(tuple(parts[name].shape) == width for name in ("mean", "deviation"))):
        raise ValueError(f"{path} holds other tensors than points (r, width), mean and deviation (width)")
    if not (parts["deviation"] > 0).all():
        raise ValueError(f"{path}: a deviation is 0, expected above 0")


def fit(
    network: Network | Convolutions,
    inputs: Inputs,
    train_rows: NDArray[np.int64],
    calibration_rows: NDArray[np.int64],
    seed: int,
    *,
    member: int = 0,
) -> Reference:
    """Embed training rows, and measure how far the calibration rows lie from them.

    Of more than `MOST` training rows, `seed` chooses so many.

    Args:
        network: member number `member` of the ensemble.
        inputs: all rows, as that member reads them.
        train_rows: what that member learned from.
        calibration_rows: rows that no member learned from.
        seed: chooses among the training rows.
        member: its position in the ensemble.

    Raises:
        ValueError: when there are no rows, or the network embeds one without a finite number.
    """
    if not (len(train_rows) and len(calibration_rows)):
        raise ValueError(
            f"{len(train_rows)} training and {len(calibration_rows)} calibration rows, expected some of each"
        )
    chosen = choose(train_rows, seed)
    known = embed(network, inputs, chosen)
    held = embed(network, inputs, calibration_rows)
    if not (np.isfinite(known).all() and np.isfinite(held).all()):
        raise ValueError("the network embeds a crystal without a finite number; its weights are no use")
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    # a feature that hardly varies in training must not decide alone
    deviation = np.maximum(deviation, np.float32(max(0.01 * float(deviation.mean()), 1e-6)))
    points = ((known - mean) / deviation).astype(np.float16).astype(np.float32)
    reference = Reference(points, mean, deviation, {}, member=member)
    apart = reference.apart(held)
    quantiles = {str(share): float(np.quantile(apart, share)) for share in _SHARES}
    return Reference(points, mean, deviation, quantiles, member=member)


def choose(rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """At most `MOST` of the rows, ascending; all of them when there are fewer."""
    return np.sort(np.random.default_rng(seed).permutation(np.sort(rows))[:MOST])


def embed(network: Network | Convolutions, inputs: Inputs, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(len(rows), width) float32 embedding of each crystal, what the network's heads read."""
    parts = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    portions = [portion for part in parts for portion in inputs.portions(part, _BATCH)]
    if isinstance(network, Convolutions):
        assert isinstance(inputs, GraphInputs)
        return np.concatenate([network.encode(inputs.graphs.select(portion)) for portion in portions])
    network.eval()
    with torch.inference_mode():
        found = [network.encode(inputs.batch(portion, network)).cpu() for portion in portions]
        return np.asarray(torch.cat(found).to(torch.float32).numpy(), np.float32)
