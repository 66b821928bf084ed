"""A rehearsal of several strategies over several seeds, written into a folder.

Enters: the file of a simulation, a folder. Leaves: `simulation.md` with the table and a sentence,
`simulation.json`, `rounds.parquet` with one row per strategy, seed and round, and `discovery.png`.
The same file and data give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from assay.models.ensemble.checkpoint import finite
from assay.models.evaluation import plots
from assay.models.target import Property
from assay.screening.deciding import pool as pools, replay, scores
from assay.screening.deciding.pool import Pool
from assay.screening.deciding.replay import Simulation
from assay.screening.deciding.scores import Run
from assay.screening.deciding.surrogate import Surrogate
from assay.screening.settings import bundled, place, yamlfile
from assay.sources import durable, table

PAGE = "simulation.md"


def read(config: Path | str, overrides: Sequence[str] = ()) -> Simulation:
    """Read, override and validate the file of a simulation, or a bundled one by name."""
    path = bundled.simulation(config)
    return yamlfile.validate(Simulation, yamlfile.override(yamlfile.read(path), overrides), str(path))


def run(settings: Simulation, output: Path, note: Callable[[str], None] = lambda _: None) -> Path:
    """Replay every strategy with every seed, write the folder, and return the path of the page.

    `note` gets a line after each run.

    Raises:
        FileNotFoundError: when the data are not there.
        Failure: when the pool does not fit the settings, or the folder holds something else.
    """
    pool = pools.load(settings.dataset, settings.limit)
    hit = replay.check(settings, pool)
    place.claim(output, "simulate")
    target = Property(settings.property.name, pool.unit, settings.property.transform, settings.property.minimum)
    surrogate = Surrogate.of(pool.atoms, settings.surrogate.spec(), target, settings.surrogate.sizes())
    value, sizes = replay.sign_of(settings) * pool.value, (settings.start, settings.batch, settings.reach)
    runs: dict[str, list[Run]] = {}
    for strategy in settings.strategies:
        for seed in settings.seeds:
            order = replay.run(settings, pool, surrogate, strategy, seed)
            runs.setdefault(strategy, []).append(scores.judge(strategy, seed, order, hit, value, *sizes))
            note(f"{strategy}, seed {seed}: {runs[strategy][-1].hits[-1]} hits")
    found = _results(settings, pool, int(hit.sum()), runs)
    table.write(_rounds(runs), output / "rounds.parquet")
    durable.write(output / "simulation.json", json.dumps(finite(found), indent=1, allow_nan=False) + "\n")
    _draw(output / "discovery.png", found)
    durable.write(output / PAGE, "\n".join(lines(found)) + "\n")
    return output / PAGE


def lines(found: Mapping[str, Any]) -> list[str]:
    """The page: what was replayed, the table, and which strategy wins."""
    wanted, runs, unit = found["hits"], len(found["seeds"]), found["unit"]
    measured, share = found["measured"], wanted / found["formulas"]
    head = (
        f"{found['formulas']:,} formulas of `{found['dataset']}`; {wanted} of them are hits ({share:.1%}): "
        f"{found['hit']}. Each campaign starts with {found['start']} formulas at random and measures {measured} more, "
        f"{found['batch']} per round. Mean over {runs} seeds [band of {scores.BAND:.0%} of them]."
    )
    reach = f"acceleration until {found['reach']:.0%} of the hits"
    rows = ["", f"| strategy | hits | enrichment | regret ({unit}) | {reach} |", "|---|---|---|---|---|"]
    for name, one in found["strategies"].items():
        cells = [_cell(one[part][-1], digits) for part, digits in (("hits", 1), ("enrichment", 1), ("regret", 2))]
        reached = "" if one["reached"] == one["runs"] else f" ({one['reached']} of {one['runs']} seeds reach it)"
        rows.append(f"| {name} | {' | '.join(cells)} | {_cell(one['acceleration'], 1)}{reached} |")
    return [f"# {found['name']}", "", head, *rows, "", verdict(found), "", "![hits](discovery.png)"]


def verdict(found: Mapping[str, Any]) -> str:
    """Which strategy wins, and whether the seeds can tell."""
    compared = found["compared"]
    if not compared:
        return "There is one strategy, so none wins."
    best, told, tied = compared[0]["best"], list[str](), list[str]()
    for row in compared:
        text = f"{row['other']} by {row['mean']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
        (told if row["low"] > 0 else tied).append(text)
    said = f"`{best}` finds most hits."
    if told:
        said += f" On the same seeds it is ahead of {', '.join(told)} hits ({scores.LEVEL:.0%} interval of the mean)."
    if tied:
        said += f" The seeds cannot tell it from {', '.join(tied)} hits."
    return said


def _results(settings: Simulation, pool: Pool, hits: int, runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    side = "above" if replay.sign_of(settings) > 0 else "below"
    named = f"{settings.property.name} {side} {settings.hits.threshold} {pool.unit}"
    return {
        "name": settings.name,
        "dataset": settings.dataset,
        "sha256": pool.sha256,
        "settings": settings.model_dump(mode="json"),
        "unit": pool.unit,
        "crystals": pool.crystals,
        "formulas": len(pool),
        "hits": hits,
        "hit": named if settings.hits.top is None else f"the best {hits} by {settings.property.name}",
        "start": settings.start,
        "batch": settings.batch,
        "measured": settings.batch * settings.rounds,
        "reach": settings.reach,
        "seeds": settings.seeds,
        "strategies": {name: scores.summarise(some) for name, some in runs.items()},
        "compared": scores.compare(runs),
    }


def _rounds(runs: Mapping[str, Sequence[Run]]) -> pa.Table:
    """One row per strategy, seed and round."""
    every = [run for some in runs.values() for run in some]
    times = [len(run.measured) for run in every]
    columns: dict[str, Any] = {
        "strategy": np.repeat([run.strategy for run in every], times).tolist(),
        "seed": np.repeat([run.seed for run in every], times),
        "round": np.concatenate([np.arange(count) for count in times]),
    }
    for name in ("measured", "hits", "enrichment", "regret"):
        columns[name] = np.concatenate([getattr(run, name) for run in every])
    return pa.table(columns)


def _draw(path: Path, found: Mapping[str, Any]) -> None:
    curves = {}
    for name, one in found["strategies"].items():
        parts = [np.array([point[end] for point in one["hits"]], np.float64) for end in ("mean", "low", "high")]
        curves[name] = (np.array(one["measured"], np.float64), *parts)
    plots.discovery(path, curves, found["hit"])


def _cell(one: Mapping[str, float | None], digits: int) -> str:
    mean, low, high = (one[part] for part in ("mean", "low", "high"))
    if mean is None:
        return "-"
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
