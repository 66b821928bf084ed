"""What the crash tests share: the campaigns, and what each leaves when nobody disturbs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import campaigns
from tests.chaos.campaigns import Peace, Scenario


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all campaign folders."""
    return tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="session")
def stage(place: Path) -> Iterator[dict[str, Scenario]]:
    """Every campaign by name."""
    with campaigns.scenarios(place) as found:
        yield found


@pytest.fixture(scope="session")
def peace(place: Path, stage: dict[str, Scenario]) -> Peace:
    """Name of a campaign -> what it leaves undisturbed."""
    return Peace(stage, place)
