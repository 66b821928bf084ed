"""The ensembles that come with the package, by name.

Enters: the path of an ensemble folder, or the name of a bundled ensemble. Leaves: the path of a
folder. It opens no checkpoint.
"""

from __future__ import annotations

import difflib
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "zoo"
"""Holds one folder per bundled ensemble."""


def names() -> list[str]:
    """The names of the bundled ensembles."""
    return sorted(path.parent.name for path in FOLDER.glob("*/ensemble.json"))


def find(folder: Path | str) -> Path:
    """The folder of an ensemble; a path that exists wins over the name of a bundled ensemble.

    Raises:
        FileNotFoundError: with the nearest name, when there is neither.
    """
    if Path(folder).is_dir():
        return Path(folder)
    known = names()
    if str(folder) in known:
        return FOLDER / str(folder)
    near = difflib.get_close_matches(Path(folder).name, known, n=1)
    advice = f"did you mean the bundled {near[0]!r}?" if near else "check the path"
    listed = f"bundled are {', '.join(known)}" if known else "none is bundled"
    raise FileNotFoundError(
        f"model folder {folder} not found; {advice} ({listed}; to train one: assay train train-tc --output FOLDER)"
    )
