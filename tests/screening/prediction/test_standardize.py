"""`--standardize`: models see the standard cell, and the table describes the one that was given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assay import predict
from assay.featurize.standard import Standard
from assay.models.ensemble.ensemble import Ensemble
from assay.screening.settings import config
from assay.sources.crystals import wrap
from tests.crystal_copies import in_cell
from tests.featurize.test_quotient import BY_HAND
from tests.screening.conftest import Command

SALT = BY_HAND["NaCl"][0]


@pytest.mark.parametrize("cell", ["primitive", "conventional"])
def test_predictions_are_those_of_the_standard_cell(model: Path, cell: str) -> None:
    twice = in_cell(SALT, np.diag([2, 1, 1]))
    off = np.random.default_rng(0).uniform(-2e-3, 2e-3, twice.frac.shape)
    noisy = replace(twice, frac=wrap(twice.frac + off @ np.linalg.inv(twice.lattice[0])))
    ensemble = Ensemble.load(model)
    plain, found = predict(noisy, ensemble), predict(noisy, ensemble, standardize=cell)  # type: ignore[arg-type]
    exact = predict(Standard(cell)(noisy), ensemble)  # type: ignore[arg-type]
    assert found.table.equals(exact.table)
    assert not found.table.equals(plain.table)
    assert found.crystals.nsites.tolist() == twice.nsites.tolist()


def test_the_command_takes_it(assay: Command, model: Path) -> None:
    (assay.folder / "salt.vasp").write_text(
        "NaCl\n1.0\n0 2.82 2.82\n2.82 0 2.82\n2.82 2.82 0\nNa Cl\n1 1\ndirect\n0 0 0\n0.5 0.501 0.5\n"
    )
    words = ("predict", "salt.vasp", "--model", model, "--output")
    plain, told = assay(*words, "plain.json"), assay(*words, "told.json", "--standardize", "conventional")
    assert (plain.returncode, told.returncode) == (0, 0), told.stderr
    assert (assay.folder / "plain.json").read_text() != (assay.folder / "told.json").read_text()
    assert assay(*words, "--standardize", "cubic").returncode == 2


def test_a_campaign_may_name_the_cell(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"name: c\nsources: [{{kind: prototypes, n: 5}}]\nmodels: [{model}]\n")
    told = [config.load(path, words).standard() for words in ([], ["symmetrise=0.05"], ["standardize=conventional"])]
    assert told == [None, Standard("primitive", 0.05), Standard("conventional", 0.01)]
