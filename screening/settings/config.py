"""Campaign configs: YAML -> a validated, frozen `Campaign`.

Enters: a YAML file and `a.b=c` overrides. Leaves: `Campaign`, or one line about the first wrong key
(`assay.screening.settings.yamlfile`). This module opens no source and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from assay.featurize.standard import SYMPREC, Standard
from assay.models.potentials.columns import FORMATION
from assay.screening.settings import yamlfile
from assay.screening.settings.choice import Cascade, Filters, Rank, Tier
from assay.screening.settings.names import distinct
from assay.screening.settings.section import Count, Section, Slug, Text
from assay.screening.settings.sources import AnySource, SourceSection

if TYPE_CHECKING:
    from assay.models.potentials.relax import Settings

RELAXED = 64
"""Crystals per chunk where they are relaxed, unless the config says otherwise."""

LIGHT = 2048
"""The same where all ensembles are light."""


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
    energy: Literal["predicted", "potential"] = "predicted"
    """What is compared with the hull: the `property` that an ensemble predicts, or the energy of
    the relaxed crystal by the `potential` of the section `relax`."""
    references: Text | None = None
    """For `potential`: FILE.parquet with columns `element` and `energy_per_atom`, totals on the
    scale of the potential; unset: those of PBE(+U) among the data packs."""
    error: Annotated[float, Field(gt=0)] | None = None
    """For `potential`: standard deviation of the error of its energies; unset: as its card says."""
    threshold: float = 0.05
    """`p_stable` is the probability of lying at most so far above the hull."""

    def reported(self) -> str | None:
        """The column that this campaign's sources report; None for another table."""
        place, mark, column = self.hull.partition("#")
        return column if mark and place == "campaign" else None

    def compared(self) -> str:
        """The property whose columns are compared with the hull."""
        return FORMATION if self.energy == "potential" else self.property

    @model_validator(mode="before")
    @classmethod
    def _moved(cls, content: Any) -> Any:
        if isinstance(content, dict) and "max" in content:
            filters = f"{{energy_above_hull: {{max: {content['max']}}}}}"
            raise ValueError(f"max is a filter on predictions now: write filters.predicted: {filters}")
        return content

    @model_validator(mode="after")
    def _check(self) -> Stability:
        if self.reported() == "" or self.hull == "campaign":
            raise ValueError("hull: campaign needs the name of a reported number: campaign#formation_energy_per_atom")
        if self.reported() and self.functional is None:
            raise ValueError("functional: name that of the reported energies; a hull of the campaign's own needs it")
        if self.energy == "predicted" and (self.references or self.error):
            raise ValueError("references and error are for energy: potential; an ensemble knows its own")
        return self


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
    """Ensemble folders, relative to the current folder. Of equal names the second is `name-2`."""
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
    `relax` the default is 64, because a force field takes up to seconds for a crystal. Where all
    ensembles are light, as `tc` and `tc-fast` are, it is 2048: the files of a unit of 512 and the
    messages of Ray about it take as long as its crystals."""
    max_bad: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest accepted fraction of quarantined crystals; above it the command ends with 65."""
    output: str | None = None
    """Campaign folder; unset: runs/<name>."""
    store: Text = "off"
    """Where outputs of members are kept, so that another campaign does not compute them again: off,
    auto (the folder .store beside the campaign folder), or a folder. No number depends on it."""
    store_limit: Annotated[float, Field(gt=0)] = 20.0
    """GiB that the store may take; what was not used for longest makes room."""

    @model_validator(mode="before")
    @classmethod
    def _smaller_chunks(cls, content: Any) -> Any:
        relaxes = isinstance(content, dict) and content.get("relax") is not None
        return {"chunk_size": RELAXED, **content} if relaxes else content

    @model_validator(mode="after")
    def _check(self) -> Campaign:
        if self.compile and self.device == "cpu":
            raise ValueError("compile: true needs device: cuda")
        kept = self.store_folder()
        if kept is not None and kept.is_relative_to(self.folder()):
            raise ValueError(f"store: {kept} lies in the campaign folder; name a folder outside of it")
        if self.stability and self.stability.energy == "potential" and self.relax is None:
            raise ValueError("stability.energy: potential needs a section relax, whose energies it takes")
        return self

    @field_validator("store", mode="before")
    @classmethod
    def _unquoted(cls, store: Any) -> Any:
        return "off" if store is False else store  # YAML 1.1 reads off so

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

    def store_folder(self) -> Path | None:
        """The folder of kept outputs, absolute; None where all are computed."""
        if self.store == "off":
            return None
        return self.folder().parent / ".store" if self.store == "auto" else Path(self.store).absolute()

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
            named[distinct(source.name or source.stem(), named)] = source
        return named


def load(path: Path, overrides: Sequence[str] = ()) -> Campaign:
    """Read, override and validate a campaign config."""
    return yamlfile.validate(Campaign, yamlfile.override(yamlfile.read(path), overrides), str(path))


def dump(campaign: Campaign) -> str:
    """The resolved config as YAML, with every default but that a section is unset."""
    content = campaign.model_dump(mode="json", exclude={"stability"} if campaign.stability is None else None)
    return yaml.safe_dump(content, sort_keys=False)  # ASCII: U+0085 does not survive unescaped
