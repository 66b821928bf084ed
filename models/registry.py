"""The networks Assay knows, by name. Importing this module imports none of them.

Enters: a name and sizes. Leaves: a `GraphNetwork`, whose forward maps `Batch` to {property: (n,)}.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from models.layers import GraphNetwork

MODELS: dict[str, str] = {
    "alignn": "models.alignn:ALIGNN",
    "cgcnn": "models.cgcnn:CGCNN",
    "megnet": "models.megnet:MEGNet",
}
"""Network name -> `module:class`."""

NEEDS_ANGLES = frozenset({"alignn"})
"""Networks that read triplets."""


def create(name: str, features: int, properties: Sequence[str], **sizes: Any) -> GraphNetwork:
    """Make a network with fresh weights.

    Raises:
        ValueError: for an unknown name or size.
    """
    if name not in MODELS:
        raise ValueError(f"network {name!r} is not one of {sorted(MODELS)}")
    module, cls = MODELS[name].split(":")
    try:
        network: GraphNetwork = getattr(import_module(module), cls)(features, properties, **sizes)
    except TypeError as error:
        raise ValueError(f"network {name!r} refuses its sizes {sizes}: {error}") from error
    return network
