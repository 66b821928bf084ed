"""Measured values -> a campaign that is ranked by an ensemble which has learned them.

Enters: a ranked campaign, measured values, an output folder. Leaves: the plan of a new campaign on
the same snapshot, and a new ensemble, trained by the recipe of the one that ranked. The old folders
stay as they are. It does not know how a campaign is run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.models.ensemble import zoo
from assay.models.evaluation import heldout
from assay.models.networks import registry
from assay.models.training import fit
from assay.screening.campaign import fingerprint, plan as plans
from assay.screening.deciding import measured as values
from assay.screening.folder import inventory, lock, snapshot, stamp
from assay.screening.settings import place
from assay.screening.settings.exits import Exit, Failure
from assay.screening.training import pulled, recipes
from assay.sources import crystals as batches, datasets, durable

if TYPE_CHECKING:
    from assay.models.ensemble.ensemble import Ensemble
    from assay.models.target import Property
    from assay.models.training.recipe import Recipe
    from assay.screening.campaign.plan import Plan
    from assay.screening.deciding.measured import Measured
    from assay.screening.folder.results import Results
    from assay.screening.settings.config import Campaign
    from assay.sources.crystals import Crystals

COMMAND = "learn"


@dataclass(frozen=True)
class Wish:
    """What shall be learned, and where the new folders are made."""

    measured: Path
    """CSV file."""
    output: Path
    """Folder of the new campaign."""
    weight: float = 1.0
    """Of an exact value; a training row has 1 as a rule, and an uncertain value less."""
    workers: int = 1
    """Members that learn at once."""

    @property
    def ensemble(self) -> Path:
        """Folder of the new ensemble."""
        return self.output.with_name(f"{self.output.name}-ensemble")


@dataclass(frozen=True)
class Lesson:
    """Everything that is known before the training."""

    campaign: Campaign
    results: Results
    ensemble: Ensemble
    """The one that ranked."""
    learned: Property
    measured: Measured


def prepare(campaign: Campaign, results: Results, wish: Wish) -> Lesson:
    """Read the measured values, and refuse what cannot be learned.

    Raises:
        Failure: CONFIG, when no ensemble ranked, its recipe or its data are not known, no value can
            be used, or an output is not free.
    """
    name = results.summary.predicted
    inventory.expect_free(wish.output)
    if wish.output.resolve() == results.folder.resolve() or (
        (wish.output / "fingerprint.json").exists() and not (wish.ensemble / place.MARK).exists()
    ):
        raise Failure(Exit.CONFIG, f"{wish.output} holds a campaign that assay {COMMAND} did not make; choose another")
    for ensemble in plans.load_ensembles(campaign.models):
        for item in ensemble.properties:
            if item.name == name:
                _check_data(ensemble)
                how: dict[str, Any] = {"weight": wish.weight, "round": wish.output.name}
                found = values.read(wish.measured, results, ensemble, item, **how)
                lesson = Lesson(campaign, results, ensemble, item, found)
                _check_round(lesson, wish.output.name)
                return lesson
    raise Failure(Exit.CONFIG, f"{results.folder} was ranked by {name}, which none of its ensembles predicts")


def run(lesson: Lesson, wish: Wish) -> Plan:
    """Train the new ensemble, and begin a campaign of the same snapshot with it.

    A stopped run goes on when it is run again.
    """
    place.claim(wish.ensemble, COMMAND)
    data = datasets.described(_task(lesson.ensemble, lesson.learned.name)["dataset"])[1]
    dataset = pulled.written(
        batches.concat([*_before(lesson), lesson.measured.crystals]),
        values.VALUE,
        wish.ensemble / pulled.FOLDER / "measured",
        unit=lesson.learned.unit,
        functional=data.functional,
        licence="unknown",
        origin=f"{wish.measured.name}: values measured after the campaign {lesson.campaign.name}",
    )
    command = f"assay {COMMAND} {lesson.results.folder} --measured {wish.measured} --output {wish.output}"
    fit.run(_recipe(lesson, dataset), wish.ensemble, workers=wish.workers, command=command)
    planned = plans.make(_again(lesson, wish))
    with lock.held(planned.folder):
        stamp.check_fingerprint(planned.folder, planned.fingerprint, fingerprint.content(planned.campaign))
        snapshot.copy(lesson.results.ledger, planned.folder)
    return planned


def _before(lesson: Lesson) -> list[Crystals]:
    """What the ensemble has learned so in earlier rounds."""
    earlier = lesson.ensemble.facts["recipe"].get("measured")
    if not earlier:
        return []
    if earlier["property"] not in ("", lesson.learned.name):
        what = f"{lesson.ensemble.folder} has learned measured values of {earlier['property']}"
        raise Failure(Exit.CONFIG, f"{what}, and cannot learn those of {lesson.learned.name} beside them")
    found = datasets.load(earlier["dataset"])
    if found.sha256 != lesson.ensemble.facts["tasks"][lesson.learned.name]["measured"]["sha256"]:
        what = f"{earlier['dataset']} is not the file that {lesson.ensemble.folder} learned from"
        raise Failure(Exit.CONFIG, f"{what}; bring that file back")
    return [found.crystals]


def _check_round(lesson: Lesson, name: str) -> None:
    """Refuse a name that an earlier round had, since it tells their values apart."""
    if any(str(row).startswith(f"{name}/") for earlier in _before(lesson) for row in earlier.ids):
        what = f"an earlier round of measured values was written to a folder named {name}, too"
        raise Failure(Exit.CONFIG, f"{what}; give --output another name")


def _recipe(lesson: Lesson, dataset: str) -> Recipe:
    """The recipe of the ensemble with the measured values, from its weights where they learn on.

    In a cross-validation they would know the rows of every fold, so networks begin anew there.
    """
    content: dict[str, Any] = json.loads(json.dumps(lesson.ensemble.facts["recipe"]))
    content["measured"] = {"dataset": dataset, "property": lesson.learned.name if len(content["tasks"]) > 1 else ""}
    gradients = any(registry.MODELS[member["network"]].gradients for member in content["members"])
    if gradients and not content.get("cross_validation"):
        content["start"] = {**(content.get("start") or {}), "folder": str(lesson.ensemble.folder)}
        for one in (content["schedule"], *(member.get("schedule") or {} for member in content["members"])):
            one.pop("matrix_rate", None)  # for weights that start fresh
        for member in content["members"]:
            if member.get("start"):
                member["start"]["folder"] = content["start"]["folder"]
    return recipes.check(content, f"the recipe of {lesson.ensemble.folder}")


def _again(lesson: Lesson, wish: Wish) -> Campaign:
    """The campaign with the new ensemble in place of the old one, in its new folder."""
    campaign, old = lesson.campaign, lesson.ensemble.folder.resolve()
    models = [str(wish.ensemble) if zoo.find(model).resolve() == old else model for model in campaign.models]
    rank = campaign.rank
    if rank.model is not None and rank.model in (old.name, lesson.ensemble.name):
        rank = rank.model_copy(update={"model": wish.ensemble.name})
    return campaign.model_copy(update={"models": models, "rank": rank, "output": str(wish.output)})


def _task(ensemble: Ensemble, name: str) -> dict[str, Any]:
    """The task of a recipe that a property was learned in."""
    found: dict[str, Any]
    (found,) = [task for task in ensemble.facts["recipe"]["tasks"] if task["property"]["name"] == name]
    return found


def _check_data(ensemble: Ensemble) -> None:
    """Refuse an ensemble whose rows and parts cannot be had again: a test row might be learned."""
    recipe = ensemble.facts.get("recipe")
    if not recipe or "tasks" not in recipe:
        raise Failure(Exit.CONFIG, f"{ensemble.folder} does not say the recipe that it was trained by")
    for task in recipe["tasks"]:
        (path, _), learned = datasets.described(task["dataset"]), task["property"]["name"]
        if durable.sha256(path) != heldout.recorded_sha256(ensemble, learned):
            what = f"{path} is not the file that {ensemble.folder} learned {learned} from"
            raise Failure(Exit.CONFIG, f"{what}; bring that file back, or train a new ensemble")
