"""A force field that is distilled on Ray is that of one process, byte for byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assay.models.training.distil import fit
from assay.models.training.distil.recipe import Schedule
from assay.screening.training import tuning
from assay.sources import table
from tests.models.training.distil.test_distil import RECIPE, alloys


@pytest.mark.usefixtures("ray_cluster")
def test_labels_and_students_of_ray_have_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "alloys.parquet"
    crystals = alloys()
    table.write(table.to_table(crystals.with_columns(known=np.zeros(len(crystals)))), path)
    drawn = (replace(RECIPE.crystals[0], dataset=f"{path}#known"),)
    recipe = replace(RECIPE, crystals=drawn, schedule=Schedule(epochs=2, batch_size=8))
    for folder, pool in (("here", None), ("ray", tuning.ray_pool(workers=2))):
        fit.run(recipe, tmp_path / folder, workers=2, command="a test", pool=pool)
    files = [file.relative_to(tmp_path / "here") for file in sorted((tmp_path / "here").rglob("*.safetensors"))]
    assert any(file.parts[0] == "labels" for file in files)
    assert {"student-0.safetensors", "student-1.safetensors"} <= {str(file) for file in files}
    for file in [*files, Path("potential.json")]:
        assert (tmp_path / "here" / file).read_bytes() == (tmp_path / "ray" / file).read_bytes(), file
