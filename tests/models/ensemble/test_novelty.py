"""Distance from the training set: against a plain search, the same bits in any company, stored without loss."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.featurize import graphs
from assay.featurize.graphs import GraphSpec
from assay.models.ensemble import checkpoint, novelty, stored, zoo
from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.ensemble import Ensemble
from assay.models.ensemble.novelty import Learned, Reference
from assay.models.networks.inputs import GraphInputs
from assay.models.networks.layers import Network
from assay.sources.crystals import Crystals
from tests.models.ensemble.test_checkpoint_ensemble import untrained

TRAIN, HELD = np.arange(0, 200), np.arange(200, 260)


def random_reference(seed: int = 0, n: int = 40, width: int = 12) -> Reference:
    torch.manual_seed(seed)
    points = torch.randn(n, width).half().float()
    mean, deviation = torch.randn(width), torch.rand(width) + 0.5
    return Reference(points.numpy(), mean.numpy(), deviation.numpy(), {"0.5": 1.0, "0.95": 2.5})


@pytest.fixture(scope="module")
def network() -> Network:
    found = untrained("cgcnn", 0).network
    assert isinstance(found, Network)
    return found


@pytest.fixture(scope="module")
def fitted(network: Network, crystals: Crystals) -> Reference:
    return novelty.fit(network, GraphInputs(graphs.build(crystals, GraphSpec())), TRAIN, HELD, 0)


@pytest.fixture
def folder(tmp_path: Path, fitted: Reference) -> Path:
    names = [f"member-{k}" for k in range(2)]
    for k, name in enumerate(names):
        checkpoint.write(untrained("cgcnn", k), tmp_path / name)
    calibrated = {"tc": Calibration(0.9, 2.0, 0.5, 100, 1.5)}
    stored.write(tmp_path, "test", names, calibrated, {"note": "untrained"}, reference=fitted)
    return tmp_path


def test_distance_is_the_mean_over_the_nearest() -> None:
    reference = random_reference()
    torch.manual_seed(9)
    embedding = (torch.randn(30, 12) * 2).numpy()
    scaled = ((embedding - reference.mean) / reference.deviation).astype(np.float64)
    pairs = np.sqrt(((scaled[:, None] - reference.points.astype(np.float64)[None]) ** 2).sum(axis=2))
    wanted = np.sort(pairs, axis=1)[:, :5].mean(axis=1)
    np.testing.assert_allclose(reference.apart(embedding), wanted, rtol=1e-5)
    np.testing.assert_allclose(reference.distance(embedding), wanted / 2.5, rtol=1e-5)


def test_a_row_has_the_same_bits_in_any_company_and_with_any_threads() -> None:
    reference = random_reference(1, 1500, 128)
    embedding = torch.randn(70, 128).numpy()
    together = reference.distance(embedding)
    assert together.tobytes() == np.concatenate([reference.distance(row[None]) for row in embedding]).tobytes()
    assert together[::-1].tobytes() == reference.distance(embedding[::-1]).tobytes()
    torch.set_num_threads(2)
    try:
        assert together.tobytes() == reference.distance(embedding).tobytes()
    finally:
        torch.set_num_threads(1)


def test_fewer_points_than_neighbours_and_no_rows() -> None:
    few = replace(random_reference(), points=random_reference().points[:3])
    assert np.isfinite(few.distance(torch.randn(4, 12).numpy())).all()
    assert few.distance(np.empty((0, 12), np.float32)).shape == (0,)


def test_one_is_the_distance_that_95_percent_of_the_held_rows_keep(
    network: Network, fitted: Reference, crystals: Crystals
) -> None:
    built = GraphInputs(graphs.build(crystals, GraphSpec()))
    held = fitted.distance(novelty.embed(network, built, HELD))
    assert np.quantile(held, 0.95) == pytest.approx(1.0)
    assert fitted.distance(novelty.embed(network, built, TRAIN)).mean() < held.mean()
    assert list(fitted.quantiles.values()) == sorted(fitted.quantiles.values())


def test_reference_rows_are_few_and_chosen_by_the_seed(
    network: Network, crystals: Crystals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(novelty, "MOST", 25)
    built = GraphInputs(graphs.build(crystals, GraphSpec()))
    first, again, shuffled, other = (
        novelty.fit(network, built, rows, HELD, seed)
        for rows, seed in ((TRAIN, 1), (TRAIN, 1), (TRAIN[::-1], 1), (TRAIN, 2))
    )
    assert first.points.shape == (25, 32)
    assert np.array_equal(first.points, again.points)
    assert np.array_equal(first.points, shuffled.points)
    assert not np.array_equal(first.points, other.points)


def test_a_feature_that_hardly_varies_does_not_decide_alone(crystals: Crystals) -> None:
    class Flat(Network):
        """Embeds by size, beside a constant that one crystal does not share."""

        def encode(self, batch: object) -> torch.Tensor:
            size = batch.size  # type: ignore[attr-defined]
            return torch.stack([size, 1.0 + 1e-6 * (size > 30)], dim=1)

    built = GraphInputs(graphs.build(crystals, GraphSpec()))
    found = novelty.fit(Flat(), built, TRAIN, HELD, 0)
    assert np.isfinite(found.points).all()
    assert float(found.deviation[1]) > 1e-3
    assert found.apart(np.float32([[5.0, 1.0]]))[0] == pytest.approx(
        found.apart(np.float32([[5.0, 1.00001]]))[0], abs=0.01
    )


def test_refuses_what_it_cannot_measure(network: Network, crystals: Crystals) -> None:
    built = GraphInputs(graphs.build(crystals, GraphSpec()))
    with pytest.raises(ValueError, match="200 training and 0 calibration rows"):
        novelty.fit(network, built, TRAIN, HELD[:0], 0)
    broken = untrained("cgcnn", 0).network
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="without a finite number"):
        novelty.fit(broken, built, TRAIN, HELD, 0)


def test_written_and_read_measures_the_same_bits(fitted: Reference, tmp_path: Path) -> None:
    described = json.loads(json.dumps(fitted.write(tmp_path)))
    after = Reference.read(tmp_path, described)
    embedding = torch.randn(20, 32).numpy()
    assert after.distance(embedding).tobytes() == fitted.distance(embedding).tobytes()
    assert (after.k, after.member, after.quantiles) == (fitted.k, fitted.member, fitted.quantiles)
    assert (tmp_path / novelty.FILE).stat().st_size < 2 * fitted.points.size + 1000


def test_the_ensemble_tells_the_distance_of_every_crystal(folder: Path, fitted: Reference, crystals: Crystals) -> None:
    loaded = Ensemble.load(folder)
    found, _ = loaded.predict(crystals)
    assert found.ood_distance is not None
    read = GraphInputs(graphs.build(crystals, GraphSpec()))
    embedded = novelty.embed(loaded.members[0].network, read, np.arange(len(crystals)))
    np.testing.assert_allclose(found.ood_distance, fitted.distance(embedded), rtol=1e-3, atol=1e-4)
    plain, _ = replace(loaded, reference=None).predict(crystals)
    assert plain.ood_distance is None
    assert plain.values["tc"].members.tobytes() == found.values["tc"].members.tobytes()
    assert plain.ood.tolist() == found.ood.tolist()
    empty, _ = loaded.predict(crystals[:0])
    assert empty.ood_distance is not None
    assert empty.ood_distance.shape == (0,)


def test_every_network_runs_once(folder: Path, crystals: Crystals, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = Ensemble.load(folder)
    calls: list[int] = []
    for k, member in enumerate(loaded.members):
        encode = member.frozen.encode
        counted = lambda batch, k=k, encode=encode: calls.append(k) or encode(batch)  # noqa: E731
        monkeypatch.setattr(member.frozen, "encode", counted)
    loaded.predict(crystals[:5])
    assert calls == [0, 1]


def test_another_member_can_measure(folder: Path, crystals: Crystals) -> None:
    loaded = Ensemble.load(folder)
    second = loaded.members[1].network
    reference = novelty.fit(second, GraphInputs(graphs.build(crystals, GraphSpec())), TRAIN, HELD, 0, member=1)
    stored.write(folder, "test", ["member-0", "member-1"], loaded.calibration, {}, reference=reference)
    found, _ = Ensemble.load(folder).predict(crystals.select(HELD))
    assert found.ood_distance is not None
    assert np.quantile(found.ood_distance, 0.95) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("position", [30, 3000, -1])
def test_a_flipped_bit_in_the_reference_is_refused(position: int, folder: Path) -> None:
    path = folder / novelty.FILE
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"reference\.safetensors is damaged or replaced"):
        Ensemble.load(folder)


def test_a_missing_reference_and_other_weights_are_named(folder: Path) -> None:
    checkpoint.write(untrained("cgcnn", 7), folder / "member-0")
    with pytest.raises(ValueError, match="made with other weights of member 0"):
        Ensemble.load(folder)
    (folder / novelty.FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"reference\.safetensors is missing"):
        Ensemble.load(folder)


def test_ensemble_json_names_the_reference(folder: Path) -> None:
    described = json.loads((folder / "ensemble.json").read_text())["novelty"]
    assert set(described) == {"k", "member", "quantiles", "sha256", "weights_sha256"}
    assert Ensemble.load(folder).facts == {"note": "untrained"}


def test_compositions_of_training_are_known_again(tmp_path: Path, crystals: Crystals) -> None:
    formulas = crystals.formulas()
    learned = Learned.of(formulas[:100])
    seen = set(formulas[:100])
    assert sum(name not in seen for name in formulas) > 0
    assert learned.holds(formulas).tolist() == [name in seen for name in formulas]
    assert learned.holds([]).shape == (0,)
    described = learned.write(tmp_path)
    assert described["compositions"] == len(seen)
    assert Learned.read(tmp_path, described).digests.tolist() == learned.digests.tolist()
    with pytest.raises(ValueError, match="holds other tensors than digests"):
        Learned.read(tmp_path, {**described, "compositions": 3})
    (tmp_path / novelty.LEARNED).write_bytes(b"other")
    with pytest.raises(ValueError, match="damaged or replaced"):
        Learned.read(tmp_path, described)
    (tmp_path / novelty.LEARNED).unlink()
    with pytest.raises(FileNotFoundError, match="copy the whole ensemble folder again"):
        Learned.read(tmp_path, described)


def test_an_ensemble_keeps_what_it_learned(folder: Path, fitted: Reference) -> None:
    loaded = Ensemble.load(folder)
    assert loaded.learned is None
    learned = Learned.of(["MgB2", "Nb3Sn"])
    stored.write(folder, "test", ["member-0", "member-1"], loaded.calibration, {}, reference=fitted, learned=learned)
    again = Ensemble.load(folder)
    assert again.learned is not None
    assert again.learned.holds(["Nb3Sn", "NbN"]).tolist() == [True, False]
    assert "learned" not in again.facts


@pytest.mark.parametrize("name", ["tc", "tc-fast", "tc-graphs", "formation-energy", "band-gap"])
def test_bundled_ensembles_know_what_they_learned(name: str) -> None:
    learned = Ensemble.load(zoo.find(name)).learned
    assert learned is not None
    assert len(learned.digests) > 3000
    assert learned.holds(["Nb3Sn", "V3Ga", "NbC", "NaCl", "MgO", "GaAs"]).any()
    assert not learned.holds(["KrXe5"]).any()
