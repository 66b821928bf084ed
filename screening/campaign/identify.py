"""The same crystal in several sources: labels, comparisons, clusters, related clusters.

Enters: shards without duplicate ids. Leaves: units that label and compare crystals, one
committed table with every row of the campaign and the cluster it belongs to, and columns for the
candidates.
`assay.sources.identity` knows how two crystals are compared.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from assay.models.potentials.columns import FORMED, MEASURED
from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.folder.naming import Taken
from assay.screening.runners.label import Label
from assay.screening.runners.match import PAIRS, Match
from assay.screening.runners.runner import Unit
from assay.screening.runners.work import Work
from assay.screening.settings import names
from assay.screening.settings.config import Campaign
from assay.sources import identity, table
from assay.sources.crystals import Crystals, empty

LABELLED = 512
"""Crystals labelled at once."""
COMPARED = 256
"""Crystals compared at once; a block is never split."""
PATH = "identity/crystals.parquet"
OWN = ("label", "cluster_id", "representative")
"""Columns of that table beside those of `assay.screening.settings.names`."""


def label_units(ledger: Ledger, source: str, shard: int, crystals: Crystals) -> Iterator[Unit]:
    """What is left to label in one shard."""
    for number, start in enumerate(range(0, len(crystals), LABELLED)):
        key = f"{snapshot.shard_key(source, shard)}/{number:06d}"
        if ledger.find("labels", key) is None:
            yield _unit(Label(), key, table.to_table(crystals[start : start + LABELLED]))


def _unit(work: Work[pa.Table], key: str, content: pa.Table) -> Unit:
    return Unit(work, key, content.num_rows, lambda: content)


def match_units(ledger: Ledger, campaign: Campaign) -> list[Unit]:
    """What is left to compare once everything is labelled: crystals whose labels agree."""
    labels = _labels(ledger)
    if labels.num_rows == 0:
        return []
    block = identity.blocks(labels)
    _, inverse, size = np.unique(block, return_inverse=True, return_counts=True)
    wanted = size[inverse] > 1
    number = dict(zip(np.array(labels["id"].to_pylist(), dtype=object)[wanted], block[wanted].tolist(), strict=True))
    pool = _gather(ledger, campaign, number)
    units = []
    for position, rows in enumerate(_batches(np.array([number[name] for name in pool["id"].to_pylist()]))):
        key = f"{position:06d}"
        if ledger.find("matches", key) is None:
            chosen = pool.take(rows)
            column = pa.array([number[name] for name in chosen["id"].to_pylist()], pa.int64())
            units.append(_unit(Match(), key, chosen.append_column("block", column)))
    return units


def resolve(ledger: Ledger, campaign: Campaign) -> Record:
    """Commit which crystals are the same."""
    done = ledger.find("identity", "all")
    if done is not None:
        return done
    rows = _rows(ledger, campaign)
    ids = rows["id"].to_pylist()
    place = {name: row for row, name in enumerate(ids)}
    found = pairs(ledger)
    same = found.filter(found["same"]).select(["a", "b"])
    equal = [(place[a], place[b]) for a, b in zip(*same.to_pydict().values(), strict=True)]
    root = identity.clusters(len(ids), np.array(equal, dtype=np.int64).reshape(-1, 2))
    best = _representatives(rows, root, list(campaign.named_sources()))
    content = rows.append_column("cluster_id", pa.array([ids[row] for row in best[root]], pa.string()))
    content = content.append_column("representative", pa.array(best[root] == np.arange(len(ids))))
    counts = {"rows": len(ids), "clusters": len(set(root.tolist())), "related": len(found) - len(equal)}
    return ledger.commit("identity", "all", {PATH: content}, counts)


def others(ledger: Ledger) -> frozenset[str]:
    """Ids of crystals that another row stands for."""
    record = ledger.find("identity", "all")
    if record is None:
        return frozenset()
    content = ledger.read(record, PATH, ["id", "representative"])
    stands = content["representative"].to_numpy()
    return frozenset(np.array(content["id"].to_pylist(), dtype=object)[~stands].tolist())


def counts(ledger: Ledger) -> dict[str, int] | None:
    """How many crystals were compared, how many clusters and related pairs they form, or None."""
    record = ledger.find("identity", "all")
    return None if record is None else dict(record.counts)


def fan_out(portions: Iterable[pa.Table], ledger: Ledger) -> Iterator[pa.Table]:
    """Add to every candidate the ids of the rows that are the same crystal, and their spread.

    The columns are `ids`, `spacegroup` and, per reported property, `<name>_spread` (largest minus
    smallest value among the rows, NaN for less than two) and `<name>_functionals`. Two functionals
    there mean that the spread is not an error bar. Three lists name the related crystals, the
    nearest first: `related_to` (ids of the rows that stand for them), `related_distance` (Å) and
    `related_volume_ratio` (their volume per site over that of the candidate).
    """
    record = ledger.find("identity", "all")
    if record is None:
        yield from portions
        return
    rows = ledger.read(record, PATH)
    members: dict[str, list[int]] = {}
    for row, cluster in enumerate(rows["cluster_id"].to_pylist()):
        members.setdefault(cluster, []).append(row)
    ids = rows["id"].to_pylist()
    related = _related(ledger, dict(zip(ids, rows["cluster_id"].to_pylist(), strict=True)))
    for candidates in portions:
        names = candidates["id"].to_pylist()
        near = _lists([related.get(name, []) for name in names])
        yield _fanned_out(candidates, rows, ids, [members[name] for name in names], near)


def _fanned_out(
    candidates: pa.Table, rows: pa.Table, ids: list[str], groups: list[list[int]], near: dict[str, pa.Array]
) -> pa.Table:
    added: dict[str, Any] = {
        "ids": pa.array([sorted(ids[row] for row in group) for group in groups], pa.list_(pa.string())),
        "spacegroup": rows["spacegroup"].take(_rows_of([group[0] for group in groups])),
        **near,
    }
    for name in [name.removesuffix("_functional") for name in rows.column_names if name.endswith("_functional")]:
        values, functionals = rows[name].cast(pa.float64()).to_numpy(), rows[f"{name}_functional"].to_pylist()
        added[f"{name}_spread"] = pa.array([_spread(values[group]) for group in groups], pa.float64())
        names = [" | ".join(sorted({functionals[row] for row in group} - {"", None})) for group in groups]
        added[f"{name}_functionals"] = pa.array(names, pa.string())
    for name, column in added.items():
        candidates = candidates.append_column(name, column)
    return candidates


def _lists(near: list[list[tuple[float, str, float]]]) -> dict[str, pa.Array]:
    """The columns that name related crystals."""
    return {
        "related_to": pa.array([[other for _, other, _ in found] for found in near], pa.list_(pa.string())),
        "related_distance": pa.array([[far for far, _, _ in found] for found in near], pa.list_(pa.float64())),
        "related_volume_ratio": pa.array([[ratio for _, _, ratio in found] for found in near], pa.list_(pa.float64())),
    }


def _rows_of(numbers: list[int]) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)  # Arrow cannot tell what an empty list holds


def _spread(values: NDArray[Any]) -> float:
    known = values[np.isfinite(values)]
    return float(known.max() - known.min()) if len(known) > 1 else float("nan")


def _labels(ledger: Ledger) -> pa.Table:
    tables = [ledger.read(record, path) for record in ledger.all("labels") for path in record.files]
    if tables:
        return pa.concat_tables(tables).sort_by("id")
    return identity.LABELS.empty_table()


def pairs(ledger: Ledger) -> pa.Table:
    """Every pair of equal or related crystals that was found: rows of `match.PAIRS`."""
    tables = [ledger.read(record, path) for record in ledger.all("matches") for path in record.files]
    return pa.concat_tables([PAIRS.empty_table(), *tables])


def _related(ledger: Ledger, cluster: dict[str, str]) -> dict[str, list[tuple[float, str, float]]]:
    """Representative -> (distance, representative, volume ratio) of related ones, nearest first."""
    found = pairs(ledger)
    related: dict[str, list[tuple[float, str, float]]] = {}
    for row in found.filter(pc.invert(found["same"])).to_pylist():
        a, b = cluster[row["a"]], cluster[row["b"]]
        related.setdefault(a, []).append((row["distance"], b, row["volume_ratio"]))
        related.setdefault(b, []).append((row["distance"], a, 1 / row["volume_ratio"]))
    return {name: sorted(others) for name, others in related.items()}


def _gather(ledger: Ledger, campaign: Campaign, wanted: dict[str, int]) -> pa.Table:
    """The crystals of some ids, structure columns only, sorted by block and id."""
    names = [field.name for field in table.CRYSTAL_FIELDS]
    tables, taken = [table.to_table(empty()).select(names)], Taken()
    for source, shard in snapshot.plan_order(ledger, campaign):
        content = snapshot.rows(ledger, source, shard, taken, names)
        chosen = [name in wanted for name in content["id"].to_pylist()]
        tables.append(content.filter(pa.array(chosen, pa.bool_())))
    pool = pa.concat_tables(tables).combine_chunks()
    block = pa.array([wanted[name] for name in pool["id"].to_pylist()], pa.int64())
    keys = pa.table({"block": block, "id": pool["id"]})
    return pool.take(pc.sort_indices(keys, sort_keys=[("block", "ascending"), ("id", "ascending")]))


def _batches(block: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Rows in batches of about `COMPARED`, whole blocks only."""
    borders = [*(np.flatnonzero(np.diff(block)) + 1).tolist(), len(block)]
    start = 0
    for here, border in enumerate(borders):
        following = borders[here + 1] if here + 1 < len(borders) else None
        if following is None or following - start > COMPARED:
            yield np.arange(start, border)
            start = border


def _rows(ledger: Ledger, campaign: Campaign) -> pa.Table:
    """Every labelled crystal in plan order.

    The columns are id, source, nsites, reported numbers with their functionals, and the labels.
    """
    labels = _labels(ledger)
    place = {name: row for row, name in enumerate(labels["id"].to_pylist())}
    ours = {*names.COLUMNS, *OWN, *(MEASURED | FORMED if campaign.relax else ())}
    tables, taken = [], Taken()
    for source, shard in snapshot.plan_order(ledger, campaign):
        content = snapshot.rows(ledger, source, shard, taken)
        reported = _compared(content.schema, ours)
        labelled = [row for row, name in enumerate(content["id"].to_pylist()) if name in place]
        content = content.select(["id", "nsites", *reported]).take(_rows_of(labelled))
        tables.append(content.append_column("source", pa.array([source] * len(labelled), pa.string())))
    if not tables:
        tables = [table.to_table(empty()).select(["id", "nsites"]).append_column("source", pa.array([], pa.string()))]
    rows = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    found = labels.take(_rows_of([place[name] for name in rows["id"].to_pylist()]))
    for name in ("formula", "spacegroup", "label"):
        rows = rows.append_column(name, found[name])
    return rows


def _compared(schema: pa.Schema, taken: Container[str]) -> list[str]:
    """Reported numbers that come with their functional, each before it; `taken` names are ours."""
    kinds = table.kinds(schema)
    pairs = [(name, f"{name}_functional") for name, kind in kinds.items() if kind == "number"]
    return [name for pair in pairs if kinds.get(pair[1]) == "text" and pair[0] not in taken for name in pair]


def _representatives(rows: pa.Table, root: NDArray[np.int64], sources: list[str]) -> NDArray[np.int64]:
    """(n,) at each root: the row that stands for its cluster, -1 elsewhere.

    Sources in config order come first; among rows of one source the lowest energy above the hull
    (energies of two sources are never compared), then the fewest sites, then the id.
    """
    order = np.array([sources.index(name) for name in rows["source"].to_pylist()])
    hull = np.full(len(order), np.inf)
    if "energy_above_hull" in rows.column_names:
        values = rows["energy_above_hull"].cast(pa.float64()).to_numpy()
        hull = np.where(np.isfinite(values), values, np.inf)
    keys = pa.table({"order": order, "hull": hull, "nsites": rows["nsites"], "id": rows["id"]})
    best = np.full(len(order), -1, dtype=np.int64)
    for row in pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names]).to_numpy():
        if best[root[row]] < 0:
            best[root[row]] = row
    return best
