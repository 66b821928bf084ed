"""Writes candidates into a folder: a file, or the inputs of a calculation, for each.

Enters: `Best`, and the name of a format or of a recipe for inputs. Leaves: files named after rank
and formula, and a reason for each candidate that could not be written; for CGCNN and ALIGNN also
`id_prop.csv`, the list of the files with the predicted means.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from assay.screening.export.best import Best, Facts
from assay.screening.settings.exits import Exit, Failure
from assay.sources import durable
from assay.sources.formats.writing import vasp
from assay.sources.formats.writing.structures import BESIDE_A_LIST, FORMATS

LISTED = {"cgcnn": False, "alignn": True}
"""Formats with a list of the files -> whether it names their endings."""
LIST = "id_prop.csv"
"""Name of the list."""
SEED = 0
"""Of the order of the list."""


@dataclass(frozen=True)
class Exported:
    """What became of some candidates."""

    paths: list[Path] = field(default_factory=list)
    """The files, or the folders of inputs."""
    left: list[str] = field(default_factory=list)
    """One line about each of the others: rank, id, formula, reason."""

    def check(self, max_bad: float) -> None:
        """Refuse an export that left out too many.

        Raises:
            Failure: TOO_MANY_BAD, when their share is above `max_bad`.
        """
        bad = len(self.left)
        total = bad + sum(path.name != LIST for path in self.paths)
        if bad > max_bad * total:
            message = f"{bad} of {total} candidates could not be written, more than --max-bad {max_bad:g}"
            raise Failure(Exit.TOO_MANY_BAD, f"{message}; the reasons are above")


def write(best: Best, format: str, folder: Path) -> Exported:
    """Write a file of each candidate, in one of `FORMATS`, or of `BESIDE_A_LIST` with the list.

    The list is shuffled: ALIGNN tests on its last lines, which would be the worst candidates.
    """
    chosen = {**FORMATS, **BESIDE_A_LIST}[format]
    lines: list[str] = []

    def one(row: int) -> Path:
        text = chosen.write(best.crystals[row : row + 1], best.facts[row])
        path = folder / f"{best.stem(row)}{chosen.ending}"
        if format in LISTED:
            lines.append(_line(path.name if LISTED[format] else path.stem, best.facts[row]))
        durable.write(path, text)
        return path

    made = _each(best, one)
    if lines:
        random.Random(SEED).shuffle(lines)  # noqa: S311 (an order, no secret)
        durable.write(folder / LIST, "".join(lines))
        made.paths.append(folder / LIST)
    return made


def _line(name: str, facts: Facts) -> str:
    """A line of the list.

    Raises:
        ValueError: when the candidate has no mean.
    """
    if facts["mean"] is None:
        raise ValueError("its predicted mean is no finite number, which the list must hold")
    return f"{name},{facts['mean']!r}\n"


def write_inputs(best: Best, recipe: str, folder: Path) -> Exported:
    """Write a folder of inputs for each candidate, by a recipe of pymatgen."""

    def one(row: int) -> Path:
        stem = best.stem(row)
        texts = vasp.inputs(best.crystals[row : row + 1], recipe, stem, best.facts[row])
        for name, text in texts.items():
            durable.write(folder / stem / name, text)
        return folder / stem

    return _each(best, one)


def _each(best: Best, one: Callable[[int], Path]) -> Exported:
    found = Exported()
    for row, facts in enumerate(best.facts):
        try:
            found.paths.append(one(row))
        except ValueError as error:
            found.left.append(f"{facts['id']} ({facts['formula']}, rank {facts['rank']}) is left out: {error}")
    return found
