"""Which rows an ensemble may be judged on, and which of them it has seen.

Enters: an ensemble, the name of a dataset, a part of its split. Leaves: `HeldOut`. The part is read
from the ensemble's own `split.json`; where there is none the recorded split is made again from the
same file. This module does not know metrics.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from assay.featurize import graphs as crystal_graphs
from assay.featurize.readable import readable
from assay.models.ensemble.ensemble import Ensemble
from assay.models.evaluation import split
from assay.models.evaluation.split import SplitSpec
from assay.models.target import Property

if TYPE_CHECKING:
    from assay.sources.datasets import Dataset

Part = Literal["test", "calibration", "development", "all"]
"""Nobody trained, stopped or calibrated on `test`; `development` is what the members learned
from."""


@dataclass(frozen=True)
class HeldOut:
    """Crystals to judge an ensemble on, and what it learned from."""

    data: Dataset
    """The `n` rows to evaluate."""
    property: Property
    """What is judged."""
    trained: Dataset | None
    """Rows some member learned from, of the dataset of this property; None where the ensemble does
    not say."""
    seen: NDArray[np.bool_]
    """(n,) True where the very crystal was learned from, by its id."""
    related: NDArray[np.bool_]
    """(n,) True where a crystal of the same composition was learned from."""
    split: dict[str, Any]
    """The recorded split; empty where there is none."""
    warnings: tuple[str, ...]
    """What a reader of the scores must know first."""


def find(loaded: Ensemble, dataset: str | None, part: str) -> HeldOut:
    """Rows of `part` of a dataset (default: the one the ensemble was trained on).

    Raises:
        FileNotFoundError: when the data are not there.
        ValueError: for an unknown part or dataset, another unit, or a data file that is not the one
            trained on.
    """
    if part not in get_args(Part):
        raise ValueError(f"part is {part!r}, expected one of {', '.join(get_args(Part))}")
    tasks = recorded_tasks(loaded)
    name = dataset or _only(loaded, tasks)
    limit = loaded.facts.get("recipe", {}).get("limit") if name in tasks else None
    data = _datasets().load(name, limit)
    prop = _property(loaded, tasks, data)
    if name not in tasks and part != "all":
        known = f"was trained on {', '.join(sorted(tasks))}" if tasks else "does not say what it was trained on"
        raise ValueError(f"{loaded.folder} {known}, so {name} has no {part} part; ask for part all")
    parts = _parts(loaded, data) if name in tasks else {}
    trained = learned_from(loaded, prop.name) if name not in tasks else data.select(parts["development"])
    chosen = data.select(parts[part]) if part != "all" else data
    if not len(chosen.target):
        raise ValueError(f"the {part} part of {name} has no rows{_cross_validated(loaded)}")
    seen, related = overlap(chosen, trained)
    spec = loaded.facts["recipe"]["split"] if name in tasks else {}
    calibrated = name in tasks and part in ("calibration", "all")
    warnings = _warnings(trained, seen, related, calibrated=calibrated)
    if name in tasks and (recorded := recorded_sha256(loaded, prop.name)) != data.sha256:
        warnings += (f"The file of {name} changed since training: it was {recorded[:12]}, it is {data.sha256[:12]}.",)
    if name not in tasks or part in ("development", "all"):
        warnings += _formula_warnings(loaded)
    warnings += _start_warnings(loaded, chosen, prop.name)
    return HeldOut(chosen, prop, trained, seen, related, spec, warnings)


def learned_from(loaded: Ensemble, name: str) -> Dataset | None:
    """The crystals some member learned a property from; None where that is not recorded."""
    for dataset, learned in recorded_tasks(loaded).items():
        if learned == name:
            data: Dataset = _datasets().load(dataset, loaded.facts["recipe"]["limit"])
            return data.select(_parts(loaded, data)["development"])
    return None


def recorded_tasks(loaded: Ensemble) -> dict[str, str]:
    """Property name by dataset, as the recipe in `ensemble.json` says; empty without a recipe."""
    recipe = loaded.facts.get("recipe")
    if not recipe:
        return {}
    tasks = recipe.get("tasks") or [recipe]  # before 0.2 a recipe was its only task
    return {task["dataset"]: task["property"]["name"] for task in tasks}


def recorded_sha256(loaded: Ensemble, name: str) -> str:
    """Of the file a property was learned from; `unknown` where it is not recorded."""
    facts = loaded.facts.get("tasks", {}).get(name, loaded.facts)
    return str(facts.get("data", {}).get("sha256", "unknown"))


def overlap(chosen: Dataset, trained: Dataset | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(n,) rows of `chosen` with a trained id, and (n,) rows with a trained composition."""
    if trained is None or not len(trained.target):
        nowhere = np.zeros(len(chosen.target), bool)
        return nowhere, nowhere
    return np.isin(chosen.crystals.ids, trained.crystals.ids), _datasets().same_formula(chosen, trained)


def rival_warnings(other: Ensemble, held: HeldOut, part: str) -> tuple[str, ...]:
    """What a reader must know of a second ensemble that is compared on the same rows.

    Raises:
        ValueError: when it was trained on rows that the first was not trained on: the comparison
            would be unfair.
    """
    learned = learned_from(other, held.property.name)
    if learned is None:
        return (f"What {other.folder} was trained on is not recorded: it may have seen the evaluated rows.",)
    seen, related = overlap(held.data, learned)
    unfair = seen & ~held.seen
    if unfair.any():
        raise ValueError(
            f"{other.folder} was trained on {unfair.sum()} of the {len(unfair)} {part} rows of {held.data.name}, for "
            f"example {str(held.data.crystals.ids[unfair][0])!r}; compare ensembles that share a split"
        )
    alike = int((related & ~held.related).sum())
    found = []
    if other.facts["recipe"].get("split") != held.split:
        found += [f"{other.folder}: {text}" for text in _formula_warnings(other)]
    if alike:
        found.append(f"{other.folder} was trained on the composition of {alike} of {len(seen)} evaluated crystals.")
    return tuple(found)


def _only(loaded: Ensemble, tasks: dict[str, str]) -> str:
    if len(tasks) == 1:
        return next(iter(tasks))
    choices = f"one of {', '.join(sorted(tasks))}" if tasks else "it does not say what it was trained on"
    raise ValueError(f"name the dataset to evaluate {loaded.folder} on: {choices}")


def _property(loaded: Ensemble, tasks: dict[str, str], data: Dataset) -> Property:
    found = {prop.name: prop for prop in loaded.properties}
    if data.name not in tasks and len(found) > 1:
        raise ValueError(
            f"{loaded.folder} predicts {', '.join(found)}; which of them {data.name} holds is not recorded"
        )
    prop = found[tasks[data.name]] if data.name in tasks else next(iter(found.values()))
    if data.spec.unit not in ("unknown", prop.unit):
        raise ValueError(f"{data.name} is in {data.spec.unit}, {loaded.folder} predicts {prop.name} in {prop.unit}")
    return prop


def _parts(loaded: Ensemble, data: Dataset) -> dict[str, NDArray[np.int64]]:
    """Rows of each part; crystals no network can read are in none."""
    path = loaded.folder / "split.json"
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        learned = [*stored["folds"], stored.get("always", [])]
        ids = {**stored, "development": [id for part in learned for id in part]}
        names = ("test", "calibration", "development")
        return {name: np.flatnonzero(np.isin(data.crystals.ids, ids[name])) for name in names}
    recorded = recorded_sha256(loaded, recorded_tasks(loaded)[data.name])
    if recorded != data.sha256:
        raise ValueError(
            f"{loaded.folder} has no split.json and was trained on another file of {data.name} (sha256 "
            f"{recorded[:12]}, this one is {data.sha256[:12]}): its test rows cannot be told from the "
            "ones it learned from"
        )
    sound = readable(data.crystals, partial(crystal_graphs.build, spec=loaded.spec)).rows
    keys = {name: labels[sound] for name, labels in data.keys.items()}
    again = split.divide(keys, SplitSpec(**loaded.facts["recipe"]["split"]))
    return {
        "test": sound[again.test],
        "calibration": sound[again.calibration],
        "development": sound[again.development()],
    }


def _warnings(
    trained: Dataset | None, seen: NDArray[np.bool_], related: NDArray[np.bool_], *, calibrated: bool
) -> tuple[str, ...]:
    n, alike, found = len(seen), int((related & ~seen).sum()), []
    if trained is None:
        found.append(f"The ensemble does not say what it was trained on: any of the {n} rows may be among it.")
    if seen.any():
        found.append(f"{seen.sum()} of {n} evaluated crystals WERE TRAINED ON: these are not scores of new crystals.")
    if alike:
        found.append(f"{alike} of {n} evaluated crystals have the composition of a crystal that was trained on.")
    if calibrated:
        found.append("The error bars were fitted on rows that are evaluated here: their coverage is flattered.")
    return tuple(found)


def _cross_validated(loaded: Ensemble) -> str:
    if not loaded.facts.get("recipe", {}).get("cross_validation"):
        return ""
    return (
        f": {loaded.folder} learned from all of them, and its card has the scores of its cross-validation; "
        "evaluate it on a dataset of other crystals, with part all"
    )


def _formula_warnings(loaded: Ensemble) -> tuple[str, ...]:
    """That some members learned from formulas as well, those of test rows excepted."""
    formulas = loaded.facts.get("recipe", {}).get("formulas")
    if not formulas:
        return ()
    told = f"Members that read the composition alone also learned from the formulas of {formulas['dataset']}: "
    return (told + "compositions evaluated here may be among them.",)


def _start_warnings(loaded: Ensemble, chosen: Dataset, name: str) -> tuple[str, ...]:
    """What the weights saw before this training, as far as it is the same property."""
    start = loaded.facts.get("recipe", {}).get("start")
    if not start:
        return ()
    folder = Path(start["folder"])
    folder = folder if (folder / "ensemble.json").is_file() else folder.parent
    if not (folder / "ensemble.json").is_file():
        return (f"The weights start from {start['folder']}, and what that was trained on is not known here.",)
    learned = learned_from(Ensemble.load(folder), name)
    seen = np.zeros(1, bool) if learned is None else overlap(chosen, learned)[0]
    if seen.any():
        return (
            f"{seen.sum()} of {len(seen)} evaluated crystals WERE TRAINED ON by {folder}, where the weights start.",
        )
    return ()


def _datasets() -> Any:
    from assay.sources import datasets  # which needs pyarrow

    return datasets
