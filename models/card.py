"""The model card of an ensemble: what it was trained on, how wrong it is, how to make it again.

Enters: `ensemble.json`. Leaves: `README.md` beside it. This module does not know how any number was made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.checkpoint import read_json, write_whole


def write(folder: Path, command: str) -> None:
    """Write the card of the ensemble in `folder`; `command` is how a reader reproduces it."""
    facts = read_json(folder / "ensemble.json", "a model ensemble")
    members = [read_json(folder / name / "model.json", "a checkpoint") for name in facts["members"]]
    sections = [_head(facts, members), _data(facts), _scores(facts), _error_bars(facts), _members(facts, members)]
    sections.append(_again(command or "assay train RECIPE --output FOLDER"))
    write_whole(folder / "README.md", "\n".join(sections).encode())


def _again(command: str) -> str:
    return (
        f"## Make it again\n\n```\n{command}\n```\n\ntrains it anew. With `--resume` the weights in the output "
        "folder are kept, and only the numbers above are measured again.\n"
    )


def _head(facts: dict[str, Any], members: list[dict[str, Any]]) -> str:
    prop = members[0]["properties"][0]
    networks = sorted({member["network"] for member in members})
    disordered = facts["data"]["disordered"]
    kind = (
        f"{disordered} of the crystals behind it have partial occupancy or vacancies."
        if disordered
        else "It has seen ordered crystals only: for partial occupancy its numbers and intervals are untested."
    )
    return (
        f"# {facts['name']}\n\nPredicts `{prop['name']}` in {prop['unit']} ({facts['data']['functional']}) from a "
        f"crystal structure: {len(members)} networks ({', '.join(networks)}). {kind}\n"
    )


def _data(facts: dict[str, Any]) -> str:
    data, rows, split = facts["data"], facts["rows"], facts["recipe"]["split"]
    return (
        f"## Data\n\n{data['origin']}. Licence {data['licence']}. File sha256 `{data['sha256'][:16]}`, "
        f"{data['refused']} rows refused (no sound crystal or no value).\n\n"
        f"Split by element set (seed {split['seed']}): no element set stands on two sides. {rows['development']} rows "
        f"for training, in {split['folds']} folds (member k stops early on fold k), {rows['calibration']} for the "
        f"error bars, {rows['test']} for the numbers below.\n"
    )


def _scores(facts: dict[str, Any]) -> str:
    unit = facts["data"]["unit"]
    table = [f"| on the test rows | MAE ({unit}) | RMSE ({unit}) | R2 |", "|---|---|---|---|"]
    table.append(_row("**this ensemble**", facts["test"]))
    table += [_row(f"{name}, composition only", scores) for name, scores in facts["baselines"].items()]
    return "## Measured on the grouped test split\n\n" + "\n".join(table) + f"\n\n{_verdict(facts)} {_weights(facts)}\n"


def _verdict(facts: dict[str, Any]) -> str:
    """In words: better, worse or undecided by MAE, and whether RMSE agrees."""
    compared, unit = facts["versus_best_baseline"], facts["data"]["unit"]
    name, other = compared["name"], facts["baselines"][compared["name"]]
    change = facts["test"]["mae"] / other["mae"] - 1
    told = f"Against {name} the MAE differs by {change:+.1%} ({compared['difference']:+.3g} {unit}, 95 % interval "
    told += f"{compared['low']:+.3g} to {compared['high']:+.3g} over resampled element sets): "
    if compared["high"] < 0:
        told += "it **beats** the best baseline."
    elif compared["low"] > 0:
        told += "it does **not** beat the best baseline."
    else:
        told += "a **tie** within the noise of this split."
    if facts["test"]["rmse"] > other["rmse"]:
        told += f" By RMSE and R2, {name} is better."
    return told


def _weights(facts: dict[str, Any]) -> str:
    if not facts["data"]["weight"]:
        return "Every row counts once."
    return "Rows are weighted so that every formula counts once, in the loss and in every number here."


def _row(name: str, scores: dict[str, float]) -> str:
    return f"| {name} | {scores['mae']:.4g} | {scores['rmse']:.4g} | {scores['r2']:.3f} |"


def _error_bars(facts: dict[str, Any]) -> str:
    test, unit = facts["test"], facts["data"]["unit"]
    fitted = next(iter(facts["calibration"].values()))
    return (
        f"## Error bars\n\n`_std` is the spread of the members (ddof 1). `_lo` to `_hi` is a split-conformal interval "
        f"with nominal coverage {fitted['level']:.0%}: half width {fitted['quantile']:.3g} x (std + "
        f"{fitted['floor']:.3g} {unit}). On the test rows it covers {test['coverage']:.1%} with a mean width of "
        f"{test['mean_width']:.3g} {unit}; Spearman correlation of error and std {test['error_std_spearman']:.2f}.\n\n"
        "The test crystals are new element sets of the same databases. For crystals of another kind (hypothetical, "
        "under pressure, with elements flagged in `ood`) the interval is a guide, not a promise.\n"
    )


def _members(facts: dict[str, Any], members: list[dict[str, Any]]) -> str:
    unit = facts["data"]["unit"]
    table = [f"| member | network | sizes | seed | epochs | test MAE ({unit}) |", "|---|---|---|---|---|---|"]
    for name, member, mae in zip(facts["members"], members, facts["test"]["member_mae"], strict=True):
        sizes = ", ".join(f"{k} {v}" for k, v in member["sizes"].items())
        epochs = member["metrics"]["epochs"]
        table.append(f"| {name} | {member['network']} | {sizes} | {member['seed']} | {epochs} | {mae:.4g} |")
    return "## Members\n\n" + "\n".join(table) + "\n"
