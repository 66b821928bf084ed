"""Config -> plan: everything that can be known, or refused, before the first request.

Enters: a `Campaign`. Leaves: a `Plan` with the loaded ensembles, the property that ranks and the
fingerprint (`assay.screening.campaign.fingerprint`). This module asks no server.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from assay.models.ensemble.ensemble import Ensemble
from assay.models.potentials import potential as potentials
from assay.models.potentials.columns import FORMATION, FORMED
from assay.models.potentials.potential import Potential
from assay.screening.campaign import fingerprint, reference as references
from assay.screening.campaign.reference import Reference
from assay.screening.folder import inventory, stamp as stamps
from assay.screening.folder.summary import Bound, Target
from assay.screening.prediction import predict
from assay.screening.pulling import columns, filters
from assay.screening.pulling.source import named
from assay.screening.ranking import select, several, stability
from assay.screening.ranking.rules import Rule
from assay.screening.ranking.select import Shortlist
from assay.screening.runners.worker import Worker, load, opened, score
from assay.screening.settings import nearest
from assay.screening.settings.choice import Rank
from assay.screening.settings.config import LIGHT, Campaign
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.names import ABOVE_HULL, distinct, reported
from assay.sources.crystals import empty

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A campaign that is fit to run."""

    campaign: Campaign
    folder: Path
    """Campaign folder, absolute."""
    ensembles: list[Ensemble]
    target: Target
    """What ranks."""
    fingerprint: dict[str, str]
    tiers: list[Ensemble] = field(default_factory=list)
    """The cheap ensembles of a cascade, cheapest first."""
    potential: Potential | None = None
    """The force field that relaxes; None where crystals are scored as they were delivered."""
    stability: Reference | None = None
    """The reference phases of the hull; None without a `stability` section."""
    objectives: tuple[Target, ...] = ()
    """What each of several objectives judges."""

    @property
    def rule(self) -> Rule:
        """How the last tier ranks."""
        return several.make(self.campaign.rank, self.target, self.objectives)

    @property
    def models(self) -> list[str]:
        """Ensemble folders, absolute: a worker may stand in another folder."""
        return [str(ensemble.folder.absolute()) for ensemble in self.ensembles]

    def worker(self) -> Worker:
        """The worker function with the ensembles of this plan.

        It loads them again where they predict on another device.
        """
        standard = self.campaign.standard()
        if self.campaign.device == "cpu":
            tiers = [partial(list[Ensemble], [tier]) for tier in self.tiers]
            return Worker(lambda: self.ensembles, tiers, standard, self.potential, opened(self.campaign))
        groups = [self.models, *([str(tier.folder.absolute())] for tier in self.tiers)]
        how: dict[str, Any] = {"device": self.campaign.device, "compiled": self.campaign.compile}
        first, *cheap = (partial(load, group, self.campaign.ray.threads, **how) for group in groups)
        return Worker(first, cheap, standard, self.potential, opened(self.campaign))

    def shortlist(self) -> Shortlist | None:
        """An empty shortlist, to be made while rows are ranked; None where none is asked for."""
        return select.find(self.ensembles, self.campaign.rank, self.target)

    @property
    def targets(self) -> list[Target]:
        """What ranks, as each tier predicts it; the last one is `target`."""
        return [*(as_target(tier, self.target.name) for tier in self.tiers), self.target]

    @property
    def bounds(self) -> list[Bound]:
        """The filters on predictions."""
        return find_bounds(self.ensembles, self.campaign, self.stability)

    @property
    def facts(self) -> dict[str, dict[str, str]]:
        """Predicted property -> unit, and functional where its card names one."""
        return {
            item.name: {"unit": item.unit} | ({"functional": said} if (said := ensemble.functional(item.name)) else {})
            for ensemble in self.ensembles
            for item in ensemble.properties
        }


def make(campaign: Campaign) -> Plan:
    """Check everything a config can get wrong, and load the ensembles."""
    inventory.expect_free(campaign.named_folder())
    filters.check_formulas(campaign.filters)
    check_sources(campaign)
    ensembles = load_ensembles(campaign.models)
    potential = load_potential(campaign)
    reference = find_reference(ensembles, campaign, potential)
    judged = find_objectives(ensembles, campaign, reference)
    target = find_target(ensembles, campaign.rank, reference, judged)
    several.make(campaign.rank, target, judged)
    _check_objectives(campaign, ensembles, reference, judged)
    select.find(ensembles, campaign.rank, target)
    find_bounds(ensembles, campaign, reference)
    tiers = [load_ensembles([tier.model])[0] for tier in campaign.tiers()]
    _check_tiers(tiers, ensembles, target)
    campaign = _sized(campaign, [*tiers, *ensembles])
    stamp = fingerprint.take(campaign, ensembles, tiers, potential)
    return Plan(campaign, campaign.folder(), ensembles, target, stamp, tiers, potential, reference, judged)


def _sized(campaign: Campaign, ensembles: Sequence[Ensemble]) -> Campaign:
    """With larger chunks where all ensembles are light and the config says nothing.

    A folder that was begun with the chunks of other ensembles, as earlier builds did, keeps them.
    """
    if "chunk_size" in campaign.model_fields_set or not all(ensemble.light for ensemble in ensembles):
        return campaign
    kept = stamps.begun(campaign.folder()).get("chunk_size") == str(campaign.chunk_size)
    return campaign if kept else campaign.model_copy(update={"chunk_size": LIGHT})


def load_potential(campaign: Campaign) -> Potential | None:
    """Load the force field that relaxes; None where nothing is relaxed.

    Raises:
        Failure: CONFIG, when it is unknown or not installed.
    """
    if campaign.relax is None:
        return None
    try:
        return potentials.load(campaign.relax.model)
    except (ValueError, ImportError, OSError) as error:
        raise Failure(Exit.CONFIG, f"relax.model: {error}") from error


def check_sources(campaign: Campaign) -> None:
    """Refuse a source that cannot be pulled (exit 78)."""
    begun = (campaign.folder() / "log").is_dir()
    for name, source in named(campaign).items():
        try:
            source.check(campaign.licences, begun=begun)
        except ValueError as error:
            raise Failure(Exit.CONFIG, f"source {name}: {error}") from None
    if not begun:
        _warn_of_unreported(campaign)
        columns.check([path for source in named(campaign).values() for path in source.tables()])


def _warn_of_unreported(campaign: Campaign) -> None:
    """Warn of a filter on a property that no source can report; it lets nothing through."""
    found = [source.reports() for source in named(campaign).values()]
    known = frozenset[str]().union(*(names for names in found if names is not None))
    for name in campaign.filters.reported if None not in found else ():
        if name not in known:
            near = nearest.hint(name, sorted(known), "they report")
            log.warning("filters.reported: no source reports %r, so nothing will be scored; %s", name, near)


def load_ensembles(folders: Sequence[str]) -> list[Ensemble]:
    """Load ensembles by folder or name; no two may predict one property, their columns collide.

    Equal names get -2, -3, ...: a fingerprint, a rule and a report find an ensemble by its name.
    """
    ensembles: list[Ensemble] = []
    owner: dict[str, str] = {}
    for folder in folders:
        loaded = predict.load(folder)
        name = distinct(loaded.name, [other.name for other in ensembles])
        ensembles.append(replace(loaded, name=name))
        for item in ensembles[-1].properties:
            if item.name in owner:
                raise Failure(
                    Exit.CONFIG, f"models {owner[item.name]} and {folder} both predict {item.name!r}; keep one"
                )
            owner[item.name] = folder
    return ensembles


def find_reference(
    ensembles: Sequence[Ensemble], campaign: Campaign, potential: Potential | None = None
) -> Reference | None:
    """The reference phases of the hull, checked against the energies that they meet."""
    settings = campaign.stability
    if settings is None:
        return None
    owners = {item.name: ensemble for ensemble in ensembles for item in ensemble.properties}
    for taken in (ABOVE_HULL, FORMATION):
        if taken in owners:
            what = f"ensemble {owners[taken].name} predicts {taken} itself; leave the section out, or this model"
            raise Failure(Exit.CONFIG, f"stability: {what}")
    if settings.energy == "potential":
        assert potential is not None  # the config has a section relax
        return references.of_potential(settings, potential)
    chosen = _known("stability.property", settings.property, list(owners))
    return references.find(settings, owners[chosen], as_target(owners[chosen], chosen))


def find_objectives(
    ensembles: Sequence[Ensemble], campaign: Campaign, reference: Reference | None
) -> tuple[Target, ...]:
    """What each objective judges: a predicted property, or a column that counts as exact."""
    owners = {item.name: ensemble for ensemble in ensembles for item in ensemble.properties}
    found: list[Target] = []
    for number, name in enumerate(objective.property for objective in campaign.rank.objectives):
        key = f"rank.objectives.{number}.property"
        if name in owners:
            found.append(as_target(owners[name], name))
        elif name == ABOVE_HULL and reference is not None:
            found.append(stability.as_target(reference.energy))
        elif reference is not None and name == reference.energy.name:
            found.append(reference.energy)
        elif name in (ABOVE_HULL, "p_stable") and reference is None:
            raise Failure(Exit.CONFIG, f"{key}: {name} needs the section stability, whose hull it comes from")
        else:
            found.append(Target("", name, ""))
    if found and campaign.cascade is not None:
        what = "a cascade cuts by one property, and cuts away what is good in the others"
        advice = "leave the section cascade out, or rank by one property and bound the others with filters.predicted"
        raise Failure(Exit.CONFIG, f"rank.objectives: {what}; {advice}")
    if found and not any(target.model for target in found):
        what = f"none of {', '.join(target.name for target in found)} is predicted, and one must be"
        raise Failure(
            Exit.CONFIG, f"rank.objectives: {what}; {nearest.hint(found[0].name, owners, 'the models predict')}"
        )
    return tuple(found)


def _check_objectives(
    campaign: Campaign, ensembles: Sequence[Ensemble], reference: Reference | None, judged: Sequence[Target]
) -> None:
    """Refuse an objective that nothing predicts and no source can report, before any pull.

    What a server reports is known when it answers. Beside one, a name is refused that is nearly
    that of a prediction and of no number that databases report.
    """
    exact = [(number, target.name) for number, target in enumerate(judged) if not target.model]
    if not exact or (campaign.folder() / "log").is_dir():
        return
    reports = [source.reports() for source in named(campaign).values()]
    known = {item.name for ensemble in ensembles for item in ensemble.properties}
    known |= {ABOVE_HULL, "p_stable"} if reference is not None else set[str]()
    numbers = {*score(empty(), ensembles).table.column_names, *(FORMED if campaign.relax else ())}
    numbers |= {reported(name) for names in reports if names is not None for name in names}
    for number, name in exact:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        reportable = None in reports and (columns.unit(name) is not None or not near)
        if name not in known | numbers and not reportable:
            hint = nearest.hint(name, sorted(known | numbers))
            what = f"{name!r} is no property that the models predict ({', '.join(sorted(known))})"
            raise Failure(
                Exit.CONFIG, f"rank.objectives.{number}.property: {what}, and no column of the sources; {hint}"
            )


def find_target(
    ensembles: Sequence[Ensemble], rule: Rank, reference: Reference | None = None, judged: Sequence[Target] = ()
) -> Target:
    """The ensemble and property that rank; of several objectives the first that is predicted."""
    if judged:
        return next(target for target in judged if target.model)
    if reference is not None and rule.property == ABOVE_HULL:
        return stability.as_target(reference.energy)
    ensemble = ensembles[0]
    if rule.model is not None:
        names = {Path(e.folder).name: e for e in ensembles} | {e.name: e for e in ensembles}
        ensemble = names[_known("rank.model", rule.model, list(names), "models of this campaign")]
    elif rule.property is not None:
        owners = [e for e in ensembles if rule.property in {item.name for item in e.properties}]
        ensemble = owners[0] if owners else ensemble
    items = {item.name: item for item in ensemble.properties}
    chosen = _known("rank.property", rule.property or next(iter(items)), list(items))
    return as_target(ensemble, chosen)


def find_bounds(ensembles: Sequence[Ensemble], campaign: Campaign, reference: Reference | None = None) -> list[Bound]:
    """The filters on predictions, in the order of the config.

    Raises:
        Failure: CONFIG, when no model predicts one of the properties, with the nearest known name.
    """
    known = {item.name: as_target(ensemble, item.name) for ensemble in ensembles for item in ensemble.properties}
    if reference is not None:
        known |= {reference.energy.name: reference.energy, ABOVE_HULL: stability.as_target(reference.energy)}
    elif ABOVE_HULL in campaign.filters.predicted and ABOVE_HULL not in known:
        what = f"no model predicts {ABOVE_HULL}; add a section stability, which computes it"
        raise Failure(Exit.CONFIG, f"filters.predicted: {what}")
    return [
        Bound(known[_known("filters.predicted", name, list(known))], **limits.model_dump())
        for name, limits in campaign.filters.predicted.items()
    ]


def as_target(ensemble: Ensemble, name: str) -> Target:
    """A property that an ensemble predicts, as what ranks."""
    (unit,) = [item.unit for item in ensemble.properties if item.name == name]
    fitted = ensemble.calibration[name]
    return Target(ensemble.name, name, unit, fitted.level, fitted.scale is not None, name in ensemble.decisions)


def _check_tiers(tiers: Sequence[Ensemble], ensembles: Sequence[Ensemble], target: Target) -> None:
    """Refuse a tier that does not predict the ranking property, or that saves nothing."""
    used = {ensemble.sha256: str(ensemble.folder) for ensemble in ensembles}
    for number, tier in enumerate(tiers):
        where = f"cascade.tiers.{number}.model: {tier.folder}"
        units = {item.name: item.unit for item in tier.properties}
        if units.get(target.name) != target.unit:
            found = ", ".join(f"{name} ({unit})" for name, unit in units.items())
            wanted = f"a tier must predict what ranks, {target.name} ({target.unit})"
            raise Failure(Exit.CONFIG, f"{where} predicts {found}; {wanted}")
        if tier.sha256 in used:
            advice = "a tier that is no cheaper saves nothing, leave it out"
            raise Failure(Exit.CONFIG, f"{where} has the weights of {used[tier.sha256]}; {advice}")
        used[tier.sha256] = str(tier.folder)


def _known(key: str, value: str, names: Sequence[str], what: str = "properties that this campaign predicts") -> str:
    if value in names:
        return value
    raise Failure(Exit.CONFIG, f"{key}: {value!r} is not among the {what}; {nearest.hint(value, names)}")
