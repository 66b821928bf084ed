"""Pages of candidates: filtered, sorted and cut from the index of a campaign.

Enters: a `Served` campaign and a `Query`. Leaves: rows, and how many there are. polars reads the
columns that it needs and no others. This module does not know HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import polars as pl

from assay.screening.serving.shelf import Served
from assay.screening.settings import nearest

PAGE, MOST = 50, 1_000
"""Rows of a page by default, and at most."""
SHALLOW = 10_000
"""Rows among which a page is found without sorting the others."""
LONGEST = 200
"""Most characters of a text to look for."""
NUMBERS = re.compile(r"(.+)_(min|max)")
"""A parameter that bounds a column: `tc_mean_min=20`."""


@dataclass(frozen=True)
class Query:
    """Which candidates, in which order."""

    offset: int = 0
    limit: int = PAGE
    sort: str = "rank"
    """A column; descending with a minus before it."""
    text: str = ""
    """Part of the formula or the id; capitals count."""
    elements: Sequence[str] = ()
    """Elements that a candidate holds, all of them."""
    bounds: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """Column -> least and most value, in its unit."""


def parse(given: Mapping[str, str], served: Served) -> Query:
    """A query from the parameters of a URL; empty ones say nothing.

    Raises:
        ValueError: for an unknown parameter or column, or a value that is none.
    """
    kinds = served.scan().collect_schema()
    stated = {name: value.strip() for name, value in given.items() if value.strip()}
    offset, limit = _whole(stated, "offset", 0), _whole(stated, "limit", PAGE)
    if limit > MOST:
        raise ValueError(f"limit is {limit}, at most {MOST} rows stand on a page")
    sort = stated.pop("sort", "rank")
    name = sort.removeprefix("-")
    if name not in kinds or kinds[name].is_nested():
        raise ValueError(f"sort names {name!r:.80}; {nearest.hint(name, _shown(kinds), 'there are')}")
    text = stated.pop("text", "")
    if len(text) > LONGEST:
        raise ValueError(f"text has {len(text)} characters, at most {LONGEST} are looked for")
    elements = [part for part in re.split(r"[\s,;-]+", stated.pop("elements", "")) if part]
    bounds: dict[str, tuple[float | None, float | None]] = {}
    for parameter, value in stated.items():
        told = NUMBERS.fullmatch(parameter)
        if told is None or told[1] not in kinds or not kinds[told[1]].is_numeric():
            known = "offset, limit, sort, text, elements, and COLUMN_min or COLUMN_max of a column of numbers"
            raise ValueError(f"unknown parameter {parameter!r:.80}; known are {known}")
        low, high = bounds.get(told[1], (None, None))
        number = _number(parameter, value)
        bounds[told[1]] = (number, high) if told[2] == "min" else (low, number)
    return Query(offset, limit, sort, text, elements, bounds)


def find(served: Served, query: Query, columns: Sequence[str] | None = None) -> tuple[pl.DataFrame, int]:
    """The rows of a page with these columns, and how many candidates the query finds."""
    frame, wanted = served.scan(), _conditions(query)
    shown = list(served.schema.names) if columns is None else list(dict.fromkeys(["rank", *columns]))
    if not wanted and query.sort == "rank":
        ranks = range(query.offset + 1, min(query.offset + query.limit, served.count) + 1)
        return served.rows(ranks, shown), served.count
    if wanted:  # rows are looked at once, for the page and for the number
        keys = list(dict.fromkeys([query.sort.removeprefix("-"), "rank"]))
        frame = frame.filter(reduce(lambda one, other: one & other, wanted)).select(keys).collect().lazy()
    found = served.rows(_ranks(frame, query).to_list(), shown)
    return found, served.count if not wanted else frame.select(pl.len()).collect().item()


def _ranks(frame: pl.LazyFrame, query: Query) -> pl.Series:
    """The ranks of the rows of a page; rows stand in that order, which a stable sort keeps."""
    name, down = query.sort.removeprefix("-"), query.sort.startswith("-")
    keys = frame.select(list(dict.fromkeys([name, "rank"])))
    order = keys if query.sort == "rank" else keys.sort(name, descending=down, nulls_last=True, maintain_order=True)
    if query.offset + query.limit > SHALLOW:  # polars cuts before it sorts, which pays for the first rows alone
        return order.collect()["rank"].slice(query.offset, query.limit)
    return order.slice(query.offset, query.limit).collect()["rank"]


def _conditions(query: Query) -> list[pl.Expr]:
    found = []
    if query.text:
        text = [pl.col(name).str.contains(query.text, literal=True) for name in ("formula", "id")]
        found.append(text[0] | text[1])
    found += [
        pl.format("-{}-", pl.col("elements")).str.contains(f"-{symbol}-", literal=True) for symbol in query.elements
    ]
    for name, (low, high) in query.bounds.items():
        found += [pl.col(name) >= low] if low is not None else []
        found += [pl.col(name) <= high] if high is not None else []
    return found


def _shown(kinds: Mapping[str, Any]) -> list[str]:
    return [name for name in kinds if not name.startswith(":")]


def _whole(stated: dict[str, str], name: str, default: int) -> int:
    text = stated.pop(name, str(default))
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise ValueError(f"{name} is {text!r:.40}, expected a whole number")
    return int(text)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r:.40}, expected a number") from None
