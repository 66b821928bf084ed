"""The fingerprint of a campaign: everything that changes a number.

Enters: a config and its loaded ensembles. Leaves: a flat mapping of text, which
`assay.screening.folder.stamp` compares with the one in the campaign folder. Worker count, paths and
log level are not in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from assay.models.ensemble.ensemble import Ensemble
from assay.models.potentials.potential import Potential
from assay.screening.campaign import reference
from assay.screening.folder.stamp import CONTENT, FORMAT, ORDER, SOURCES
from assay.screening.pulling.source import named
from assay.screening.settings.choice import Filters
from assay.screening.settings.config import Campaign
from assay.sources import symmetry
from assay.sources.checks import importing

if TYPE_CHECKING:
    from assay.featurize import identity
else:
    identity = importing.later("assay.featurize.identity")

MOST_FILES = 2_000
"""Files of one source that the fingerprint lists one by one."""


def take(
    campaign: Campaign,
    ensembles: Sequence[Ensemble],
    tiers: Sequence[Ensemble | None] = (),
    potential: Potential | None = None,
) -> dict[str, str]:
    """Everything that changes a number, flat, so that a difference can be shown.

    A tier that is None leaves nothing of its model, and so does the potential that relaxes.
    """
    stamp = {
        "format": FORMAT,
        "assay": version(),
        "torch": metadata.version("torch"),
        "chunk_size": str(campaign.chunk_size),
        "filters": _filters(campaign.filters),
        "licences": ",".join(sorted(campaign.licences)),
        "identity": _identity(campaign),
        "models": ",".join(ensemble.name for ensemble in ensembles),
    }
    if campaign.device != "cpu":
        stamp["device"] = campaign.device.partition(":")[0] + (", compiled" if campaign.compile else "")
    if campaign.relax is not None:
        stamp["relax"] = json.dumps(asdict(campaign.relax.settings()))
    if potential is not None:
        stamp["relax.potential"] = f"{potential.name}: {potential.version}"
    standard = campaign.standard()
    if standard is not None:
        stamp["symmetrise"] = f"{standard.tolerance} Å, {symmetry.stamp()}"
        stamp["standardize"] = standard.cell
    if len(campaign.sources) > 1:  # the first one names equal ids, and stands for equal crystals
        stamp[ORDER] = ", ".join(named(campaign))
    for name, source in named(campaign).items():
        stamp[f"{SOURCES}{name}"] = source.fingerprint()
    for ensemble in ensembles:
        stamp |= _model_stamp(f"models.{ensemble.name}", ensemble)
    stamp |= reference.stamp(campaign.stability)
    if campaign.cascade is not None:
        rule = campaign.rank.model_dump(exclude={"top", "select"})  # it decides which crystals survive
        chosen = campaign.cascade.model_dump(include={"audit", "seed"})
        stamp |= {f"cascade.{name}": str(value) for name, value in {**rule, **chosen}.items()}
        for number, (tier, setting) in enumerate(zip(tiers, campaign.tiers(), strict=True)):
            stamp[f"cascade.{number}.keep"] = str(setting.keep)
            stamp |= {} if tier is None else _model_stamp(f"cascade.{number}.{tier.name}", tier)
    return stamp


def content(campaign: Campaign) -> dict[str, str]:
    """Each file that a source reads -> its digest; of very many files, one digest per source."""
    found: dict[str, str] = {}
    for name, source in named(campaign).items():
        digests = source.content()
        if len(digests) > MOST_FILES:
            text = json.dumps(digests, sort_keys=True)
            digests = {f"{len(digests)} files": hashlib.sha256(text.encode()).hexdigest()[:16]}
        found |= {f"{CONTENT}{name}.{file}": digest for file, digest in digests.items()}
    return found


def _model_stamp(key: str, ensemble: Ensemble) -> dict[str, str]:
    stamp = {
        "weights": ",".join(digest[:16] for digest in ensemble.sha256),
        "files": _described(ensemble.folder)[:16],
        "graph": repr(ensemble.spec),
        "properties": json.dumps([[item.name, item.unit] for item in ensemble.properties]),
        "calibration": repr(sorted(ensemble.calibration.items())),
    }
    reads: dict[str, str] = {}
    if ensemble.tables:
        stamp["tables"] = repr(ensemble.tables)
    if ensemble.views:
        stamp["views"] = repr(ensemble.views)
        reads = {name: metadata.version(name) for name in ("numba", "timm")}  # pixels, and what reads them
    return {f"{key}.{name}": value for name, value in stamp.items()} | reads


def _described(folder: Path) -> str:
    """Digest of the JSON files of an ensemble: scalers, calibration, facts of the report."""
    content = (folder / "ensemble.json").read_bytes()
    digest = hashlib.sha256(content)
    for member in json.loads(content)["members"]:
        digest.update((folder / member / "model.json").read_bytes())
    return digest.hexdigest()


def _filters(filters: Filters) -> str:
    """The filters that decide what is scored.

    One that is younger than a folder changes nothing where it is unset.
    """
    unset = {"ordered"} if filters.ordered is None else set()
    return filters.model_dump_json(exclude=unset | {"predicted"})


def _identity(campaign: Campaign) -> str:
    return identity.stamp() if campaign.merges() else "off"


def version() -> str:
    """Version of the installed distribution."""
    try:
        return metadata.version("assay")
    except metadata.PackageNotFoundError:
        return "unknown"
