"""The Python API: the functions of the package `assay`.

Enters: paths, formulas, structures of pymatgen and ASE, names of bundled ensembles and campaigns.
Leaves: `Crystals`, `Ensemble`, `Predictions`, `Results`. docs/python.md shows each function in use.
"""

from __future__ import annotations

import copy
import json
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from assay.models.ensemble.ensemble import Ensemble
from assay.models.potentials.as_ase import calculator
from assay.models.potentials.as_torchsim import torchsim_model
from assay.screening.campaign import launch, plan
from assay.screening.folder.results import Results
from assay.screening.prediction.inputs import from_ase, from_pymatgen, load, predict, predict_formulas, read
from assay.screening.prediction.predict import Predictions
from assay.screening.prediction.relax import Relaxations, relax
from assay.screening.settings import bundled, yamlfile
from assay.screening.settings.config import Campaign
from assay.screening.settings.exits import Exit, Failure
from assay.sources.crystals import Crystals
from assay.sources.formats.convert import to_ase, to_pymatgen

__all__ = [
    "Crystals",
    "Ensemble",
    "Predictions",
    "Relaxations",
    "Results",
    "calculator",
    "from_ase",
    "from_pymatgen",
    "load",
    "open",
    "predict",
    "predict_formulas",
    "read",
    "relax",
    "screen",
    "to_ase",
    "to_pymatgen",
    "torchsim_model",
]


def screen(
    config: str | Path | Mapping[str, Any],
    *,
    on: Literal["local", "ray"] = "local",
    workers: int | None = None,
    address: str | None = None,
    **overrides: Any,
) -> Results:
    """Run a campaign, or go on with a stopped one, and return its results.

    Args:
        config: path of a YAML file, name of a bundled campaign, or the keys of a config.
        on: `local` is this process, `ray` a cluster.
        workers: Ray worker actors; None: one per CPU of the cluster.
        address: address of a running Ray cluster; None: RAY_ADDRESS, else one is started.
        overrides: keys of the config, for example `output="runs/a"`; a mapping replaces only the
            keys that it names (`rank={"top": 20}`), a dotted key one value
            (`**{"sources.0.n": 100}`).

    Raises:
        Failure: with the exit code of `assay run`. A source that delivered less than it announced
            is a warning.
    """
    if isinstance(config, Mapping):
        content, where = copy.deepcopy(dict(config)), "config"
    else:
        path = bundled.campaign(config)
        content, where = yamlfile.read(path), str(path)
    campaign = yamlfile.validate(Campaign, yamlfile.override(content, _settings(overrides)), where)
    with _handlers_kept():
        outcome = launch.run(plan.make(campaign), on_ray=on == "ray", workers=workers, address=address)
    if outcome.code not in (Exit.DONE, Exit.INCOMPLETE):
        raise Failure(outcome.code, outcome.note)
    if outcome.code is Exit.INCOMPLETE:
        warnings.warn(outcome.note, stacklevel=2)
    return Results(outcome.folder)


def open(folder: str | Path) -> Results:
    """Open the results of a campaign.

    Raises:
        Failure: when the folder is no campaign folder.
    """
    return Results(folder)


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put the handlers of SIGTERM and Ctrl-C back after a campaign, which has its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _settings(overrides: Mapping[str, Any], stem: str = "") -> list[str]:
    """Keyword overrides as `a.b=c`; a mapping is taken apart."""
    found: list[str] = []
    for key, value in overrides.items():
        path = f"{stem}{key}"
        if isinstance(value, Mapping) and value:
            found += _settings(value, f"{path}.")
        else:
            found.append(f"{path}={json.dumps(value, default=str)}")
    return found
