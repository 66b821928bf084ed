"""Published ALIGNN weights as checkpoints of ours: the same numbers on the same graphs.

Enters: archives that `assay.models.published.alignn` reads. Leaves: checkpoints. Published node
features are a table by element; it is multiplied into the first linear map, so that the network
reads our one-hot columns, and sees a disordered site as the mean of its species. The graphs are
those of `assay.models.published.graphs`. This module does not know data or training.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.featurize import atoms
from assay.models.ensemble import checkpoint
from assay.models.ensemble.checkpoint import Checkpoint
from assay.models.networks import registry
from assay.models.published import alignn as interop
from assay.models.published.alignn import Published
from assay.models.published.graphs import FEATURES, REACH, Rule
from assay.models.target import Property
from assay.sources.elements import SYMBOLS

FAMILIES: dict[str, tuple[str, ...]] = {
    "alignn": ("batch",),
    "alignn_atomwise": ("batch", "layer"),
    "alignn_atomwise_pure": ("layer",),
}
"""Normalisations the networks of alignn were published with, by the name in `config.json`."""

_SIZES = {
    "hidden": "hidden_features",
    "alignn_layers": "alignn_layers",
    "gcn_layers": "gcn_layers",
    "bins": "edge_input_features",
    "angle_bins": "triplet_input_features",
    "embedding": "embedding_features",
}
_DEFAULTS = {"edge_input_features": 80, "triplet_input_features": 40, "embedding_features": 64}
_DEEP = {"alignn_layers": 4, "gcn_layers": 4, "hidden_features": 256}
_SHALLOW = {"alignn_layers": 2, "gcn_layers": 2, "hidden_features": 64}
_UNDERSTOOD: dict[str, Any] = {
    "link": "identity",
    "classification": False,
    "zero_inflated": False,
    "extra_features": 0,
    "output_features": 1,
    "use_cutoff_function": False,
    "conv_type": "alignn",
    "atomwise_output_features": 0,
    "additional_output_features": 0,
}
"""Settings that change what a network computes, and the one value of each that can be imported."""


def import_models(
    paths: list[Path], output: Path, property_name: str, unit: str, cell: str | None = None
) -> list[Path]:
    """Write each published model as `member-k` of `output`, and return the folders.

    They are checkpoints, for `start.folder` of a recipe. They are no ensemble: an error bar has to
    be calibrated on data, which an import does not have. Nothing is written unless every model can
    be imported.

    Raises:
        FileNotFoundError: when a model, or a file of it, is missing.
        ValueError: when one cannot be represented exactly, or `output` already holds a member.
    """
    converted = [convert(path, property_name, unit, cell) for path in paths]
    folders = [output / f"member-{k}" for k in range(len(paths))]
    taken = [folder for folder in folders if folder.exists()]
    if taken:
        raise ValueError(f"{taken[0]} is there already; name another output folder")
    return [checkpoint.write(made, folder) for made, folder in zip(converted, folders, strict=True)]


def convert(path: Path | str, property_name: str, unit: str, cell: str | None = None) -> Checkpoint:
    """The network of a published model, for ordered and disordered crystals.

    `cell` names the kind of cell that it was trained on, primitive or conventional, if known.

    Raises:
        FileNotFoundError: when `path`, or a file of it, is missing.
        ValueError: when it is of an unknown kind, or its weights are not those of the network it
            describes.
        ImportError: when alignn, whose table of elements is needed, is not installed.
    """
    if not property_name.replace("-", "_").isidentifier():
        raise ValueError(f"property name {property_name!r} should be letters, digits, '_' and '-', as in 'band_gap'")
    model = interop.published(path)
    norm = _norm(model)
    _refuse_unknown(model)
    rule = Rule.of(model.config)
    sizes = _sizes(model.config["model"]) | {"cutoff": REACH, "norm": norm, "pool": "mean", "head": "linear"}
    features = str(model.config.get("atom_features", "cgcnn"))
    table = interop.element_table(features)
    state = _folded(_renamed(model, property_name), table, str(model.path))
    network = registry.create("alignn", atoms.width(FEATURES), [property_name], **sizes)
    wanted = network.state_dict()
    for name in sorted(wanted.keys() | state.keys()):
        _same_shape(name, wanted.get(name), state.get(name), model.path)
    network.load_state_dict(state, strict=True)
    known = np.flatnonzero(np.isfinite(table).all(axis=1))
    factor = float(model.config.get("target_multiplication_factor") or 1)
    return Checkpoint(
        network=network.eval(),
        name="alignn",
        sizes=sizes,
        spec=rule.spec,
        properties=(Property(property_name, unit, scale=1 / factor),),
        elements=tuple(SYMBOLS[number] for number in known),
        facts={"published": _origin(model, rule, features, cell)},
    )


def rule_of(made: Checkpoint) -> Rule:
    """How the graphs of an imported checkpoint were built when it was trained.

    Raises:
        ValueError: when the checkpoint was not imported.
    """
    if "published" not in made.facts:
        raise ValueError(f"this {made.name} was trained here, not imported: it has no published graph rule")
    return Rule(**made.facts["published"]["rule"])


def _sizes(described: dict[str, Any]) -> dict[str, Any]:
    defaults = _DEFAULTS | (_DEEP if described["name"] == "alignn" else _SHALLOW)
    return {ours: int(described.get(theirs, defaults[theirs])) for ours, theirs in _SIZES.items()}


def _norm(model: Published) -> str:
    """The normalisation in the weights, which must be one that was published for the network."""
    name = model.config["model"].get("name")
    if name not in FAMILIES:
        raise ValueError(f"{model.path} is a network {name!r}, expected one of {sorted(FAMILIES)}")
    norm = "batch" if any(key.endswith("running_mean") for key in model.state) else "layer"
    if norm not in FAMILIES[name]:
        raise ValueError(
            f"{model.path} says it is {name!r}, which has {FAMILIES[name][0]} normalisation, but its weights have "
            f"{norm} normalisation: names and shapes agree, the numbers would not; the archive mixes two families"
        )
    return norm


def _refuse_unknown(model: Published) -> None:
    described = model.config["model"]
    for name, only in _UNDERSTOOD.items():
        if described.get(name, only) not in (only, None):
            raise ValueError(f"{model.path} has {name} = {described[name]!r}, Assay can import {only!r} only")
    if described.get("calculate_gradient") and described.get("gradwise_weight", 1.0) != 0:
        raise ValueError(
            f"{model.path} is a force field (gradwise_weight is not 0); Assay imports property models only"
        )
    if model.config.get("standard_scalar_and_pca"):
        raise ValueError(f"{model.path} was trained on targets scaled by a file that is a pickle; Assay cannot read it")


def _renamed(model: Published, property_name: str) -> dict[str, Tensor]:
    """Parameters and buffers under our names, without constants that our networks compute."""
    state = {}
    for name, tensor in model.state.items():
        if name == "_species_table":
            continue  # a copy of the element table, for another program
        if name.endswith(".centers"):
            low = 0.0 if name.startswith("edge_embedding") else -1.0
            _same_grid(name, tensor, low, REACH if low == 0 else 1.0, model.path)
            continue
        new = re.sub(r"^alignn_layers\.(\d+)\.(node|edge)_update\.", r"\2_updates.\1.", name)
        new = re.sub(r"^(\w+_embedding(?:\.\d)?)\.layer\.", r"\1.", new)
        state[re.sub(r"^fc\.", f"heads.heads.{property_name}.1.", new)] = tensor
    return state


def _same_grid(name: str, centers: Tensor, low: float, high: float, path: Path) -> None:
    ours = torch.linspace(low, high, len(centers))
    if not torch.allclose(centers, ours, atol=1e-5):
        first, last = float(centers[0]), float(centers[-1])
        raise ValueError(f"{path}: {name} runs from {first} to {last}, expected {low} to {high}")


def _folded(state: dict[str, Tensor], table: NDArray[np.float32], path: str) -> dict[str, Tensor]:
    """The first linear map times the element table: weights for our one-hot columns, else zero."""
    name = "atom_embedding.0.weight"
    if name not in state or state[name].ndim != 2 or state[name].shape[1] != table.shape[1]:
        found = tuple(state[name].shape) if name in state else "no such weights"
        raise ValueError(
            f"{path}: the atom embedding is {found}, expected (hidden, {table.shape[1]}) for its atom_features"
        )
    one_hot = np.nan_to_num(table[1:].astype(np.float64)) @ state[name].numpy().astype(np.float64).T
    weight = np.zeros((atoms.width(FEATURES), one_hot.shape[1]), np.float32)
    weight[-1 - len(one_hot) : -1] = one_hot  # properties, 103 one-hot columns, occupancy
    return {**state, name: torch.from_numpy(weight.T.copy())}


def _same_shape(name: str, ours: Tensor | None, theirs: Tensor | None, path: Path) -> None:
    if ours is None:
        raise ValueError(f"{path}: weights {name!r} have no place in the network config.json describes")
    if theirs is None:
        raise ValueError(f"{path}: weights {name!r} are missing, config.json describes a network that has them")
    if ours.shape != theirs.shape:
        found, expected = tuple(theirs.shape), tuple(ours.shape)
        raise ValueError(f"{path}: weights {name!r} are {found}, config.json describes a network with {expected}")


def _trained_on(cell: str | None) -> str:
    if cell is None:
        return "nobody said which cell it was trained on."
    return f"it was trained on {cell} cells: give it crystals with `standardize: {cell}`."


def _origin(model: Published, rule: Rule, features: str, cell: str | None) -> dict[str, Any]:
    """What a reader has to know of where the weights come from."""
    digest = hashlib.sha256()
    for name in sorted(model.state):
        digest.update(name.encode() + model.state[name].numpy().tobytes())
    return {
        "file": model.path.name,
        "state_sha256": digest.hexdigest(),
        "network": model.config["model"]["name"],
        "target": str(model.config.get("target", "")),
        "atom_features": features,
        "rule": asdict(rule),
        "cell": cell,
        "note": "Trained elsewhere on graphs by `rule`: the published numbers hold on those "
        "(assay.models.published.graphs). "
        "Elements are those of its table, not those of its training data."
        + (f" Its graphs depend on the choice of the cell, as alignn's own do; {_trained_on(cell)}" * rule.mutual),
    }
