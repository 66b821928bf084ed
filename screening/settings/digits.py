"""One rule for digits: the error says how many of them mean something.

Enters: a value, with its error where it has one. Leaves: text, the same on a terminal, in a report
and in the table of a notebook. Files keep all digits.
"""

from __future__ import annotations

import math
from decimal import Decimal

ALONE = 4
"""Significant digits of a value that has no error."""
ERROR = 2
"""Significant digits of an error; its value is cut at the same place."""
LEAST = 1e-6
"""Smallest share of the largest number at which an error decides about digits."""
PLAIN = 1e-4, 1e6
"""Values in this range are written without a power of ten."""


def alone(value: float) -> str:
    """A value without an error.

    >>> alone(39.123456), alone(0.0), alone(12345.6), alone(2.5e-7)
    ('39.12', '0', '12346', '2.5e-07')
    """
    if not math.isfinite(value) or value == 0 or not PLAIN[0] <= abs(value) < PLAIN[1]:
        return f"{value:.{ALONE}g}"
    text = f"{value:.{max(0, ALONE - 1 - _place(value, ALONE))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def measured(value: float, error: float, *ends: float) -> tuple[str, ...]:
    """A value, its error, and the ends of its interval, all to the last digit of the error.

    Without an error above 0, and where one is less than a millionth, all are written as `alone`.

    >>> measured(38.2134, 4.567, 29.871, 46.558)
    ('38.2', '4.6', '29.9', '46.6')
    >>> measured(12345.6, 678.9), measured(0.00312, 0.00046), measured(2.0, 0.0)
    (('12350', '680'), ('0.00312', '0.00046'), ('2', '0'))
    """
    numbers = (value, error, *ends)
    largest = max((abs(number) for number in numbers if math.isfinite(number)), default=0.0)
    small = not (math.isfinite(error) and error > largest * LEAST)
    if small or not PLAIN[0] <= largest < PLAIN[1]:
        return tuple(map(alone, numbers))
    decimals = ERROR - 1 - _place(error, ERROR)
    return tuple(_cut(number, decimals) if math.isfinite(number) else alone(number) for number in numbers)


def interval(value: float, error: float, low: float, high: float) -> str:
    """A value with its error and its interval on one line.

    >>> interval(38.2134, 4.567, 29.871, 46.558)
    '38.2 ± 4.6 [29.9, 46.6]'
    """
    mean, std, lowest, highest = measured(value, error, low, high)
    return f"{mean} ± {std} [{lowest}, {highest}]"


def _place(number: float, digits: int) -> int:
    """The power of ten of the first digit, once the number is rounded to some digits."""
    return int(f"{number:.{digits - 1}e}".partition("e")[2])


def _cut(number: float, decimals: int) -> str:
    if decimals < 0:
        return str(int(round(Decimal(number), decimals)))
    text = f"{number:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text
