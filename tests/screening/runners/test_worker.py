"""The worker function: every crystal becomes one row or one record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from assay.featurize import standard
from assay.featurize.identity import Search
from assay.models.ensemble.ensemble import Ensemble
from assay.models.ensemble.kept.store import Store
from assay.screening.runners import worker
from assay.screening.runners.fingerprint import Fingerprint, from_table
from assay.screening.runners.match import Match
from assay.screening.runners.score import Score
from assay.screening.runners.worker import Worker
from assay.sources import table
from assay.sources.crystals import Crystals, concat, empty
from assay.sources.quarantine import Reason, Stage
from tests.crystal_copies import in_cell


@pytest.fixture(scope="module")
def ensemble(model: Path) -> Ensemble:
    return Ensemble.load(model)


def test_every_crystal_is_scored_or_quarantined(ensemble: Ensemble, real: Crystals) -> None:
    crystals = real[:20].with_columns(origin=np.array([f"http://here/{k}" for k in range(20)]))
    frac = crystals.frac.copy()
    first = crystals.site_ptr[3]
    frac[first + 1] = frac[first]  # two atoms on one place
    broken = Crystals(
        crystals.ids,
        crystals.lattice,
        crystals.site_ptr,
        frac,
        crystals.species_ptr,
        crystals.numbers,
        crystals.occupancy,
        crystals.columns,
    )
    part = worker.score(broken, [ensemble])
    assert part.table["id"].to_pylist() == [str(i) for k, i in enumerate(broken.ids) if k != 3]
    (record,) = part.quarantined
    assert (record.id, record.reason, record.stage) == (str(broken.ids[3]), Reason.ATOMS_TOO_CLOSE, Stage.FEATURIZE)
    assert record.origin == "http://here/3"


def test_the_row_holds_identity_reported_and_predicted_columns(ensemble: Ensemble, real: Crystals) -> None:
    (item,) = ensemble.properties
    renamed = real[:4].with_columns(**{f"{item.name}_mean": np.arange(4.0), "score": np.arange(4.0)})
    columns = worker.score(renamed, [ensemble]).table
    members = [f"{item.name}_member_{k}" for k in range(len(ensemble.members))]
    assert columns.column_names[:5] == ["id", "formula", "elements", "nsites", "ordered"]
    assert {"band_gap", f"reported_{item.name}_mean", "reported_score"} <= set(columns.column_names)
    distance = [] if ensemble.reference is None else ["ood_distance"]
    learned = [] if ensemble.learned is None else ["in_training"]
    assert columns.column_names[columns.column_names.index(members[0]) :] == [*members, *learned, "ood", *distance]
    values = np.stack([columns[name].to_numpy() for name in members])
    assert columns[f"{item.name}_mean"].to_numpy() == pytest.approx(values.mean(axis=0))
    spread = values.std(axis=0, ddof=1)
    assert columns[f"{item.name}_std"].to_numpy() == pytest.approx(
        ensemble.calibration[item.name].deviation(spread), rel=1e-9
    )


class Measuring:
    """The ensemble with its property under another name, and distances that grow or fall with the number of atoms."""

    def __init__(self, inner: Ensemble, name: str, slope: float | None) -> None:
        self.inner, self.name, self.slope = inner, name, slope
        self.members, self.learned, self.structural = inner.members, inner.learned, inner.structural

    def predict(self, crystals: Crystals, store: object = None) -> object:
        found, refused = self.inner.predict(crystals)
        distance = None if self.slope is None else self.slope * (crystals.nsites[found.index] - 10.0)
        (values,) = found.values.values()
        return replace(found, values={self.name: values}, ood_distance=distance), refused


def test_the_largest_distance_of_any_ensemble_counts(ensemble: Ensemble, real: Crystals) -> None:
    """Where no ensemble measures there is no column; a reported one of that name is kept aside."""
    rising, silent, falling = (Measuring(ensemble, f"y{slope}", slope) for slope in (1.0, None, -1.0))
    reported = real[:60].with_columns(ood_distance=np.zeros(60))
    told = worker.score(reported, [rising, silent, falling]).table  # type: ignore[list-item]
    assert told["ood_distance"].to_numpy().tolist() == np.abs(real.nsites[:60] - 10.0).tolist()
    assert told.column_names[-2:] == ["ood", "ood_distance"]
    assert told["reported_ood_distance"].to_pylist() == [0.0] * 60
    assert "ood_distance" not in worker.score(real[:3], [silent]).table.column_names  # type: ignore[list-item]
    assert worker.score(empty(), [rising]).table.column_names[-1] == "ood_distance"  # type: ignore[list-item]


def test_a_worker_in_another_process_would_give_the_same_bytes(model: Path, ensemble: Ensemble, real: Crystals) -> None:
    chunk = table.to_table(real[:60])
    there, here = Worker(lambda: worker.load([model], threads=2)), Worker(lambda: [ensemble])
    assert there(Score(), chunk).table.equals(here(Score(), chunk).table)


def test_symmetrised_cells_are_predicted_and_delivered_ones_described(ensemble: Ensemble, real: Crystals) -> None:
    """Cheap tiers see what was delivered."""
    doubled = in_cell(real[:1], np.diag([2, 1, 1])).with_columns(band_gap=np.zeros(1))
    crystals = concat([doubled, real[1:60]])
    do = Worker(lambda: [ensemble], [lambda: [ensemble]], standard=standard.Standard("primitive", 0.01))
    (item,), chunk = ensemble.properties, table.to_table(crystals)
    told, cheap = (do(work, chunk).table for work in (Score(), Score(tier=0)))
    expected, plain = (ensemble.predict(some)[0] for some in (standard.symmetrised(crystals, 0.01), crystals))
    assert told[f"{item.name}_mean"].to_numpy().tolist() == expected.values[item.name].mean.tolist()
    assert cheap[f"{item.name}_mean"].to_numpy().tolist() == plain.values[item.name].mean.tolist()
    assert told["nsites"].to_pylist() == crystals.nsites.tolist()


def test_pairs_of_the_same_crystal_are_found_by_fingerprints_and_match(real: Crystals) -> None:
    twins = concat([real[:20], replace(real[:20], ids=np.array([f"other/{k}" for k in range(20)]))])
    do = Worker(list)
    taken = do(Fingerprint(), table.to_table(twins))
    assert taken["id"].to_pylist() == twins.ids.tolist()
    partners: list[list[int]] = [[] for _ in range(40)]
    for one, other in Search(from_table(taken)).pairs().tolist():
        partners[one].append(other)
    content = table.to_table(twins.with_columns(place=np.arange(40)))
    pairs = do(Match(), content.append_column("partners", pa.array(partners, pa.list_(pa.int64()))))
    found = {frozenset((row["a"], row["b"])) for row in pairs.to_pylist()}
    assert found >= {frozenset((str(real.ids[k]), f"other/{k}")) for k in range(20)}


def test_a_chunk_without_crystals_gives_the_same_columns(ensemble: Ensemble, real: Crystals) -> None:
    none = worker.score(empty(), [ensemble])
    assert none.table.num_rows == 0
    assert none.quarantined == []
    full = worker.score(real[:1], [ensemble]).table
    assert set(none.table.column_names) == set(full.column_names) - set(real.columns)


def test_a_lost_crystal_is_an_error(ensemble: Ensemble, real: Crystals) -> None:
    class Forgetful:
        """An ensemble that loses its last crystal."""

        properties, members, learned, structural = ensemble.properties, ensemble.members, None, True

        def predict(self, crystals: Crystals, store: object = None) -> object:
            return ensemble.predict(crystals[: len(crystals) - 1])

    with pytest.raises(Exception, match="neither predicted nor quarantined"):
        worker.score(concat([real[:3]]), [Forgetful()])  # type: ignore[list-item]


def test_a_store_keeps_whole_parts(
    ensemble: Ensemble, real: Crystals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crystals = real[:12].with_columns(origin=np.array([f"http://here/{k}" for k in range(12)]))
    frac = crystals.frac.copy()
    frac[crystals.site_ptr[3] + 1] = frac[crystals.site_ptr[3]]  # two atoms on one place
    chunk = table.to_table(replace(crystals, frac=frac))
    plain = Worker(lambda: [ensemble])(Score(), chunk)
    store = Store(tmp_path)
    do = Worker(lambda: [ensemble], store=store)
    assert do(Score(), chunk) == plain
    kept = len(list(store.files()))
    with monkeypatch.context() as without:
        without.setattr(worker, "score", None)
        again = do(Score(), chunk)
        assert again == plain
        assert again.table.schema.equals(plain.table.schema, check_metadata=True)
    other = chunk.set_column(chunk.column_names.index("origin"), "origin", pa.array(["x"] * 12))
    assert do(Score(), other).quarantined[0].origin == "x", "another chunk, though members see the same"
    assert len(list(store.files())) == kept + 1
    monkeypatch.setattr(worker, "score", lambda *_: replace(plain, plain=False))
    do(Score(), chunk.slice(1))
    assert len(list(store.files())) == kept + 1, "what may differ the next time is not kept"
