"""The second judgement of a row: only a definite contradiction convicts.

That it agrees with the reference server is tested in `tests/sources/databases/test_optimade.py`.
"""

import pytest

from assay.sources.databases.filters.checker import Checker
from assay.sources.databases.filters.grammar import validate_filter

ROW = {"elements": ["Nb", "Sn"], "nsites": 8, "x": {"a+u": {"hull": 0.05}}, "gap": 0.2, "huge": 10**300, "odd": [[], 1]}


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("x.a+u.hull<0.1", True),
        ("x.a+u.hull<0.01", False),
        ("gap<0.2", None),  # replies are rounded: too close to tell
        ("gap<0.3", True),
        ("7<nsites", True),
        ("8<nsites", False),
        ("8<=nsites", True),
        ("9<=nsites", False),
        ("8>nsites", False),
        ("8=nsites", True),
        ("missing=1", None),
        ("missing=1 AND nsites=9", False),
        ("missing=1 OR nsites=8", True),
        ("NOT missing=1", None),
        ("nsites IS KNOWN", None),
        ("elements:nsites HAS 1:2", None),
        ("elements HAS < 3", None),
        ('last_modified>"2020"', None),
        ("nsites=gap", None),
        ("huge>1", None),
        ('odd HAS "Nb"', False),
        ('elements="Nb"', None),
        ("gap=TRUE", None),
    ],
)
def test_what_cannot_be_judged_is_trusted(text: str, verdict: bool | None) -> None:
    assert Checker(validate_filter(text))(ROW) is verdict


def test_properties_are_named_in_order() -> None:
    tree = validate_filter('_mp_stability.gga_gga+u.energy_above_hull<0.1 AND (2<=nelements OR NOT elements HAS "O")')
    assert Checker(tree).properties == ["_mp_stability", "nelements", "elements"]


def test_what_was_not_judged_is_remembered() -> None:
    checker = Checker(validate_filter("nsites IS KNOWN AND missing.deep=1 AND secret<3"), skip=frozenset({"secret"}))
    assert checker({**ROW, "secret": 5}) is None
    assert checker.unjudged == {"IS KNOWN", "missing.deep", "secret"}
