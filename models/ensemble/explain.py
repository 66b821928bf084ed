"""Why a network predicts what it predicts: what each atom adds, and where a transformer looks.

Enters: a trained network and one crystal as it reads it. Leaves: attributions by integrated
gradients (Sundararajan, Taly & Yan, ICML 2017) in scaled units, and maps of attention. What is
attributed is the difference to a baseline: for graphs the same graph with all node features zero, a
crystal of atoms at the same places without species; for pictures the empty picture. This
module does not know units, files or colours of a map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.featurize.pictures import raster_torch
from assay.models.networks.batch import Batch, Images
from assay.models.networks.vision import ViT, ripple

if TYPE_CHECKING:
    from assay.models.ensemble.checkpoint import Checkpoint
    from assay.models.networks.inputs import GraphInputs, Inputs, PictureInputs
    from assay.models.networks.layers import Network
    from assay.sources.crystals import Crystals

STEPS = 32
"""Midpoints of the path from the baseline to the crystal; for every octave of waves beyond the
first twice as many."""
STATES_AT_ONCE = 32_768
"""Nodes, edges and triplets of the copies of a graph in one batch."""
PIXELS_AT_ONCE = 8 * 224**2
"""Of the copies of a view in one batch."""
VIEWS_AT_ONCE = 4
"""Whose attention is held at once."""

_ONE = np.zeros(1, np.int64)


@dataclass(frozen=True)
class Attribution:
    """What the sites of one crystal add to a scaled prediction."""

    sites: NDArray[np.float64]
    """(s,) one per site. Of pictures, sites with the same species are summed at one of them:
    which atom it is that a pixel shows is known up to its species only."""
    rest: float
    """What pixels add that show no site; 0 for graphs."""
    prediction: float
    """Of the crystal."""
    baseline: float
    """Prediction for the baseline."""

    @property
    def error(self) -> float:
        """Error of the quadrature: prediction - baseline - everything that was attributed."""
        return float(self.prediction - self.baseline - self.sites.sum() - self.rest)


@dataclass(frozen=True)
class Attention:
    """How much a transformer reads from each patch of each view; patches in rows from the top."""

    last: Tensor
    """(V, rows, columns) attention in the last block, mean over its heads."""
    rollout: Tensor
    """(V, rows, columns) attention followed through all blocks (Abnar & Zuidema, ACL 2020)."""


def read(member: Checkpoint, crystals: Crystals) -> Any:
    """One crystal as `Inputs` of a member's kind; in a graph no equal atoms are merged.

    Raises:
        ValueError: when there is not exactly one crystal, or it cannot be drawn.
    """
    if len(crystals) != 1:
        raise ValueError(f"{len(crystals)} crystals, expected 1: they are explained one by one")
    return member.kind.inputs(crystals, member.spec, 0.0)


def attribute(network: Network, inputs: Inputs, name: str, *, steps: int = STEPS) -> Attribution:
    """What each site of one crystal adds to the scaled prediction of property `name`.

    Raises:
        ValueError: for a network in training mode, `steps` below 1, a property it does not predict,
            or pictures that something else reads than a vision transformer.
    """
    if network.training:
        raise ValueError("the network is in training mode, expected eval mode: dropout would blur what it says")
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected at least 1")
    if name not in network.heads.heads:
        raise ValueError(f"property {name!r} is not predicted, expected one of {sorted(network.heads.heads)}")
    return _ATTRIBUTE[inputs.spec.KEY](network, inputs, name, steps)


def _of_graph(network: Network, inputs: GraphInputs, name: str, steps: int) -> Attribution:
    """On the node features; `inputs` holds one crystal."""
    graphs = inputs.graphs.with_angles() if inputs.angles else inputs.graphs
    given = torch.from_numpy(graphs.features())
    states = sum(int(part[-1]) for part in (graphs.node_ptr, graphs.edge_ptr, graphs.triplet_ptr))

    def value(features: Tensor) -> Tensor:
        copies = Batch.of(graphs.select(np.zeros(len(features), np.int64)))
        out: Tensor = network(replace(copies, x=features.reshape(-1, features.shape[2])))[name]
        return out

    parts, prediction, baseline = _integrate(value, given, torch.zeros_like(given), steps, STATES_AT_ONCE // states)
    return Attribution(parts.sum(dim=1).numpy(), 0.0, prediction, baseline)


def _of_views(network: Network, inputs: PictureInputs, name: str, steps: int) -> Attribution:
    """On the pixels of every view, summed by the site they show; views count by their weight."""
    network = _transformer(network)
    images = inputs.batch(_ONE, network)
    nothing = {part: np.zeros_like(getattr(inputs.scenes, part)) for part in ("sphere_ptr", "stick_ptr")}
    blank = replace(inputs, scenes=replace(inputs.scenes, **nothing)).batch(_ONE, network).pixels
    shown = raster_torch.sites(inputs.scenes, inputs.spec)
    sites = torch.zeros(len(inputs.crystals.frac) + 1, dtype=torch.float64)  # the last: no site
    prediction = baseline = 0.0

    def value(pixels: Tensor) -> Tensor:
        n = len(pixels)
        out: Tensor = network(Images(pixels, torch.arange(n), torch.ones(n), n))[name]
        return out

    shares = (images.weight / images.weight.sum()).tolist()
    steps *= 2 ** max(0, network.waves - 1)  # the fastest wave turns that much quicker
    at_once = PIXELS_AT_ONCE // inputs.spec.size**2
    for view, share in enumerate(shares):
        parts, there, empty = _integrate(value, images.pixels[view], blank[view], steps, at_once)
        owner = shown[view].reshape(-1) % len(sites)  # -1 is the last
        sites.index_add_(0, owner, share * parts.sum(dim=0).reshape(-1))
        prediction, baseline = prediction + share * there, baseline + share * empty
    return Attribution(sites[:-1].numpy(), float(sites[-1]), prediction, baseline)


_ATTRIBUTE: dict[str, Callable[[Network, Any, str, int], Attribution]] = {"graph": _of_graph, "view": _of_views}
"""By `Inputs.spec.KEY`."""


def _transformer(network: Network) -> ViT:
    if not isinstance(network, ViT):
        raise ValueError(f"{type(network).__name__} reads no pictures as a vision transformer does, expected ViT")  # noqa: TRY004 (a choice of the user's)
    return network


def _integrate(
    value: Callable[[Tensor], Tensor], given: Tensor, blank: Tensor, steps: int, at_once: int
) -> tuple[Tensor, float, float]:
    """Integrated gradients of `value` on the way from `blank` to `given` (*shape).

    `value` maps (k, *shape) to (k,).

    Returns:
        (*shape) float64 what every number adds; `value` at both ends.
    """
    change = given - blank
    slope = torch.zeros_like(change, dtype=torch.float64)
    midpoints = (torch.arange(steps) + 0.5) / steps
    for places in torch.split(midpoints, max(1, at_once)):
        points = (blank + places.view(-1, *[1] * change.ndim) * change).requires_grad_()
        slope += torch.autograd.grad(value(points).sum(), points)[0].double().sum(dim=0)
    with torch.no_grad():
        there, empty = value(torch.stack([given, blank])).tolist()
    return slope * change / steps, there, empty


# Attention.


def attention(network: Network, pixels: Tensor) -> Attention:
    """Where a vision transformer looks in views (V, C, size, size), normalised as it wants them.

    The reader is the class token, or, where the network has none or ignores it, the mean of the
    patches.

    Raises:
        ValueError: for a network whose attention cannot be computed again from its queries and
            keys: one with rotary positions, for example.
    """
    parts = [_maps(_transformer(network), some) for some in torch.split(pixels, VIEWS_AT_ONCE)]
    return Attention(*(torch.cat(maps) for maps in zip(*parts, strict=True)))


def _maps(network: ViT, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Attention (V, rows, columns) in the last block, and rolled out."""
    vit = network.vit
    readers, prefix = _readers(vit), int(vit.num_prefix_tokens)
    weights = [heads.mean(dim=1) for heads in attention_weights(network, pixels)]
    through = torch.eye(weights[0].shape[1]).expand_as(weights[0])
    for mean in weights:
        through = 0.5 * (mean @ through + through)
    seen = (part[:, readers, prefix:].mean(dim=1) for part in (weights[-1], through))
    last, rollout = (part.reshape(-1, *vit.patch_embed.grid_size) for part in seen)
    return last, rollout


def attention_weights(network: ViT, pixels: Tensor) -> list[Tensor]:
    """(V, heads, tokens, tokens) of every block, from the queries to the keys; each row sums to 1.

    Fused kernels never hold them, so they are computed again from the queries and keys of a pass.

    Raises:
        ValueError: see `attention`.
    """
    for block in network.vit.blocks:
        _check(network.vit, getattr(block, "attn", None))
    layers = [block.attn for block in network.vit.blocks]
    made: list[Tensor] = []
    hooks = [layer.qkv.register_forward_hook(lambda _module, _given, out: made.append(out)) for layer in layers]
    try:
        with torch.no_grad():
            network.vit.forward_features(ripple(pixels, network.waves))
    finally:
        for hook in hooks:
            hook.remove()
    return [_softmax(layer, qkv) for layer, qkv in zip(layers, made, strict=True)]


def _softmax(layer: Any, qkv: Tensor) -> Tensor:
    """(V, heads, tokens, tokens) from the output (V, tokens, 3 * heads * width) of `layer.qkv`."""
    with torch.no_grad():
        query, key, _ = qkv.reshape(*qkv.shape[:2], 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)
        return torch.softmax(layer.q_norm(query) * layer.scale @ layer.k_norm(key).transpose(2, 3), dim=-1)


def _check(vit: Any, layer: Any) -> None:
    parts = ("qkv", "q_norm", "k_norm", "scale", "num_heads")
    if type(layer).__name__ != "Attention" or not all(hasattr(layer, part) for part in parts):
        raise ValueError(
            f"attention of the kind {type(layer).__name__} cannot be computed again from its queries and "
            "keys; expected timm's Attention, without rotary positions"
        )
    if getattr(vit, "rope", None) is not None:
        raise ValueError("the backbone has rotary positions, which its queries and keys do not show; expected none")


def _readers(vit: Any) -> slice:
    """Tokens that the heads read."""
    prefix = int(vit.num_prefix_tokens)
    if vit.global_pool == "token" and prefix:
        return slice(0, 1)
    if vit.global_pool == "avg":
        return slice(prefix, None)
    raise ValueError(f"the backbone pools its tokens by {vit.global_pool!r}, expected 'token' or 'avg'")
