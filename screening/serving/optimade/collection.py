"""Candidates of the served campaigns as a collection of the OPTIMADE reference server.

Enters: a query as the reference server parsed it. Leaves: OPTIMADE entries, read from the indexes
and the snapshots of the campaigns. Candidates stand in the order of their ranks where a query names
no other. This module does not know HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa
from optimade.exceptions import BadRequest  # type: ignore[import-untyped]
from optimade.models import StructureResource  # type: ignore[import-untyped]
from optimade.server.config import ServerConfig  # type: ignore[import-untyped]
from optimade.server.entry_collections import EntryCollection  # type: ignore[import-untyped]
from optimade.server.mappers import StructureMapper  # type: ignore[import-untyped]
from optimade.server.query_params import SingleEntryQueryParams  # type: ignore[import-untyped]

from assay.screening.serving.browse import SHALLOW
from assay.screening.serving.optimade import filters
from assay.screening.serving.optimade.filters import FLAG, NUMBER, STRING, TIME, Field
from assay.screening.serving.shelf import Served
from assay.screening.settings.exits import Exit, Failure
from assay.sources.formats.writing import optimade

PREFIX = "_assay_"
TAKEN = ("id", "formula", "elements", "nsites")
"""Columns of candidates that OPTIMADE has properties for."""
STRUCTURAL = ("lattice_vectors", "cartesian_site_positions", "species", "species_at_sites")
"""Properties that are read from the snapshot; filters do not look into them."""
CAMPAIGN = pa.field("campaign", pa.string(), metadata={"meaning": "campaign that ranked the structure"})


def own(campaigns: Sequence[Served]) -> dict[str, tuple[str, optimade.Property]]:
    """Name of each own property -> the column that holds it, and what the column says.

    Raises:
        Failure: CONFIG, when two campaigns have one column in different units or types.
    """
    found: dict[str, tuple[str, optimade.Property]] = {}
    for served in campaigns:
        fields = {field.name: field for field in served.schema if field.name not in TAKEN} | {"campaign": CAMPAIGN}
        for column, name in optimade.named(fields).items():
            told = column, optimade.described(fields[column])
            before = found.setdefault(name, told)
            if (before[0], before[1].unit, before[1].type) != (column, told[1].unit, told[1].type):
                what = f"{column} is {told[1].type} in {told[1].unit} in {served.name}, not as in another campaign"
                raise Failure(Exit.CONFIG, f"{what}; serve them apart")
    return found


class Structures(EntryCollection):  # type: ignore[misc]
    """All candidates of some campaigns."""

    def __init__(self, campaigns: Sequence[Served], config: ServerConfig) -> None:
        super().__init__(StructureResource, StructureMapper(config), None, config)
        self._campaigns = {served.name: served for served in campaigns}
        self._own = own(campaigns)
        wholes = [_told(served, served.scan()) for served in campaigns]
        self._frame = pl.concat(wholes, how="diagonal_relaxed") if wholes else pl.LazyFrame()
        kinds = self._frame.collect_schema()
        self._fields = _fields() | {
            name: _own_field(name, column, kinds[column]) for name, (column, _) in self._own.items()
        }
        for name in self.all_fields - self._fields.keys():
            self._fields[name] = Field(name, None, STRING)  # of the standard, and not known here

    def __len__(self) -> int:
        return sum(served.count for served in self._campaigns.values())

    def insert(self, data: Any) -> None:
        """Nothing is added."""
        raise NotImplementedError("candidates come from campaigns")

    def count(self, **criteria: Any) -> int:
        """How many candidates match."""
        wanted = criteria.get("filter")
        if wanted is None:
            return len(self)
        return int(self._frame.filter(wanted).select(pl.len()).collect().item())

    def handle_query_params(self, params: Any) -> dict[str, Any]:
        """The query; a filter becomes a condition of polars."""
        text, params.filter = getattr(params, "filter", None), None
        if (getattr(params, "page_offset", 0) or 0) < 0:
            raise BadRequest(detail="page_offset is below 0")
        criteria: dict[str, Any] = super().handle_query_params(params)
        if "page_above" in criteria:
            raise NotImplementedError("page_above: pages are found by page_offset and page_number")
        if isinstance(params, SingleEntryQueryParams):
            name = str(text).removeprefix('id="').removesuffix('"')  # as it stood in the URL, whatever it holds
            criteria["filter"] = pl.col(":id") == name
        else:
            criteria["filter"] = filters.condition(text, self._fields, PREFIX) if text else None
        criteria["wanted"] = set(criteria["fields"])
        return criteria

    def get_next_query_params(self, params: Any, results: Any) -> dict[str, list[str]]:
        """The place behind this page, whichever way the page was asked for."""
        before = max(params.page_number or 1, 1) - 1
        start = params.page_offset or before * (params.page_limit or self.config.page_limit)
        return {"page_offset": [str(start + len(results))], "page_number": []}

    def _run_db_query(
        self, criteria: dict[str, Any], single_entry: bool = False
    ) -> tuple[list[dict[str, Any]], int | None, bool]:
        skip, limit = criteria.get("skip", 0), criteria["limit"]
        try:
            count = self.count(**criteria)
            page = self._page(criteria, skip, limit)
        except pl.exceptions.PolarsError as error:
            raise BadRequest(detail=f"this filter cannot be answered: {str(error).splitlines()[0][:200]}") from None
        entries = self._entries(page.to_dicts(), criteria["wanted"])
        return entries, count, not single_entry and skip + len(entries) < count

    def _page(self, criteria: Mapping[str, Any], skip: int, limit: int) -> pl.DataFrame:
        """The rows of a page, with every column of the index."""
        wanted, order = criteria.get("filter"), criteria.get("sort", [])
        frame = self._frame if wanted is None else self._frame.filter(wanted)
        keys = [self._key(name) for name, _ in order]
        if not order:
            return frame.slice(skip, limit).collect()
        names = [f":key{place}" for place in range(len(keys))]
        picked = frame.select(":campaign", "rank", *(key.alias(name) for key, name in zip(keys, names, strict=True)))
        down = [direction < 0 for _, direction in order]
        every = picked.sort(names, descending=down, nulls_last=True, maintain_order=True).select(":campaign", "rank")
        shallow = skip + limit <= SHALLOW  # polars cuts before it sorts, which pays for the first rows alone
        cut = every.slice(skip, limit).collect() if shallow else every.collect().slice(skip, limit)
        here = cut.with_row_index(":place")
        parts = []
        for (name,), rows in here.group_by(":campaign"):
            served = self._campaigns[str(name)]
            parts.append(_told(served, served.rows(rows["rank"].to_list()).lazy()))
        found = pl.concat([self._frame.head(0), *parts], how="diagonal_relaxed").collect()
        return found.join(here, on=[":campaign", "rank"]).sort(":place").drop(":place")

    def _key(self, name: str) -> pl.Expr:
        field = self._fields[name]
        if field.opaque or field.is_list:
            raise BadRequest(detail=f"entries are not sorted by {name}")
        return pl.lit(None) if field.expr is None else field.expr

    def _entries(self, rows: Sequence[dict[str, Any]], wanted: set[str]) -> list[dict[str, Any]]:
        placed: dict[str, dict[str, Any]] = {}
        if wanted.intersection(STRUCTURAL):
            for name, served in self._campaigns.items():
                own_rows = [row for row in rows if row[":campaign"] == name]
                crystals = served.crystals(own_rows)
                for place, row in enumerate(own_rows):
                    placed[row[":id"]] = optimade.attributes_of(crystals[place : place + 1])
        return [self._entry(row, placed.get(row[":id"], {})) for row in rows]

    def _entry(self, row: Mapping[str, Any], placed: Mapping[str, Any]) -> dict[str, Any]:
        """One entry under the names of OPTIMADE."""
        derived = {name[1:]: row[name] for name in row if name in DERIVED}
        return {
            "id": row[":id"],
            "type": "structures",
            **placed,
            **derived,
            "chemical_formula_descriptive": row["formula"],
            "nsites": row["nsites"],
            "dimension_types": [1, 1, 1],
            "nperiodic_dimensions": 3,
            "structure_features": row[":structure_features"],
            "last_modified": row[":modified"],
            "immutable_id": None,
            **{name: optimade.finite(row[column]) for name, (column, _) in self._own.items()},
        }


DERIVED = (
    ":elements",
    ":nelements",
    ":elements_ratios",
    ":chemical_formula_reduced",
    ":chemical_formula_anonymous",
)


def _told(served: Served, rows: pl.LazyFrame) -> pl.LazyFrame:
    """Rows of the index of a campaign, with what is the same for all of it."""
    moment = datetime.fromtimestamp(int(served.results.outputs().stat().st_mtime), UTC)
    disorder = pl.when(pl.col("ordered")).then(pl.lit([], pl.List(pl.String))).otherwise(pl.lit(["disorder"]))
    return rows.with_columns(
        (pl.lit(f"{served.name}/") + pl.col("id")).alias(":id"),
        pl.lit(served.name).alias(":campaign"),
        pl.lit(served.name).alias("campaign"),
        pl.lit(moment).alias(":modified"),
        disorder.alias(":structure_features"),
    )


def _fields() -> dict[str, Field]:
    """The properties of the standard that are known of candidates."""
    text = {name[1:]: Field(name[1:], pl.col(name), STRING) for name in DERIVED[3:]}
    return text | {
        "id": Field("id", pl.col(":id"), STRING),
        "type": Field("type", pl.lit("structures"), STRING),
        "last_modified": Field("last_modified", pl.col(":modified"), TIME),
        "elements": Field("elements", pl.col(":elements"), STRING, is_list=True, joined=pl.col("elements")),
        "nelements": Field("nelements", pl.col(":nelements"), NUMBER),
        "elements_ratios": Field("elements_ratios", pl.col(":elements_ratios"), NUMBER, is_list=True),
        "chemical_formula_descriptive": Field("chemical_formula_descriptive", pl.col("formula"), STRING),
        "nsites": Field("nsites", pl.col("nsites"), NUMBER),
        "nperiodic_dimensions": Field("nperiodic_dimensions", pl.lit(3), NUMBER),
        "dimension_types": Field("dimension_types", pl.lit([1, 1, 1]), NUMBER, is_list=True),
        "structure_features": Field("structure_features", pl.col(":structure_features"), STRING, is_list=True),
        "lattice_vectors": Field("lattice_vectors", None, NUMBER, is_list=True, length=pl.lit(3)),
        **{
            name: Field(name, None, STRING, is_list=True, length=pl.col("nsites"))
            for name in ("cartesian_site_positions", "species_at_sites")
        },
        "species": Field("species", None, STRING, is_list=True, length=pl.lit(None, pl.Int64)),
    }


def _own_field(name: str, column: str, kind: pl.DataType) -> Field:
    inner = kind.inner if isinstance(kind, pl.List | pl.Array) else kind
    word = FLAG if inner == pl.Boolean else NUMBER if inner.is_numeric() else STRING
    return Field(name, pl.col(column), word, is_list=inner is not kind)
