"""A published model of the k-nearest kind depends on the cell; a standard cell takes the choice away."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.featurize import atoms
from assay.featurize.graphs import Graphs
from assay.featurize.standard import Standard
from assay.models.networks import registry
from assay.models.networks.batch import Batch
from assay.models.published import alignn as interop, graphs
from assay.models.published.graphs import Rule
from assay.screening.commands.arguments import Cell
from assay.screening.commands.import_models import import_model
from assay.sources.crystals import Crystals
from tests.featurize.cells import crystal

A = 3.61
FCC = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
COPPER = crystal(A / 2 * (np.ones((3, 3)) - np.eye(3)), [[0, 0, 0]], [29])
CUBIC_COPPER = crystal(A * np.eye(3), FCC, [29] * 4)
SALT = crystal(2.82 * (np.ones((3, 3)) - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
CUBIC_SALT = crystal(5.64 * np.eye(3), np.concatenate([FCC, np.add(FCC, 0.5)]), [11] * 4 + [17] * 4)
SIZES = {"hidden": 16, "alignn_layers": 2, "gcn_layers": 1, "bins": 80, "angle_bins": 40, "embedding": 16}


def network() -> torch.nn.Module:
    """One with the sizes of `SIZES`."""
    torch.manual_seed(3)
    options = {"cutoff": 8.0, "norm": "layer", "pool": "mean", "head": "linear"}
    made = registry.create("alignn", atoms.width(graphs.FEATURES), ["gap"], **SIZES, **options)
    for weights in made.parameters():
        torch.nn.init.normal_(weights, std=0.5)  # as unlike as trained ones, so that angles count
    return made.eval()


def graph(crystals: Crystals) -> Graphs:
    return graphs.graphs(crystals, Rule(12, 8.0, mutual=True, angle_cutoff=None, itself=False))


def gap(crystals: Crystals) -> float:
    with torch.no_grad():
        return float(network()(Batch.of(graph(crystals)))["gap"])


@pytest.mark.parametrize(("one", "cubic"), [(COPPER, CUBIC_COPPER), (SALT, CUBIC_SALT)])
def test_two_cells_are_one_crystal_in_a_standard_cell_only(one: Crystals, cubic: Crystals) -> None:
    def edges(crystals: Crystals) -> float:
        return len(graph(crystals).source) / int(crystals.nsites[0])

    assert edges(one) > edges(cubic)
    for cell, like in (("primitive", one), ("conventional", cubic)):
        standard = Standard(cell)  # type: ignore[arg-type]
        ends = standard(one), standard(cubic)
        assert [int(end.nsites[0]) for end in ends] == [int(like.nsites[0])] * 2
        assert edges(ends[0]) == edges(ends[1])
        assert gap(ends[0]) == pytest.approx(gap(ends[1]), abs=1e-5)


def test_what_a_model_says_depends_on_the_cell() -> None:
    """Of one element it would not: where all atoms are alike, the gates of an ALIGNN cancel."""
    assert abs(gap(SALT) - gap(CUBIC_SALT)) > 1e-3


@pytest.mark.parametrize(
    ("cell", "said"),
    [(Cell.PRIMITIVE, "trained on primitive cells: give it crystals with `standardize: primitive`"), (None, "nobody")],
)
def test_the_card_names_the_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell | None, said: str) -> None:
    monkeypatch.setattr(interop, "element_table", lambda _: np.ones((104, 92), np.float32))  # so as not to need alignn
    state = network().state_dict() | {"atom_embedding.0.weight": torch.ones(16, 92)}
    torch.save(state, tmp_path / "checkpoint_300.pt")
    described = {
        "name": "alignn_atomwise",
        "hidden_features": 16,
        "alignn_layers": 2,
        "gcn_layers": 1,
        "embedding_features": 16,
        "calculate_gradient": False,
    }
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.write(tmp_path / "checkpoint_300.pt", "m/checkpoint_300.pt")
        archive.writestr("m/config.json", json.dumps({"model": described, "neighbor_strategy": "k-nearest"}))
    import_model([tmp_path / "m.zip"], tmp_path / "out", "gap", "eV", cell)
    card = (tmp_path / "out" / "member-0" / "README.md").read_text()
    assert "depend on the choice of the cell" in card
    assert said in card
