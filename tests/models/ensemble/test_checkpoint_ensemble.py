"""Checkpoints and ensembles: same numbers after a round trip, damage is named, every crystal is accounted for."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.featurize import atoms, graphs
from assay.featurize.graphs import GraphSpec
from assay.featurize.quotient import of_crystals
from assay.models.ensemble import calibration, checkpoint, inference, reading, stored
from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.checkpoint import Checkpoint
from assay.models.ensemble.ensemble import Ensemble
from assay.models.networks import registry
from assay.models.networks.batch import Batch
from assay.models.networks.inputs import GraphInputs
from assay.models.networks.layers import Network
from assay.models.target import LOG_VARIANCE, Property
from assay.sources import crystals as batches
from assay.sources.crystals import Crystals
from assay.sources.quarantine import Reason, Stage
from tests.models.networks.test_networks import SMALL

TC = Property("tc", "K", "arcsinh", 0.0, 0.5, 1.4)


def untrained(
    name: str, seed: int, elements: tuple[str, ...] = ("O", "Cu", "La", "Sr"), taper: float = 0.0
) -> Checkpoint:
    torch.manual_seed(seed)
    spec = GraphSpec(taper=taper, angles=registry.MODELS[name].reads.angles)
    net = registry.create(name, atoms.width(spec.atom_features), ["tc"], **SMALL[name]).eval()
    return Checkpoint(net, name, SMALL[name], spec, (TC,), elements, {"seed": seed})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k, name in enumerate(["cgcnn", "cgcnn", "alignn"]):
        checkpoint.write(untrained(name, k), tmp_path / f"member-{k}")
    fitted = {"tc": Calibration(0.9, 2.0, 0.5, 100, 1.5)}
    stored.write(tmp_path, "test", [f"member-{k}" for k in range(3)], fitted, {"note": "untrained"})
    return tmp_path


@pytest.mark.parametrize("taper", [0.0, 0.3])
@pytest.mark.parametrize("name", SMALL)
def test_saved_and_loaded_predicts_the_same_bits(name: str, taper: float, tmp_path: Path) -> None:
    before = untrained(name, 3, taper=taper)
    checkpoint.write(before, tmp_path)
    after = checkpoint.read(tmp_path)
    assert (after.spec, after.properties, after.elements) == (before.spec, before.properties, before.elements)
    for key, tensor in before.network.state_dict().items():
        assert torch.equal(tensor, after.network.state_dict()[key])
    assert not after.network.training


def test_a_checkpoint_from_before_the_taper_reads_graphs_without(tmp_path: Path) -> None:
    checkpoint.write(untrained("cgcnn", 3), tmp_path)
    path = tmp_path / "model.json"
    described = json.loads(path.read_text())
    del described["graph"]["taper"]
    path.write_text(json.dumps(described))
    assert checkpoint.read(tmp_path).spec == GraphSpec()


def test_members_that_taper_predict_what_their_networks_say(folder: Path, crystals: Crystals) -> None:
    """And not what they say of graphs that are cut."""
    made = [untrained(name, k, taper=0.3) for k, name in enumerate(["cgcnn", "cgcnn", "alignn"])]
    cut, _ = Ensemble.load(folder).predict(crystals[:20])
    for k, member in enumerate(made):
        checkpoint.write(member, folder / f"member-{k}")
    fitted = {"tc": Calibration(0.9, 2.0, 0.5, 100, 1.5)}
    stored.write(folder, "test", [f"member-{k}" for k in range(3)], fitted, {})
    found, refused = Ensemble.load(folder).predict(crystals[:20])
    assert refused == []
    for k, member in enumerate(made):
        batch = Batch.of(graphs.build(crystals[:20], member.spec))
        with torch.inference_mode():
            alone = TC.decode(member.network(batch)["tc"].numpy())
        np.testing.assert_allclose(found.values["tc"].members[:, k], alone, rtol=1e-4, atol=1e-5)
    assert not np.allclose(found.values["tc"].mean, cut.values["tc"].mean, rtol=1e-3)


def test_the_card_of_an_import_has_its_note(tmp_path: Path) -> None:
    made = replace(untrained("cgcnn", 0), facts={"published": {"note": "Its graphs depend on the choice of the cell."}})
    checkpoint.write(made, tmp_path)
    assert "depend on the choice of the cell" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("position", [200, 5000, -1])
def test_one_flipped_bit_in_the_weights_is_refused(position: int, folder: Path) -> None:
    path = folder / "member-1/weights.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.safetensors is damaged or replaced"):
        Ensemble.load(folder)


def test_missing_folder_file_and_foreign_folder_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a model ensemble: it has no ensemble\.json"):
        Ensemble.load(tmp_path / "nowhere")
    (folder / "member-2/weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"member-2/weights\.safetensors is missing"):
        Ensemble.load(folder)
    shutil.rmtree(folder / "member-2")
    with pytest.raises(FileNotFoundError, match="member-2 is not a checkpoint"):
        Ensemble.load(folder)
    (folder / "ensemble.json").write_text("{")
    with pytest.raises(ValueError, match=r"ensemble\.json is not valid JSON"):
        Ensemble.load(folder)


def test_newer_format_is_refused(folder: Path) -> None:
    path = folder / "member-0/model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(ValueError, match="format 99; this Assay reads up to"):
        Ensemble.load(folder)


def test_members_with_different_graphs_are_refused(folder: Path) -> None:
    other = replace(untrained("cgcnn", 1), spec=GraphSpec(k=8))
    checkpoint.write(other, folder / "member-1")
    with pytest.raises(ValueError, match="read different graphs"):
        Ensemble.load(folder)


def test_mean_std_and_interval_follow_the_members(folder: Path, crystals: Crystals) -> None:
    found, refused = Ensemble.load(folder).predict(crystals[:40])
    tc = found.values["tc"]
    assert refused == []
    assert found.index.tolist() == list(range(40))
    assert tc.members.shape == (40, 3)
    np.testing.assert_allclose(tc.mean, tc.members.mean(axis=1))
    np.testing.assert_allclose(tc.spread, np.sqrt(((tc.members - tc.mean[:, None]) ** 2).sum(axis=1) / 2))
    np.testing.assert_allclose(tc.std, 1.5 * (tc.spread + 0.5))
    np.testing.assert_allclose(tc.hi, tc.mean + 2.0 * (tc.spread + 0.5))
    np.testing.assert_allclose(tc.lo, np.maximum(0.0, tc.mean - 2.0 * (tc.spread + 0.5)))


def test_ensembles_calibrated_without_a_scale_load_and_tell_the_spread(folder: Path, crystals: Crystals) -> None:
    """The layout of the first release: four numbers of calibration, no weights, no reference."""
    path = folder / "ensemble.json"
    described = json.loads(path.read_text())
    before, _ = Ensemble.load(folder).predict(crystals[:20])
    described["calibration"]["tc"] = {"level": 0.9, "quantile": 2.0, "floor": 0.5, "n": 100}
    del described["sha256"]
    path.write_text(json.dumps(described))
    loaded = Ensemble.load(folder)
    found, _ = loaded.predict(crystals[:20])
    tc, now = found.values["tc"], before.values["tc"]
    assert loaded.calibration["tc"].scale is None
    assert tc.mean.tobytes() == now.mean.tobytes() == tc.members.mean(axis=1).tobytes()
    assert tc.std.tobytes() == now.spread.tobytes() == tc.members.std(axis=1, ddof=1).tobytes()
    assert tc.hi.tobytes() == now.hi.tobytes()
    assert found.ood_distance is None


def test_weights_decide_mean_and_spread(folder: Path, crystals: Crystals) -> None:
    shares = (0.7, 0.1, 0.2)
    plain = Ensemble.load(folder)
    stored.write(folder, "test", [f"member-{k}" for k in range(3)], plain.calibration, {}, {"tc": shares})
    loaded = Ensemble.load(folder)
    assert loaded.weights == {"tc": shares}
    tc = loaded.predict(crystals[:20])[0].values["tc"]
    assert tc.members.tobytes() == plain.predict(crystals[:20])[0].values["tc"].members.tobytes()
    np.testing.assert_allclose(tc.mean, tc.members @ np.array(shares))
    np.testing.assert_allclose(tc.spread**2, ((tc.members - tc.mean[:, None]) ** 2) @ np.array(shares) * 1.5)
    np.testing.assert_allclose(tc.hi, tc.mean + 2.0 * (tc.spread + 0.5))


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.5, 0.6, -0.1), (0.5, 0.4, 0.2)])
def test_weights_off_the_simplex_are_refused(shares: tuple[float, ...], folder: Path) -> None:
    with pytest.raises(ValueError, match="expected 3 numbers of at least 0 that sum to 1"):
        replace(Ensemble.load(folder), weights={"tc": shares})


def test_predicted_variance_widens_the_spread_in_the_unit(crystals: Crystals, tmp_path: Path) -> None:
    """Members with variance heads, each with a scaler of its own."""
    scaled = [Property("tc", "K", "identity", 0.0, 0.5, scale) for scale in (2.0, 3.0)]
    for k, prop in enumerate(scaled):
        torch.manual_seed(k)
        sizes = {**SMALL["cgcnn"], "variance": True}
        net = registry.create("cgcnn", atoms.width(GraphSpec().atom_features), ["tc"], **sizes).eval()
        one = Checkpoint(net, "cgcnn", sizes, GraphSpec(), (prop,), ("O",), {})
        checkpoint.write(one, tmp_path / f"member-{k}")
    stored.write(tmp_path, "unsure", ["member-0", "member-1"], {"tc": Calibration(0.9, 2.0, 0.5, 9)}, {})
    loaded = Ensemble.load(tmp_path)
    tc = loaded.predict(crystals[:20])[0].values["tc"]
    batch = Batch.of(graphs.build(crystals[:20], GraphSpec()))
    with torch.inference_mode():
        told = [member.network(batch)["tc" + LOG_VARIANCE].exp().numpy() for member in loaded.members]
    noise = (told[0] * 4 + told[1] * 9) / 2
    np.testing.assert_allclose(tc.spread**2, tc.members.var(axis=1, ddof=1) + noise, rtol=1e-4)
    checkpoint.write(replace(loaded.members[1], properties=(TC,)), tmp_path / "member-1")
    with pytest.raises(ValueError, match="predicts a variance of arcsinh"):
        Ensemble.load(tmp_path)


def test_each_member_equals_its_own_network(folder: Path, crystals: Crystals) -> None:
    from assay.models.training import train

    loaded = Ensemble.load(folder)
    built = graphs.build(crystals[:40], loaded.spec)
    found, _ = loaded.predict(crystals[:40])
    for k, member in enumerate(loaded.members):
        read = GraphInputs(built, registry.MODELS[member.name].reads.angles)
        alone = train.predict(member.network, read, np.arange(40), [TC])
        np.testing.assert_allclose(found.values["tc"].members[:, k], alone[:, 0], rtol=1e-4, atol=1e-5)


def test_members_on_one_trunk_embed_a_crystal_once(
    folder: Path, crystals: Crystals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members that differ in their heads alone share the work, and say what each says alone."""
    first = untrained("alignn", 0)
    for k in range(3):
        other = untrained("alignn", k)
        other.network.load_state_dict(
            {**other.network.state_dict(), **{n: t for n, t in first.network.state_dict().items() if "heads" not in n}}
        )
        checkpoint.write(other, folder / f"member-{k}")
    stored.seal(folder)
    loaded = Ensemble.load(folder)
    assert len({member.trunk for member in loaded.members}) == 1
    seen = []
    for member in loaded.members:
        encode = member.frozen.encode
        monkeypatch.setattr(member.frozen, "encode", lambda batch, encode=encode: seen.append(batch) or encode(batch))
    found, _ = loaded.predict(crystals[:20])
    assert len(seen) == len({id(batch) for batch in seen}) > 0
    said = found.values["tc"].members
    assert said.std(axis=1).min() > 0
    monkeypatch.undo()
    for k, member in enumerate(loaded.members):
        pair = (member, replace(member, sizes={**member.sizes, "dropout": 0.5}))  # not the same trunk: no sharing
        alone, _ = replace(loaded, members=pair).predict(crystals[:20])
        np.testing.assert_array_equal(alone.values["tc"].members[:, 0], said[:, k])


def test_same_crystals_same_bits(folder: Path, crystals: Crystals) -> None:
    first, _ = Ensemble.load(folder).predict(crystals)
    second, _ = Ensemble.load(folder).predict(crystals)
    assert first.values["tc"].members.tobytes() == second.values["tc"].members.tobytes()


def test_unseen_elements_are_flagged(folder: Path, crystals: Crystals) -> None:
    found, _ = Ensemble.load(folder).predict(crystals)
    seen = {"O", "Cu", "La", "Sr"}
    wanted = [not set(formula.split("-")) <= seen for formula in crystals.elements()]
    assert found.ood.tolist() == wanted
    assert any(wanted)


def test_bad_crystals_are_refused_and_the_rest_is_equal(folder: Path, crystals: Crystals) -> None:
    """Overlapping atoms and superheavy elements go to quarantine; nobody else's prediction moves."""
    good = crystals[:10]
    overlapping = Crystals(["x/overlap"], 4 * np.eye(3)[None], [0, 2], np.zeros((2, 3)), [0, 1, 2], [26, 26], [1, 1])
    superheavy = Crystals(["x/og"], 4 * np.eye(3)[None], [0, 1], np.zeros((1, 3)), [0, 1], [118], [1])
    loaded = Ensemble.load(folder)
    plain, _ = loaded.predict(good)
    found, refused = loaded.predict(batches.concat([good[:5], overlapping, superheavy, good[5:]]))
    assert {(q.id, q.reason, q.stage) for q in refused} == {
        ("x/overlap", Reason.ATOMS_TOO_CLOSE, Stage.FEATURIZE),
        ("x/og", Reason.UNKNOWN_SPECIES, Stage.FEATURIZE),
    }
    assert found.index.tolist() == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]
    assert found.values["tc"].members.tobytes() == plain.values["tc"].members.tobytes()


class Allergic(Network):
    """A network that fails on any batch with a given number of atoms in one crystal."""

    def __init__(self, inner: Network, size: int) -> None:
        super().__init__()
        self.inner, self.size, self.heads = inner, size, inner.heads

    def encode(self, batch: Batch) -> torch.Tensor:
        if (batch.size == self.size).any():
            raise RuntimeError("no such size")
        return self.inner.encode(batch)


def test_a_crystal_that_breaks_a_network_is_isolated(folder: Path, crystals: Crystals) -> None:
    loaded = Ensemble.load(folder)
    size = int(crystals.nsites[4])
    guilty = set(crystals.ids[crystals.nsites == size].tolist())
    broken = replace(loaded.members[0], network=Allergic(loaded.members[0].network, size))
    found, refused = replace(loaded, members=(broken, *loaded.members[1:])).predict(crystals)
    assert {q.id for q in refused} == guilty
    assert {q.reason for q in refused} == {Reason.PREDICTION_FAILED}
    assert set(crystals.ids[found.index].tolist()) | guilty == set(crystals.ids.tolist())


def test_a_quotient_that_lies_is_found_and_left(
    folder: Path, crystals: Crystals, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a sampled crystal is predicted otherwise on its full graph, all are predicted on theirs."""
    loaded = Ensemble.load(folder)
    monkeypatch.setattr(inference, "CHECKED", 4)
    honest, _ = loaded.predict(crystals)
    assert "full graphs" not in caplog.text

    def lying(built: graphs.Graphs, *, angles: bool, threads: int) -> graphs.Graphs:
        merged = of_crystals(built, angles=angles, threads=threads)
        return replace(merged, distance=merged.distance * np.float32(1.01))

    monkeypatch.setattr(reading, "of_crystals", lying)
    saved, refused = loaded.predict(crystals)
    assert "full graphs" in caplog.text
    assert refused == []
    np.testing.assert_allclose(saved.values["tc"].members, honest.values["tc"].members, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(inference, "DIFFERENCE", 9.0)
    wrong, _ = loaded.predict(crystals)
    assert np.abs(wrong.values["tc"].members - honest.values["tc"].members).max() > 1e-4


class AllergicToQuotients(Allergic):
    """Fails where equal atoms are merged only."""

    def encode(self, batch: Batch) -> torch.Tensor:
        return self.inner.encode(batch) if batch.node_weight is None else super().encode(batch)


def test_what_failed_on_a_quotient_that_lies_is_predicted_on_the_full_graph(
    folder: Path, crystals: Crystals, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, size = Ensemble.load(folder), int(crystals.nsites[4])
    first = loaded.members[0]
    broken = replace(
        loaded, members=(replace(first, network=AllergicToQuotients(first.network, size)), *loaded.members[1:])
    )
    monkeypatch.setattr(inference, "CHECKED", 4)
    assert {q.id for q in broken.predict(crystals)[1]} == set(crystals.ids[crystals.nsites == size].tolist())
    monkeypatch.setattr(inference, "DIFFERENCE", -1.0)  # whatever it says
    found, refused = broken.predict(crystals)
    assert refused == []
    assert len(found.index) == len(crystals)


def test_no_crystals_no_predictions(folder: Path) -> None:
    found, refused = Ensemble.load(folder).predict(batches.empty())
    assert len(found.index) == 0
    assert found.values["tc"].members.shape == (0, 3)
    assert refused == []


def test_interval_is_read_not_refitted(folder: Path) -> None:
    loaded = Ensemble.load(folder)
    assert loaded.calibration == {"tc": calibration.Calibration(0.9, 2.0, 0.5, 100, 1.5)}
    assert loaded.facts == {"note": "untrained"}
