"""From outputs of members to one prediction: worked by hand, without a network."""

import numpy as np
import pytest

from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.summary import EnsemblePrediction, Outputs, summarise
from assay.models.target import Property

TC = Property("tc", "K", "identity", 0.0)
GAP = Property("gap", "eV")
CALIBRATION = {"tc": Calibration(0.9, 2.0, 0.5, 100, 1.5), "gap": Calibration(0.9, 1.0, 0.0, 100, 1.0)}
NOTHING_UNSEEN = np.zeros(9, bool)


def outputs() -> Outputs:
    """Three members on the crystals in rows 1, 4 and 7 of nine."""
    made = Outputs(np.array([1, 4, 7]), 3, 2)
    made.values[:, :, 0] = [[1.0, 2.0, 3.0], [10.0, 10.0, 10.0], [0.0, 0.0, 6.0]]
    made.values[:, :, 1] = made.values[:, :, 0] / 10
    return made


def summary(made: Outputs, seeing: tuple[bool, ...] = (False, False, False), **changed: object) -> EnsemblePrediction:
    given = {"weights": {}, "unseen": NOTHING_UNSEEN, **changed}
    return summarise(made, (TC, GAP), CALIBRATION, seeing=np.array(seeing), **given)  # type: ignore[arg-type]


def test_mean_spread_and_interval_of_every_property() -> None:
    found = summary(outputs())
    tc, gap = found.values["tc"], found.values["gap"]
    assert found.index.tolist() == [1, 4, 7]
    assert tc.mean.tolist() == [2.0, 10.0, 2.0]
    np.testing.assert_allclose(tc.spread, [1.0, 0.0, np.sqrt(12)])
    np.testing.assert_allclose(tc.std, 1.5 * (tc.spread + 0.5))
    np.testing.assert_allclose(tc.hi - tc.mean, 2.0 * (tc.spread + 0.5))
    assert tc.lo.tolist() == [0.0, 9.0, 0.0]  # not below the minimum
    np.testing.assert_allclose(gap.mean, tc.mean / 10)
    assert gap.lo[2] < 0  # no minimum
    np.testing.assert_array_equal(tc.members, outputs().values[:, :, 0])


def test_a_crystal_that_some_member_failed_on_is_left_out() -> None:
    made = outputs()
    made.failed[1], made.values[1, 2] = True, np.nan
    made.distance = np.array([0.5, 0.6, 0.7])
    found = summary(made)
    assert found.index.tolist() == [1, 7]
    assert found.values["tc"].mean.tolist() == [2.0, 2.0]
    assert found.ood_distance is not None
    assert found.ood_distance.tolist() == [0.5, 0.7]


def test_without_a_reference_nobody_knows_how_far() -> None:
    assert summary(outputs()).ood_distance is None


def test_weights_count_for_the_property_they_are_of() -> None:
    found = summary(outputs(), weights={"tc": (0.5, 0.5, 0.0)})
    assert found.values["tc"].mean.tolist() == [1.5, 10.0, 0.0]
    np.testing.assert_allclose(found.values["gap"].mean, [0.2, 1.0, 0.2])


def test_predicted_variance_widens_the_spread() -> None:
    made = outputs()
    made.variance[:, :, 0] = [[3.0, 3.0, 3.0], [0.0, 0.0, 0.0], [np.nan, np.nan, np.nan]]
    np.testing.assert_allclose(summary(made).values["tc"].spread, [2.0, 0.0, np.sqrt(12)])


def test_unseen_elements_are_flagged_by_row_of_the_input() -> None:
    unseen = NOTHING_UNSEEN.copy()
    unseen[[0, 4]] = True
    assert summary(outputs(), unseen=unseen).ood.tolist() == [False, True, False]


def test_graphs_against_pictures() -> None:
    made = outputs()
    made.views[:, 2, 0] = [4.0, 0.0, 9.0]
    made.views[:, 1, 0] = [0.0, 8.0, 9.0]
    tc = summary(made, (False, True, True)).values["tc"]
    assert tc.disagreement is not None
    assert tc.view_spread is not None
    np.testing.assert_allclose(tc.disagreement, [1.0 - 2.5, 0.0, -3.0])
    np.testing.assert_allclose(tc.view_spread, [np.sqrt(2), 2.0, 3.0])


def test_a_member_that_reads_the_composition_takes_no_side() -> None:
    made = outputs()
    made.views[:] = 0.0
    seeing, placing = (False, False, True), np.array([True, False, False])
    found = summary(made, seeing, placing=placing).values["tc"].disagreement
    np.testing.assert_allclose(found, [made.values[k, 0, 0] - made.values[k, 2, 0] for k in range(3)])
    assert summary(made, seeing, placing=np.zeros(3, bool)).values["tc"].disagreement is None


@pytest.mark.parametrize("seeing", [(False, False, False), (True, True, True)])
def test_one_kind_of_network_does_not_disagree(seeing: tuple[bool, ...]) -> None:
    tc = summary(outputs(), seeing).values["tc"]
    assert tc.disagreement is None
    assert (tc.view_spread is None) == (not seeing[0])


def test_no_crystals() -> None:
    found = summary(Outputs(np.zeros(0, np.int64), 3, 2))
    assert found.values["tc"].members.shape == (0, 3)
    assert len(found.index) == len(found.ood) == 0
