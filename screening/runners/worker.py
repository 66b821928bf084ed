"""Chunk -> part: the one function that both runners call.

Enters: a chunk of crystals. Leaves: one row per scored crystal, and a quarantine record for every
other one; or labels and pairs, when the same crystal is looked for in several sources. A function
of the crystals and the weights alone; it does not know Ray, folders of campaigns or other chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.screening.settings.exits import Exit, Failure
from assay.sources.crystals import Crystals
from assay.sources.quarantine import Quarantined

if TYPE_CHECKING:
    import pyarrow as pa

    from assay.models.ensemble.ensemble import Ensemble, Predictions
    from assay.screening.settings.config import Campaign

    Load = Callable[[], Sequence[Ensemble]]

SCORE = "score"
"""Kind of the tasks that score with the ensembles of `models`."""
RESERVED = ("rank", "score", "ood", "ood_distance")
"""Columns that are added to what the sources report."""


@dataclass(frozen=True)
class Part:
    """What became of a chunk."""

    table: pa.Table
    """One row per scored crystal, in chunk order: identity, reported columns, predictions, `ood`
    and `ood_distance`."""
    quarantined: list[Quarantined]


class Worker:
    """The worker function with its ensembles in memory: (kind of task, crystals) -> result."""

    def __init__(self, load: Load, tiers: Sequence[Load] = (), symmetrise: float = 0.0) -> None:
        """`load` is called when the first crystal is scored, that of a tier when its first one is.

        Other kinds of tasks need no ensemble. `symmetrise` is the key of the campaign; tiers do not
        read it.
        """
        self._symmetrise = symmetrise
        self._load = {SCORE: load} | {tier_kind(number): tier for number, tier in enumerate(tiers)}
        self._ensembles: dict[str, Sequence[Ensemble]] = {}

    def __call__(self, kind: str, table: pa.Table) -> Any:
        """Do one task: `Part` of a score, a table of a label or match."""
        return self.score(table, kind) if scores(kind) else {"label": self.label, "match": self.match}[kind](table)

    def score(self, chunk: pa.Table, kind: str = SCORE) -> Part:
        """Score the crystals of one chunk, with the ensembles of `models` or of a cheap tier."""
        from assay.sources import table

        if kind not in self._ensembles:
            set_up_process()
            self._ensembles[kind] = self._load[kind]()
        crystals, refused = table.from_table(chunk, "chunk")
        part = score(crystals, self._ensembles[kind], self._symmetrise if kind == SCORE else 0.0)
        return Part(part.table, [*refused, *part.quarantined])

    def label(self, piece: pa.Table) -> pa.Table:
        """What two rows of the same crystal have in common (`assay.sources.identity.labels`)."""
        from assay.sources import identity, table

        return identity.labels(table.from_table(piece, "label")[0])

    def match(self, piece: pa.Table) -> pa.Table:
        """Pairs (a, b) of ids that are the same crystal, among rows of one `block`."""
        import pyarrow as pa

        from assay.sources import identity, table

        crystals, _ = table.from_table(piece, "match")
        pairs = identity.confirm(crystals, crystals.columns["block"].astype(np.int64))
        ids = crystals.ids.astype(object)
        return pa.table({side: pa.array(ids[pairs[:, k]], pa.string()) for k, side in enumerate("ab")})


def tier_kind(tier: int) -> str:
    """Kind of the tasks of a cheap tier of a cascade; those of the last tier are of the kind `SCORE`.

    >>> tier_kind(0), scores(tier_kind(0)), scores("label")
    ('score:0', True, False)
    """
    return f"{SCORE}:{tier}"


def scores(kind: str) -> bool:
    """Whether tasks of a kind make parts."""
    return kind.partition(":")[0] == SCORE


def loaded(folders: Sequence[str | Path], tiers: Sequence[str | Path], campaign: Campaign) -> Worker:
    """A worker whose ensembles are in memory already: who dies while it loads them accuses no crystal."""
    set_up_process()
    how = campaign.ray.threads, campaign.device
    groups = [load(group, *how, compiled=campaign.compile) for group in (folders, *([tier] for tier in tiers))]
    return Worker(partial(list, groups[0]), [partial(list, group) for group in groups[1:]], campaign.symmetrise)


def load(folders: Sequence[str | Path], threads: int, device: str = "cpu", *, compiled: bool = False) -> list[Ensemble]:
    """The ensembles, in a worker process that may use so many threads, to predict on a device."""
    import pyarrow as pa

    from assay.models.ensemble.ensemble import Ensemble

    pa.set_cpu_count(threads)
    return [Ensemble.load(Path(folder), device=device, threads=threads, compiled=compiled) for folder in folders]


def set_up_process() -> None:
    """One torch thread, always: the last bits of a matrix product depend on how many share it. And memory is kept."""
    import torch

    from assay.models import memory

    torch.set_num_threads(1)
    memory.keep()


def score(crystals: Crystals, ensembles: Sequence[Ensemble], symmetrise: float = 0.0) -> Part:
    """Predict every crystal with every ensemble; one that any ensemble refuses is quarantined.

    With `symmetrise` above 0 the ensembles see symmetrised primitive cells
    (`assay.featurize.standard.symmetrised`); what is told of a crystal is told of the cell it came
    in.
    """
    import pyarrow as pa

    from assay.featurize import standard

    seen = standard.symmetrised(crystals, symmetrise) if symmetrise else crystals
    predictions = []
    refused: dict[str, Quarantined] = {}
    good = np.arange(len(crystals))
    for ensemble in ensembles:
        predicted, quarantined = ensemble.predict(seen)
        predictions.append(predicted)
        good = np.intersect1d(good, predicted.index)
        for row in quarantined:
            refused.setdefault(row.id, row)
    values: dict[str, NDArray[Any]] = {}
    places = [np.searchsorted(predicted.index, good) for predicted in predictions]
    for predicted, rows in zip(predictions, places, strict=True):
        values |= prediction_columns(predicted, rows)
    columns = _describe(crystals.select(good), values) | values | novelty_columns(predictions, places)
    bad = np.setdiff1d(np.arange(len(crystals)), good)
    quarantined = [_with_origin(refused, crystals, row) for row in bad]
    return Part(pa.table({name: _array(values) for name, values in columns.items()}), quarantined)


def prediction_columns(predicted: Predictions, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """`<property>_mean, _std, _lo, _hi, _member_<k>`, each (m,) in the unit of the property.

    Where there are vision networks, also `_view_spread`, and `_disagreement` with the graph
    networks beside them.
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
    return columns


def novelty_columns(predictions: Sequence[Predictions], rows: Sequence[NDArray[np.int64]]) -> dict[str, NDArray[Any]]:
    """`ood` and `ood_distance`, each (m,), of the same m crystals at `rows` of each ensemble's predictions.

    What any ensemble flags is flagged, and the largest distance counts; without a reference there
    is none.
    """
    flags = [predicted.ood[at] for predicted, at in zip(predictions, rows, strict=True)]
    columns: dict[str, NDArray[Any]] = {"ood": np.any(flags, axis=0)}
    known = [p.ood_distance[at] for p, at in zip(predictions, rows, strict=True) if p.ood_distance is not None]
    if known:
        columns["ood_distance"] = np.max(known, axis=0)
    return columns


def _describe(crystals: Crystals, taken: Container[str]) -> dict[str, NDArray[Any]]:
    """Identity and reported columns; a reported name that means something else here gets the prefix `reported_`."""
    columns: dict[str, NDArray[Any]] = {
        "id": crystals.ids,
        "formula": crystals.formulas(),
        "elements": crystals.elements(),
        "nsites": crystals.nsites.astype(np.int32),
        "ordered": crystals.is_ordered,
    }
    for name, column in crystals.columns.items():
        if column.ndim == 1:
            clash = name in columns or name in RESERVED or name in taken
            columns[f"reported_{name}" if clash else name] = column
    return columns


def _with_origin(refused: dict[str, Quarantined], crystals: Crystals, row: int) -> Quarantined:
    record = refused.get(str(crystals.ids[row]))
    if record is None:
        raise Failure(Exit.BALANCE_BROKEN, f"a model neither predicted nor quarantined {crystals.ids[row]!r}; "
                      "report this as a defect")  # fmt: skip
    if record.origin or "origin" not in crystals.columns:
        return record
    return replace(record, origin=str(crystals.columns["origin"][row]))


def _array(values: NDArray[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values.astype(object), pa.string()) if values.dtype.kind in "UO" else pa.array(values)
