"""The campaigns, recipes, studies, simulations and searches that come with the package, by name.

Enters: the path of a YAML file, or the name of a bundled one. Leaves: the path of a file; a path
that exists wins over a name. It reads no file.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from assay.screening.settings.exits import Exit, Failure

FOLDER = Path(__file__).parents[2] / "configs"
"""Holds the bundled YAML files."""


def campaign(name: Path | str) -> Path:
    """The config of a campaign, for example `quickstart`."""
    patterns = ("train-*.yaml", "tune-*.yaml", "distil-*.yaml")
    others = {path for pattern in patterns for path in FOLDER.glob(pattern)}
    return _find(name, "config", sorted({*FOLDER.glob("*.yaml")} - others))


def recipe(name: Path | str) -> Path:
    """A training recipe, for example `train-tc`."""
    return _find(name, "recipe", sorted(FOLDER.glob("train-*.yaml")))


def distillation(name: Path | str) -> Path:
    """A recipe for a potential, for example `distil-potential`."""
    return _find(name, "recipe", sorted(FOLDER.glob("distil-*.yaml")))


def study(name: Path | str) -> Path:
    """A study, for example `study-tc`."""
    return _find(name, "study", sorted(FOLDER.glob("studies/study-*.yaml")))


def simulation(name: Path | str) -> Path:
    """A rehearsal of a sequential campaign, for example `simulate-tc`."""
    return _find(name, "simulation", sorted(FOLDER.glob("simulations/simulate-*.yaml")))


def search(name: Path | str) -> Path:
    """A search for hyper-parameters, for example `tune-tc`."""
    return _find(name, "search", sorted(FOLDER.glob("tune-*.yaml")))


def _find(name: Path | str, noun: str, bundled: list[Path]) -> Path:
    """The file of that path, or of that name among the bundled ones."""
    if os.path.isfile(name):  # noqa: PTH113 -- False for a name that no file can have
        return Path(name)
    known = {path.stem: path for path in bundled}
    if str(name) in known:
        return known[str(name)]
    near = difflib.get_close_matches(Path(name).stem, known, n=1)
    if os.path.lexists(name):
        raise Failure(Exit.CONFIG, f"{noun} {name} is no regular file; give the path of a YAML file")
    hint = f"did you mean the bundled {near[0]!r}?" if near else "give the path of a YAML file"
    raise Failure(Exit.CONFIG, f"{noun} {name} not found; {hint} (bundled are {', '.join(known)})")
