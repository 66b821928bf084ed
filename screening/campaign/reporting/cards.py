"""A candidate in detail: everything that its row and its structure say.

Enters: the best rows, their crystals, the summary. Leaves: texts for a template, one mapping per
candidate. This module does not know HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from assay.screening.campaign.reporting import links
from assay.screening.display import cells
from assay.screening.folder.summary import Property, Summary
from assay.screening.settings import digits
from assay.sources.crystals import WARNINGS, Crystals

MOST_FACTS = 40
"""Most further columns that are shown."""
_ELSEWHERE = {"rank", "id", "formula", "elements", "nsites", "ordered", WARNINGS, "ids"}
_ELSEWHERE |= {"related_to", "related_distance", "related_volume_ratio"}
_QUANTILES = {"q05": "5 %", "q50": "50 %", "q95": "95 %"}


def cards(rows: Sequence[Mapping[str, Any]], crystals: Crystals, summary: Summary) -> list[dict[str, Any]]:
    """One card for each crystal, with those of `rows` that come first."""
    every = {item.name: item for model in summary.models for item in model.properties}
    every |= {summary.target.name: Property(summary.target.name, summary.target.unit)}
    return [_card(row, crystals[k : k + 1], every) for k, row in enumerate(rows[: len(crystals)])]


def _card(row: Mapping[str, Any], crystal: Crystals, every: Mapping[str, Property]) -> dict[str, Any]:
    predicted = [item for item in every.values() if row.get(f"{item.name}_mean") is not None]
    listed = cells.sites(crystal)
    facts = list(_facts(row, predicted))
    return {
        "row": row,
        "properties": [_property(row, item) for item in predicted],
        "drawing": Markup(escape(cells.drawing(crystal))),  # noqa: S704 (escaped here)
        "words": cells.words(crystal),
        "sites": listed,
        "unlisted": len(crystal.frac) - len(listed),
        "facts": facts[:MOST_FACTS],
        "untold": max(len(facts) - MOST_FACTS, 0),
        "entries": [(id, links.address(id)) for id in row.get("ids") or [row["id"]]],
    }


def _property(row: Mapping[str, Any], item: Property) -> dict[str, Any]:
    mean, std, low, high = digits.measured(*(row[f"{item.name}_{part}"] for part in ("mean", "std", "lo", "hi")))
    members = [row[key] for key in row if key.startswith(f"{item.name}_member_") and row[key] is not None]
    found = [(text, row.get(f"{item.name}_{key}")) for key, text in _QUANTILES.items()]
    return {
        "name": item.name,
        "unit": item.unit,
        "value": f"{mean} ± {std}",
        "interval": f"[{low}, {high}]",
        "members": ", ".join(map(digits.alone, members)),
        "quantiles": ", ".join(f"{text} below {digits.alone(value)}" for text, value in found if value is not None),
    }


def _facts(row: Mapping[str, Any], predicted: Sequence[Property]) -> Iterator[tuple[str, Any]]:
    """The columns that nothing else shows: reported values, how far the row is to be trusted."""
    names = "|".join(re.escape(item.name) for item in predicted)
    shown = re.compile(rf"(?:{names})_(?:mean|std|lo|hi|member_\d+|q\d+)")
    for name, value in row.items():
        if name in _ELSEWHERE or shown.fullmatch(name) or value is None or value in ("", []) or value != value:  # noqa: PLR0124 (NaN)
            continue
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else value
