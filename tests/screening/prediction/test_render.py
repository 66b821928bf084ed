"""`assay render`: pictures to look at, and what could not be drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assay.screening.prediction import render
from assay.screening.settings.exits import Failure
from assay.sources.quarantine import Reason

DATA = Path(__file__).resolve().parents[2] / "data"
Image = pytest.importorskip("PIL.Image")


def test_one_picture_per_view(tmp_path: Path) -> None:
    spec = render.spec(["size=64", "supercells=[[1,1,1]]", "random=2"])
    drawn = render.write([DATA / "La1.85Sr0.15CuO4.cif"], tmp_path / "new", spec)
    assert drawn.refused == []
    assert drawn.paths == sorted((tmp_path / "new").iterdir())
    assert len(drawn.paths) == 4  # along a and along b are the same
    pictures = [np.asarray(Image.open(path)) for path in drawn.paths]
    assert {(p.shape, p.dtype.name) for p in pictures} == {((64, 64, 3), "uint8")}
    assert min(p.max() for p in pictures) > 150


def test_many_channels_become_grey_pictures(tmp_path: Path) -> None:
    spec = render.spec(["encoding=deep", "size=32", "supercells=[[1,1,1]]", "random=0"])
    drawn = render.write([DATA / "MgB2.cif"], tmp_path, spec)
    assert len(drawn.paths) == 13 * 3
    assert any(path.name.endswith("-depth.png") for path in drawn.paths)
    assert np.asarray(Image.open(drawn.paths[0])).shape == (32, 32)


def test_what_cannot_be_drawn_is_told_and_the_rest_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "bad.cif").write_text("data_nothing\n")
    spec = render.spec(["size=32", "supercells=[[1,1,1]]", "random=1", "axes=false"])
    drawn = render.write([tmp_path / "bad.cif", DATA / "MgB2.cif"], tmp_path / "out", spec)
    assert len(drawn.paths) == 1
    assert [row.reason for row in drawn.refused] == [Reason.UNREADABLE]
    for name in ("a b.cif", "a_b.cif"):
        (tmp_path / name).write_bytes((DATA / "MgB2.cif").read_bytes())
    both = render.write([tmp_path / "a b.cif", tmp_path / "a_b.cif"], tmp_path / "two", spec)
    assert len({path for path in both.paths if path.is_file()}) == 2
    huge = render.write([DATA / "MgB2.cif"], tmp_path / "out", render.spec(["supercells=[[30,30,30]]"]))
    assert huge.paths == []
    assert "81000 atoms or more" in huge.refused[0].message


@pytest.mark.parametrize(
    ("setting", "told"),
    [("radus=1", "did you mean 'radius'"), ("encoding=fysics", "no encoding 'fysics'"), ("size=2", "size is 2")],
)
def test_a_wrong_setting_is_named(setting: str, told: str) -> None:
    with pytest.raises((Failure, ValueError), match=told):
        render.spec([setting])
