"""The networks Assay knows, by name. Importing this module imports none of them.

Enters: a name, what it reads, sizes. Leaves: a `Network`, whose forward maps a batch to {property:
(n,)}.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from assay.featurize import atoms
from assay.featurize.graphs import GraphSpec
from assay.featurize.pictures import colours
from assay.featurize.pictures.scene import ViewSpec
from assay.models.networks import linear
from assay.models.networks.layers import Network

MODELS: dict[str, str] = {
    "alignn": "assay.models.networks.alignn:ALIGNN",
    "cgcnn": "assay.models.networks.cgcnn:CGCNN",
    "mae": "assay.models.networks.mae:MaskedAutoencoder",
    "megnet": "assay.models.networks.megnet:MEGNet",
    "vit": "assay.models.networks.vision:ViT",
}
"""Network name -> `module:class`."""

NEEDS_ANGLES = frozenset({"alignn"})
"""Networks that read triplets."""
READS_VIEWS = frozenset({"mae", "vit"})
"""Networks that read pictures; the others read graphs."""
UNLABELLED = frozenset({"mae"})
"""Networks that learn without known values: what they predict is their own loss."""


def shape(spec: GraphSpec | ViewSpec) -> Any:
    """What a network has to know of its input: width of the node features, or channels and pixels of a picture."""
    if isinstance(spec, ViewSpec):
        return len(colours.encoding(spec.encoding).names), spec.size
    return atoms.width(spec.atom_features)


def create(name: str, features: Any, properties: Sequence[str], **sizes: Any) -> Network:
    """Make a network with fresh weights; `features` is the `shape` of what it reads.

    Raises:
        ImportError: when the network needs a library that is not installed.
        ValueError: for an unknown name or size.
    """
    if name not in MODELS:
        raise ValueError(f"network {name!r} is not one of {sorted(MODELS)}")
    module, cls = MODELS[name].split(":")
    try:
        network: Network = getattr(import_module(module), cls)(features, properties, **sizes)
    except TypeError as error:
        raise ValueError(f"network {name!r} refuses its sizes {sizes}: {error}") from error
    linear.route(network)
    return network
