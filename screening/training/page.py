"""The table of a study in Markdown.

Enters: a study and its results. Leaves: text. Nothing is measured here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from assay.screening.settings import digits

if TYPE_CHECKING:
    from assay.screening.training.design import Study


def write(study: Study, results: dict[str, Any], command: str) -> str:
    """The page: one line per way to learn, baselines below, then the comparison and the notes."""
    columns = list(study.columns)
    names = [*study.rows, *study.mixtures, *_baselines(results, columns)]
    head = "| | " + " | ".join(_title(name, results[name]) for name in columns) + " |"
    lines = [f"### {study.title}", "", head, "|---" * (len(columns) + 1) + "|"]
    best = {column: _best(results[column]) for column in columns}
    lines += [_line(name, results, columns, best) for name in names]
    lines += ["", _legend(study), ""]
    if study.compare:
        lines += [*_comparison(study, results, columns), ""]
    seconds = [sum(results[column]["seconds"].get(row, 0.0) for column in columns) for row in study.rows]
    spent = ", ".join(f"{row} {taken / 60:.0f}" for row, taken in zip(study.rows, seconds, strict=True) if taken)
    told = f"Minutes of training, summed over networks: {spent}. " if spent else ""  # forests keep no history
    lines += [f"{told}Seeds {', '.join(map(str, study.seeds))}.", ""]
    if study.notes:
        lines += [study.notes.strip(), ""]
    return "\n".join([*lines, "```", command, "```", ""])


def _baselines(results: dict[str, Any], columns: list[str]) -> list[str]:
    return list(dict.fromkeys(name for column in columns for name in results[column]["baselines"]))


def _title(name: str, column: dict[str, Any]) -> str:
    return f"{name}: MAE ({column['unit']}), R2; {column['test']:,} rows"


def _best(column: dict[str, Any]) -> str:
    scores: dict[str, Any] = column["scores"]
    return min(scores, key=lambda name: scores[name]["mae"])


def _line(name: str, results: dict[str, Any], columns: list[str], best: dict[str, str]) -> str:
    cells = []
    for column in columns:
        scores = results[column]["scores"].get(name)
        if scores is None:
            cells.append("–")
            continue
        shown = f"{scores['mae']:.3g}, {scores['r2']:.2f}"
        shown = f"**{shown}**" if best[column] == name else shown
        single = scores.get("single_mae", [])
        if len(single) > 1:
            shown += f" ({' ± '.join(digits.measured(float(np.mean(single)), float(np.std(single, ddof=1))))})"
        cells.append(shown)
    return f"| {name} | " + " | ".join(cells) + " |"


def _legend(study: Study) -> str:
    return (
        f"MAE and R2 of the average of {len(study.seeds)} networks{_exceptions(study)}; in brackets the MAE of one "
        "network, mean and standard deviation over the seeds. Bold: the smallest MAE of the column. The last lines are "
        "baselines that see the composition only, trained on all development rows." + _little(study)
    )


def _little(study: Study) -> str:
    """The note for rows that learn from few crystals, while baselines learn from all."""
    few = [name for name, row in study.rows.items() if "learn_from" in row.set]
    if not few:
        return ""
    return f" Of the lines {', '.join(few)} only the networks learn from few rows; they stop early on a whole fold."


def _exceptions(study: Study) -> str:
    exceptions = [f"{len(row.seeds)} of {name}" for name, row in study.rows.items() if row.seeds]
    return f" ({', '.join(exceptions)})" if exceptions else ""


def _comparison(study: Study, results: dict[str, Any], columns: list[str]) -> list[str]:
    """The mean change of single networks against the row `study.compare`, over common columns."""
    lines = [
        f"| one network, against {study.compare} | MAE, mean change | R2, mean change | better in |",
        "|---|---|---|---|",
    ]
    for name in study.rows:
        pairs = [
            (results[column]["scores"][name], results[column]["scores"][study.compare])
            for column in columns
            if name != study.compare and name in results[column]["scores"]
        ]
        if not pairs:
            continue
        mae = [np.mean(own["single_mae"]) / np.mean(other["single_mae"]) - 1 for own, other in pairs]
        r2 = [np.mean(own["single_r2"]) - np.mean(other["single_r2"]) for own, other in pairs]
        wins = sum(change < 0 for change in mae)
        lines.append(f"| {name} | {np.mean(mae):+.1%} | {np.mean(r2):+.3f} | {wins} of {len(pairs)} |")
    return lines
