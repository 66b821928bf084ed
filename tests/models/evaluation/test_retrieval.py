"""Ranked lists by hand, and blind or perfect orders with known answers."""

import numpy as np
import pytest

from assay.models.evaluation import retrieval

TRUTH = np.array([90.0, 5.0, 30.0, 0.0, 25.0, 1.0, 2.0, 3.0])
PREDICTED = np.array([70.0, 60.0, 50.0, 40.0, 21.0, 4.0, 3.0, 2.0])


def test_lists_by_hand() -> None:
    found = retrieval.at(TRUTH, PREDICTED, 20, lengths=(2, 3, 8, 100))
    assert found["prevalence"] == 3 / 8
    assert found["hits"] == 3
    assert [one["k"] for one in found["lists"]] == [2, 3, 8]
    assert found["lists"][0] == {"k": 2, "precision": 1 / 2, "recall": 1 / 3, "daf": pytest.approx(4 / 3)}
    assert found["lists"][1]["daf"] == pytest.approx((2 / 3) / (3 / 8))
    assert found["lists"][2] == {"k": 8, "precision": 3 / 8, "recall": 1, "daf": 1}


def test_rows_predicted_above_by_hand() -> None:
    found = retrieval.above(TRUTH, PREDICTED, 20)
    assert found == {
        "predicted": 5,
        "precision": 3 / 5,
        "recall": 1,
        "f1": pytest.approx(0.75),
        "daf": pytest.approx(1.6),
    }
    nothing = retrieval.above(TRUTH, np.zeros(8), 20)
    assert (nothing["predicted"], nothing["recall"]) == (0, 0)
    assert np.isnan(nothing["precision"])


def test_copies_of_a_formula_that_share_its_weight_change_nothing() -> None:
    times = np.array([4, 1, 1, 2, 1, 1, 1, 1])
    many = [np.repeat(column, times) for column in (TRUTH, PREDICTED)]
    looked, found = retrieval.curve(TRUTH, PREDICTED, 20)
    more_looked, more_found = retrieval.curve(*many, 20, weight=np.repeat(1 / times, times))
    np.testing.assert_allclose(np.interp(looked, more_looked, more_found), found, atol=1e-9)
    four = retrieval.at(*many, 20, lengths=(4,))["lists"][0]["precision"]
    assert four == 1  # without weights one formula fills the list


def test_perfect_order_finds_everything_first() -> None:
    found = retrieval.at(TRUTH, TRUTH, 20, lengths=(3,))["lists"][0]
    assert (found["precision"], found["recall"]) == (1, 1)
    assert found["daf"] == pytest.approx(8 / 3)


def test_ties_are_not_broken_by_the_truth() -> None:
    found = retrieval.at(np.array([0.0, 0, 0, 9]), np.ones(4), 5, lengths=(1,))["lists"][0]
    assert found["precision"] == 0


@pytest.mark.parametrize("threshold", [-1, 90])
def test_a_threshold_without_contrast_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=f"above {threshold}; a threshold between 0 and 90"):
        retrieval.at(TRUTH, PREDICTED, threshold)
