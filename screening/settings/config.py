"""Campaign configs: YAML -> a validated, frozen `Campaign`.

Enters: a YAML file and `a.b=c` overrides. Leaves: `Campaign`, or one line about the first wrong key
(`assay.screening.settings.yamlfile`). This module opens no source and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from assay.featurize.standard import SYMPREC, Standard
from assay.screening.settings import yamlfile
from assay.screening.settings.objective import Objective, Range
from assay.screening.settings.section import Count, Section, Slug, Text
from assay.screening.settings.sources import AnySource, SourceSection
from assay.sources.crystals import WARNINGS
from assay.sources.elements import NUMBERS

if TYPE_CHECKING:
    from assay.models.potentials.relax import Settings

RELAXED = 64
"""Crystals per chunk where they are relaxed, unless the config says otherwise."""


class Elements(Section):
    """Which elements a crystal must, must not, or may hold."""

    include: list[str] = []
    """Every one of these must be present."""
    exclude: list[str] = []
    """None of these may be present."""
    only: list[str] = []
    """Nothing but these; empty: no limit."""

    @model_validator(mode="after")
    def _check(self) -> Elements:
        for symbol in [*self.include, *self.exclude, *self.only]:
            if symbol not in NUMBERS:
                raise ValueError(f"{symbol!r} is not an element symbol (H to Og)")
        for symbol in self.include:
            if symbol in self.exclude or symbol not in (self.only or [symbol]):
                rule = f"exclude {self.exclude}" if symbol in self.exclude else f"only {self.only}"
                raise ValueError(f"include {symbol!r} contradicts {rule}: no crystal passes both")
        return self


class Filters(Section):
    """Which crystals are scored; the others are counted as filtered."""

    formula: list[str] = []
    """Compositions as formulas, elements in any order (MgB2, LaFeAsO); empty: no limit."""
    elements: Elements = Elements()
    nsites: Range | None = None
    """Sites in the cell."""
    ordered: bool | None = None
    """true: only crystals of whole atoms, as a force field needs them; false: only those with a
    site that is shared or partly empty; unset: both."""
    reported: dict[str, Range] = {}
    """Reported property -> range, for example energy_above_hull: {max: 0.1} in eV/atom."""

    @model_validator(mode="after")
    def _check(self) -> Filters:
        if self.nsites is not None and self.nsites.max is not None and self.nsites.max < 1:
            raise ValueError(f"nsites.max must be at least 1, got {self.nsites.max:g}")
        if WARNINGS in self.reported:
            raise ValueError(f"reported.{WARNINGS}: this column holds text, a range needs numbers")
        return self


class Rank(Section):
    """How scored crystals are put in order."""

    model: str | None = None
    """Name of the ensemble folder that ranks; unset: the first model."""
    property: str | None = None
    """Predicted property that ranks; unset: the first of that model."""
    by: str = "mean"
    """A ranking rule (`assay.screening.ranking.rules`): mean, lower or upper (an end of the
    calibrated interval), or probability (of lying beyond `threshold`). Where the property has a
    floor, most lower ends lie on it and tie: screen by mean or probability there."""
    threshold: float | None = None
    """In the unit of the property; beyond = above when descending, below when ascending. Read by
    `probability` only."""
    order: Literal["descending", "ascending"] = "descending"
    """Which end of the property is wanted."""
    top: Count = 50
    """Rows shown in the report, and the k of `p_top_k`; candidates.parquet holds every ranked
    crystal."""
    objectives: list[Objective] = []
    """Several properties that rank together; unset: one property ranks. `by` then says how: pareto
    (by fronts of crystals that no other one beats in everything; unset), desirability (by a
    weighted mean) or lexicographic (by the first, then by the second, ...)."""

    @model_validator(mode="before")
    @classmethod
    def _by_fronts(cls, content: Any) -> Any:
        several = isinstance(content, dict) and content.get("objectives")
        return {"by": "pareto", **content} if several else content

    @model_validator(mode="after")
    def _check(self) -> Rank:
        if not self.objectives:
            return self
        for name in ("model", "property", "threshold", "order"):
            if getattr(self, name) != Rank.model_fields[name].default:
                raise ValueError(f"{name} is that of one property; each of the objectives has its own")
        return self

    @model_serializer(mode="wrap")
    def _stored(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `objectives` where there are none, as before they could be."""
        return {name: value for name, value in written(self).items() if name != "objectives" or value}


class Stability(Section):
    """How far each crystal lies above the convex hull of known phases; all energies in eV/atom."""

    hull: Text
    """Known phases with their formation energies: a bundled dataset (mp-formation-energy), a file
    and its column (FILE.parquet#COLUMN), or a number that the sources of this campaign report
    (campaign#COLUMN)."""
    functional: Text | None = None
    """Functional, corrections and element references of these energies, where the table does not
    say; it must be that of the ensemble."""
    property: Text = "formation_energy"
    """Predicted property that is compared with the hull."""
    threshold: float = 0.05
    """`p_stable` is the probability of lying at most so far above the hull."""
    max: float | None = None
    """Crystals that lie farther above the hull are not ranked, nor are those without a hull; unset:
    all are ranked."""

    def reported(self) -> str | None:
        """The column that this campaign's sources report; None for another table."""
        place, mark, column = self.hull.partition("#")
        return column if mark and place == "campaign" else None

    @model_validator(mode="after")
    def _check(self) -> Stability:
        if self.reported() == "" or self.hull == "campaign":
            raise ValueError("hull: campaign needs the name of a reported number: campaign#formation_energy_per_atom")
        if self.reported() and self.functional is None:
            raise ValueError("functional: name that of the reported energies; a hull of the campaign's own needs it")
        return self


class Tier(Section):
    """A cheap ensemble, and how much of what it scores goes on."""

    model: Text
    """Ensemble folder that predicts the property that ranks, relative to the current folder."""
    keep: int | float
    """What goes on to the next tier: a fraction of what entered this one (0.05), or a number of
    crystals (5000)."""

    @field_validator("keep")
    @classmethod
    def _check(cls, keep: float) -> float:
        if not (0 < keep < 1 if isinstance(keep, float) else keep >= 1):
            raise ValueError("must be a fraction between 0 and 1, or a whole number of crystals of at least 1")
        return keep


class Cascade(Section):
    """Cheap ensembles score everything, `models` only what survives them."""

    tiers: Annotated[list[Tier], Field(min_length=1)]
    """Cheapest first; each scores what the one before it let through."""
    audit: Annotated[int, Field(ge=0)] = 500
    """Crystals that were set aside and are scored in full anyway, drawn at random, to estimate what
    was missed."""
    seed: int = 0
    """Of the draw."""
    k: Count | None = None
    """The recall of the best k is estimated; unset: rank.top."""


class Relax(Section):
    """How crystals are relaxed before they are scored.

    But for `model` the keys are fields of `assay.models.potentials.relax.Settings`.
    """

    model: Text = "potential"
    """Force field, a name of `assay.models.potentials.potential.load`: potential, potential:FOLDER,
    chgnet, sevennet, nequix:FILE, or ase:MODULE:CLASS for a calculator of ASE."""
    fmax: float = 0.05
    """eV/Å, the longest force that may remain on an atom."""
    smax: float = 0.1
    """GPa, the largest component of the stress that may remain."""
    steps: int = 300
    """Most evaluations of the force field."""
    cell: bool = True
    """Whether the cell moves too."""
    method: Literal["lbfgs", "fire"] = "lbfgs"
    """Way downhill; FIRE takes twice the steps, and is hard to lead astray."""
    symmetry: Literal["free", "keep"] = "free"
    """Whether a crystal keeps its space group."""
    symprec: float = 0.01
    """Å within which `keep` looks for the symmetry."""

    @model_validator(mode="after")
    def _check(self) -> Relax:
        self.settings()
        return self

    def settings(self) -> Settings:
        """When a crystal has arrived, and when it is given up."""
        from assay.models.potentials.relax import Settings  # numba is not needed to read other configs

        return Settings(**self.model_dump(exclude={"model"}))


class Ray(Section):
    """What the work asks of a Ray cluster; no number depends on it."""

    workers: Count | None = None
    """Most worker actors; unset: as many as fit, one per CPU, or per `cpus` and `gpus` asked
    for."""
    min_workers: Count = 1
    """Worker actors kept while there is little to do, once there was a first task."""
    cpus: Annotated[float, Field(ge=0)] = 0.0
    """CPUs that each worker reserves; above 0 a cluster that can grow will grow."""
    gpus: Annotated[float, Field(ge=0)] = 0.0
    """GPUs that each worker reserves."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Threads of each worker that build graphs and read Parquet (torch keeps one: its last bits
    depend on it)."""

    @model_validator(mode="after")
    def _check(self) -> Ray:
        if self.workers is not None and self.workers < self.min_workers:
            raise ValueError(f"min_workers {self.min_workers} must not be above workers {self.workers}")
        return self


class Campaign(Section):
    """Everything `assay run` needs to know."""

    name: Slug
    sources: Annotated[list[AnySource], Field(min_length=1)]
    models: Annotated[list[Text], Field(min_length=1)]
    """Ensemble folders, relative to the current folder."""
    rank: Rank = Rank()
    cascade: Cascade | None = None
    """Cheaper ensembles that choose what `models` score; unset: `models` score everything."""
    relax: Relax | None = None
    """Relax every crystal with a force field before it is scored; unset: score the cells that
    were delivered."""
    stability: Stability | None = None
    """Energies above the convex hull of known phases; unset: none."""
    filters: Filters = Filters()
    licences: Annotated[list[Text], Field(min_length=1)] = ["CC-BY-4.0", "CC0-1.0"]
    """SPDX licences accepted from databases; rows under another one are filtered. `unknown` accepts
    what has none."""
    identity: bool | None = None
    """Score the same crystal of several sources once; unset: when there is more than one source."""
    ray: Ray = Ray()
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    """Where the ensembles predict: cpu, cuda or cuda:<number>. Its kind is part of the
    fingerprint."""
    compile: bool = False
    """Let torch compile the graph networks for a GPU when they are loaded; for a CPU they are
    compiled ahead."""
    symmetrise: Annotated[float, Field(ge=0, le=0.1)] = 0.0
    """Å; `models` see every crystal in its primitive cell, with the symmetry it has within this
    tolerance made exact: fewer unlike atoms, bonds and angles (docs/performance.md); 0: as
    delivered. Cheap tiers see what was delivered, or relaxed."""
    standardize: Literal["primitive", "conventional"] | None = None
    """The cell in which `models` see every crystal, found within `symmetrise` (unset: 0.01 Å), for
    models that depend on the cell; unset: primitive with `symmetrise`, else as delivered."""
    chunk_size: Annotated[int, Field(ge=1, le=100_000)] = 512
    """Crystals per unit of work; part of the fingerprint, because it fixes the micro-batches. With
    `relax` the default is 64, because a force field takes up to seconds for a crystal."""
    max_bad: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest accepted fraction of quarantined crystals; above it the command ends with 65."""
    output: str | None = None
    """Campaign folder; unset: runs/<name>."""

    @model_validator(mode="before")
    @classmethod
    def _smaller_chunks(cls, content: Any) -> Any:
        relaxes = isinstance(content, dict) and content.get("relax") is not None
        return {"chunk_size": RELAXED, **content} if relaxes else content

    @model_validator(mode="after")
    def _check_compile(self) -> Campaign:
        if self.compile and self.device == "cpu":
            raise ValueError("compile: true needs device: cuda")
        return self

    @field_validator("output")
    @classmethod
    def _check_output(cls, output: str | None) -> str | None:
        if output is not None and not output.strip():
            raise ValueError("must name a folder; leave the key out for runs/<name>")
        return output

    def named_folder(self) -> Path:
        """The campaign folder, as the config names it."""
        return Path(self.output or f"runs/{self.name}")

    def folder(self) -> Path:
        """The campaign folder, absolute."""
        return self.named_folder().absolute()

    def standard(self) -> Standard | None:
        """The cell in which `models` see every crystal; None for that in which it came."""
        if not (self.symmetrise or self.standardize):
            return None
        return Standard(self.standardize or "primitive", self.symmetrise or SYMPREC)

    def tiers(self) -> list[Tier]:
        """The cheap tiers, cheapest first; none without a cascade."""
        return [] if self.cascade is None else self.cascade.tiers

    def merges(self) -> bool:
        """Whether the same crystal of several sources is looked for."""
        return len(self.sources) > 1 if self.identity is None else self.identity

    def named_sources(self) -> dict[str, SourceSection]:
        """Folder name under snapshot/ -> source, in config order; equal names get -2, -3, ..."""
        named: dict[str, SourceSection] = {}
        for source in self.sources:
            name = stem = source.name or source.stem()
            count = 1
            while name in named:
                count += 1
                name = f"{stem}-{count}"
            named[name] = source
        return named


def load(path: Path, overrides: Sequence[str] = ()) -> Campaign:
    """Read, override and validate a campaign config."""
    return yamlfile.validate(Campaign, yamlfile.override(yamlfile.read(path), overrides), str(path))


def dump(campaign: Campaign) -> str:
    """The resolved config as YAML, every default written out but that there is no `stability`."""
    absent = {"stability"} if campaign.stability is None else None
    return yaml.safe_dump(
        campaign.model_dump(mode="json", exclude=absent), sort_keys=False
    )  # ASCII: U+0085 does not survive unescaped
