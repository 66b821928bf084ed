"""A worker: the ensembles in memory, and the pure function that scores crystals with them.

Enters: crystals, and the work to do with them. Leaves: its result. What a worker does is a function
of the crystals and the weights alone; it does not know Ray, campaign folders or other chunks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.featurize import alternatives
from assay.featurize.standard import Standard
from assay.models import memory
from assay.models.ensemble.distribution import draws
from assay.models.ensemble.ensemble import Ensemble
from assay.models.ensemble.kept.store import Store
from assay.models.ensemble.summary import EnsemblePrediction
from assay.models.potentials import potential as potentials
from assay.models.potentials.potential import Potential
from assay.screening.runners.work import Work
from assay.screening.settings import names
from assay.screening.settings.config import Campaign
from assay.screening.settings.exits import Exit, Failure
from assay.sources.checks import importing
from assay.sources.crystals import WARNINGS, Crystals, is_text, text_array
from assay.sources.quarantine import Quarantined

if TYPE_CHECKING:
    import torch
else:
    torch = importing.later("torch")

Load = Callable[[], Sequence[Ensemble]]


@dataclass(frozen=True)
class Part:
    """What became of a chunk."""

    table: pa.Table
    """One row per scored crystal, in chunk order: identity, reported columns, predictions, `ood`
    and `ood_distance`. Of a chunk that is relaxed: the crystals that arrived."""
    quarantined: list[Quarantined]
    plain: bool = True
    """Whether the same crystals give the same part again: no network failed on the way."""


class Worker:
    """The worker function with its ensembles in memory: (work, crystals) -> result."""

    def __init__(
        self,
        load: Load,
        tiers: Sequence[Load] = (),
        standard: Standard | None = None,
        potential: Potential | None = None,
        store: Store | None = None,
    ) -> None:
        """`load` is called when the first crystal is scored, that of a tier when its first one is.

        `standard` is the cell in which the ensembles of `load` see crystals, and `potential`
        relaxes them before. What members say is looked up and kept in the `store`, if any.
        """
        self.standard, self.store = standard, store
        self._potential = potential
        self._load: dict[int | None, Load] = {None: load, **dict(enumerate(tiers))}
        self._ensembles: dict[int | None, Sequence[Ensemble]] = {}

    def __call__(self, work: Work[Any], table: pa.Table) -> Any:
        """Do the work with the crystals of a table."""
        return work.do(self, table)

    def ensembles(self, tier: int | None) -> Sequence[Ensemble]:
        """The ensembles of a cheap tier, or of `models` for None; they load on the first call."""
        if tier not in self._ensembles:
            self._ensembles[tier] = self._load[tier]()
            set_up_process()
        return self._ensembles[tier]

    def potential(self) -> Potential:
        """The force field of a campaign that relaxes."""
        assert self._potential is not None
        set_up_process()
        return self._potential


def loaded(
    folders: Sequence[str | Path], tiers: Sequence[str | Path], campaign: Campaign, store: Store | None = None
) -> Worker:
    """A worker whose ensembles are in memory: a death while they load accuses no crystal."""
    how = campaign.ray.threads, campaign.device
    groups = [load(group, *how, compiled=campaign.compile) for group in (folders, *([tier] for tier in tiers))]
    potential = None if campaign.relax is None else potentials.load(campaign.relax.model)
    set_up_process()
    first, *cheap = (partial(list[Ensemble], group) for group in groups)
    return Worker(first, cheap, campaign.standard(), potential, store)


def opened(campaign: Campaign) -> Store | None:
    """The store of a campaign; a worker on another machine has one of its own at the same place."""
    folder = campaign.store_folder()
    return None if folder is None else Store(folder, int(campaign.store_limit * 2**30))


def load(folders: Sequence[str | Path], threads: int, device: str = "cpu", *, compiled: bool = False) -> list[Ensemble]:
    """The ensembles, in a worker process that may use so many threads, to predict on a device."""
    pa.set_cpu_count(threads)
    return [Ensemble.load(Path(folder), device=device, threads=threads, compiled=compiled) for folder in folders]


def set_up_process() -> None:
    """Let torch use one thread, on which the last bits of a product depend, and keep memory.

    Where no network has asked for torch, it is not imported for that.
    """
    if "torch" in sys.modules:
        torch.set_num_threads(1)
    memory.keep()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch, if it is imported, use one thread meanwhile."""
    threads = torch.get_num_threads() if "torch" in sys.modules else 1
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def score(
    crystals: Crystals,
    ensembles: Sequence[Ensemble],
    standard: Standard | None = None,
    store: Store | None = None,
) -> Part:
    """Predict every crystal with every ensemble; one that any ensemble refuses is quarantined.

    Ensembles that read structures see the crystals in `standard` cells; those that read the
    composition alone need none. The other columns describe the cells that were given. Nothing
    depends on the `store`, in which outputs of members are looked up and kept.
    """
    predictions = []
    refused: dict[str, Quarantined] = {}
    good = np.arange(len(crystals))
    for ensemble, seen in zip(ensembles, seen_by(ensembles, crystals, standard), strict=True):
        predicted, quarantined = ensemble.predict(seen, store)
        predictions.append(predicted)
        good = np.intersect1d(good, predicted.index)
        for row in quarantined:
            refused.setdefault(row.id, row)
    values: dict[str, NDArray[Any]] = {}
    places = [np.searchsorted(predicted.index, good) for predicted in predictions]
    for predicted, rows in zip(predictions, places, strict=True):
        values |= prediction_columns(predicted, rows)
    described = _describe(warned(crystals.select(good), ensembles))
    learned = learned_column(ensembles, described["formula"])
    columns = described | values | learned | novelty_columns(predictions, places)
    bad = np.setdiff1d(np.arange(len(crystals)), good)
    quarantined = [_with_origin(refused, crystals, row) for row in bad]
    table = pa.table({name: _array(values) for name, values in columns.items()})
    return Part(table, quarantined, all(predicted.plain for predicted in predictions))


def seen_by(ensembles: Sequence[Ensemble], crystals: Crystals, standard: Standard | None) -> list[Crystals]:
    """The crystals as each ensemble sees them: in `standard` cells, if it reads a structure."""
    if standard is None:
        return [crystals] * len(ensembles)
    cells = standard(crystals) if any(ensemble.structural for ensemble in ensembles) else crystals
    return [cells if ensemble.structural else crystals for ensemble in ensembles]


def warned(crystals: Crystals, ensembles: Sequence[Ensemble]) -> Crystals:
    """The crystals, with a warning on each that has more than one atom at a place.

    Ensembles that read structures refuse such a crystal; with one of them nothing is added.
    """
    if any(ensemble.structural for ensemble in ensembles):
        return crystals
    rows = alternatives.crowded(crystals).tolist()
    stated = crystals.columns.get(WARNINGS, np.full(len(crystals), ""))
    if not rows or not is_text(stated):
        return crystals
    texts = stated.tolist()
    for row in rows:
        texts[row] = "; ".join(filter(None, [texts[row], alternatives.crowding(crystals, row)]))
    return crystals.with_columns(**{WARNINGS: text_array(texts)})


def prediction_columns(predicted: EnsemblePrediction, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """`<property>_mean, _std, _lo, _hi, _member_<k>`, each (m,) in the unit of the property.

    Where there are vision networks, also `_view_spread`, and `_disagreement` with the graph
    networks beside them. Where the ensemble decides by draws, also their quantiles, `_q01` to
    `_q99`.
    """
    columns = {}
    for name, value in predicted.values.items():
        for part in ("mean", "std", "lo", "hi"):
            columns[f"{name}_{part}"] = getattr(value, part)[rows]
        for k in range(value.members.shape[1]):
            columns[f"{name}_member_{k}"] = value.members[rows, k]
        for part in ("disagreement", "view_spread"):
            found = getattr(value, part)
            if found is not None:
                columns[f"{name}_{part}"] = found[rows]
        if value.draws is not None:
            for part, share in names.QUANTILES.items():
                columns[f"{name}_{part}"] = draws.quantile(value.draws, share)[rows]
    return columns


def novelty_columns(
    predictions: Sequence[EnsemblePrediction], rows: Sequence[NDArray[np.int64]]
) -> dict[str, NDArray[Any]]:
    """`ood` and `ood_distance`, each (m,), of m crystals that all ensembles predicted.

    A crystal is flagged if any ensemble flags it, and its largest distance counts. Without a
    reference there is no distance. `rows` holds, per ensemble, the places of the m crystals.
    """
    flags = [predicted.ood[at] for predicted, at in zip(predictions, rows, strict=True)]
    columns: dict[str, NDArray[Any]] = {"ood": np.any(flags, axis=0)}
    known = [p.ood_distance[at] for p, at in zip(predictions, rows, strict=True) if p.ood_distance is not None]
    if known:
        columns["ood_distance"] = np.max(known, axis=0)
    return columns


def learned_column(ensembles: Sequence[Ensemble], formulas: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    """`in_training`, (m,): whether some ensemble learned from the composition of each formula.

    Without an ensemble that tells there is no column.
    """
    found = [ensemble.learned.holds(formulas) for ensemble in ensembles if ensemble.learned]
    return {"in_training": np.any(found, axis=0)} if found else {}


def _describe(crystals: Crystals) -> dict[str, NDArray[Any]]:
    """Identity and reported columns, these under names that no column of Assay has."""
    columns: dict[str, NDArray[Any]] = {
        "id": crystals.ids if len(crystals) else text_array([]),
        "formula": crystals.formulas(),
        "elements": crystals.elements(),
        "nsites": crystals.nsites.astype(np.int32),
        "ordered": crystals.is_ordered,
    }
    for name, column in crystals.columns.items():
        if column.ndim == 1:
            columns[names.reported(name)] = column
    return columns


def _with_origin(refused: dict[str, Quarantined], crystals: Crystals, row: int) -> Quarantined:
    record = refused.get(str(crystals.ids[row]))
    if record is None:
        text = f"a model neither predicted nor quarantined {crystals.ids[row]!r}; report this as a defect"
        raise Failure(Exit.BALANCE_BROKEN, text)
    if record.origin or "origin" not in crystals.columns:
        return record
    return replace(record, origin=str(crystals.columns["origin"][row]))


def _array(values: NDArray[Any]) -> pa.Array:
    return pa.array(values.astype(object), pa.string()) if is_text(values) else pa.array(values)
