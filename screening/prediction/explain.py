"""Explanations of predictions: a table of the contributions of atoms, and pictures of attention.

Enters: the predictions for some crystals, and the ensemble that made them. Leaves: one CSV file per
crystal, PNG files of attention, and lines to read. It does not know how an attribution is computed.

Sites are those of the file, in its order. A picture tells atoms apart by their species only, so a
vision network has one contribution per kind of species, and a graph network has one per site and
their sum per kind. Each family starts from its own baseline: an empty picture, or a graph of
unnamed atoms.
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

from assay.featurize.alternatives import united
from assay.models.ensemble import explain
from assay.models.ensemble.ensemble import Ensemble
from assay.screening.prediction import attention
from assay.screening.prediction.attributions import SCALED, Share, kinds, means, of_member
from assay.screening.prediction.describe import species
from assay.screening.prediction.predict import warnings_of
from assay.screening.settings import digits
from assay.screening.settings.exits import one_line
from assay.sources.durable import whole

if TYPE_CHECKING:
    from assay.models.target import Property
    from assay.screening.prediction.predict import Predictions
    from assay.sources.crystals import Crystals

MOST_KINDS, MOST_SITES = 4, 4
"""Kinds and sites that are printed."""
_COLUMNS = ("of", "network", "row", "site", "species", "a", "b", "c", "attribution", "unit")


@dataclass(frozen=True)
class Explained:
    """The explanation of one crystal."""

    lines: list[str]
    """At most 10 lines to read."""
    table: Path
    """CSV file."""
    pictures: list[Path]
    """PNG files, two per view and vision network."""
    notes: list[str]
    """One line per picture that could not be made, with the reason."""


def write(
    predictions: Predictions, ensemble: Ensemble, output: Path, name: str | None = None, *, steps: int = explain.STEPS
) -> Iterator[Explained]:
    """Explain every predicted crystal, one after the other; files are named after the crystal.

    Args:
        predictions: made by this ensemble.
        ensemble: the ensemble; each of its members is explained.
        output: folder of the files.
        name: name of the property; None: the first.
        steps: points of the path of integrated gradients.

    Raises:
        ValueError: for a property that the ensemble does not predict, or when a member reads the
            composition alone.
    """
    names = [item.name for item in ensemble.properties]
    name = names[0] if name is None else name
    if name not in names:
        raise ValueError(f"property {name!r} is not predicted by {ensemble.folder}, expected one of {names}")
    if blind := [k for k, member in enumerate(ensemble.members) if member.kind.family == "composition"]:
        raise ValueError(
            f"member {blind[0]} of {ensemble.folder} reads the composition alone: no "
            "atom of it adds anything by its place; explain an ensemble of members that read graphs or pictures"
        )
    output.mkdir(parents=True, exist_ok=True)
    if ensemble.facts.get("precision") == "bfloat16":  # bfloat16 has no gradients
        ensemble = Ensemble.load(ensemble.folder, "float32")
    for position, row in enumerate(predictions.table.to_pylist()):
        crystal = predictions.crystals[position : position + 1]
        yield _crystal(crystal, ensemble, names.index(name), row, output, steps)


def _crystal(
    crystal: Crystals, ensemble: Ensemble, position: int, row: dict[str, Any], output: Path, steps: int
) -> Explained:
    """One crystal: `row` holds its predictions, `position` is that of the property."""
    crystal = united(crystal)  # as the ensemble sees it
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
        shares.append(of_member(f"member-{k}", member, found, owner, None if unit == SCALED else scalers[k]))
        if member.kind.views:
            try:
                paths += attention.write(member, inputs, output, f"{stem}-member-{k}")
            except ValueError as error:
                notes.append(f"{crystal.ids[0]}: no attention of member-{k}: {error}")
    shares += means(shares, ensemble.weights.get(scalers[0].name))
    table = output / f"{stem}.csv"
    with whole(table) as file:
        file.write(_table(shares, crystal, labels, unit).encode())
    hidden = f"{len(labels) - MOST_KINDS} more kinds, " if len(labels) > MOST_KINDS else ""
    last = f"  {hidden}every site and every member: {table}" + (f"; {len(paths)} pictures beside it" if paths else "")
    return Explained([*_lines(shares, crystal, (owner, labels), row, scalers[0], unit), last], table, paths, notes)


def _table(shares: Sequence[Share], crystal: Crystals, labels: Sequence[str], unit: str) -> str:
    """The CSV text: sites, kinds, background, baseline, prediction and error of each share."""
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
        sums = {"background": share.rest, "baseline": share.baseline, "prediction": share.prediction}
        for row, value in (sums | {"error": share.error}).items():
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
    """The prediction, and the contributions of the atoms to it, the largest first."""
    owner, labels = kinds
    members = [share for share in shares if share.network]
    averages = [share for share in shares if not share.network]
    shown = averages if len(averages) > 2 else averages[-1:]
    std = row[f"{scaler.name}_std"]
    answers = [f"{scaler.name} {digits.measured(row[f'{scaler.name}_mean'], std)[0]} {scaler.unit}"]
    for family in averages[:-1]:
        own = [row[f"{scaler.name}_member_{k}"] for k, s in enumerate(members) if s.family == family.of]
        answers.append(
            f"{family.of} {digits.measured(float(np.mean(own)), std)[0]} ({len(own)} member{'s' * (len(own) > 1)})"
        )
    order = np.argsort(-abs(averages[-1].kinds), kind="stable")
    found = [f"{crystal.ids[0]}  {crystal.formulas()[0]}  {', '.join(answers)}"]
    found += [f"  warning: {one_line(text)}" for text in warnings_of(crystal) if text]
    heading = f"adds ({unit})" if unit else "adds"
    wide = max(len(text) for text in (*labels, "baseline", heading))
    found.append(f"  {heading:{wide}}  sites" + "".join(f"{share.of:>10}" for share in shown))
    for kind in order[:MOST_KINDS]:
        values = "".join(f"{share.kinds[kind]:>+10.3g}" for share in shown)
        found.append(f"  {labels[kind]:{wide}}  {(owner == kind).sum():>5}{values}")
    found.append(f"  {'baseline':{wide}}  {'':>5}" + "".join(f"{share.baseline:>10.3g}" for share in shown))
    graphs = next((share for share in averages if share.of == "graphs"), None)
    if graphs is not None and graphs.sites is not None:
        largest = np.argsort(-abs(graphs.sites), kind="stable")[:MOST_SITES]
        each = (f"{site} {species(crystal, int(site))} {graphs.sites[site]:+.3g}" for site in largest)
        found.append(f"  largest sites, by graphs: {', '.join(each)}")
    worst = max(abs(share.error) for share in members)
    found.append(
        f"  left over by the quadrature: {worst:.2g} at most in a member; added by no atom: {averages[-1].rest:+.2g}"
    )
    return found
