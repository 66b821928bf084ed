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
TOO_CLOSE = (
    "two sites that hold {:g} and {:g} atoms are {} Å apart; closer than 0.5 Å to each other at most 1 atom is "
    "accepted, here {:g}"
)


def pair(name: str, distance: float, number: int = 26, shares: tuple[float, float] = (1, 1)) -> Crystals:
    """Two atoms so far apart (Å) in a large cell."""
    frac = np.array([[0, 0, 0], [distance / 8, 0, 0]])
    return Crystals([name], 8 * np.eye(3)[None], [0, 2], frac, [0, 1, 2], [number, number], shares)


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
        TOO_CLOSE.format(1, 1, "0.300", 2),
    ]


@pytest.mark.parametrize(("distance", "good"), [(0.501, True), (0.499, False)])
def test_how_close_is_too_close(distance: float, good: bool) -> None:
    assert bool(len(readable.readable(pair("a", distance), BUILD).rows)) == good


@pytest.mark.parametrize(
    ("shares", "good"), [((0.5, 0.5), True), ((0.51, 0.51), True), ((0.9, 0.12), True), ((0.52, 0.51), False)]
)
def test_sites_that_share_one_atom_are_no_two_atoms(shares: tuple[float, float], good: bool) -> None:
    found = readable.readable(pair("a", 0.2, shares=shares), BUILD)
    assert bool(len(found.rows)) == good
    assert [bad.message for bad in found.refused] == [
        TOO_CLOSE.format(max(shares), min(shares), "0.200", sum(shares))
    ] * (not good)


def test_three_halves_at_one_place_are_more_than_one_atom() -> None:
    """Each pair would be one atom. The message names the closest two of the three."""
    frac = np.array([[0, 0, 0], [0.2, 0, 0], [0.1, 0.15, 0], [4, 4, 4], [4, 4, 4.3]]) / 8
    one = Crystals(["a"], 8 * np.eye(3)[None], [0, 5], frac, range(6), [26] * 5, [0.5] * 5)
    [bad] = readable.readable(one, BUILD).refused
    assert "hold 0.5 and 0.5 atoms are 0.180 Å apart" in bad.message
    assert bad.message.endswith("here 1.5")


def test_the_graphs_are_those_of_the_rows_that_stay() -> None:
    good = batches.concat([pair("a", 0.74), pair("d", 2.5)])
    found = readable.readable(batches.concat([good[:1], pair("b", 0.1), good[1:]]), BUILD)
    np.testing.assert_array_equal(found.graphs.distance, BUILD(good).distance)
    np.testing.assert_array_equal(found.graphs.node_ptr, BUILD(good).node_ptr)


def test_no_crystals() -> None:
    found = readable.readable(batches.empty(), BUILD)
    assert len(found.rows) == len(found.graphs) == len(found.refused) == 0
