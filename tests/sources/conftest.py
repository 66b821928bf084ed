"""A fixture that lowers a limit on files, so that tests need no large file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from assay.sources.checks import limits

Lower = Callable[[str, int], None]


@pytest.fixture
def lower(monkeypatch: pytest.MonkeyPatch) -> Lower:
    """Lower the limit of a name to a number."""

    def to(name: str, most: int) -> None:
        monkeypatch.setitem(limits.LIMITS, name, replace(limits.LIMITS[name], most=most))

    return to
