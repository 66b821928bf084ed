"""Which composition features are computed, as a checkpoint names them.

Enters: names of blocks. Leaves: a checked spec. This module does not know how a block is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from assay.featurize.composition.blocks import BLOCKS


@dataclass(frozen=True)
class CompositionSpec:
    """Everything that changes a number in a table of composition features.

    It is saved with every checkpoint that reads such a table.
    """

    KEY: ClassVar[str] = "composition"
    """Section of a recipe and of `model.json`."""

    blocks: tuple[str, ...] = ("statistics", "shares")
    """Blocks of columns in their order, keys of `assay.featurize.composition.blocks.BLOCKS`. A
    block never changes: a new one gets a new name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))  # JSON gives a list
        unknown = [block for block in self.blocks if block not in BLOCKS]
        if unknown or not self.blocks or len(set(self.blocks)) < len(self.blocks):
            raise ValueError(f"blocks is {list(self.blocks)}, expected different names out of {sorted(BLOCKS)}")
