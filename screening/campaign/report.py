"""Summary and top rows -> one self-contained HTML page.

Enters: the summary of a campaign, its best rows, its quarantine. Leaves: HTML that opens offline,
loads nothing and escapes everything that came from elsewhere. A pure function: the same input gives
the same bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.screening.campaign import tiers
from assay.sources.quarantine import Quarantined

if TYPE_CHECKING:
    from markupsafe import Markup

    from assay.screening.ranking.rank import Ranked

TEMPLATE = "report.html.j2"
EXAMPLES = 3
"""Quarantined crystals shown per reason."""
BINS = 40


def render(summary: Mapping[str, Any], top: Sequence[Mapping[str, Any]], bad: Sequence[Quarantined],
           ranked: Ranked) -> str:  # fmt: skip
    """The report as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)  # fmt: skip
    environment.filters |= {"formula": formula, "number": number, "facts": facts, "count": lambda n: f"{n:,}"}
    name = summary["rank"]["property"]
    values = np.asarray(ranked.candidates[f"{name}_mean"].to_numpy(), dtype=np.float64)
    return environment.get_template(TEMPLATE).render(
        summary=summary,
        property=name,
        unit=summary["rank"]["unit"],
        rule=rule_text(summary["rank"]),
        rows=[_row(row, name) for row in top],
        calibrated=summary["rank"].get("calibrated", False),
        distances="ood_distance" in ranked.candidates.column_names,
        members=sum(1 for column in ranked.candidates.column_names if column.startswith(f"{name}_member_")),
        scale=_scale(top, name),
        funnel=_funnel(summary["accounting"]),
        histogram=_histogram(values),
        examples=_examples(bad),
        others=_other_properties(summary, name),
        cascade=tiers.lines(summary["cascade"], summary["rank"]["model"]) if "cascade" in summary else [],
        last_tier=len(summary["cascade"]["tiers"]) if "cascade" in summary else 0,
        ensembles=[*summary["models"], *summary.get("cascade", {}).get("models", [])],
    )


def rule_text(rank: Mapping[str, Any]) -> str:
    """The rank rule as a sentence."""
    what, unit = rank["property"], rank["unit"]
    if rank["by"] == "probability":
        side = "above" if rank["order"] == "descending" else "below"
        return f"probability that {what} lies {side} {number(rank['threshold'])} {unit}, highest first"
    end = "highest first" if rank["order"] == "descending" else "lowest first"
    share = f"{rank['level']:.0%}"
    source = {
        "mean": f"mean {what} of the ensemble",
        "lower": f"lower end of the calibrated {share} interval of {what}",
        "upper": f"upper end of the calibrated {share} interval of {what}",
    }
    return f"{source[rank['by']]}, {end}"


def formula(text: object) -> Markup:
    """A formula with its amounts as subscripts, escaped first.

    >>> str(formula("CuLa1.85O4<b>"))
    'CuLa<sub>1.85</sub>O<sub>4</sub>&lt;b&gt;'
    """
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(?<=[A-Za-z])(\d+\.?\d*)", r"<sub>\1</sub>", str(escape(text))))  # noqa: S704 (escaped before)


def number(value: object) -> str:
    """Four significant digits, an en dash for nothing.

    >>> number(39.123456), number(None), number(True), number(12)
    ('39.12', '–', 'yes', '12')
    """
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def facts(content: object, prefix: str = "") -> list[tuple[str, str]]:
    """The scalars of a nested mapping as (dotted name, text); lists become their length.

    >>> facts({"test": {"mae": 0.5}, "seeds": [1, 2]})
    [('test.mae', '0.5'), ('seeds', '1, 2')]
    """
    if isinstance(content, Mapping):
        return [pair for key, value in content.items() for pair in facts(value, f"{prefix}.{key}" if prefix else key)]
    if isinstance(content, Sequence) and not isinstance(content, str):
        few = len(content) <= 8 and not any(isinstance(item, Mapping | list) for item in content)
        return [(prefix, ", ".join(map(number, content)) if few else f"{len(content)} entries")]
    return [(prefix, number(content))]


def _row(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    members = [row[key] for key in row if key.startswith(f"{name}_member_") and row[key] is not None]
    parts = {part: row[f"{name}_{part}"] for part in ("mean", "std", "lo", "hi")}
    return {**parts, "members": members, "all": row}


def _scale(top: Sequence[Mapping[str, Any]], name: str) -> dict[str, float]:
    """Where the interval drawings start, and how many pixels a unit takes."""
    keys = [f"{name}_lo", f"{name}_hi"]
    ends = [row[key] for row in top for key in keys if np.isfinite(row[key])]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    return {"low": low, "high": high, "factor": 150.0 / max(high - low, 1e-12)}


def _funnel(accounting: Mapping[str, int]) -> list[dict[str, Any]]:
    total = max(accounting["received"], 1)
    steps = ("received", "duplicate", "unique", "filtered", "quarantined", "pending", "scored", "unrankable", "ranked")
    lost = {"duplicate", "filtered", "quarantined", "pending", "unrankable"}
    return [{"name": s, "n": accounting[s], "share": 100 * accounting[s] / total, "lost": s in lost} for s in steps]


def _histogram(values: Any) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return {"bars": [], "low": 0.0, "high": 0.0, "most": 0}
    counts, edges = np.histogram(finite, bins=BINS)
    most = int(counts.max())
    bars = [{"x": 15 * k, "h": 110 * int(c) / most, "n": int(c), "from": float(edges[k]), "to": float(edges[k + 1])}
            for k, c in enumerate(counts)]  # fmt: skip
    return {"bars": bars, "low": float(edges[0]), "high": float(edges[-1]), "most": most}


def _examples(bad: Sequence[Quarantined]) -> dict[str, list[Quarantined]]:
    found: dict[str, list[Quarantined]] = {}
    for row in bad:
        shown = found.setdefault(str(row.reason), [])
        if len(shown) < EXAMPLES:
            shown.append(row)
    return found


def _other_properties(summary: Mapping[str, Any], name: str) -> list[dict[str, str]]:
    every = [item for model in summary["models"] for item in model["properties"]]
    return [item for item in every if item["name"] != name]
