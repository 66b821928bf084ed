"""Which weights a member starts from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from assay.featurize.graphs import GraphSpec
from assay.models.training import start
from assay.models.training.recipe import MemberSpec, Start

GRAPH = GraphSpec()


@pytest.mark.parametrize(
    ("networks", "begun"),
    [
        (["alignn", "alignn", "cgcnn", "cgcnn", "cgcnn", "cgcnn"], [2, 3, 2, 3, 4, 5]),
        (["trees", "cgcnn"], [1, 1, 1, 1, 1, 1]),
        (["cgcnn", "cgcnn"], [0, 1, 0, 1, 0, 1]),
    ],
)
def test_a_member_starts_from_the_one_that_has_stopped_on_its_fold(
    networks: list[str], begun: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Member k of another number learned from the rows on which this one stops early."""

    def read(path: Path) -> Any:
        number = int(path.name)
        sizes: dict[str, Any] = {"hidden": 8}
        return SimpleNamespace(
            name=networks[number], sizes=sizes, spec=GRAPH, network=nn.Identity(), sha256=str(number)
        )

    monkeypatch.setattr(start, "_folders", lambda _: [Path(str(number)) for number in range(len(networks))])
    monkeypatch.setattr(start.checkpoint, "read", read)
    member = MemberSpec("cgcnn", 0, {"hidden": 8})
    found = [start.find(Start(str(tmp_path)), member, GRAPH, number).sha256 for number in range(6)]
    assert found == [str(number) for number in begun]
