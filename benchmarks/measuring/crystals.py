"""Crystals for the benchmarks, and the same crystals as the objects and the graphs of a peer.

Enters: the folder of the data packs. Leaves: `Crystals`, real ones spread evenly over a pack and
ideal ones, and alignn's builders of graphs. It does not know what is measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring.stopwatch import Contestant, say

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

CUTOFF, NEIGHBOURS = 8.0, 12
"""Å and number: the graph of the published ALIGNN models."""


def real_crystals(data: Path, n: int) -> Crystals:
    """`n` labelled Materials Project cells of at most 40 atoms, evenly spread over the pack."""
    return _spread(data / "mp" / "mp_labelled_le40.parquet", n)


def superconductors(data: Path, n: int) -> Crystals:
    """`n` ordered crystals of 3DSC, evenly spread over the pack; the peers read no doped sites."""
    return _spread(data / "3dsc_mp" / "3dsc_mp.parquet", n, ordered=True)


def _spread(path: Path, n: int, *, ordered: bool = False) -> Crystals:
    import numpy as np

    from assay.sources import table

    stored = table.read(path)
    if ordered:
        stored = stored.filter(stored["is_ordered"])
    rows = np.linspace(0, len(stored) - 1, min(n, len(stored))).astype(np.int64)
    crystals, refused = table.from_table(stored.take(rows), path.stem)
    if refused:
        say(f"{len(refused)} of {n} rows are left out: {refused[0].id}, {refused[0].message}")
    return crystals


def prototypes(n: int) -> Crystals:
    """Ideal cells of many structure types, ordered."""
    from assay.sources import prototypes as source

    crystals = source.generate(8 * n, seed=0)
    return crystals.select(crystals.is_ordered.nonzero()[0][:n])


def jarvis_atoms(crystals: Crystals) -> list[Any]:
    """The crystals as objects of jarvis-tools, which alignn reads; one species per site."""
    from assay.models.published import alignn as interop
    from assay.sources.elements import SYMBOLS

    cls = interop.import_alignn("alignn.graphs").Atoms
    sites = zip(crystals.site_ptr[:-1], crystals.site_ptr[1:], strict=True)
    return [
        cls(
            lattice_mat=lattice,
            coords=crystals.frac[first:last],
            elements=[SYMBOLS[number] for number in crystals.numbers[first:last]],
            cartesian=False,
        )
        for lattice, (first, last) in zip(crystals.lattice, sites, strict=True)
    ]


def alignn_builders(crystals: Crystals) -> dict[str, Contestant]:
    """The graph builders of alignn that are installed, each with its line graph."""
    from assay.models.published import alignn as interop

    try:
        pure = interop.import_alignn("alignn.torch_graph_builder").build_pure_torch_graph
        classic = interop.import_alignn("alignn.graphs")
    except ImportError as error:
        say(f"alignn's builders skipped: {error}")
        return {}
    atoms = jarvis_atoms(crystals)
    options = {"cutoff": CUTOFF, "max_neighbors": NEIGHBOURS, "compute_line_graph": True}
    builders: dict[str, Contestant] = {
        "alignn, pure torch": lambda: [
            pure(one, two_body_cutoff=CUTOFF, max_neighbors=NEIGHBOURS, use_matscipy_topology=False) for one in atoms
        ]
    }
    if classic.dgl is None:
        say("atom_dgl_multigraph skipped: dgl does not load on this machine")
    else:
        builders["alignn, atom_dgl_multigraph"] = lambda: [
            classic.Graph.atom_dgl_multigraph(one, **options) for one in atoms
        ]
    return builders


def sizes(built: list[Any], crystals: int) -> dict[str, float]:
    """Edges and triplets per crystal in whatever a builder returned."""
    if isinstance(built[0], tuple):
        count = [(_edges(graph), _edges(line_graph)) for graph, line_graph in built]
    else:
        count = [(len(graph.source), len(graph.cosine)) for graph in built]
    edges, triplets = (sum(column) / crystals for column in zip(*count, strict=True))
    return {"edges_per_crystal": edges, "triplets_per_crystal": triplets}


def _edges(graph: Any) -> int:
    return int(graph.num_edges() if callable(graph.num_edges) else graph.num_edges)
