"""Shared fixtures: the data packs, the bundled models, a few hundred real crystals; one thread for everybody."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ.setdefault(_name, "1")  # before the first library reads it; child processes inherit it
os.environ.setdefault(
    "RAY_AUTH_MODE", "token"
)  # likewise: some test may load Ray before assay.screening.runners.cluster does

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assay.sources.crystals import Crystals
    from tests.chaos.preloaded import Preloaded

ROOT = Path(__file__).resolve().parents[1]

_SLOW_IS_FINE = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture)
settings.register_profile("here", deadline=None, suppress_health_check=_SLOW_IS_FINE)
settings.register_profile("ci", deadline=None, suppress_health_check=_SLOW_IS_FINE, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the data packs."""
    folder = os.environ.get("ASSAY_DATA")
    if not folder:
        pytest.skip("ASSAY_DATA is not set; docs/data.md says how to get the data packs")
    path = Path(folder)
    assert path.is_dir(), f"ASSAY_DATA names {folder}, which is no folder"
    return path.resolve()


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder of the bundled ensembles; ASSAY_ZOO names another one."""
    path = Path(os.environ.get("ASSAY_ZOO") or ROOT / "models" / "zoo")
    assert path.is_dir(), f"no bundled models in {path}"
    return path.resolve()


@pytest.fixture(scope="session")
def crystals(data: Path) -> Crystals:
    """About 300 real crystals of the Materials Project, evenly spread over the data pack."""
    return _spread(data / "mp" / "mp_labelled_le40.parquet", 300)


@pytest.fixture(scope="session")
def disordered(data: Path) -> Crystals:
    """About 200 real superconductors, more than half of them with partial occupancy or vacancies."""
    return _spread(data / "3dsc_mp" / "3dsc_mp.parquet", 200)


@pytest.fixture(scope="session")
def blind(crystals: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ensemble of trees on the composition of these crystals, and on a few formulas without a structure."""
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install assay[train]")
    from assay.models.training import fit
    from tests.composition_ensemble import recipe

    folder = tmp_path_factory.mktemp("blind")
    fit.run(recipe(folder, crystals), folder / "trees")
    return folder / "trees"


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    """The command with its libraries imported: forks one process per command, which saves each two seconds."""
    from tests.chaos import campaigns
    from tests.chaos.preloaded import Preloaded
    from tests.servers import FaultServer, entries_from_crystals

    place = tmp_path_factory.mktemp("preloaded")
    with FaultServer(entries_from_crystals(campaigns.crystals(8))) as server:
        sources = [*campaigns.prototypes(20), campaigns.served(server.url, 10)]
        config = campaigns.write_config(place / "warm-up.yaml", sources)
        parent = Preloaded(["run", config, "--output", place / "warm-up"], place)
    with parent:
        yield parent


def _spread(path: Path, n: int) -> Crystals:
    """`n` evenly spread rows of a data pack, less the odd one that is no sound crystal."""
    import numpy as np

    from assay.sources import table

    stored = table.read(path)
    batch, refused = table.from_table(stored.take(np.linspace(0, len(stored) - 1, n).astype(np.int64)), path.stem)
    assert len(refused) <= 0.02 * n, refused
    return batch
