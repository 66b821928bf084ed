"""What tells one training run from another, so that none goes on with the work of another.

Enters: a recipe, a member, its material. Leaves: a fingerprint, or a refusal. This module does not
know files of weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.models.networks import registry
from assay.models.training.recipe import MemberSpec, Recipe
from assay.models.training.start import Source


def of(recipe: Recipe, spec: MemberSpec, material: Sequence[NDArray[Any]], source: Source | None) -> str:
    """Hash of everything that changes this member's weights, but the structures of the rows.

    `material` is everything else that the member learns from.
    """
    entry = registry.MODELS[spec.network]
    begun = None if spec.start or not entry.gradients else recipe.start  # what others start from changes nothing
    described = asdict(replace(recipe, start=begun, combine="mean", level=0.9))
    described["members"] = [asdict(spec), asdict(spec)]
    for name in ("precision", "decision", "cross_validation", "note"):
        del described[name]
    later = [
        (described, "learn_from"),
        (described, "contradictions"),
        (described, "measured"),
        (described["graph"], "taper"),
    ]
    later.append((described["schedule"], "matrix_rate"))
    if described["schedule"]["precision"] == "float32":
        del described["schedule"]["precision"]
    if described["formulas"]:
        later.append((described["formulas"], "learn_from"))
    later.extend((one, name) for one in described["members"] for name in ("schedule", "start", "composition"))
    later.extend((task, "functional") for task in described["tasks"])
    _forget_unset_shares(described)
    for where, name in later:
        if not where[name]:
            del where[name]  # runs from before there was one go on
    for name in (*entry.reads.unread, *(() if entry.gradients else ("schedule",))):
        del described[name]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    digest.update((source.sha256 if source else "").encode())
    for array in material:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def of_fold(recipe: Recipe, files: Sequence[dict[str, str]], ids: NDArray[Any]) -> str:
    """Hash of everything that changes the predictions of one fold, whose rows have these ids."""
    described = asdict(replace(recipe, name="", note="", cross_validation=None, level=0.9))
    del described["split"]["test"], described["split"]["calibration"]
    _forget_unset_shares(described)
    for where, name in [(described, "measured"), *((task, "functional") for task in described["tasks"])]:
        if not where[name]:
            del where[name]  # likewise
    content = json.dumps([described, list(files), sorted(ids.tolist())], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _forget_unset_shares(described: dict[str, Any]) -> None:
    """Likewise; a share of 0 counts."""
    for task in described["tasks"]:
        if task["share"] is None:
            del task["share"]


def same_data(found: Any, wanted: Any, folder: Path) -> None:
    """Refuse to resume on other files: the fingerprint holds rows and labels, not structures."""
    if found and wanted and found != wanted:
        raise ValueError(
            f"{folder} holds a training run on other files ({found}, now {wanted}); choose another output "
            "folder or remove it"
        )


def same_run(found: str, wanted: str, folder: Path) -> None:
    """Refuse to go on with a run of another recipe, or of other rows."""
    if found != wanted:
        raise ValueError(
            f"{folder} holds a training run of another recipe or other data ({found}, this one is {wanted}); "
            "choose another output folder or remove it"
        )
