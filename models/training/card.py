"""The model card of an ensemble: what it was trained on, how wrong it is, how to make it again.

Enters: `ensemble.json`. Leaves: `README.md` beside it. This module does not know how any number was
made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay.models.ensemble.checkpoint import read_json, write_whole
from assay.models.ensemble.distribution.quantiles import KIND
from assay.models.evaluation.assessment import OURS
from assay.models.networks import registry


def write(folder: Path, command: str) -> None:
    """Write the card of the ensemble in `folder`; `command` is how a reader reproduces it."""
    facts = read_json(folder / "ensemble.json", "a model ensemble")
    members = [read_json(folder / name / "model.json", "a checkpoint") for name in facts["members"]]
    sections = [_head(facts, members)]
    for name in facts["tasks"]:
        sections += [_data(facts, name), _scores(facts, name)]
        if "cross_validation" in facts["tasks"][name]:
            sections.append(_parts(facts["tasks"][name]))
        sections.append(_error_bars(facts, name))
    sections.append(_members(facts, members))
    sections.append(_again(command or "assay train RECIPE --output FOLDER", facts["recipe"]))
    write_whole(folder / "README.md", "\n".join(sections).encode())


def _again(command: str, recipe: dict[str, Any]) -> str:
    kept = "With `--resume` the weights in the output folder are kept, and only the numbers above are measured again."
    if recipe.get("cross_validation"):
        kept = "With `--resume` the members, and the predictions of folds, that lie in the output folder are kept."
    return (
        f"## Make it again\n\n```\n{command}\n```\n\ntrains it anew. {kept}\n\n"
        "The folder proves itself: `model.json` holds the sha256 of the weights, and `ensemble.json` one of its own "
        "content and of every `model.json`. Loading checks them, and every number.\n"
    )


def _head(facts: dict[str, Any], members: list[dict[str, Any]]) -> str:
    networks = sorted({member["network"] for member in members})
    prose = []
    for name, task in facts["tasks"].items():
        disordered = task["data"]["disordered"]
        kind = (
            f"{disordered} of the crystals behind it have partial occupancy or vacancies."
            if disordered
            else "It has seen ordered crystals only: for partial occupancy its numbers and intervals are untested."
        )
        level = task["data"]["functional"]
        said = "level of theory unknown" if level == "unknown" else level
        prose.append(f"`{name}` in {task['data']['unit']} ({said}). {kind}")
    reads = {registry.MODELS[name].reads.family for name in networks}
    given = "from the composition alone" if reads == {"composition"} else "from a crystal structure"
    head = f"# {facts['name']}\n\n{len(members)} networks ({', '.join(networks)}) predict, {given}, "
    return head + "\n".join(prose) + "\n"


def _heading(facts: dict[str, Any], name: str, title: str) -> str:
    return f"## {title}" if len(facts["tasks"]) == 1 else f"## {title}: {name}"


def _data(facts: dict[str, Any], name: str) -> str:
    data, rows = facts["tasks"][name]["data"], facts["tasks"][name]["rows"]
    split = facts["recipe"]["split"]
    few = facts["recipe"].get("learn_from")
    little = f" Each member learned from {few} of the rows for training." if few else ""
    if added := facts["tasks"][name].get("measured"):
        little += (
            f" Every member also learned from {added['rows']} values that were measured later (file sha256 "
            f"`{added['sha256'][:16]}`); what the split keeps together with them tests and calibrates nothing."
        )
    little += _formulas(facts["recipe"])
    origin = (
        f"{_heading(facts, name, 'Data')}\n\n{_from(data['origin'])}. Licence {data['licence']}. File sha256 "
        f"`{data['sha256'][:16]}`; rows left out: {_dropped(data)}.\n\n"
    )
    if scores := facts["tasks"][name].get("cross_validation"):
        return f"{origin}{_every_row(scores, split)}{little}\n"
    return (
        f"{origin}{_kind(split)} {rows['development']} rows for training, in {split['folds']} folds (member k stops "
        f"early on fold k), {rows['calibration']} for the error bars, {rows['test']} for the numbers below; "
        f"`split.json` lists their ids.{little}\n"
    )


def _every_row(scores: dict[str, Any], split: dict[str, Any]) -> str:
    """In words: a cross-validation, and what the members that are shipped have learned from."""
    unit = {"element-set": "element set", "formula": "formula", "row": "row"}[split["by"]]
    return (
        f"The members learned from all {scores['rows']} rows: none is kept back. Scores and error bars come from "
        f"others of the same recipe, in a repeated grouped cross-validation by {unit}: {scores['repeats']} times the "
        f"{scores['groups']} groups were divided into {scores['folds']} folds (seeds from {split['seed']}), and "
        f"every row was predicted by members that had learned nothing of its {unit}. What was learned from more rows "
        "should err no more than these scores say."
    )


def _formulas(recipe: dict[str, Any]) -> str:
    """In words: rows without a structure, training rows that were left out, and the note."""
    said = ""
    if recipe.get("formulas"):
        few = recipe["formulas"].get("learn_from")
        said += (
            " Members that read the composition alone also learned from "
            f"{f'{few:,} of ' if few else ''}the formulas of `{recipe['formulas']['dataset']}`, without those that "
            "share what the split keeps together with a row held out."
        )
    if rule := recipe.get("contradictions"):
        said += (
            f" Left out of training were rows with the value 0 whose neighbours within {rule['distance']:g} of "
            f"composition have a median above {rule['above']:g}."
        )
    return f"{said} {recipe.get('note', '')}".rstrip()


def _from(origin: str) -> str:
    return "Origin unknown" if origin == "unknown" else origin


def _dropped(data: dict[str, Any]) -> str:
    return ", ".join(f"{count} ({reason})" for reason, count in data["dropped"].items()) or "none"


def _kind(split: dict[str, Any]) -> str:
    """In words: what the split keeps apart."""
    held = f"The test rows are the family {split['family']}, all of it. " if split.get("family") else ""
    if split.get("kfold") is not None:
        held = f"The test rows are part {split['kfold'] + 1} of {split['kfolds']}. "
    if split["by"] == "row":
        return held + (
            f"Split at random, row by row (seed {split['seed']}): doping series and polymorphs stand on both sides, so "
            "the numbers flatter."
        )
    unit = {"element-set": "element set", "formula": "formula"}[split["by"]]
    among = "among the other rows " if split.get("family") else ""
    return f"{held}Grouped split by {unit} (seed {split['seed']}): {among}no {unit} stands on two sides."


def _scores(facts: dict[str, Any], name: str) -> str:
    task = facts["tasks"][name]
    unit = task["data"]["unit"]
    table = [f"| on the test rows | MAE ({unit}) | RMSE ({unit}) | R2 |", "|---|---|---|---|"]
    table.append(_row("**this ensemble**", task["test"]))
    table += [_row(f"{other}, composition only", scores) for other, scores in task["baselines"].items()]
    kind = "random" if facts["recipe"]["split"]["by"] == "row" else "grouped"
    if scores := task.get("cross_validation"):
        title = _heading(facts, name, f"Measured by repeated {kind} cross-validation")
        table = _repeated(scores, unit)
    else:
        title = _heading(facts, name, f"Measured on the {kind} test split")
    lists = _lists(scores, unit) if scores and "by_probability" in scores else ""
    return f"{title}\n\n" + "\n".join(table) + f"\n\n{lists}{_verdict(task)} {_weights(task)}\n"


def _repeated(scores: dict[str, Any], unit: str) -> list[str]:
    """The table of a cross-validation; what is of rows alone comes first."""
    beyond = f"{scores['threshold']:g} {unit}" if scores["threshold"] is not None else ""
    columns = {
        "over_groups": f"MAE, mean over groups ({unit})",
        "zero_bias": f"bias at 0 ({unit})",
        "top_bias": f"bias of the 100 highest ({unit})",
        "precision_50": f"precision@50 above {beyond}",
        "precision_100": "precision@100",
        "enrichment_100": "enrichment@100",
        "average_precision": "average precision",
    }
    shown = {key: title for key, title in columns.items() if key in scores["ranked"][OURS]}
    head = [f"MAE ({unit}), 95 %", f"RMSE ({unit})", "R2", *shown.values()]
    table = [f"| on all rows, each out of fold | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    every = {OURS: scores["scores"], **scores["rivals"]}
    for name, one in every.items():
        low, high = one["interval"]["mae"]
        cells = [f"{one['mae']:.4g} ({low:.3g} to {high:.3g})", f"{one['rmse']:.4g}", f"{one['r2']:.3f}"]
        cells += [f"{scores['ranked'][name][key]:.3g}" for key in shown]
        label = f"**{name}**" if name == OURS else f"{name}, composition only"
        table.append(f"| {label} | {' | '.join(cells)} |")
    return table


def _lists(scores: dict[str, Any], unit: str) -> str:
    """The lists that a screening for values above the threshold makes."""
    columns = "precision_50", "precision_100", "enrichment_100", "average_precision"
    head = f"ranked by the probability of lying above {scores['threshold']:g} {unit}"
    table = [f"| {head} | precision@50 | precision@100 | enrichment@100 | average precision |", "|---|---|---|---|---|"]
    for name, one in scores["by_probability"].items():
        label = f"**{name}**" if name == OURS else f"{name}, composition only"
        table.append(f"| {label} | {' | '.join(f'{one[key]:.3g}' for key in columns)} |")
    return "\n".join(table) + "\n\n"


def _parts(task: dict[str, Any]) -> str:
    """Errors and coverage by range of the predicted value, of the known one, and by family."""
    scores, unit = task["cross_validation"], task["data"]["unit"]
    best = task["versus_best_baseline"]["name"]
    tables = []
    for key, title in (("by_predicted", "predicted value"), ("by_range", "known value"), ("by_family", "family")):
        if key not in scores:
            continue
        head = [title, "rows", f"MAE ({unit})", f"bias ({unit})", "coverage", f"MAE, {best}", "MAE of all other rows"]
        lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for part in scores[key]:
            label = part["family"] if key == "by_family" else f"{part['range']} {unit}"
            others = "–" if part["mae_of_the_others"] is None else f"{part['mae_of_the_others']:.3g}"
            cells = [label, str(part["rows"]), f"{part['mae']:.3g}", f"{part['bias']:+.2g}", f"{part['coverage']:.1%}"]
            cells += [f"{part['rivals'][best]:.3g}", others]
            lines.append(f"| {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return "### By range and family\n\n" + "\n\n".join(tables) + "\n"


def _verdict(task: dict[str, Any]) -> str:
    """In words: better, worse or undecided by MAE, and whether RMSE agrees."""
    compared, unit = task["versus_best_baseline"], task["data"]["unit"]
    name, other = compared["name"], task["baselines"][compared["name"]]
    change = task["test"]["mae"] / other["mae"] - 1
    prose = f"Against {name} the MAE differs by {change:+.1%} ({compared['difference']:+.3g} {unit}, 95 % interval "
    prose += f"{compared['low']:+.3g} to {compared['high']:+.3g} over resampled groups): "
    if compared["high"] < 0:
        prose += "it **beats** the best baseline."
    elif compared["low"] > 0:
        prose += "it does **not** beat the best baseline."
    else:
        prose += "a **tie** within the noise of this split."
    if task["test"]["rmse"] > other["rmse"]:
        prose += f" By RMSE and R2, {name} is better."
    return prose


def _weights(task: dict[str, Any]) -> str:
    if not task["data"]["weight"]:
        return "Every row counts once."
    return "Rows are weighted so that every formula counts once, in the loss and in every number here."


def _row(name: str, scores: dict[str, float]) -> str:
    return f"| {name} | {scores['mae']:.4g} | {scores['rmse']:.4g} | {scores['r2']:.3f} |"


def _error_bars(facts: dict[str, Any], name: str) -> str:
    task, fitted = facts["tasks"][name], facts["calibration"][name]
    test, unit = task["test"], task["data"]["unit"]
    where = (
        "Out of fold, with error bars fitted on the other folds," if "cross_validation" in task else "On the test rows"
    )
    described = _by_quantiles(fitted, unit) if fitted.get("kind") == KIND else _by_spread(fitted, unit)
    return (
        f"{_heading(facts, name, 'Error bars')}\n\n{described}{where} "
        f"it covers {test['coverage']:.1%} with a mean width of {test['mean_width']:.3g} {unit}; Spearman "
        f"correlation of error and std {test['error_std_spearman']:.2f}.\n\n"
        "The test crystals come from the same databases. For crystals of another kind (hypothetical, under pressure, "
        "with elements flagged in `ood`, with `ood_distance` above 1) the interval is a guide, not a promise.\n"
        f"{_kept(facts, name)}"
    )


def _kept(facts: dict[str, Any], name: str) -> str:
    """In words: the calibration rows, which lie beside the card."""
    kept = facts.get("calibration_rows")
    if kept is None:
        return ""
    said = (
        f"\n`calibration.safetensors` keeps {kept['rows'][name]} rows with their known and predicted values: a "
        "campaign with `rank.select` selects crystals by them, with a bound on the share that is selected wrongly."
    )
    if kept["out_of_fold"]:
        said += (
            " They were predicted out of fold (first repeat), by members that learned from fewer rows than those of "
            "this folder: so they are not exactly exchangeable with new crystals, which should err no more."
        )
    return f"{said}\n"


def _by_spread(fitted: dict[str, Any], unit: str) -> str:
    return (
        f"`_std` estimates the error: {fitted['scale']:.3g} x (spread of the members + {fitted['floor']:.3g} {unit}). "
        f"`_lo` to `_hi` is a split-conformal interval with nominal coverage {fitted['level']:.0%}: half width "
        f"{fitted['quantile']:.3g} x (spread + {fitted['floor']:.3g} {unit}). "
    )


def _by_quantiles(fitted: dict[str, Any], unit: str) -> str:
    """In words and a table: a calibration by range of the predicted value."""
    rows = [
        f"| range of the predicted value ({unit}) | widening ({unit}) | scale | predictions it was fitted on |",
        "|---|---|---|---|",
    ]
    for k, (wider, scale, n) in enumerate(zip(fitted["widening"], fitted["scale"], fitted["n"], strict=True)):
        rows.append(f"| {_span(fitted['edges'], k)} | {wider:+.3g} | {scale:.3g} | {n} |")
    return (
        f"`_std` estimates the error: scale x (spread + {fitted['floor']:.3g} {unit}), where the spread is the root "
        "mean square distance of the values of all trees from the prediction. `_lo` to `_hi` is an interval with "
        f"nominal coverage {fitted['level']:.0%}: it goes from the lower to the upper quantile of these values that "
        f"hold {fitted['base']:.0%} of them, and is wider at both ends by the widening of the range in which the "
        "prediction lies (conformalised quantiles, Mondrian).\n\n" + "\n".join(rows) + "\n\n"
    )


def _span(edges: list[float], k: int) -> str:
    """Name of the range number k between ascending edges; an edge belongs to the range above it."""
    if not edges:
        return "all"
    if k in (0, len(edges)):
        return f"below {edges[0]:.3g}" if k == 0 else f"{edges[-1]:.3g} and above"
    return f"{edges[k - 1]:.3g} to {edges[k]:.3g}"


def _members(facts: dict[str, Any], members: list[dict[str, Any]]) -> str:
    tasks = facts["tasks"]
    where = "MAE out of fold, of" if any("cross_validation" in task for task in tasks.values()) else "test MAE of"
    columns = [f"{where} {name} ({task['data']['unit']})" for name, task in tasks.items()]
    table = ["| member | network | sizes | seed | epochs | " + " | ".join(columns) + " |"]
    table.append("|---" * (5 + len(columns)) + "|")
    read = [", ".join(member.get("composition", {}).get("blocks", ())) for member in members]
    for k, (name, member) in enumerate(zip(facts["members"], members, strict=True)):
        sizes = ", ".join(f"{key} {value}" for key, value in member["sizes"].items() if key != "counts")
        if read[k] and len(set(read)) > 1:
            sizes += f"; reads {read[k]}"
        errors = " | ".join(f"{task['test']['member_mae'][k]:.4g}" for task in tasks.values())
        epochs = member["metrics"]["epochs"] or "–"
        table.append(f"| {name} | {member['network']} | {sizes} | {member['seed']} | {epochs} | {errors} |")
    combined = [
        f"Weights of the members for `{name}`: {', '.join(f'{share:.2f}' for share in shares)}."
        for name, shares in facts.get("weights", {}).items()
    ]
    start = facts["recipe"]["start"]
    began = [f"The trunks start from `{start['folder']}` ({_held(start)})."] if start else []
    return "## Members\n\n" + "\n".join([*table, *(["", *began, *combined] if began or combined else [])]) + "\n"


def _held(start: dict[str, Any]) -> str:
    """In words: what of the trunk keeps its weights."""
    if adapters := start.get("lora"):
        return f"frozen, but for adapters of rank {adapters['rank']} that were merged in the end"
    return f"frozen: {start['freeze']}"
