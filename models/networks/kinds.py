"""The kinds of input a network can have: graphs, graphs with angles, or pictures.

Enters: the graph and the view of a recipe, or crystals with a spec. Leaves: a spec, or `Inputs`.
Everything that differs between kinds before a batch is made is defined here, once. This module does
not know networks, targets or files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from assay.featurize import graphs as crystal_graphs
from assay.featurize.graphs import GraphSpec
from assay.featurize.pictures import scene
from assay.featurize.pictures.scene import ViewSpec
from assay.featurize.quotient import of_crystals
from assay.models.networks.inputs import GraphInputs, Inputs, PictureInputs

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

Spec = GraphSpec | ViewSpec
"""How crystals become the input of a network."""
S = TypeVar("S", GraphSpec, ViewSpec)


class Kind(ABC, Generic[S]):
    """One kind of input."""

    format: ClassVar[int]
    """Version of the checkpoint folders of its networks."""
    spec_type: type[S]
    """What describes its inputs; `spec_type.KEY` is the section of `model.json`."""
    views: ClassVar[bool]
    """Whether a crystal is seen in several views, with a prediction of each."""
    angles: bool = False
    """Whether triplets are read."""
    unread: ClassVar[tuple[str, ...]]
    """Fields of a recipe that change nothing for its networks."""

    @abstractmethod
    def spec(self, graph: GraphSpec, view: ViewSpec) -> S:
        """The spec of a network of this kind in a recipe with this graph and this view."""

    @abstractmethod
    def inputs(self, crystals: Crystals, spec: S, tolerance: float) -> Inputs:
        """Crystals as a network reads them; equal atoms of a graph are merged within `tolerance` Å.

        A tolerance of 0 merges nothing. Then angles are added to each batch; those of a quotient
        are merged with it, once.
        """

    @abstractmethod
    def agreed(self, spec: S) -> S:
        """The part of a spec in which trained weights and their new use must agree."""


@dataclass(frozen=True)
class _Graphs(Kind[GraphSpec]):
    angles: bool = False

    format = 1
    spec_type = GraphSpec
    views = False
    unread = ("view", "augment")

    def spec(self, graph: GraphSpec, view: ViewSpec) -> GraphSpec:  # noqa: ARG002 -- the contract
        return replace(graph, angles=self.angles)

    def inputs(self, crystals: Crystals, spec: GraphSpec, tolerance: float) -> GraphInputs:
        full = crystal_graphs.build(crystals, replace(spec, angles=False))
        return GraphInputs(of_crystals(full, tolerance, angles=spec.angles) if tolerance else full, spec.angles)

    def agreed(self, spec: GraphSpec) -> GraphSpec:
        return replace(spec, angles=False)


@dataclass(frozen=True)
class _Pictures(Kind[ViewSpec]):
    format = 2
    spec_type = ViewSpec
    views = True
    unread = ("graph", "quotient")

    def spec(self, graph: GraphSpec, view: ViewSpec) -> ViewSpec:  # noqa: ARG002 -- the contract
        return view

    def inputs(self, crystals: Crystals, spec: ViewSpec, tolerance: float) -> PictureInputs:  # noqa: ARG002
        return PictureInputs(crystals, scene.build(crystals, spec), spec)

    def agreed(self, spec: ViewSpec) -> ViewSpec:
        """All but the viewpoints."""
        return replace(spec, supercells=((1, 1, 1),), axes=True, random=0, seed=0)


GRAPHS: Kind[Any] = _Graphs()
"""Nodes and edges."""
ANGLES: Kind[Any] = _Graphs(angles=True)
"""Nodes, edges, and the angles between edges."""
PICTURES: Kind[Any] = _Pictures()
"""Rendered views."""


def agree(trained: Spec, wanted: Spec) -> bool:
    """Whether weights that learned from the one spec may go on learning from the other."""
    return bool(trained.KEY == wanted.KEY and of(trained).agreed(trained) == of(wanted).agreed(wanted))


def of(spec: Spec) -> Kind[Any]:
    """The kind of input that a spec describes."""
    return _KINDS[spec.KEY]


def from_json(described: dict[str, Any]) -> Spec:
    """The spec in the content of `model.json`.

    Raises:
        ValueError: when there is none.
    """
    for key, kind in _KINDS.items():
        if key in described:
            spec: Spec = kind.spec_type(**described[key])
            return spec
    raise ValueError(f"model.json does not say what its network reads, expected one of {sorted(_KINDS)}")


_KINDS = {GraphSpec.KEY: GRAPHS, ViewSpec.KEY: PICTURES}
