"""The device path, on CPU tensors: it predicts what the CPU predicts. With CUDA: there too, twice the same bits."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from assay.models.ensemble import checkpoint, device, reading, stored
from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.device import DevicePath
from assay.models.ensemble.ensemble import Ensemble
from assay.models.networks import torchvision_ops
from assay.sources import crystals as batches
from assay.sources.crystals import Crystals
from assay.sources.quarantine import Reason, Stage
from tests.models.ensemble.test_checkpoint_ensemble import TC, Allergic, untrained

if TYPE_CHECKING:
    from assay.models.ensemble.checkpoint import Checkpoint
    from assay.models.ensemble.summary import EnsemblePrediction

no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda.is_available() is False")
FITTED = {"tc": Calibration(0.9, 2.0, 0.5, 100, 1.5)}


def there(loaded: Ensemble, where: str = "cpu", precision: str = "float32") -> Ensemble:
    """The same ensemble by way of a device."""
    return replace(loaded, device=DevicePath(loaded.members, torch.device(where), precision))


def saved(folder: Path, members: list[Checkpoint]) -> Path:
    names = [f"member-{k}" for k in range(len(members))]
    for name, member in zip(names, members, strict=True):
        checkpoint.write(member, folder / name)
    stored.write(folder, "test", names, FITTED, {})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path, [untrained(name, k) for k, name in enumerate(["cgcnn", "alignn", "megnet"])])


@pytest.fixture(scope="module")
def both(crystals: Crystals, disordered: Crystals) -> Crystals:
    """260 real crystals, ordered and not: every other one of each source up to 16 sites, and the two largest."""
    parts = []
    for source in (crystals, disordered):
        order = np.argsort(source.nsites, kind="stable")
        small = order[: np.searchsorted(source.nsites[order], 17)]
        parts.append(replace(source.select(np.sort([*small[:128], *order[-2:]])), columns={}))
    joined = batches.concat(parts)
    assert len(joined) == 260
    assert (~joined.is_ordered).sum() > 50
    return joined


def assert_same(mine: EnsemblePrediction, yours: EnsemblePrediction, loaded: Ensemble, most: float = 1e-5) -> None:
    """Means agree within `most` scales of the target, members within three times as much: their errors are alone."""
    np.testing.assert_array_equal(mine.index, yours.index)
    np.testing.assert_array_equal(mine.ood, yours.ood)
    for prop in loaded.properties:
        left, right = mine.values[prop.name], yours.values[prop.name]
        assert np.abs(prop.encode(left.mean) - prop.encode(right.mean)).max() <= most
        assert np.abs(prop.encode(left.members) - prop.encode(right.members)).max() <= 3 * most
        np.testing.assert_allclose(left.std, right.std, rtol=1e-3, atol=3 * most * prop.scale)
    if loaded.reference:
        np.testing.assert_allclose(mine.ood_distance, yours.ood_distance, rtol=1e-4, atol=1e-4)


def test_trunks_are_traced_whole_and_say_the_same(
    folder: Path, both: Crystals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For batches of any size; the kernels, which take half a minute to make, are left to benchmarks/compiling.py."""
    traced = []

    def backend(graph: Any, inputs: Any) -> Any:
        traced.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend, fullgraph=True))
    loaded = Ensemble.load(folder)
    compiled = replace(loaded, device=DevicePath(loaded.members, torch.device("cpu"), compiled=True))
    assert len(traced) == 3  # before the first crystal
    mine, yours = (some.predict(both[:60]) for some in (compiled, loaded))
    assert mine[1] == yours[1] == []
    assert_same(mine[0], yours[0], loaded)


def test_what_cannot_be_compiled_accuses_no_crystal(
    folder: Path, both: Crystals, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler, working = torch.compile, [True]

    def backend(graph: Any, inputs: Any) -> Any:
        if not working[0]:
            raise OSError("no space left for code")
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda work, *, dynamic: compiler(work, backend=backend, dynamic=not dynamic))
    loaded = Ensemble.load(folder)
    path = DevicePath(loaded.members, torch.device("cpu"), compiled=True)
    working[0] = False  # sizes are fixed here, so the next batch has to be compiled again
    with pytest.raises(Exception, match="no space left for code"):
        replace(loaded, device=path).predict(both[:10])
    torch.compiler.reset()  # what is compiled already would do for the same network again
    with pytest.raises(ValueError, match="torch cannot compile cgcnn for cpu: BackendCompilerFailed"):
        DevicePath(loaded.members, torch.device("cpu"), compiled=True)


def test_nothing_is_compiled_for_the_cpu(folder: Path) -> None:
    with pytest.raises(ValueError, match="compiled networks are for a GPU"):
        Ensemble.load(folder, compiled=True)


@pytest.mark.parametrize("name", ["tc-graphs", "formation-energy"])
def test_bundled_ensembles_say_the_same(name: str, zoo: Path, both: Crystals) -> None:
    loaded = Ensemble.load(zoo / name)
    found, refused = there(loaded).predict(both)
    expected, _ = loaded.predict(both)
    assert refused == []
    assert len(found.index) == len(both)
    assert_same(found, expected, loaded)


def test_micro_batches_decide_no_more_than_last_bits(
    folder: Path, crystals: Crystals, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, few = Ensemble.load(folder), crystals[:40]
    whole, _ = there(loaded).predict(few)
    monkeypatch.setattr(device, "EDGES_PER_BATCH", 500)
    monkeypatch.setattr(device, "TRIPLETS_PER_BATCH", 4000)
    path = there(loaded)
    assert path.device is not None
    (read,) = path.device.readings(few, path.device.build(few, loaded.spec), angles=True)
    rows = list(read.inputs.micro_batches())
    assert len(rows) > 5
    assert np.concatenate(rows).tolist() == list(range(40))
    cost = read.inputs.cost
    assert all(cost[batch[:-1]].sum() <= 2 * 500 or len(batch) == 1 for batch in rows)
    np.testing.assert_array_equal(read.inputs.numbers(np.arange(40)), np.unique(few.numbers))
    parts, _ = path.predict(few)
    assert_same(parts, whole, loaded)


def test_bad_crystals_are_refused_in_the_same_words(folder: Path, crystals: Crystals) -> None:
    overlapping = Crystals(["x/overlap"], 4 * np.eye(3)[None], [0, 2], np.zeros((2, 3)), [0, 1, 2], [26, 26], [1, 1])
    superheavy = Crystals(["x/og"], 4 * np.eye(3)[None], [0, 1], np.zeros((1, 3)), [0, 1], [118], [1])
    loaded = Ensemble.load(folder)
    batch = batches.concat([replace(crystals[:5], columns={}), overlapping, superheavy])
    found, refused = there(loaded).predict(batch)
    expected, also = loaded.predict(batch)
    assert refused == also
    assert {row.id for row in refused} == {"x/overlap", "x/og"}
    assert_same(found, expected, loaded)


def test_no_crystals_no_predictions(folder: Path) -> None:
    found, refused = there(Ensemble.load(folder)).predict(batches.empty())
    assert found.values["tc"].members.shape == (0, 3)
    assert refused == []


def test_a_crystal_that_breaks_a_network_is_isolated(folder: Path, crystals: Crystals) -> None:
    loaded, few = Ensemble.load(folder), crystals[:60]
    size = int(few.nsites[4])
    guilty = set(few.ids[few.nsites == size].tolist())
    broken = replace(loaded.members[0], network=Allergic(loaded.members[0].network, size))
    found, refused = there(replace(loaded, members=(broken, *loaded.members[1:]))).predict(few)
    assert {row.id for row in refused} == guilty
    assert {(row.stage, row.reason) for row in refused} == {(Stage.PREDICT, Reason.PREDICTION_FAILED)}
    assert set(few.ids[found.index].tolist()) | guilty == set(few.ids.tolist())


def test_a_lost_device_is_no_fault_of_the_crystals(
    folder: Path, crystals: Crystals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After such an error every call fails: they must not all go to quarantine. Memory may run out, though."""
    path = there(Ensemble.load(folder))
    assert path.device is not None

    def fail(message: str) -> Any:
        def encode(batch: Any) -> Any:
            raise RuntimeError(message)

        return encode

    monkeypatch.setattr(path.device.networks[0], "encode", fail("CUDA error: an illegal memory access"))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        path.predict(crystals[:3])
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr(path.device.networks[0], "encode", fail("CUDA error: out of memory"))
    _, refused = path.predict(crystals[:3])
    assert len(refused) == 3


def test_sums_are_in_order_while_it_predicts_and_as_before_afterwards(folder: Path) -> None:
    path = DevicePath(Ensemble.load(folder).members, torch.device("cpu"))
    cuda = torch.backends.cuda.matmul
    before = cuda.allow_tf32, torch.backends.cudnn.allow_tf32, torch.are_deterministic_algorithms_enabled()
    with path.exact():
        assert torch.are_deterministic_algorithms_enabled()
        assert not cuda.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
    assert (cuda.allow_tf32, torch.backends.cudnn.allow_tf32, torch.are_deterministic_algorithms_enabled()) == before


def test_members_stay_as_they_are(folder: Path, crystals: Crystals) -> None:
    loaded = Ensemble.load(folder)
    path = there(loaded)
    assert path.device is not None
    with torch.no_grad():
        for network in path.device.networks:
            for weight in network.parameters():
                weight.zero_()
    plain, _ = Ensemble.load(folder).predict(crystals[:3])
    again, _ = replace(path, device=None).predict(crystals[:3])
    assert again.values["tc"].members.tobytes() == plain.values["tc"].members.tobytes()


# Which device.


@pytest.mark.parametrize("name", ["tpu", "mps", "cuda:one", "cuda:-1", "cpu:1", "", "CUDA"])
def test_a_name_of_no_device_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected cpu, cuda or cuda:<number>"):
        device.chosen(name)


def test_a_device_that_is_not_there_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"cuda:1 is not available: torch.cuda.is_available\(\) is False .*is: cpu"):
        Ensemble.load(folder, device="cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="cuda:2 is not available; there is: cpu, cuda:0, cuda:1"):
        Ensemble.load(folder, device="cuda:2")
    assert device.chosen("cuda") == torch.device("cuda", 0)
    assert device.chosen("cuda:1") == torch.device("cuda", 1)


def test_loading_hands_the_members_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Ensemble.load(folder).device is None
    assert Ensemble.load(folder, device="cpu").device is None
    monkeypatch.setattr(device, "chosen", torch.device)
    monkeypatch.setattr(device, "DevicePath", lambda *given, compiled: SimpleNamespace(given=(*given, compiled)))
    path: Any = Ensemble.load(folder, "bfloat16", "cuda", compiled=True).device
    members, place, precision, compiled = path.given
    assert [member.name for member in members] == ["cgcnn", "alignn", "megnet"]
    assert (place, precision, compiled) == (torch.device("cuda"), "bfloat16", True)


# Pictures.


@pytest.fixture
def seeing(tmp_path: Path) -> Path:
    torchvision_ops.register()
    pytest.importorskip("timm", reason="needs timm: pip install assay[vision]")
    from tests.models.networks import test_vision

    deep = replace(test_vision.VIEW, encoding="deep")
    pictured = [test_vision.pictured(1), test_vision.pictured(3, deep)]
    return saved(tmp_path, [untrained("cgcnn", 0), pictured[0], untrained("alignn", 2), pictured[1]])


def test_pictures_are_drawn_and_seen_there(
    seeing: Path, crystals: Crystals, disordered: Crystals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two surfaces equally near the rasterisers may show different ones: some pixels in a million."""
    loaded = Ensemble.load(seeing)
    few = batches.concat([replace(part.select(np.flatnonzero(part.nsites <= 10)[:12]), columns={})
                          for part in (crystals, disordered)])  # fmt: skip
    monkeypatch.setattr(reading, "DRAWN_AT_ONCE", 10)
    monkeypatch.setattr(device, "PIXELS_PER_BATCH", 10 * 32**2)
    found, refused = there(loaded).predict(few)
    expected, _ = loaded.predict(few)
    assert refused == []
    mine, yours = found.values["tc"], expected.values["tc"]
    assert mine.view_spread is not None
    assert mine.disagreement is not None
    apart = np.abs(TC.encode(mine.members) - TC.encode(yours.members))
    assert apart[:, [0, 2]].max() <= 1e-5
    assert np.quantile(apart, 0.9) <= 1e-5
    assert apart.max() <= 2e-3
    np.testing.assert_allclose(mine.view_spread, yours.view_spread, atol=2e-3)
    np.testing.assert_allclose(mine.disagreement, yours.disagreement, atol=2e-3)


def test_bfloat16_is_for_transformers(seeing: Path, crystals: Crystals) -> None:
    loaded, few = Ensemble.load(seeing), crystals.select(np.flatnonzero(crystals.nsites <= 10)[:12])
    full, _ = there(loaded).predict(few)
    half, _ = there(loaded, precision="bfloat16").predict(few)
    before, after = full.values["tc"].members, half.values["tc"].members
    np.testing.assert_array_equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not np.array_equal(before[:, [1, 3]], after[:, [1, 3]])
    np.testing.assert_allclose(after[:, [1, 3]], before[:, [1, 3]], rtol=0.03, atol=0.03 * before.std())


def test_what_an_ensemble_says_of_precision_is_read_as_float32_for_a_device(
    seeing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU without bfloat16 can still feed a device that has it."""
    described = json.loads((seeing / "ensemble.json").read_text())
    (seeing / "ensemble.json").write_text(json.dumps({**described, "precision": "bfloat16"}))
    stored.seal(seeing)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(device, "chosen", torch.device)
    monkeypatch.setattr(device, "DevicePath", lambda *given, **_: SimpleNamespace(given=given))
    path: Any = Ensemble.load(seeing, device="cuda").device
    assert path.given[2] == "bfloat16"
    assert {weight.dtype for weight in path.given[0][1].network.parameters()} == {torch.float32}


# Where there is CUDA.


@no_cuda
def test_cuda_compiled_says_what_the_cpu_says(folder: Path, both: Crystals) -> None:
    loaded = Ensemble.load(folder)
    compiled = replace(loaded, device=DevicePath(loaded.members, torch.device("cuda"), compiled=True))
    (mine, refused), (yours, _) = (some.predict(both) for some in (compiled, loaded))
    assert refused == []
    assert_same(mine, yours, loaded, most=1e-4)


@no_cuda
@pytest.mark.parametrize("name", ["tc-graphs", "formation-energy"])
def test_cuda_says_what_the_cpu_says_and_says_it_again(name: str, zoo: Path, both: Crystals) -> None:
    loaded = Ensemble.load(zoo / name, device="cuda")
    assert loaded.device is not None
    assert {weight.device.type for net in loaded.device.networks for weight in net.parameters()} == {"cuda"}
    found, refused = loaded.predict(both)
    again, _ = loaded.predict(both)
    expected, _ = replace(loaded, device=None).predict(both)
    assert refused == []
    assert_same(found, expected, loaded)
    prop = loaded.properties[0].name
    assert found.values[prop].members.tobytes() == again.values[prop].members.tobytes()


@no_cuda
@pytest.mark.parametrize("kind", ["folder", "seeing"])
def test_every_kind_of_network_runs_on_cuda(kind: str, request: pytest.FixtureRequest, crystals: Crystals) -> None:
    path = request.getfixturevalue(kind)
    few = crystals.select(np.flatnonzero(crystals.nsites <= 10)[:12])
    loaded = Ensemble.load(path, "float32", "cuda")
    found, refused = loaded.predict(few)
    expected, _ = replace(loaded, device=None).predict(few)
    assert refused == []
    assert_same(found, expected, loaded, 2e-3)
    again, _ = loaded.predict(few)
    assert found.values["tc"].members.tobytes() == again.values["tc"].members.tobytes()


@no_cuda
def test_bfloat16_on_cuda_says_nearly_the_same(seeing: Path, crystals: Crystals) -> None:
    few = crystals.select(np.flatnonzero(crystals.nsites <= 10)[:12])
    full, _ = Ensemble.load(seeing, "float32", "cuda").predict(few)
    half, _ = Ensemble.load(seeing, "bfloat16", "cuda").predict(few)
    before, after = full.values["tc"].members, half.values["tc"].members
    np.testing.assert_allclose(after, before, rtol=0.03, atol=0.03 * before.std())
