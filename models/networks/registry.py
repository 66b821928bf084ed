"""The networks Assay knows, by name. Importing this module imports none of them.

Enters: a name, the shape of an input, sizes. Leaves: a `Network`, whose forward maps a batch to
{property: (n,)}. A new network is a module of its own and one line of `MODELS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from assay.models.networks.kinds import ANGLES, COMPOSITION, GRAPHS, PICTURES, Kind
from assay.sources.checks import importing

if TYPE_CHECKING:
    from assay.models.networks import linear
    from assay.models.networks.layers import Network
else:
    linear = importing.later("assay.models.networks.linear")


@dataclass(frozen=True)
class Entry:
    """What is known of a network before it is imported."""

    path: str
    """`module:class` of a `Network`."""
    reads: Kind[Any]
    """What a batch holds."""
    labelled: bool = True
    """Whether it learns known values. If not, what it predicts is its own loss."""
    trunk: str = ""
    """The network whose trunk it trains; empty: its own."""
    gradients: bool = True
    """Whether it learns step by step, as a `schedule` says. If not, it is fitted at once."""
    draws: bool = False
    """Whether it predicts a distribution, as values of its parts, on which a `decision` rests."""

    def load(self) -> type[Network]:
        """Import the network.

        Raises:
            ImportError: when it needs a library that is not installed.
        """
        module, name = self.path.split(":")
        found: type[Network] = getattr(import_module(module), name)
        return found


MODELS: dict[str, Entry] = {
    "alignn": Entry("assay.models.networks.alignn:ALIGNN", ANGLES),
    "cgcnn": Entry("assay.models.networks.cgcnn:CGCNN", GRAPHS),
    "gated-gcn": Entry("assay.models.networks.alignn:GatedGCN", GRAPHS),
    "mae": Entry("assay.models.networks.mae:MaskedAutoencoder", PICTURES, labelled=False, trunk="vit"),
    "megnet": Entry("assay.models.networks.megnet:MEGNet", GRAPHS),
    "set-attention": Entry("assay.models.networks.attention:SetAttention", COMPOSITION),
    "trees": Entry("assay.models.networks.trees:Trees", COMPOSITION, gradients=False, draws=True),
    "vit": Entry("assay.models.networks.vision:ViT", PICTURES),
}
"""The networks by name."""


def create(name: str, shape: Any, properties: Sequence[str], **sizes: Any) -> Network:
    """Make a network with fresh weights; `shape` is that of the spec it reads.

    Raises:
        ImportError: when the network needs a library that is not installed.
        ValueError: for an unknown name or size.
    """
    if name not in MODELS:
        raise ValueError(f"network {name!r} is not one of {sorted(MODELS)}")
    made: Any = MODELS[name].load()
    try:
        network: Network = made(shape, properties, **sizes)
    except TypeError as error:
        raise ValueError(f"network {name!r} refuses its sizes {sizes}: {error}") from error
    linear.route(network)
    return network
