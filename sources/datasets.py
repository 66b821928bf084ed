"""Named training sets of crystals with known properties.

Enters: a name, and the folder in the environment variable `ASSAY_DATA`. Leaves: `Dataset`.
This module does not know networks or splits. It downloads nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sources.crystals import Crystals

VARIABLE = "ASSAY_DATA"
"""Environment variable that names the folder of data packs."""


@dataclass(frozen=True)
class DatasetSpec:
    """Where a training set lies and what it says."""

    path: str
    """Parquet file, relative to the data folder."""
    target: str
    """Column with the known values."""
    unit: str
    """Unit of the target."""
    functional: str
    """Level of theory, or `measured`."""
    weight: str
    """Column with row weights; empty for equal weights."""
    licence: str
    """SPDX identifier."""
    origin: str
    """Who to cite, and where the file can be had."""


_MATERIALS_PROJECT = (
    "Materials Project v2025.02.12 structures (Jain et al., APL Mater. 1, 011002, 2013) with MP-2018.6.1 and "
    "matbench-2019.04 labels (Chen et al. 2019; Dunn et al. 2020), Assay data pack `mp`"
)

DATASETS: dict[str, DatasetSpec] = {
    "3dsc-tc": DatasetSpec(
        path="3dsc_mp/3dsc_mp.parquet",
        target="tc",
        unit="K",
        functional="measured",
        weight="weight",
        licence="CC-BY-4.0",
        origin="3DSC_MP, rebuilt (Sommer et al., Sci. Data 10, 816, 2023; Tc from SuperCon, Stanev et al. 2018), "
        "Assay data pack `3dsc_mp`",
    ),
    "mp-formation-energy": DatasetSpec(
        path="mp/mp_labelled_le40.parquet",
        target="e_form",
        unit="eV/atom",
        functional="PBE(+U), Materials Project corrections of 2018/19",
        weight="",
        licence="CC-BY-4.0",
        origin=_MATERIALS_PROJECT,
    ),
    "mp-band-gap": DatasetSpec(
        path="mp/mp_labelled_le40.parquet",
        target="gap_pbe",
        unit="eV",
        functional="PBE(+U)",
        weight="",
        licence="CC-BY-4.0",
        origin=_MATERIALS_PROJECT,
    ),
}
"""Training sets by name."""


@dataclass(frozen=True)
class Dataset:
    """`n` crystals with one known property."""

    name: str
    """A key of `DATASETS`."""
    spec: DatasetSpec
    """Where it came from."""
    crystals: Crystals
    """Sound crystals with a known value."""
    target: NDArray[np.float64]
    """(n,) in `spec.unit`."""
    weight: NDArray[np.float64]
    """(n,) row weights; rows of one formula share a weight of 1 where the set says so."""
    groups: NDArray[np.str_]
    """(n,) element set of each crystal, for example `Ag-Sn-Te`: crystals of one group never straddle a split."""
    sha256: str
    """Of the file."""
    refused: int
    """Rows of the file that are no sound crystals or carry no value."""

    def select(self, rows: NDArray[np.int64]) -> Dataset:
        """The dataset with the given rows only; the others count as refused."""
        return replace(
            self,
            crystals=self.crystals.select(rows),
            target=self.target[rows],
            weight=self.weight[rows],
            groups=self.groups[rows],
            refused=self.refused + len(self.target) - len(rows),
        )


def folder() -> Path:
    """The data folder.

    Raises:
        FileNotFoundError: when `ASSAY_DATA` is unset or no folder.
    """
    named = os.environ.get(VARIABLE, "")
    if not named or not Path(named).is_dir():
        state = f"is {named!r}, which is no folder" if named else "is not set"
        raise FileNotFoundError(
            f"the environment variable {VARIABLE} {state}; point it at the folder that holds the data packs "
            f"({', '.join(sorted({spec.path for spec in DATASETS.values()}))}), see docs/data.md"
        )
    return Path(named)


def load(name: str, limit: int | None = None) -> Dataset:
    """Read a training set, or its first `limit` rows.

    Raises:
        FileNotFoundError: when the data folder or the file is missing.
        ValueError: for an unknown name or a damaged file.
    """
    import hashlib

    from sources import table

    if name not in DATASETS:
        raise ValueError(f"dataset {name!r} is not one of {sorted(DATASETS)}")
    spec = DATASETS[name]
    path = folder() / spec.path
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it is {spec.origin}; see docs/data.md for how to get it")
    rows = table.read(path)
    total = rows.num_rows if limit is None else min(limit, rows.num_rows)
    crystals, _ = table.from_table(rows.slice(0, total), spec.path)
    crystals = crystals.select(np.isfinite(crystals.columns[spec.target].astype(np.float64)))
    ones = np.ones(len(crystals))
    return Dataset(
        name=name,
        spec=spec,
        crystals=crystals,
        target=crystals.columns[spec.target].astype(np.float64),
        weight=crystals.columns[spec.weight].astype(np.float64) if spec.weight else ones,
        groups=crystals.elements(),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        refused=total - len(crystals),
    )
