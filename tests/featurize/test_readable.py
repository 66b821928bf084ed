"""The gate before a network: what is refused, with which reason, and what stays."""

from functools import partial

import numpy as np
import pytest

from assay.featurize import graphs, readable
from assay.featurize.graphs import GraphSpec
from assay.sources import crystals as batches
from assay.sources.crystals import Crystals
from assay.sources.quarantine import Reason

BUILD = partial(graphs.build, spec=GraphSpec())


def pair(name: str, distance: float, number: int = 26) -> Crystals:
    """Two atoms so far apart (Å) in a large cell."""
    frac = np.array([[0, 0, 0], [distance / 8, 0, 0]])
    return Crystals([name], 8 * np.eye(3)[None], [0, 2], frac, [0, 1, 2], [number, number], [1, 1])


def test_what_no_network_can_read_is_refused_with_its_reason() -> None:
    batch = batches.concat([pair("a", 0.74), pair("b", 0.3), pair("c", 0.74, 104), pair("d", 2.5, 103)])
    found = readable.readable(batch, BUILD)
    assert found.rows.tolist() == [0, 3]
    assert len(found.graphs) == 2
    assert [(bad.row, bad.reason) for bad in found.refused] == [
        (2, Reason.UNKNOWN_SPECIES),
        (1, Reason.ATOMS_TOO_CLOSE),
    ]
    assert [bad.message for bad in found.refused] == [
        "holds an element beyond Lr",
        "two atoms are 0.300 Å apart, accepted is at least 0.5 Å",
    ]


@pytest.mark.parametrize(("distance", "good"), [(readable.CLOSEST + 1e-3, True), (readable.CLOSEST - 1e-3, False)])
def test_how_close_is_too_close(distance: float, good: bool) -> None:
    assert bool(len(readable.readable(pair("a", distance), BUILD).rows)) == good


def test_the_graphs_are_those_of_the_rows_that_stay() -> None:
    good = batches.concat([pair("a", 0.74), pair("d", 2.5)])
    found = readable.readable(batches.concat([good[:1], pair("b", 0.1), good[1:]]), BUILD)
    np.testing.assert_array_equal(found.graphs.distance, BUILD(good).distance)
    np.testing.assert_array_equal(found.graphs.node_ptr, BUILD(good).node_ptr)


def test_no_crystals() -> None:
    found = readable.readable(batches.empty(), BUILD)
    assert len(found.rows) == len(found.graphs) == len(found.refused) == 0
