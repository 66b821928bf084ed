"""A campaign whose ensemble reads graphs and pictures: one config, the same bytes here and on Ray."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.featurize.pictures.scene import ViewSpec
from assay.models.ensemble import checkpoint, stored
from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.checkpoint import Checkpoint
from assay.models.networks import registry, torchvision_ops
from assay.screening.runners.cluster import ClusterRunner, Ray
from assay.screening.runners.local import LocalRunner
from assay.screening.settings.exits import Exit
from assay.sources import table
from assay.sources.quarantine import Reason
from tests.screening.runners.test_cluster import PROTOTYPES, Watched, digests, real_work, run

torchvision_ops.register()
pytest.importorskip("timm", reason="needs timm: pip install assay[vision]")

TINY = {"options": {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}, "head": [16]}


@pytest.fixture
def both(zoo: Path, tmp_path: Path) -> Path:
    """A trained graph network, and two transformers that see different pictures and have learned nothing."""
    folder = tmp_path / "both"
    shutil.copytree(zoo / "tc-graphs/member-4", folder / "member-0")
    trained = checkpoint.read(folder / "member-0")
    for k, encoding in ((1, "physics"), (2, "deep")):
        torch.manual_seed(k)
        view = ViewSpec(encoding=encoding, size=32, supercells=((1, 1, 1),), random=1)
        net = registry.create("vit", view.shape, ["tc"], **TINY).eval()
        seeing = Checkpoint(net, "vit", TINY, view, trained.properties, trained.elements, {})
        checkpoint.write(seeing, folder / f"member-{k}")
    names = [f"member-{k}" for k in range(3)]
    stored.write(folder, "both", names, {"tc": Calibration(0.9, 2.0, 0.5, 100, 1.5)}, {})
    return folder


def test_the_same_bytes_here_and_on_ray(
    ray_cluster: Any, write_config: Callable[..., Path], both: Path, tmp_path: Path
) -> None:
    path = write_config({**PROTOTYPES, "n": 60}, models=[str(both)], chunk_size=16)
    assert run(path, tmp_path / "local", LocalRunner(real_work(both)())).code is Exit.DONE
    runner = Watched(ClusterRunner(real_work(both), Ray(workers=2, min_workers=2)), seed=2)
    assert run(path, tmp_path / "ray", runner).code is Exit.DONE
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")

    found = table.read(tmp_path / "ray/candidates.parquet")
    assert found.num_rows == 60
    rows = found.to_pylist()
    for row in rows:
        apart = row["tc_member_0"] - (row["tc_member_1"] + row["tc_member_2"]) / 2
        assert row["tc_disagreement"] == pytest.approx(apart, abs=1e-9)
    assert any(row["tc_view_spread"] > 0 for row in rows)


def test_a_crystal_too_large_to_be_drawn_is_in_the_quarantine(
    write_config: Callable[..., Path], both: Path, tmp_path: Path
) -> None:
    member = checkpoint.read(both / "member-1")
    view = ViewSpec(size=32, supercells=((18, 18, 18),), random=0)
    checkpoint.write(
        Checkpoint(member.network, "vit", TINY, view, member.properties, member.elements, {}), both / "member-1"
    )
    stored.seal(both)
    path = write_config({**PROTOTYPES, "n": 20}, models=[str(both)], chunk_size=10, max_bad=1.0)
    assert run(path, tmp_path / "out", LocalRunner(real_work(both)())).code is Exit.DONE
    scored = table.read(tmp_path / "out/candidates.parquet").num_rows
    refused = table.read(tmp_path / "out/quarantine.parquet").to_pylist()
    assert scored + len(refused) == 20
    assert {row["reason"] for row in refused} == {Reason.UNSUPPORTED.value}
