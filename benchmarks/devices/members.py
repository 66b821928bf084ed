"""Networks with fresh weights for `gpu.py`, in the sizes that are measured.

Enters: sizes, crystals. Leaves: checkpoints, and ensembles in a folder. Normalisations have the
statistics of real crystals, so that states are as large as in use. It does not know devices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from assay.featurize.pictures.scene import ViewSpec
    from assay.models.ensemble.checkpoint import Checkpoint
    from assay.models.ensemble.ensemble import Ensemble
    from assay.sources.crystals import Crystals

FEATURES = "properties-identity-v1"
PROPERTY = "y"


@dataclass(frozen=True)
class Sizes:
    """How large the networks are."""

    alignn: tuple[int, int]
    """Updates of either kind, and width."""
    cgcnn: tuple[int, int]
    """Layers and width."""
    vit: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the vision transformer."""
    pixels: int = 224

    @property
    def graph_networks(self) -> dict[str, dict[str, Any]]:
        """Registered name -> keyword arguments."""
        (both, wide), (layers, hidden) = self.alignn, self.cgcnn
        return {
            "cgcnn": {"layers": layers, "hidden": hidden},
            "alignn": {"alignn_layers": both, "gcn_layers": both, "hidden": wide},
        }

    @property
    def view(self) -> ViewSpec:
        """Eighteen pictures of a crystal; two of a tiny one."""
        from assay.featurize.pictures.scene import ViewSpec

        if self.pixels >= 224:
            return ViewSpec(size=self.pixels)
        return ViewSpec(size=self.pixels, supercells=((1, 1, 1),), axes=False, random=2)


FULL = Sizes((4, 256), (3, 64), {"backbone": "vit_base_patch16_224"})
TINY = Sizes(
    (1, 16),
    (1, 16),
    {"options": {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}, "head": [16]},
    pixels=32,
)


def graph_members(crystals: Crystals, sizes: Sizes) -> list[Checkpoint]:
    """One network of each kind."""
    return [fresh(name, shape, crystals) for name, shape in sizes.graph_networks.items()]


def fresh(name: str, shape: dict[str, Any], crystals: Crystals, seed: int = 0) -> Checkpoint:
    """A graph network with random weights and the statistics of some of the crystals."""
    import torch

    from assay.featurize import atoms, graphs
    from assay.models.networks import registry
    from assay.models.networks.batch import Batch

    spec = graphs.GraphSpec(k=12, angles=registry.MODELS[name].reads.angles, atom_features=FEATURES)
    torch.manual_seed(seed)
    network = registry.create(name, atoms.width(FEATURES), [PROPERTY], **shape).train()
    with torch.no_grad():
        for first in range(0, min(len(crystals), 32), 8):
            network(Batch.of(graphs.build(crystals[first : first + 8], spec)))
    return checkpoint_of(network, name, shape, spec, seed)


def vision_members(sizes: Sizes) -> list[Checkpoint]:
    """Two vision transformers of one size."""
    import torch

    from assay.models.networks import registry

    made = []
    for seed in range(2):
        torch.manual_seed(seed)
        network = registry.create("vit", sizes.view.shape, [PROPERTY], **sizes.vit)
        made.append(checkpoint_of(network, "vit", sizes.vit, sizes.view, seed))
    return made


def checkpoint_of(network: Any, name: str, shape: dict[str, Any], spec: Any, seed: int) -> Checkpoint:
    """The network as a member that has seen every element."""
    from assay.models.ensemble.checkpoint import Checkpoint
    from assay.models.target import Property
    from assay.sources.elements import SYMBOLS

    known = tuple(symbol for symbol in SYMBOLS[1:104] if symbol)
    return Checkpoint(network.eval(), name, shape, spec, (Property(PROPERTY, ""),), known, {"seed": seed})


def ensemble(folder: Path, made: list[Checkpoint]) -> Ensemble:
    """The members as an ensemble that was written and read."""
    from assay.models.ensemble import checkpoint, stored
    from assay.models.ensemble.calibration import Calibration
    from assay.models.ensemble.ensemble import Ensemble

    names = [f"member-{k}" for k in range(len(made))]
    for name, member in zip(names, made, strict=True):
        checkpoint.write(member, folder / name)
    stored.write(folder, folder.name, names, {PROPERTY: Calibration(0.9, 2.0, 0.5, 100, 1.5)}, {})
    return Ensemble.load(folder)
