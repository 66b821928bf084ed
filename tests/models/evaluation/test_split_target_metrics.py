"""Scalers invert, whatever the transform."""

import numpy as np
import pytest

from assay.models.target import Property


@pytest.mark.parametrize("transform", ["identity", "arcsinh", "log1p", "sqrt"])
def test_decode_inverts_encode(transform: str) -> None:
    values = np.array([0.0, 0.3, 4.2, 39.0, 133.0])
    prop = Property("tc", "K", transform).fit(values)  # type: ignore[arg-type]
    np.testing.assert_allclose(prop.decode(prop.encode(values)), values, rtol=1e-5, atol=1e-5)
    assert prop.encode(values).mean() == pytest.approx(0, abs=1e-6)


def test_predictions_stay_above_the_physical_minimum() -> None:
    assert Property("tc", "K", minimum=0.0).decode(np.array([-3.0, 2.0])).tolist() == [0.0, 2.0]


def test_fit_ignores_unknown_targets() -> None:
    assert Property("e", "eV").fit(np.array([1.0, np.nan, 3.0])).center == 2
