"""The same crystal in several sources: fingerprints, comparisons, clusters, related clusters.

Enters: shards without duplicate ids. Leaves: units that take fingerprints and compare crystals, one
committed table with every row of the campaign and the cluster it belongs to, and columns for the
candidates.
`assay.featurize.identity` knows how two crystals are compared.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from assay.models.potentials.columns import FORMED, MEASURED
from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.runners.fingerprint import FINGERPRINTS, Fingerprint
from assay.screening.runners.match import PAIRS
from assay.screening.runners.runner import Unit
from assay.screening.settings import names
from assay.screening.settings.config import Campaign
from assay.sources import table
from assay.sources.checks import importing
from assay.sources.crystals import Crystals, empty

if TYPE_CHECKING:
    from assay.featurize import identity
else:
    identity = importing.later("assay.featurize.identity")

TAKEN = 512
"""Crystals whose fingerprints are taken at once."""
PATH = "identity/crystals.parquet"
OWN = ("composition", "cluster_id", "representative")
"""Columns of that table beside those of `assay.screening.settings.names`."""


def units(ledger: Ledger, source: str, shard: int, crystals: Crystals) -> Iterator[Unit]:
    """The fingerprints that are left to take in one shard."""
    for number, start in enumerate(range(0, len(crystals), TAKEN)):
        key = f"{snapshot.shard_key(source, shard)}/{number:06d}"
        if ledger.find("fingerprints", key) is None:
            content = table.to_table(crystals[start : start + TAKEN])
            yield Unit(Fingerprint(), key, content.num_rows, lambda content=content: content)  # type: ignore[misc]


def fingerprints(ledger: Ledger) -> pa.Table:
    """The fingerprints of all crystals that were compared or will be, by id."""
    tables = [ledger.read(record, path) for record in ledger.all("fingerprints") for path in record.files]
    if tables:
        return pa.concat_tables(tables).sort_by("id")
    return FINGERPRINTS.empty_table()


def leaders(ledger: Ledger, ids: list[str]) -> NDArray[np.int64]:
    """(n,) the row that leads each row, given the ids of all in order, as the comparisons say."""
    leader = np.arange(len(ids))
    place = {name: row for row, name in enumerate(ids)}
    for records in rounds(ledger):
        same = [pair for record in records for pair in _pairs(ledger, record).filter(pc.field("same")).to_pylist()]
        rows = np.array([(place[pair["a"]], place[pair["b"]]) for pair in same], np.int64).reshape(-1, 2)
        leader = identity.joined(leader, rows)
    return leader


def rounds(ledger: Ledger) -> list[list[Record]]:
    """The records of comparisons, round by round; a folder of an older version has one round."""
    found: dict[str, list[Record]] = {}
    for record in ledger.all("matches"):
        found.setdefault(record.key.rpartition("/")[0], []).append(record)
    return [found[number] for number in sorted(found)]


def resolve(ledger: Ledger, campaign: Campaign) -> Record:
    """Commit which crystals are the same."""
    done = ledger.find("identity", "all")
    if done is not None:
        return done
    rows = _rows(ledger, campaign)
    ids = rows["id"].to_pylist()
    order = np.argsort(np.array(ids, dtype=object), kind="stable")
    root = np.empty(len(ids), np.int64)
    root[order] = order[leaders(ledger, [ids[row] for row in order])]
    best = _representatives(rows, root, list(campaign.named_sources()))
    content = rows.append_column("cluster_id", pa.array([ids[row] for row in best[root]], pa.string()))
    content = content.append_column("representative", pa.array(best[root] == np.arange(len(ids))))
    near = related(ledger, dict(zip(ids, content["cluster_id"].to_pylist(), strict=True)))
    counts = {"rows": len(ids), "clusters": len(set(root.tolist())), "related": near.num_rows}
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


def fan_out(portions: Iterable[pa.Table], ledger: Ledger, top: int) -> Iterator[pa.Table]:
    """Add to every candidate the ids of the rows that are the same crystal, and their spread.

    The columns are `ids`, `spacegroup` (of the first `top` candidates, null below) and, per
    reported property, `<name>_spread` (largest minus smallest value among the rows, NaN for less
    than two, null in the file) and `<name>_functionals`. Two functionals there mean that the spread
    is not an error bar. Three lists name the related crystals, the nearest first: `related_to` (ids
    of the rows that stand for them), `related_distance` (Å) and `related_volume_ratio` (their
    volume per site over that of the candidate).
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
    near = _nearest_first(related(ledger, dict(zip(ids, rows["cluster_id"].to_pylist(), strict=True))))
    for candidates in portions:
        names = candidates["id"].to_pylist()
        groups = _space_groups(ledger, names[:top])
        top -= len(groups)
        added = {"spacegroup": pa.array([groups.get(name) for name in names], pa.int16())}
        added |= _lists([near.get(name, []) for name in names])
        yield _fanned_out(candidates, rows, ids, [members[name] for name in names], added)


def _space_groups(ledger: Ledger, names: list[str]) -> dict[str, int]:
    """Id -> number of the space group, of crystals as they were delivered."""
    wanted = pa.array(names, pa.string())
    found: dict[str, int] = {}
    for record in ledger.all("chunks") if names else ():
        for chunk in snapshot.chunks_in(record):
            content = ledger.read(record, chunk.path, [field.name for field in table.CRYSTAL_FIELDS])
            crystals, _ = table.from_table(content.filter(pc.is_in(content["id"], wanted)), "snapshot")
            found |= dict(zip(crystals.ids.tolist(), identity.space_groups(crystals), strict=True))
    return found


def _fanned_out(
    candidates: pa.Table, rows: pa.Table, ids: list[str], groups: list[list[int]], near: dict[str, pa.Array]
) -> pa.Table:
    added: dict[str, Any] = {
        "ids": pa.array([sorted(ids[row] for row in group) for group in groups], pa.list_(pa.string())),
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


def pairs(ledger: Ledger) -> pa.Table:
    """Every pair of equal or related crystals that was found: rows of `match.PAIRS`."""
    records = sorted(ledger.all("matches"), key=lambda record: record.key)  # whatever worker was first
    return pa.concat_tables([PAIRS.empty_table(), *(_pairs(ledger, record) for record in records)])


def _pairs(ledger: Ledger, record: Record) -> pa.Table:
    return pa.concat_tables(ledger.read(record, path) for path in record.files)


def related(ledger: Ledger, cluster: dict[str, str]) -> pa.Table:
    """The nearest related pair of any two clusters, as rows of `PAIRS`.

    `cluster` is that of each id.
    """
    found = pairs(ledger)
    found = found.filter(pc.invert(found["same"]))
    number = {name: place for place, name in enumerate(sorted(set(cluster.values())))}
    ends = [[number[cluster[name]] for name in found[side].to_pylist()] for side in ("a", "b")]
    rows = np.array(ends, np.int64).reshape(2, -1).T
    kept = identity.nearest_of_groups(np.arange(len(number)), rows, found["distance"].to_numpy())
    named = [pa.array([cluster[name] for name in found[side].take(kept).to_pylist()], pa.string()) for side in "ab"]
    return found.take(kept).set_column(0, "a", named[0]).set_column(1, "b", named[1])


def _nearest_first(found: pa.Table) -> dict[str, list[tuple[float, str, float]]]:
    """Representative -> (distance, representative, volume ratio) of related ones, nearest first."""
    near: dict[str, list[tuple[float, str, float]]] = {}
    for row in found.to_pylist():
        near.setdefault(row["a"], []).append((row["distance"], row["b"], row["volume_ratio"]))
        near.setdefault(row["b"], []).append((row["distance"], row["a"], 1 / row["volume_ratio"]))
    return {name: sorted(others) for name, others in near.items()}


def _rows(ledger: Ledger, campaign: Campaign) -> pa.Table:
    """Every crystal with a fingerprint in plan order.

    The columns are id, source, nsites, reported numbers with their functionals, and composition.
    """
    found = fingerprints(ledger).select(["id", "composition"])
    place = {name: row for row, name in enumerate(found["id"].to_pylist())}
    ours = {*names.COLUMNS, *OWN, *(MEASURED | FORMED if campaign.relax else ())}
    tables, taken = [], snapshot.taken_ids(campaign)
    for source, shard in snapshot.plan_order(ledger, campaign):
        content = snapshot.rows(ledger, source, shard, taken, out=False)
        reported = _compared(content.schema, ours)
        taken_here = [row for row, name in enumerate(content["id"].to_pylist()) if name in place]
        content = content.select(["id", "nsites", *reported]).take(_rows_of(taken_here))
        tables.append(content.append_column("source", pa.array([source] * len(taken_here), pa.string())))
    if not tables:
        tables = [table.to_table(empty()).select(["id", "nsites"]).append_column("source", pa.array([], pa.string()))]
    rows = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    found = found.take(_rows_of([place[name] for name in rows["id"].to_pylist()]))
    return rows.append_column("composition", found["composition"])


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
