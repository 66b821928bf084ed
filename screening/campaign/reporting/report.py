"""The report of a campaign: one HTML page.

Enters: the summary of a campaign, its best rows, its quarantine, and what they rest on. Leaves:
HTML that opens offline, loads nothing, runs no script but its own, and escapes every text that came
from a server or a file. The same input gives the same bytes. It does not know the campaign folder.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from assay.screening.campaign import tiers
from assay.screening.campaign.reporting import plots
from assay.screening.campaign.reporting.cards import cards
from assay.screening.campaign.reporting.evidence import Evidence
from assay.screening.display import scripts
from assay.screening.folder.balance import Balance
from assay.screening.folder.summary import Property, Summary
from assay.screening.ranking import bounds, plot, select, several, stability, standing, ties
from assay.screening.settings import digits
from assay.screening.settings.names import ABOVE_HULL
from assay.screening.settings.printable import escaped, shortened
from assay.sources.quarantine import Quarantined

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE = "report.html.j2"
EXAMPLES = 3
"""Quarantined crystals shown per reason."""
ROWS = 1_000
"""Most candidates in the table of the report, whatever `rank.top` asks for."""
PARTS = "mean", "std", "lo", "hi"
LONGEST = 500
"""Most characters of a text in the report; ids have up to 4,096."""


def render(
    summary: Summary,
    top: Sequence[Mapping[str, Any]],
    bad: Sequence[Quarantined],
    columns: Sequence[str],
    means: Callable[[], Iterable[NDArray[np.float64]]],
    changes: Callable[[], Iterable[NDArray[np.float64]]] = tuple,
    evidence: Evidence = Evidence(),  # noqa: B008 (frozen)
) -> str:
    """The report as HTML.

    `columns` are those of the candidates; `means` gives their mean predictions, (n,) in portions,
    each time it is called, and `changes` those of the volumes of relaxed crystals in percent.
    """
    top, target, cascade = top[:ROWS], summary.target, summary.cascade
    script = scripts.text(scripts.CRYSTAL, scripts.TABLE)
    return _template().render(
        script=Markup(script),  # noqa: S704 (two files of ours)
        digest=Markup(scripts.digest(script)),  # noqa: S704 (the same)
        cards=cards(top, evidence.crystals, summary),
        chances=[name for name, there in (("p_front", summary.fronts), ("p_top_k", summary.certainty)) if there],
        **_drawn(top, evidence, target.name),
        summary=summary,
        target=target,
        rule=several.of(summary).sentence(),
        ties=ties.sentences(summary.ties, summary.rank.by),
        sure=standing.sentences(summary.certainty, summary.fronts, several.of(summary)),
        front=plot.front(top, summary.objectives),
        rows=[_row(row, target.name) for row in top],
        cut=cut(summary),
        related=_related(top),
        distances="ood_distance" in columns,
        learned="in_training" in columns,
        members=sum(1 for column in columns if column.startswith(f"{summary.predicted}_member_")),
        scale=_scale(top, target.name),
        funnel=_funnel(summary.balance),
        histogram=plots.histogram(means, [row[f"{target.name}_mean"] for row in top]),
        changes=plots.histogram(changes),
        quarantine=_by_reason(bad),
        examples=EXAMPLES,
        others=_other_properties(summary),
        stability=_stability(summary),
        excluded=bounds.lines(summary.excluded) if summary.excluded else [],
        selection=select.lines(summary.selection, summary.rank, target) if summary.selection else [],
        cascade=[] if cascade is None else tiers.lines(cascade, target.model),
        covered=_covered(summary),
        ensembles=[*summary.models, *(cascade.models if cascade else [])],
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # the first prediction need not wait for it

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"formula": formula, "number": number, "error": _error, "facts": facts, "values": _values}
    environment.filters["count"] = lambda n: f"{n:,}"
    return environment.get_template(TEMPLATE)


def _values(numbers: Sequence[float | None]) -> str:
    """Numbers with all their digits, for the script and the download."""
    return " ".join("nan" if value is None else str(value) for value in numbers)


def _stability(summary: Summary) -> list[str]:
    return stability.lines(summary.stability) if summary.stability else []


def cut(summary: Summary) -> str:
    """A sentence where the table of the report ends before `rank.top`, else nothing."""
    wanted = min(summary.rank.top, summary.balance.ranked)
    if wanted <= ROWS:
        return ""
    return f"The report shows the best {ROWS:,} of the {wanted:,} that rank.top asks for; candidates.parquet holds all."


def formula(text: object) -> Markup:
    """A formula with its amounts as subscripts, escaped first.

    >>> str(formula("La1.85CuO4<b>"))
    'La<sub>1.85</sub>CuO<sub>4</sub>&lt;b&gt;'
    """
    plain = str(escape(escaped(shortened(str(text), LONGEST))))
    return Markup(re.sub(r"(?<=[A-Za-z])(\d+\.?\d*)", r"<sub>\1</sub>", plain))  # noqa: S704 (escaped before)


def number(value: object) -> str:
    """A value without an error as text; an en dash for nothing.

    >>> number(39.123456), number(None), number(True), number(12)
    ('39.12', '–', 'yes', '12')
    """
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return digits.alone(value) if isinstance(value, float) else str(value)


def facts(content: object, prefix: str = "") -> list[tuple[str, str]]:
    """The scalars of a nested mapping as (dotted name, text); a long list becomes its length.

    >>> facts({"test": {"mae": 0.5}, "seeds": [1, 2]})
    [('test.mae', '0.5'), ('seeds', '1, 2')]
    """
    if isinstance(content, Mapping):
        return [pair for key, value in content.items() for pair in facts(value, f"{prefix}.{key}" if prefix else key)]
    if isinstance(content, Sequence) and not isinstance(content, str):
        few = len(content) <= 8 and not any(isinstance(item, Mapping | list) for item in content)
        return [(prefix, ", ".join(map(number, content)) if few else f"{len(content)} entries")]
    return [(prefix, number(content))]


def _covered(summary: Summary) -> str:
    """What the interval covered in a cross-validation, by range of the predicted value."""
    target = summary.target
    facts = next((model.facts for model in summary.models if model.name == target.model), {})
    scores = facts.get("tasks", {}).get(target.name, {}).get("cross_validation", {})
    parts = [f"{part['coverage']:.0%} of those predicted {part['range']}" for part in scores.get("by_predicted", [])]
    if not parts:
        return ""
    return (
        "On known crystals, each predicted by members that had learned nothing of its group, the interval held "
        f"{', '.join(parts)} {target.unit}".rstrip()
        + "."
    )


def _row(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    members = [row[key] for key in row if key.startswith(f"{name}_member_") and row[key] is not None]
    parts = [row[f"{name}_{part}"] for part in PARTS]
    return {**dict(zip(PARTS, parts, strict=True)), "text": digits.measured(*parts), "members": members, "all": row}


def _error(row: Mapping[str, Any], name: str) -> str:
    """A predicted property with its error."""
    mean, std = row[f"{name}_mean"], row[f"{name}_std"]
    if mean is None or std is None:  # a cheap tier of a cascade predicts what ranks, and nothing else
        return "– ± –"
    return " ± ".join(digits.measured(mean, std))


def _shown(value: Any) -> Any:
    """A text that may come from a server or a file, as everything that the template writes."""
    if isinstance(value, Markup):  # of a macro or a filter, which escaped its parts
        return value
    return escaped(shortened(value, LONGEST)) if isinstance(value, str) else value


def _related(top: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The pairs of related crystals that both stand among the best, by rank."""
    place = {row["id"]: row["rank"] for row in top}
    return [
        {"rank": row["rank"], "other": place[other], "formula": row["formula"], "distance": distance, "ratio": ratio}
        for row in top
        for other, distance, ratio in zip(
            *(row.get(f"related_{part}") or () for part in ("to", "distance", "volume_ratio"))
        )
        if place.get(other, 0) > row["rank"]
    ]


def _scale(top: Sequence[Mapping[str, Any]], name: str) -> dict[str, float]:
    """Where the interval drawings start, and how many pixels a unit takes."""
    keys = [f"{name}_lo", f"{name}_hi"]
    ends = [row[key] for row in top for key in keys if np.isfinite(row[key])]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    return {"low": low, "high": high, "factor": 150.0 / max(high - low, 1e-12)}


def _funnel(balance: Balance) -> list[dict[str, Any]]:
    total = max(balance.received, 1)
    steps = (
        "received",
        "duplicate",
        "unique",
        "filtered",
        "quarantined",
        "pending",
        "scored",
        "unrankable",
        "excluded",
    )
    lost = {"duplicate", "filtered", "quarantined", "pending", "unrankable", "excluded"}
    found = balance.counts()
    counts = {name: found[name] for name in (*steps, "ranked") if name in found}
    return [{"name": name, "n": n, "share": 100 * n / total, "lost": name in lost} for name, n in counts.items()]


def _drawn(top: Sequence[Mapping[str, Any]], evidence: Evidence, name: str) -> dict[str, Any]:
    """The plots beside the histograms."""
    found = evidence.landscape
    return {
        "marked": f"the best {len(top):,}",
        "elements": plots.periodic_table(top),
        "places": plots.empty_places(),
        "landscape": found and plots.scatter(found.known, found.found, found.share),
        "reported": evidence.reported,
        "parity": evidence.pairs and plots.density(evidence.pairs),
        "held": _held(evidence, name),
    }


def _held(evidence: Evidence, name: str) -> dict[str, Any] | None:
    """The calibration rows of the property that ranks, as a density and its coverage."""
    held = evidence.held
    if held is None or not len(held.known):
        return None
    by = (
        "members that had learned nothing of their group"
        if evidence.out_of_fold
        else "members that had not learned them"
    )
    return {
        "density": plots.density(lambda: [(held.known, held.mean)]),
        "coverage": plots.coverage(held.known, held.mean, held.std),
        "of": f"Crystals with a known {name}, predicted by {by}; each counts once, whatever its weight in the card",
    }


def _by_reason(bad: Sequence[Quarantined]) -> list[tuple[str, list[Quarantined]]]:
    """(reason, rows), the most frequent reason first."""
    found: dict[str, list[Quarantined]] = {}
    for row in bad:
        found.setdefault(str(row.reason), []).append(row)
    return sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))


def _other_properties(summary: Summary) -> list[Property]:
    every = [item for model in summary.models for item in model.properties]
    if summary.stability:
        extra = {summary.stability.settings.compared(), ABOVE_HULL} - {item.name for item in every}
        every += [Property(name, stability.UNIT) for name in sorted(extra)]
    return [item for item in every if item.name != summary.target.name]
