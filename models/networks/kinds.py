"""The kinds of input a network can have: graphs, graphs with angles, pictures, or compositions.

Enters: the specs of a recipe, or crystals with a spec. Leaves: a spec, or `Inputs`.
Everything that differs between kinds before a batch is made is defined here, once. This module does
not know networks, targets or files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from assay.featurize import composition, graphs as crystal_graphs
from assay.featurize.composition import CompositionSpec
from assay.featurize.graphs import GraphSpec
from assay.featurize.pictures import scene
from assay.featurize.pictures.scene import ViewSpec
from assay.featurize.quotient import of_crystals
from assay.models.networks.inputs import CompositionInputs, GraphInputs, Inputs, PictureInputs

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

Spec = GraphSpec | ViewSpec | CompositionSpec
"""How crystals become the input of a network."""
Family = Literal["graphs", "pictures", "composition"]
"""What of a crystal a network sees."""
S = TypeVar("S", GraphSpec, ViewSpec, CompositionSpec)


class Kind(ABC, Generic[S]):
    """One kind of input."""

    format: ClassVar[int]
    """Version of the checkpoint folders of its networks."""
    spec_type: type[S]
    """What describes its inputs; `spec_type.KEY` is the section of `model.json`."""
    family: ClassVar[Family]
    """What of a crystal is seen."""
    angles: bool = False
    """Whether triplets are read."""
    unread: ClassVar[tuple[str, ...]]
    """Fields of a recipe that change nothing for its networks."""

    @property
    def views(self) -> bool:
        """Whether a crystal is seen in several views, with a prediction of each."""
        return self.family == "pictures"

    @abstractmethod
    def spec(self, graph: GraphSpec, view: ViewSpec, table: CompositionSpec) -> S:
        """The spec of a network of this kind in a recipe with this graph, view and table."""

    def shape(self, spec: S) -> Any:
        """The shape of an input, from which a network is made."""
        described: Any = spec
        return described.shape

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
    family = "graphs"
    unread = ("view", "augment", "composition", "formulas")

    def spec(self, graph: GraphSpec, view: ViewSpec, table: CompositionSpec) -> GraphSpec:  # noqa: ARG002 -- the contract
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
    family = "pictures"
    unread = ("graph", "quotient", "composition", "formulas")

    def spec(self, graph: GraphSpec, view: ViewSpec, table: CompositionSpec) -> ViewSpec:  # noqa: ARG002 -- the contract
        return view

    def inputs(self, crystals: Crystals, spec: ViewSpec, tolerance: float) -> PictureInputs:  # noqa: ARG002
        return PictureInputs(crystals, scene.build(crystals, spec), spec)

    def agreed(self, spec: ViewSpec) -> ViewSpec:
        """All but the viewpoints."""
        return replace(spec, supercells=((1, 1, 1),), axes=True, random=0, seed=0)


@dataclass(frozen=True)
class _Compositions(Kind[CompositionSpec]):
    format = 3
    spec_type = CompositionSpec
    family = "composition"
    unread = ("graph", "quotient", "view", "augment")

    def spec(self, graph: GraphSpec, view: ViewSpec, table: CompositionSpec) -> CompositionSpec:  # noqa: ARG002
        return table

    def shape(self, spec: CompositionSpec) -> int:
        """Columns of the table."""
        return len(composition.names(spec))

    def inputs(self, crystals: Crystals, spec: CompositionSpec, tolerance: float) -> CompositionInputs:  # noqa: ARG002
        return CompositionInputs(crystals.composition(), spec)

    def agreed(self, spec: CompositionSpec) -> CompositionSpec:
        return spec


GRAPHS: Kind[Any] = _Graphs()
"""Nodes and edges."""
ANGLES: Kind[Any] = _Graphs(angles=True)
"""Nodes, edges, and the angles between edges."""
PICTURES: Kind[Any] = _Pictures()
"""Rendered views."""
COMPOSITION: Kind[Any] = _Compositions()
"""Elements and their amounts, without a structure."""


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


def shape(spec: Spec) -> Any:
    """The shape of an input, from which a network is made."""
    return of(spec).shape(spec)


_KINDS = {GraphSpec.KEY: GRAPHS, ViewSpec.KEY: PICTURES, CompositionSpec.KEY: COMPOSITION}
