"""`assay explain`: a table that adds up, pictures of attention, and what could not be explained."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from assay.featurize.graphs import GraphSpec
from assay.featurize.pictures.scene import ViewSpec
from assay.models.ensemble import checkpoint, stored
from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.checkpoint import Checkpoint
from assay.models.ensemble.ensemble import Ensemble
from assay.models.networks import registry, torchvision_ops
from assay.models.networks.linear import multiplies_bfloat16
from assay.models.target import Property
from assay.screening import python
from assay.screening.prediction import attention, explain
from tests.screening.conftest import last_line

if TYPE_CHECKING:
    from tests.screening.conftest import Command

torchvision_ops.register()
DATA = Path(__file__).resolve().parents[2] / "data"
CUPRATE = DATA / "La1.85Sr0.15CuO4.cif"
VIEW = ViewSpec(size=32, supercells=((1, 1, 1),), random=0)
SIZES: dict[str, dict[str, Any]] = {
    "cgcnn": {"hidden": 16, "layers": 2, "bins": 16},
    "vit": {"options": {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}, "head": [16]},
}
KELVIN = Property("tc", "K", "identity", 0.0, 10.0, 4.0)
ROOT_OF_KELVIN = Property("tc", "K", "arcsinh", 0.0, 2.0, 1.4)


def write(folder: Path, names: list[str], scaler: Property = KELVIN, **sizes: Any) -> Path:
    """An untrained ensemble of these networks."""
    for k, name in enumerate(names):
        torch.manual_seed(k)
        spec = VIEW if name == "vit" else GraphSpec()
        made = {**SIZES[name], **(sizes if name == "vit" else {})}
        net = registry.create(name, spec.shape, ["tc"], **made).eval()
        checkpoint.write(Checkpoint(net, name, made, spec, (scaler,), ("O", "Cu", "La", "Sr"), {}), folder / f"m{k}")
    fitted = {"tc": Calibration(0.9, 2.0, 0.5, 100, 1.5)}
    stored.write(folder, "test", [f"m{k}" for k in range(len(names))], fitted, {}, {"tc": (0.25, 0.75)})
    return folder


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    pytest.importorskip("timm", reason="needs timm: pip install assay[vision]")
    return write(tmp_path / "model", ["cgcnn", "vit"])


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def total(rows: list[dict[str, str]], of: str, *parts: str) -> float:
    return sum(float(row["attribution"]) for row in rows if row["of"] == of and row["row"] in parts)


def explained(files: list[Path], model: Path, output: Path, name: str | None = None) -> list[explain.Explained]:
    loaded = Ensemble.load(model)
    return list(explain.write(python.predict(files, loaded), loaded, output, name, steps=64))


def test_the_table_adds_up_for_members_families_and_all(mixed: Path, tmp_path: Path) -> None:
    found = explained([CUPRATE], mixed, tmp_path / "out")[0]
    rows = read(found.table)
    assert list(dict.fromkeys(row["of"] for row in rows)) == ["member-0", "member-1", "graphs", "pictures", "all"]
    assert {row["unit"] for row in rows} == {"K"}
    values = python.predict(CUPRATE, mixed).table.to_pylist()[0]
    for of in ("member-0", "member-1", "graphs", "pictures", "all"):
        added = total(rows, of, "kind", "background", "error")
        assert total(rows, of, "baseline") + added == pytest.approx(total(rows, of, "prediction"), abs=1e-9)
        assert abs(total(rows, of, "error")) < 0.02 * abs(added)
    assert total(rows, "member-0", "prediction") == pytest.approx(values["tc_member_0"], abs=1e-3)
    assert total(rows, "member-1", "prediction") == pytest.approx(values["tc_member_1"], abs=1e-3)
    assert total(rows, "all", "prediction") == pytest.approx(values["tc_mean"], abs=1e-3)
    for row in ("kind", "baseline"):
        share = 0.25 * total(rows, "graphs", row) + 0.75 * total(rows, "pictures", row)
        assert total(rows, "all", row) == pytest.approx(share, abs=1e-9)


def test_sites_are_those_of_the_file_and_sum_to_their_kind(mixed: Path, tmp_path: Path) -> None:
    rows = read(explained([CUPRATE], mixed, tmp_path / "out")[0].table)
    crystal = python.predict(CUPRATE, mixed).crystals
    sites = [row for row in rows if row["of"] == "member-0" and row["row"] == "site"]
    assert [int(row["site"]) for row in sites] == list(range(14))
    np.testing.assert_allclose([[float(row[x]) for x in "abc"] for row in sites], crystal.frac, atol=1e-6)
    kinds = {row["species"]: float(row["attribution"]) for row in rows if row["of"] == "member-0"
             and row["row"] == "kind"}  # fmt: skip
    assert set(kinds) == {"La/Sr 0.925/0.075", "Cu", "O"}
    for kind, value in kinds.items():
        own = [float(row["attribution"]) for row in sites if row["species"] == kind]
        assert sum(own) == pytest.approx(value, abs=1e-9)
    assert [row["species"] for row in sites].count("O") == 8
    assert not [row for row in rows if row["row"] == "site" and row["of"] in ("member-1", "pictures", "all")]
    assert {row["species"] for row in rows if row["of"] == "member-1" and row["row"] == "kind"} == set(kinds)


def test_attention_lies_over_every_view(mixed: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    found = explained([CUPRATE], mixed, tmp_path / "out")[0]
    stem = "file%2FLa1.85Sr0.15CuO4.cif-member-1-1x1x1"
    assert [path.name for path in found.pictures] == [
        f"{stem}-{view:02d}-{kind}.png" for view in range(2) for kind in ("attention", "rollout")
    ]
    assert sorted((tmp_path / "out").iterdir()) == sorted([found.table, *found.pictures])
    for path in found.pictures:
        pixels = np.asarray(image.open(path))
        assert (pixels.shape, pixels.dtype) == ((352, 352, 3), np.uint8)


def test_heat_is_where_the_attention_is() -> None:
    pytest.importorskip("PIL.Image")
    picture, heat = np.zeros((13, 32, 32), np.float32), np.zeros((4, 4), np.float32)
    picture[:, 16:] = 0.5
    heat[0, 3] = 0.2
    made = attention.overlay(picture, heat).astype(int)
    assert made[20, 330].tolist() == pytest.approx(attention.OPAQUE * attention.RAMP[-1], abs=3)
    assert made[20, 20].tolist() == [0, 0, 0]
    assert made[330, 20].tolist() == [128, 128, 128]
    assert attention.overlay(np.ones((3, 336, 336), np.float32), np.zeros((2, 2), np.float32)).min() == 255


def test_at_most_ten_lines_with_the_largest_first(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = explained([CUPRATE], mixed, tmp_path / "out")[0].lines
    assert len(lines) <= 10
    assert "(1 member)" in lines[0]
    assert lines[1].split() == ["adds", "(K)", "sites", "graphs", "pictures", "all"]
    sizes = [abs(float(line.split()[-1])) for line in lines[2:5]]
    assert sizes == sorted(sizes, reverse=True)
    monkeypatch.setattr(explain, "MOST_KINDS", 1)
    shorter = explained([CUPRATE], mixed, tmp_path / "out")[0].lines
    assert len(shorter) == len(lines) - 2
    assert "2 more kinds" in shorter[-1]


def test_a_bent_scale_is_explained_as_it_is(tmp_path: Path) -> None:
    model = write(tmp_path / "model", ["cgcnn", "cgcnn"], ROOT_OF_KELVIN)
    rows = read(explained([CUPRATE], model, tmp_path / "out")[0].table)
    assert {row["unit"] for row in rows} == {"scaled"}
    value = python.predict(CUPRATE, model).table.to_pylist()[0]["tc_member_0"]
    scaled = np.array([total(rows, "member-0", "prediction")])
    assert ROOT_OF_KELVIN.decode(scaled) == pytest.approx(value, abs=1e-3)
    assert [row["of"] for row in rows if row["row"] == "baseline"] == ["member-0", "member-1", "graphs", "all"]


def test_where_attention_cannot_be_had_the_rest_is_told(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="needs timm: pip install assay[vision]")
    model = write(tmp_path / "model", ["cgcnn", "vit"], backbone="vit_small_patch16_dinov3")
    found = explained([CUPRATE], model, tmp_path / "out")[0]
    assert found.pictures == []
    assert len(found.notes) == 1
    assert "no attention of member-1: attention of the kind EvaAttention" in found.notes[0]
    assert total(read(found.table), "member-1", "kind") != 0


def test_pictures_that_all_members_see_need_no_graph(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="needs timm: pip install assay[vision]")
    model = write(tmp_path / "model", ["vit", "vit"])
    found = explained([CUPRATE], model, tmp_path / "out")[0]
    assert "largest sites" not in "\n".join(found.lines)
    assert len(found.pictures) == 8


@pytest.mark.skipif(not multiplies_bfloat16(), reason="oneDNN or the processor has no bfloat16")
def test_an_ensemble_that_predicts_in_bfloat16_is_explained_in_float32(mixed: Path, tmp_path: Path) -> None:
    plain = read(explained([CUPRATE], mixed, tmp_path / "plain")[0].table)
    described = json.loads((mixed / "ensemble.json").read_text())
    (mixed / "ensemble.json").write_text(json.dumps({**described, "precision": "bfloat16"}))
    stored.seal(mixed)
    assert read(explained([CUPRATE], mixed, tmp_path / "half")[0].table) == plain


def test_another_property_is_refused(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"property 'gap' is not predicted by .*, expected one of \['tc'\]"):
        explained([CUPRATE], mixed, tmp_path / "out", "gap")


def test_the_command_line(mixed: Path, tmp_path: Path, assay: Command) -> None:
    output = tmp_path / "out"
    arguments = ["--model", str(mixed), "--output", str(output), "--property", "tc"]
    done = assay("explain", str(CUPRATE), str(DATA / "broken.cif"), *arguments)
    assert done.returncode == 65
    assert "1 of 2 crystals could not be predicted, more than --max-bad 0.05" in last_line(done.stderr)
    assert "broken.cif" in done.stderr
    assert done.stdout.startswith("file/La1.85Sr0.15CuO4.cif  ")
    assert len(list(output.glob("*.csv"))) == 1
    assert len(list(output.glob("*.png"))) == 4
    again = assay("explain", str(CUPRATE), "--model", str(mixed), "--output", str(output), "--property", "gap")
    assert again.returncode == 78
    assert "expected one of ['tc']" in last_line(again.stderr)
