"""Does a shortlist keep its promise: is the share of false discoveries below the level?

Enters: an ensemble that keeps its calibration rows. Leaves: a table and numbers. The rows are
halved at random, group by group: one half plays the calibration rows, the other the crystals of a
campaign. Where the ensemble has test rows, it predicts them, and a shortlist of them is made by all
calibration rows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring.stopwatch import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from assay.models.ensemble.ensemble import Ensemble
    from assay.models.ensemble.stored import CalibrationRows, HeldRows
    from assay.screening.folder.summary import Target

LEVELS = (0.05, 0.1, 0.2)


def promises(folder: Path, thresholds: Sequence[float], order: str, repeats: int) -> dict[str, Any]:
    """The share of false discoveries, and of the hits that were found, by threshold and level."""
    from assay.models.ensemble.ensemble import Ensemble
    from assay.screening.campaign.plan import as_target

    loaded = Ensemble.load(folder)
    kept = loaded.calibration_rows
    assert kept is not None, f"{folder} keeps no calibration rows"
    (name,) = kept.rows
    target, test = as_target(loaded, name), _test_rows(loaded, name)
    found = []
    for threshold in thresholds:
        for fdr in LEVELS:
            settings = {"order": order, "select": {"threshold": threshold, "fdr": fdr}}
            one = {"threshold": threshold, "fdr": fdr, **_halved(kept, settings, target, repeats)}
            if test is not None:
                selected, false, hits = _judged(settings, target, kept, test)
                one |= {"test_selected": selected, "test_false": false / max(selected, 1), "test_found": hits}
            found.append(one)
    lines = [[f"{value:.4g}" for value in one.values()] for one in found]
    show(f"{folder.name}, {order}, {repeats} halvings of {len(kept.rows[name].known):,} rows", list(found[0]), lines)
    return {"ensemble": folder.name, "order": order, "repeats": repeats, "rows": found}


def _halved(kept: CalibrationRows, settings: dict[str, Any], target: Target, repeats: int) -> dict[str, float]:
    """Means over the halvings, with the error of the mean and the deviation of one.

    `alone` is the share of false discoveries where every row counts as a group of its own.
    """
    import numpy as np

    from assay.models.ensemble.stored import CalibrationRows

    rows = kept.rows[target.name]
    groups, generator = int(rows.group.max()) + 1, np.random.default_rng(0)
    each = []
    for _ in range(repeats):
        first = np.zeros(groups, bool)
        first[generator.permutation(groups)[: groups // 2]] = True
        here = first[rows.group]
        half = CalibrationRows({target.name: _part(rows, here)}, kept.by, kept.out_of_fold)
        other = _part(rows, ~here)
        crystals = _table(target.name, other)
        selected, false, hits = _judged(settings, target, half, crystals)
        alone, wrong, _ = _judged(settings, target, replace(half, by="row"), crystals)
        each.append((false / max(selected, 1), hits, selected == 0, wrong / max(alone, 1)))
    shares, hits, none, single = np.array(each, np.float64).T
    return {
        "false": float(shares.mean()),
        "error": float(shares.std() / repeats**0.5),
        "deviation": float(shares.std()),
        "found": float(hits.mean()),
        "none": float(none.mean()),
        "alone": float(single.mean()),
        "alone_error": float(single.std() / repeats**0.5),
    }


def _judged(settings: dict[str, Any], target: Target, kept: CalibrationRows, rows: pa.Table) -> tuple[int, int, float]:
    """Selected crystals, the false ones among them, and the share of the hits that they are."""
    from assay.screening.ranking.select import SELECTED, Shortlist
    from assay.screening.settings.choice import Rank

    rank = Rank.model_validate(settings)
    assert rank.select is not None
    shortlist = Shortlist(rank, target, kept)
    shortlist.learn(rows)
    selected = shortlist.marked(rows)[SELECTED].to_numpy()
    side = 1 if rank.order == "descending" else -1
    hits = side * rows["known"].to_numpy() > side * rank.select.threshold
    return int(selected.sum()), int((selected & ~hits).sum()), float((selected & hits).sum() / max(hits.sum(), 1))


def _part(rows: HeldRows, here: Any) -> HeldRows:
    from assay.models.ensemble.stored import HeldRows

    return HeldRows(rows.known[here], rows.mean[here], rows.std[here], rows.group[here])


def _table(name: str, rows: HeldRows) -> pa.Table:
    """The rows as a campaign scores them; the number of a group stands for its name."""
    import numpy as np
    import pyarrow as pa

    groups = pa.array(rows.group.astype(str))
    columns = {"known": rows.known, f"{name}_mean": rows.mean, f"{name}_std": rows.std}
    return pa.table({**columns, "elements": groups, "formula": groups, "ood": np.zeros(len(rows.known), bool)})


def _test_rows(loaded: Ensemble, name: str) -> pa.Table | None:
    """The test rows, predicted; None after a cross-validation."""
    import numpy as np

    from assay.models.ensemble.stored import HeldRows
    from assay.models.evaluation import heldout

    if loaded.facts["recipe"]["cross_validation"]:
        return None
    data = heldout.find(loaded, None, "test").data
    predicted, refused = loaded.predict(data.crystals)
    assert not refused
    value = predicted.values[name]
    return _table(name, HeldRows(data.target, value.mean, value.std, np.unique(data.groups, return_inverse=True)[1]))
