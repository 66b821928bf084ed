"""A small recipe of members that read the composition alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from assay.models.evaluation.split import SplitSpec
from assay.models.target import Property
from assay.models.training.recipe import Formulas, MemberSpec, Recipe, Task
from assay.sources import datasets
from assay.sources.crystals import Crystals

ENERGY = Property("formation_energy", "eV/atom")
SIZES = {"trees": 20, "max_features": 0.2}
FORMULAS = {"formula": ["LiCl", "NaCl", "KRn", "MgO"], "e_form": [-2.1, -2.1, 0.0, -3.0]}


def recipe(folder: Path, crystals: Crystals) -> Recipe:
    """Two forests; the data lie in the folder."""
    place = datasets.save(folder / "energies.parquet", crystals, "e_form", crystals.columns["e_form"], unit="eV/atom")
    pq.write_table(pa.table(FORMULAS), folder / "formulas.parquet")
    return Recipe(
        "trees",
        (Task(place, ENERGY),),
        (
            MemberSpec("trees", 0, SIZES),
            MemberSpec("trees", 1, {**SIZES, "decision": "interquartile-mean", "half": True}),
        ),
        split=SplitSpec(by="formula", test=0.1, calibration=0.2, folds=3),
        formulas=Formulas(f"{folder / 'formulas.parquet'}#e_form"),
    )
