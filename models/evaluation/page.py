"""An evaluation as a page of Markdown.

Enters: what `evaluation.json` holds. Leaves: text. This module does not know how any number was
made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from assay.models.evaluation.assessment import OURS
from assay.models.evaluation.figures import NAMES


def text(found: dict[str, Any]) -> str:
    """The whole page."""
    sections = [_head(found), _scores(found), _compared(found), _bars(found), _parts(found, "by_range", "range")]
    sections.append(_parts(found, "by_predicted", "range"))
    if found["by_family"]:
        sections.append(_parts(found, "by_family", "family"))
    if "retrieval" in found:
        sections.append(_retrieval(found))
    shown = "\n\n".join(f"![{NAMES[name]}]({name})" for name in found["figures"])
    return "\n\n".join([*sections, f"## Figures\n\n{shown}"]) + "\n"


def _head(found: dict[str, Any]) -> str:
    rows, data = found["rows"], found["dataset"]
    lines = [f"# {found['ensemble']['name']}: {found['property']} on the {found['part']} rows of {data['name']}"]
    lines += [f"> **WARNING.** {warning}" for warning in found["warnings"]]
    learned = "an unknown number" if rows["learned_from"] is None else rows["learned_from"]
    prose = (
        f"{rows['evaluated']} crystals, {rows['formulas']} formulas, {rows['element_sets']} element sets; the members "
        f"learned from {learned} others. {_split(found['split'], found['part'])} Of the evaluated crystals "
        f"{rows['trained_on']} were trained on, {rows['same_composition_trained_on']} share their composition and "
        f"{rows['element_set_trained_on']} their element set with one that was."
    )
    if rows["learned_from"] is None:
        prose = prose.partition(" Of the evaluated")[0]
    prose += " Rows are weighted as in training." if data["weighted"] else " Every row counts once."
    lines.append(prose)
    if rows["refused"]:
        first = "; ".join(rows["reasons"][:3])
        lines.append(f"{rows['refused']} crystals could not be predicted and are in no score: {first}")
    weights = found["ensemble"]["weights_sha256"]
    lines.append(
        f"Ensemble `{found['ensemble']['folder']}`, {len(weights)} members, the first has weights `{weights[0][:12]}`. "
        f"Data: {data['origin']}; file sha256 `{data['sha256'][:12]}`."
    )
    return "\n\n".join(lines)


def _split(split: dict[str, Any], part: str) -> str:
    if not split:
        return "No split is recorded."
    rule = f"by {split.get('by', 'element-set').replace('-', ' ')}"
    if split.get("family"):
        rule += f", family {split['family']} held out"
    if split.get("kfold") is not None:
        rule += f", fold {split['kfold']} of {split['kfolds']}"
    return f"Split: {rule}, seed {split['seed']}; part: {part}."


def _scores(found: dict[str, Any]) -> str:
    unit = found["unit"]
    logarithmic = "msle" in found["scores"]
    head = ["", f"MAE ({unit})", "95 %", f"RMSE ({unit})", "95 %", "R2", "95 %", f"bias ({unit})"]
    table = [score_cells(f"**{OURS}**", found["scores"], logarithmic=logarithmic)]
    if "new_compositions" in found:
        new = found["new_compositions"]
        name = f"{OURS}, {new['rows']} rows of new composition"
        table.append(score_cells(name, new, logarithmic=logarithmic))
    table += [score_cells(name, scores, logarithmic=logarithmic) for name, scores in found["rivals"].items()]
    members = found["member_mae"]
    note = f"Single members: MAE {min(members):.4g} to {max(members):.4g} {unit}. "
    note += "Intervals: bootstrap over element sets. Baselines see the composition only and learned from the same rows."
    if found["against"]:
        note += f" {found['against']['name']} is the ensemble in `{found['against']['folder']}`."
    return f"## Scores\n\n{_table([*head, *(['MSLE'] if logarithmic else [])], table)}\n\n{note}"


def score_cells(name: str, scores: dict[str, Any], *, logarithmic: bool) -> list[str]:
    """The cells of a row of the table of scores."""
    cells = [name]
    for key, form in (("mae", ".4g"), ("rmse", ".4g"), ("r2", ".3f")):
        low, high = scores["interval"][key]
        cells += [f"{scores[key]:{form}}", f"{low:{form}} to {high:{form}}"]
    msle = "–" if math.isnan(scores.get("msle", math.nan)) else f"{scores['msle']:.3f}"
    return [*cells, f"{scores['bias']:+.3g}", *([msle] if logarithmic else [])]


def _compared(found: dict[str, Any]) -> str:
    if not found["compared"]:
        return "## Paired comparison\n\nNothing to compare with: what the ensemble learned from is not recorded."
    table = []
    for name, one in found["compared"].items():
        verdict = "better" if one["high"] < 0 else "worse" if one["low"] > 0 else "not told apart"
        span = f"{one['low']:+.3g} to {one['high']:+.3g}"
        table.append([name, f"{one['difference']:+.3g}", span, f"{one['p']:.2g}", verdict])
    head = ["against", f"MAE difference ({found['unit']})", "95 %", "p", OURS]
    note = (
        "Negative: this ensemble errs less, on the same rows. Interval: bootstrap over element sets. p: two-sided, "
        "signs of the element sets' differences flipped at random. Neither is corrected for the number of comparisons."
    )
    return f"## Paired comparison\n\n{_table(head, table)}\n\n{note}"


def _bars(found: dict[str, Any]) -> str:
    bars, unit = found["error_bars"], found["unit"]
    low, high = bars["coverage_interval"]
    prose = (
        f"The interval with nominal coverage {bars['level']:.0%} covers {bars['coverage']:.1%} (95 %: {low:.1%} to "
        f"{high:.1%}), mean width {bars['mean_width']:.4g} {unit}. Spearman correlation of error and std "
        f"{bars['spearman']:.2f}."
    )
    head = ["read as a Gaussian", "NLL", f"CRPS ({unit})", "ENCE", "miscalibration area", "RMS of z"]
    table = [
        [name, *(f"{one[key]:.3g}" for key in ("nll", "crps", "ence", "miscalibration_area", "z_rms"))]
        for name, one in bars["gaussian"].items()
    ]
    note = "Lower is better; RMS of z is 1 for honest deviations, above 1 where they are too small."
    for name, count in bars["no_gaussian"].items():
        note += f" The {name} is 0 or infinite for {count} of the crystals, which makes no Gaussian."
    return f"## Error bars\n\n{prose}\n\n{_table(head, table)}\n\n{note}"


def _parts(found: dict[str, Any], key: str, label: str) -> str:
    unit, rivals = found["unit"], list(found["rivals"])
    head = [label, "rows", "share", f"MAE ({unit})", f"bias ({unit})", "coverage", *(f"MAE, {name}" for name in rivals)]
    table = [
        [
            f"{part[label]} {unit}" if label == "range" else part[label],
            str(part["rows"]),
            f"{part['share']:.1%}",
            f"{part['mae']:.4g}",
            f"{part['bias']:+.3g}",
            f"{part['coverage']:.1%}",
            *(f"{part['rivals'][name]:.4g}" for name in rivals),
        ]
        for part in found[key]
    ]
    titles = {"by_range": "range of the known value", "by_predicted": "range of the predicted value"}
    return f"## Error by {titles.get(key, label)}\n\n{_table(head, table)}"


def _retrieval(found: dict[str, Any]) -> str:
    every, unit = found["retrieval"], found["unit"]
    first = every[OURS]
    lengths = [one["k"] for one in first["lists"]]
    table = [
        [str(k), *(_listed(found_by["lists"][place]) for found_by in every.values())] for place, k in enumerate(lengths)
    ]
    chosen = [
        [name, str(found_by["above"]["predicted"]), *(_cell(found_by["above"][key]) for key in _ABOVE)]
        for name, found_by in every.items()
    ]
    prose = (
        f"{first['hits']} crystals are above {first['threshold']:g} {unit}, {first['prevalence']:.1%} by weight. Each "
        "cell: precision / recall / discovery acceleration factor (precision over prevalence; of a list the enrichment "
        "factor) of the k crystals with the best prediction."
    )
    lists = _table(["k", *every], table)
    over = _table(
        [f"predicted above {first['threshold']:g} {unit}", "rows", "precision", "recall", "F1", "DAF"], chosen
    )
    return f"## Would a screening have found them\n\n{prose}\n\n{lists}\n\n{over}"


_ABOVE = ("precision", "recall", "f1", "daf")


def _listed(one: dict[str, float]) -> str:
    return f"{one['precision']:.2f} / {one['recall']:.2f} / {one['daf']:.1f}"


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
