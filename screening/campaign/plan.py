"""Config -> plan: everything that can be known, or refused, before the first request.

Enters: a `Campaign`. Leaves: a `Plan` with the loaded ensembles, the property that ranks and the
fingerprint of everything that changes a number. Worker count, paths and log level are not in the
fingerprint.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.screening.folder.stamp import FORMAT
from assay.screening.folder.summary import Target
from assay.screening.prediction import predict
from assay.screening.pulling import filters, readers
from assay.screening.ranking import rules
from assay.screening.runners.worker import Worker, load
from assay.screening.settings.config import (
    AfluxSource,
    Campaign,
    DatabaseSource,
    FileSource,
    MaterialsProjectSource,
    OptimadeSource,
    Rank,
    Source,
)
from assay.screening.settings.exits import Exit, Failure

if TYPE_CHECKING:
    from assay.models.ensemble.ensemble import Ensemble
    from assay.screening.folder.ledger import Ledger


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

    @property
    def models(self) -> list[str]:
        """Ensemble folders, absolute: a worker may stand in another folder."""
        return [str(ensemble.folder.absolute()) for ensemble in self.ensembles]

    def worker(self) -> Worker:
        """The worker function with the ensembles of this plan, loaded again where they predict on another device."""
        symmetrise = self.campaign.symmetrise
        if self.campaign.device == "cpu":
            return Worker(lambda: self.ensembles, [partial(list, [tier]) for tier in self.tiers], symmetrise)
        groups = [self.models, *([str(tier.folder.absolute())] for tier in self.tiers)]
        how: dict[str, Any] = {"device": self.campaign.device, "compiled": self.campaign.compile}
        first, *cheap = (partial(load, group, self.campaign.ray.threads, **how) for group in groups)
        return Worker(first, cheap, symmetrise)

    @property
    def targets(self) -> list[Target]:
        """What ranks, as each tier predicts it; the last one is `target`."""
        return [*(as_target(tier, self.target.name) for tier in self.tiers), self.target]

    @property
    def units(self) -> dict[str, str]:
        """Predicted property -> unit."""
        return {item.name: item.unit for ensemble in self.ensembles for item in ensemble.properties}


def make(campaign: Campaign) -> Plan:
    """Check everything a config can get wrong, and load the ensembles."""
    for formula in campaign.filters.formula:
        filters.canonical_formula(formula)
    for name, source in campaign.named_sources().items():
        _check_source(name, source, campaign)
    ensembles = load_ensembles(campaign.models)
    target = find_target(ensembles, campaign.rank)
    rules.make(campaign.rank, target)
    tiers = [load_ensembles([tier.model])[0] for tier in campaign.tiers()]
    _check_tiers(tiers, ensembles, target)
    return Plan(campaign, campaign.folder(), ensembles, target, fingerprint(campaign, ensembles, tiers), tiers)


def load_ensembles(folders: Sequence[str]) -> list[Ensemble]:
    """Load ensembles by folder or name; two must not predict the same property: their columns would collide."""
    ensembles: list[Ensemble] = []
    owner: dict[str, str] = {}
    for folder in folders:
        ensembles.append(predict.load(folder))
        for item in ensembles[-1].properties:
            if item.name in owner:
                raise Failure(
                    Exit.CONFIG, f"models {owner[item.name]} and {folder} both predict {item.name!r}; keep one"
                )
            owner[item.name] = folder
    return ensembles


def find_target(ensembles: Sequence[Ensemble], rule: Rank) -> Target:
    """The ensemble and property that rank."""
    ensemble = ensembles[0]
    if rule.model is not None:
        names = {Path(e.folder).name: e for e in ensembles} | {e.name: e for e in ensembles}
        ensemble = names[_known("rank.model", rule.model, list(names))]
    elif rule.property is not None:
        owners = [e for e in ensembles if rule.property in {item.name for item in e.properties}]
        ensemble = owners[0] if owners else ensemble
    items = {item.name: item for item in ensemble.properties}
    chosen = _known("rank.property", rule.property or next(iter(items)), list(items))
    return as_target(ensemble, chosen)


def as_target(ensemble: Ensemble, name: str) -> Target:
    """A property that an ensemble predicts, as what ranks."""
    (unit,) = [item.unit for item in ensemble.properties if item.name == name]
    fitted = ensemble.calibration[name]
    return Target(ensemble.name, name, unit, fitted.level, fitted.scale is not None)


def _check_tiers(tiers: Sequence[Ensemble], ensembles: Sequence[Ensemble], target: Target) -> None:
    """Every tier of a cascade predicts what ranks, in its unit, and is another ensemble than the others."""
    used = {ensemble.sha256: str(ensemble.folder) for ensemble in ensembles}
    for number, tier in enumerate(tiers):
        where = f"cascade.tiers.{number}.model: {tier.folder}"
        units = {item.name: item.unit for item in tier.properties}
        if units.get(target.name) != target.unit:
            told = ", ".join(f"{name} ({unit})" for name, unit in units.items())
            raise Failure(Exit.CONFIG, f"{where} predicts {told}; a tier must predict what ranks, {target.name} "
                          f"({target.unit})")  # fmt: skip
        if tier.sha256 in used:
            raise Failure(Exit.CONFIG, f"{where} has the weights of {used[tier.sha256]}; a tier that is no cheaper "
                          "saves nothing, leave it out")  # fmt: skip
        used[tier.sha256] = str(tier.folder)


def _known(key: str, value: str, names: Sequence[str]) -> str:
    if value in names:
        return value
    near = difflib.get_close_matches(value, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(names)}"
    raise Failure(Exit.CONFIG, f"{key}: {value!r} is not among the models of this campaign; {hint}")


def _check_source(name: str, source: Source, campaign: Campaign) -> None:
    try:
        if isinstance(source, DatabaseSource):
            _check_database(source, campaign.licences)
        elif isinstance(source, FileSource):
            missing = [path for path in source.paths if not Path(path).exists()]
            begun = (campaign.folder() / "log").is_dir()  # what is pulled already needs its files no more
            if missing and not begun:
                raise ValueError(f"{missing[0]} does not exist; check the path, relative to the current folder")
        else:
            _check_prototypes(source)
    except ValueError as error:
        raise Failure(Exit.CONFIG, f"source {name}: {error}") from None


def _check_database(source: DatabaseSource, licences: Sequence[str]) -> None:
    provider = readers.provider(source)
    if isinstance(source, OptimadeSource):
        from assay.sources.databases.filters import grammar

        grammar.validate_filter(source.filter)
        grammar.check_dialect(provider, source.filter)
    elif isinstance(source, AfluxSource):
        from assay.sources.databases.aflux import AfluxQuery

        AfluxQuery(source.matchbook)
    elif isinstance(source, MaterialsProjectSource):
        from assay.sources.databases.mp_query import MPQuery

        MPQuery(source.criteria)
    if provider.licence not in licences and not provider.local:
        raise ValueError(f"{provider.title} is under the licence {provider.licence!r}, which `licences` of this config "
                         f"does not accept ({', '.join(licences)}); add it there if you may use it")  # fmt: skip


def _check_prototypes(source: Any) -> None:
    from assay.sources import prototypes
    from assay.sources.elements import NUMBERS

    for symbol in source.elements or []:
        if symbol not in NUMBERS:
            raise ValueError(f"elements: {symbol!r} is not an element symbol (H to Og)")
    for chosen in source.prototypes or []:
        _known("prototypes", chosen, [*prototypes.PROTOTYPES])


def fingerprint(
    campaign: Campaign, ensembles: Sequence[Ensemble], tiers: Sequence[Ensemble | None] = ()
) -> dict[str, str]:
    """Everything that changes a number, flat, so that a difference can be shown; of a tier that is None, nothing."""
    import torch

    from assay.sources import symmetry

    stamp = {
        "format": FORMAT,
        "assay": version(),
        "torch": torch.__version__,
        "chunk_size": str(campaign.chunk_size),
        "filters": campaign.filters.model_dump_json(),
        "licences": ",".join(sorted(campaign.licences)),
        "identity": _identity(campaign),
        "models": ",".join(ensemble.name for ensemble in ensembles),
    }
    if campaign.device != "cpu":
        stamp["device"] = campaign.device.partition(":")[0] + (", compiled" if campaign.compile else "")
    if campaign.symmetrise:
        stamp["symmetrise"] = f"{campaign.symmetrise} Å, {symmetry.stamp()}"
    for name, source in campaign.named_sources().items():
        stamp[f"sources.{name}"] = _source_stamp(source)
    for ensemble in ensembles:
        stamp |= _model_stamp(f"models.{ensemble.name}", ensemble)
    if campaign.cascade is not None:
        rule = campaign.rank.model_dump(exclude={"top"})  # it decides who survives
        chosen = campaign.cascade.model_dump(include={"audit", "seed"})
        stamp |= {f"cascade.{name}": str(value) for name, value in {**rule, **chosen}.items()}
        for number, (tier, setting) in enumerate(zip(tiers, campaign.tiers(), strict=True)):
            stamp[f"cascade.{number}.keep"] = str(setting.keep)
            stamp |= {} if tier is None else _model_stamp(f"cascade.{number}.{tier.name}", tier)
    return stamp


def _model_stamp(key: str, ensemble: Ensemble) -> dict[str, str]:
    stamp = {
        "weights": ",".join(digest[:16] for digest in ensemble.sha256),
        "files": _described(ensemble.folder)[:16],
        "graph": repr(ensemble.spec),
        "properties": json.dumps([[item.name, item.unit] for item in ensemble.properties]),
        "calibration": repr(sorted(ensemble.calibration.items())),
    }
    reads: dict[str, str] = {}
    if ensemble.views:
        stamp["views"] = repr(ensemble.views)
        reads = {name: metadata.version(name) for name in ("numba", "timm")}  # pixels, and what reads them
    return {f"{key}.{name}": value for name, value in stamp.items()} | reads


def _described(folder: Path) -> str:
    """Digest of the JSON files of an ensemble: they hold scalers, calibration, and the facts that a report tells."""
    content = (folder / "ensemble.json").read_bytes()
    digest = hashlib.sha256(content)
    for member in json.loads(content)["members"]:
        digest.update((folder / member / "model.json").read_bytes())
    return digest.hexdigest()


def _identity(campaign: Campaign) -> str:
    if not campaign.merges():
        return "off"
    from assay.sources import identity

    return identity.stamp()


def _source_stamp(source: Source) -> str:
    aside = {"name", "when_down", "page_limit", "patience_s", "headers", "key"}
    content: dict[str, Any] = source.model_dump(mode="json", exclude=aside)
    if isinstance(source, FileSource):
        content["paths"] = [Path(path).name for path in source.paths]
    return json.dumps(content, sort_keys=True)


def describe(plan: Plan) -> list[str]:
    """What a run would do, for --dry-run: asks the servers for their counts, pulls nothing."""
    from assay.screening.folder.ledger import Ledger

    book = Ledger(plan.folder)
    lines = [f"campaign {plan.campaign.name} in {plan.folder}"]
    for name, source in plan.campaign.named_sources().items():
        done = book.find("source", name)
        if done is not None:
            lines.append(
                f"source {name}: pulled already, {done.counts['received']:,} rows in {done.counts['pages']} pages"
            )
        elif isinstance(source, DatabaseSource):
            with readers.connect(source) as reader:
                count = reader.announced()
            limit = f", at most {source.max_entries:,} taken" if source.max_entries else ""
            lines.append(f"source {name}: {'unknown' if count is None else f'{count:,}'} rows announced{limit}")
            caveat = readers.provider(source).caveat
            if caveat:
                lines.append(f"source {name}: note that {caveat}")
        elif isinstance(source, FileSource):
            lines.append(f"source {name}: {', '.join(source.paths)}")
        else:
            lines.append(f"source {name}: {source.n:,} hypothetical crystals")
    return lines + _describe_scoring(plan, book)


def _describe_scoring(plan: Plan, book: Ledger) -> list[str]:
    from assay.screening.folder import snapshot

    size, cascade, rule = plan.campaign.chunk_size, plan.campaign.cascade, plan.campaign.rank
    chunks = snapshot.chunks(book)
    scored = sum(1 for chunk in chunks if book.find("part", chunk.name))
    known = f"{len(chunks)} chunks, {scored} scored already" if chunks else "chunks are known after the pull"
    lines = []
    if cascade is not None:
        for number, tier in enumerate(cascade.tiers):
            keep = f"{100 * tier.keep:g} %" if isinstance(tier.keep, float) else f"{tier.keep:,} crystals"
            lines.append(f"tier {number}: score with {plan.tiers[number].name}, the best {keep} go on")
        lines.append(f"audit: {cascade.audit:,} of the others, drawn at random, go on too")
    names = ", ".join(ensemble.name for ensemble in plan.ensembles)
    lines.append(f"score with {names}: {known} (chunk_size {size})")
    lines.append(f"rank by {rules.make(rule, plan.target).sentence()}")
    return lines


def version() -> str:
    """Version of the installed distribution."""
    try:
        return metadata.version("assay")
    except metadata.PackageNotFoundError:
        return "unknown"
