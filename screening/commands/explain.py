"""Why an ensemble predicts what it predicts: a table of what atoms add, and pictures of where transformers look.

Enters: the predictions for some files, and the ensemble that made them. Leaves: one CSV file per
crystal, PNG files of attention, and lines to read. It does not know how an attribution is computed.

Sites are those of the file, in its order. A picture tells atoms apart by their species only, so
what vision networks say is told per kind of species, and what graph networks say both per site and
summed per kind. Both differ from their own baseline: an empty picture and a graph of unnamed atoms
are not the same nothing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from assay.featurize import standard
from assay.featurize.graphs import GraphSpec
from assay.featurize.pictures import raster
from assay.models.ensemble import explain
from assay.models.ensemble.ensemble import Ensemble
from assay.models.networks.inputs import PictureInputs
from assay.screening.commands.predict import species
from assay.sources.durable import whole

if TYPE_CHECKING:
    from assay.models.ensemble.checkpoint import Checkpoint
    from assay.models.ensemble.explain import Attribution
    from assay.models.target import Property
    from assay.screening.commands.predict import Prediction
    from assay.sources.crystals import Crystals

SCALED = "scaled"
"""As a unit: the network's own scale, where that of the property is bent (`Property.transform`)."""
MOST_KINDS, MOST_SITES = 4, 4
"""Kinds and sites that are printed."""
OPAQUE = 0.75
"""Share of the colour where there is the most attention."""
SMALLEST = 336
"""Pixels of an edge of a picture of attention, at least."""

_COLUMNS = ("of", "network", "row", "site", "species", "a", "b", "c", "attribution", "unit")
_RAMP = np.array([[20, 0, 60], [120, 20, 110], [220, 60, 60], [255, 160, 20], [255, 250, 160]], np.float64)
"""Red, green and blue from no attention to the most."""


@dataclass(frozen=True)
class Share:
    """What one member, or the mean of several, says; in the property's unit, or `SCALED`."""

    of: str
    """`member-<k>`, `graphs`, `pictures` or `all`."""
    network: str
    """Name of the network; empty for a mean."""
    sites: NDArray[np.float64] | None
    """(s,) per site of the file; None where pictures are among what is told."""
    kinds: NDArray[np.float64]
    """(m,) per kind of species."""
    rest: float
    """Of pixels that show no atom."""
    prediction: float
    """Before the property's minimum is applied."""
    baseline: float

    @property
    def error(self) -> float:
        """What the quadrature leaves over."""
        return self.prediction - self.baseline - float(self.kinds.sum()) - self.rest


@dataclass(frozen=True)
class Explained:
    """What is known of one crystal."""

    lines: list[str]
    """At most 10, to read."""
    table: Path
    """CSV file."""
    pictures: list[Path]
    """PNG files, two per view and vision network."""
    notes: list[str]
    """What could not be shown, and why."""


def write(
    prediction: Prediction, ensemble: Ensemble, output: Path, name: str | None = None, *, steps: int = explain.STEPS
) -> Iterator[Explained]:
    """Explain every predicted crystal, one after the other; files are named after the crystal.

    Args:
        prediction: by this ensemble.
        ensemble: whose members are explained.
        output: folder of the files.
        name: of the property; None: the first.
        steps: points of the path of integrated gradients.

    Raises:
        ValueError: for a property that the ensemble does not predict.
    """
    names = [item.name for item in ensemble.properties]
    name = names[0] if name is None else name
    if name not in names:
        raise ValueError(f"property {name!r} is not predicted by {ensemble.folder}, expected one of {names}")
    output.mkdir(parents=True, exist_ok=True)
    if ensemble.facts.get("precision") == "bfloat16":  # in which there are no gradients
        ensemble = Ensemble.load(ensemble.folder, "float32")
    for position, row in enumerate(prediction.part.table.to_pylist()):
        crystal = prediction.crystals[position : position + 1]
        yield _crystal(crystal, ensemble, names.index(name), row, output, steps)


def _crystal(
    crystal: Crystals, ensemble: Ensemble, position: int, row: dict[str, Any], output: Path, steps: int
) -> Explained:
    """One crystal: `row` holds its predictions, `position` is that of the property."""
    stem = quote(str(crystal.ids[0]), safe="+")  # one file name per id
    scalers = [member.properties[position] for member in ensemble.members]
    unit = scalers[0].unit if all(item.transform == "identity" for item in scalers) else SCALED
    owner, labels = kinds(crystal)
    shares: list[Share] = []
    paths: list[Path] = []
    notes: list[str] = []
    for k, member in enumerate(ensemble.members):
        inputs = explain.read(member, crystal)
        found = explain.attribute(member.network, inputs, scalers[k].name, steps=steps)
        shares.append(_share(f"member-{k}", member, found, owner, None if unit == SCALED else scalers[k]))
        if isinstance(inputs, PictureInputs):
            try:
                paths += _overlays(member, inputs, output, f"{stem}-member-{k}")
            except ValueError as error:
                notes.append(f"{crystal.ids[0]}: no attention of member-{k}: {error}")
    shares += means(shares, ensemble.weights.get(scalers[0].name))
    table = output / f"{stem}.csv"
    with whole(table) as file:
        file.write(_table(shares, crystal, labels, unit).encode())
    hidden = f"{len(labels) - MOST_KINDS} more kinds, " if len(labels) > MOST_KINDS else ""
    last = f"  {hidden}every site and every member: {table}" + (f"; {len(paths)} pictures beside it" if paths else "")
    return Explained([*_lines(shares, crystal, (owner, labels), row, scalers[0], unit), last], table, paths, notes)


def kinds(crystal: Crystals) -> tuple[NDArray[np.int64], list[str]]:
    """Kind of species of each site (s,), numbered in the order of the file, and the label of each kind."""
    every = standard.kinds_of(crystal, np.arange(len(crystal.frac)))
    _, first, owner = np.unique(every, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return rank[owner.reshape(-1)].astype(np.int64), [species(crystal, int(site)) for site in np.sort(first)]


def means(shares: Sequence[Share], weights: Sequence[float] | None) -> list[Share]:
    """The plain mean of each family of networks that there is, and of all, by the weights of the ensemble."""
    families = {
        "graphs": [s for s in shares if s.sites is not None],
        "pictures": [s for s in shares if s.sites is None],
    }
    told = [_mean(of, members, None) for of, members in families.items() if members]
    return [*told, _mean("all", shares, weights)]


def _mean(of: str, shares: Sequence[Share], weights: Sequence[float] | None) -> Share:
    def over(values: Sequence[Any]) -> Any:
        return np.average(np.array(values), axis=0, weights=weights)

    sites = [share.sites for share in shares if share.sites is not None]
    return Share(
        of, "", over(sites) if len(sites) == len(shares) else None, over([share.kinds for share in shares]),
        *(float(over([getattr(share, part) for share in shares])) for part in ("rest", "prediction", "baseline")),
    )  # fmt: skip


def _share(of: str, member: Checkpoint, found: Attribution, owner: NDArray[np.int64], scaler: Property | None) -> Share:
    """In the unit of `scaler`; as it is where there is none."""
    factor, offset = (1.0, 0.0) if scaler is None else (scaler.scale, scaler.center)
    sites = factor * found.sites
    summed = np.zeros(int(owner.max()) + 1)
    np.add.at(summed, owner, sites)
    return Share(
        of, member.name, sites if isinstance(member.spec, GraphSpec) else None, summed,
        factor * found.rest, factor * found.prediction + offset, factor * found.baseline + offset,
    )  # fmt: skip


# What is written and printed.


def _table(shares: Sequence[Share], crystal: Crystals, labels: Sequence[str], unit: str) -> str:
    """CSV: for every member and every mean its sites, kinds, background, baseline, prediction and error."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for share in shares:
        start = share.of, share.network
        for site, value in enumerate([] if share.sites is None else share.sites.tolist()):
            place = (f"{x:.6f}" for x in crystal.frac[site])
            rows.writerow([*start, "site", site, species(crystal, site), *place, value, unit])
        for label, value in zip(labels, share.kinds.tolist(), strict=True):
            rows.writerow([*start, "kind", "", label, "", "", "", value, unit])
        for row, value in (
            ("background", share.rest), ("baseline", share.baseline), ("prediction", share.prediction),
            ("error", share.error),
        ):  # fmt: skip
            rows.writerow([*start, row, "", "", "", "", "", value, unit])
    return text.getvalue()


def _lines(
    shares: Sequence[Share],
    crystal: Crystals,
    kinds: tuple[NDArray[np.int64], list[str]],
    row: dict[str, Any],
    scaler: Property,
    unit: str,
) -> list[str]:
    """The answer and what the atoms add to it, the largest first."""
    owner, labels = kinds
    members = [share for share in shares if share.network]
    told = [share for share in shares if not share.network]
    shown = told if len(told) > 2 else told[-1:]
    answers = [f"{scaler.name} {row[f'{scaler.name}_mean']:.4g} {scaler.unit}"]
    for family in told[:-1]:
        own = [row[f"{scaler.name}_member_{k}"] for k, s in enumerate(members) if _family(s) == family.of]
        answers.append(f"{family.of} {np.mean(own):.4g} ({len(own)} member{'s' * (len(own) > 1)})")
    order = np.argsort(-abs(told[-1].kinds), kind="stable")
    found = [f"{crystal.ids[0]}  {crystal.formulas()[0]}  {', '.join(answers)}"]
    heading = f"adds ({unit})" if unit else "adds"
    wide = max(len(text) for text in (*labels, "baseline", heading))
    found.append(f"  {heading:{wide}}  sites" + "".join(f"{share.of:>10}" for share in shown))
    for kind in order[:MOST_KINDS]:
        values = "".join(f"{share.kinds[kind]:>+10.3g}" for share in shown)
        found.append(f"  {labels[kind]:{wide}}  {(owner == kind).sum():>5}{values}")
    found.append(f"  {'baseline':{wide}}  {'':>5}" + "".join(f"{share.baseline:>10.3g}" for share in shown))
    graphs = next((share for share in told if share.of == "graphs"), None)
    if graphs is not None and graphs.sites is not None:
        largest = np.argsort(-abs(graphs.sites), kind="stable")[:MOST_SITES]
        each = (f"{site} {species(crystal, int(site))} {graphs.sites[site]:+.3g}" for site in largest)
        found.append(f"  largest sites, by graphs: {', '.join(each)}")
    worst = max(abs(share.error) for share in members)
    found.append(
        f"  left over by the quadrature: {worst:.2g} at most in a member; added by no atom: {told[-1].rest:+.2g}"
    )
    return found


def _family(share: Share) -> str:
    return "pictures" if share.sites is None else "graphs"


def _overlays(member: Checkpoint, inputs: PictureInputs, output: Path, stem: str) -> list[Path]:
    """Two pictures of every view: attention in the last block, and rolled out over all."""
    from PIL import Image

    looked = explain.attention(member.network, inputs.batch(np.zeros(1, np.int64), member.network).pixels)
    views = raster.images(inputs.scenes, inputs.spec)
    paths = []
    for number, picture in enumerate(views):
        block = "x".join(map(str, inputs.spec.supercells[inputs.scenes.block[number]]))
        for kind, heat in (("attention", looked.last[number]), ("rollout", looked.rollout[number])):
            paths.append(output / f"{stem}-{block}-{number:02d}-{kind}.png")
            Image.fromarray(overlay(picture, heat.numpy())).save(paths[-1])
    return paths


def overlay(picture: NDArray[np.float32], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(h, h, 3) a picture (C, size, size), 0 to 1, enlarged to at least `SMALLEST`, under attention (rows, columns).

    Three channels are red, green and blue, of others the mean is grey. The most attention is
    opaque, none is clear.
    """
    from PIL import Image

    colours = picture if len(picture) == 3 else np.repeat(picture.mean(axis=0, keepdims=True), 3, axis=0)
    times = -(-SMALLEST // picture.shape[1])
    ground = 255 * colours.repeat(times, axis=1).repeat(times, axis=2).transpose(1, 2, 0)
    edge = ground.shape[1], ground.shape[0]
    scaled = np.asarray(heat, np.float32) / max(float(heat.max()), 1e-12)
    smooth = np.asarray(Image.fromarray(scaled).resize(edge, Image.Resampling.BILINEAR), np.float64)
    steps = np.linspace(0, 1, len(_RAMP))
    glow = np.stack([np.interp(smooth, steps, channel) for channel in _RAMP.T], axis=2)
    share = OPAQUE * smooth[:, :, None]
    return np.asarray(((1 - share) * ground + share * glow).round(), np.uint8)
