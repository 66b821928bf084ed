"""One rule for digits, whatever the size of a value and its error."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, strategies as st

from assay.screening.settings import digits

numbers = st.floats(-1e5, 1e5).filter(lambda x: x == 0 or abs(x) > 1e-3)


@given(numbers, st.floats(1e-3, 1e5))
def test_the_error_has_two_digits_and_the_value_is_cut_there(value: float, error: float) -> None:
    assume(error > 1e-6 * abs(value))
    mean, std = digits.measured(value, error)
    assert math.isclose(float(std), error, rel_tol=0.051)
    assert abs(float(mean) - value) <= 0.0501 * error
    assert len(mean.partition(".")[2]) == len(std.partition(".")[2])


@given(numbers)
def test_a_value_alone_has_four_digits(value: float) -> None:
    assert math.isclose(float(digits.alone(value)), value, rel_tol=5.01e-4)
    assert "e" not in digits.alone(value)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_written_as_it_is(odd: float) -> None:
    assert digits.alone(odd) == str(odd)
    assert digits.measured(1.5, odd) == ("1.5", str(odd))
    assert digits.measured(odd, 0.25, 1.5) == (str(odd), "0.25", "1.50")
