"""Published ALIGNN weights, as checkpoints of ours: same numbers, both families, nothing taken on trust."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.featurize import atoms, graphs as crystal_graphs
from assay.models.ensemble import checkpoint
from assay.models.networks.batch import Batch
from assay.models.published import alignn as interop, graphs, weights
from assay.models.published.graphs import Rule
from assay.sources.crystals import Crystals
from tests.models.published.test_alignn import alignn, jarvis_atoms

__all__ = ["alignn"]

SIZES = {
    "alignn_layers": 2,
    "gcn_layers": 1,
    "hidden_features": 32,
    "embedding_features": 16,
    "edge_input_features": 80,
    "triplet_input_features": 40,
    "atom_input_features": 92,
}
PURE = {"calculate_gradient": False, "gradwise_weight": 0.0}
NEAREST = {"neighbor_strategy": "k-nearest", "cutoff": 8.0, "max_neighbors": 12, "use_canonize": True}
RADIUS = {"neighbor_strategy": "pure_torch", "cutoff": 5.0, "max_neighbors": None, "three_body_cutoff": 3.5}
ENOUGH = 120
"""Crystals a parity is checked on."""


def theirs(family: str, sizes: dict[str, Any] = SIZES) -> torch.nn.Module:
    """A network of the package with random weights and, in the classic one, random batch statistics."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if family == "alignn":
            module = interop.import_alignn("alignn.models.alignn")
            net = module.ALIGNN(module.ALIGNNConfig(name="alignn", **sizes))
        else:
            module = interop.import_alignn("alignn.models.alignn_atomwise_pure")
            net = module.ALIGNNAtomWisePure(module.ALIGNNAtomWisePureConfig(name=family, **sizes, **PURE))
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(part.running_mean, std=0.3)
            torch.nn.init.uniform_(part.running_var, 0.5, 2.0)
        if isinstance(part, torch.nn.BatchNorm1d | torch.nn.LayerNorm):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.normal_(part.bias, std=0.2)
    return net.eval()


def config(family: str, sizes: dict[str, Any] = SIZES, **changes: Any) -> dict[str, Any]:
    rule = NEAREST if family == "alignn" else RADIUS
    extra = {} if family == "alignn" else PURE
    made: dict[str, Any] = {"atom_features": "cgcnn", **rule, "model": {"name": family, **sizes, **extra}}
    for name, value in changes.items():
        (made["model"] if name.startswith("model_") else made)[name.removeprefix("model_")] = value
    return made


def archive(path: Path, net: torch.nn.Module, described: dict[str, Any]) -> Path:
    """As alignn publishes it: nested with an optimizer in the classic family, flat in the pure one."""
    buffer = io.BytesIO()
    classic = isinstance(described["model"].get("name"), str) and described["model"]["name"] == "alignn"
    state = net.state_dict()
    torch.save({"model": state, "optimizer": {"state": {}}} if classic else state, buffer)
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("mp/config.json" if classic else "config.json", json.dumps(described))
        out.writestr("mp/checkpoint_300.pt" if classic else "best_model.pt", buffer.getvalue())
    return path


def their_graphs(package: Any, family: str, crystals: Crystals) -> tuple[Any, Any]:
    """Batched graphs by the package's own builders."""
    made = jarvis_atoms(package, crystals)
    if family == "alignn":
        pairs = [package.Graph.atom_dgl_multigraph(one, cutoff=8.0, max_neighbors=12) for one in made]
        return package.dgl.batch([g for g, _ in pairs]), package.dgl.batch([line for _, line in pairs])
    pure = interop.import_alignn("alignn.torch_graph_builder")
    pairs = [
        pure.build_pure_torch_graph(one, two_body_cutoff=5.0, three_body_cutoff=3.5, use_matscipy_topology=False)
        for one in made
    ]
    found: tuple[Any, Any] = pure.batch_torch_graph_pairs(pairs)
    return found


@pytest.fixture(scope="module")
def pairs(alignn: Any, crystals: Crystals) -> dict[str, tuple[Any, Any]]:
    """Their graphs of the first crystals, by family; they take a tenth of a second each."""
    return {family: their_graphs(alignn, family, crystals[:ENOUGH]) for family in ("alignn", "alignn_atomwise_pure")}


def their_output(family: str, net: torch.nn.Module, pair: tuple[Any, Any]) -> torch.Tensor:
    with torch.no_grad():
        out = net((pair[0].local_var(), pair[1], None)) if family == "alignn" else net((*pair, None))["out"]
    return out.reshape(-1)


def our_features(crystals: Crystals) -> torch.Tensor:
    found = atoms.features(graphs.FEATURES, crystals.species_ptr, crystals.numbers, crystals.occupancy)
    return torch.from_numpy(found)


FAMILY = pytest.mark.parametrize("family", ["alignn", "alignn_atomwise_pure"])


@FAMILY
def test_same_numbers_on_their_graphs(pairs: Any, family: str, crystals: Crystals, tmp_path: Path) -> None:
    few, net, pair = crystals[:ENOUGH], theirs(family), pairs[family]
    batch = replace(interop.from_dgl(*pair), x=our_features(few))
    ours = weights.convert(archive(tmp_path / "m.zip", net, config(family)), "gap", "eV").network
    expected = their_output(family, net, pair)
    assert expected.std() > 1e-3  # the comparison means something
    with torch.no_grad():
        torch.testing.assert_close(ours(batch)["gap"], expected, rtol=0, atol=1e-5)


@FAMILY
def test_same_numbers_from_crystals(pairs: Any, family: str, crystals: Crystals, tmp_path: Path) -> None:
    """Our builder follows the published rule, except where alignn breaks ties between neighbours by rounding errors."""
    few, net, pair = crystals[:ENOUGH], theirs(family), pairs[family]
    made = weights.convert(archive(tmp_path / "m.zip", net, config(family)), "gap", "eV")
    built = graphs.graphs(few, weights.rule_of(made))
    with torch.no_grad():
        apart = (made.network(Batch.of(built))["gap"] - their_output(family, net, pair)).abs().numpy()
    count = pair[0].batch_num_edges() if family == "alignn" else pair[0].batch_num_edges
    lost = np.diff(built.edge_ptr) - count.numpy()
    assert (lost >= 0).all()
    assert (lost == 0).sum() >= (ENOUGH // 3 if family == "alignn" else ENOUGH)
    assert apart[lost == 0].max() < 2e-5


@FAMILY
def test_what_was_imported_reads_disorder_and_survives_the_disk(
    alignn: Any, family: str, disordered: Crystals, tmp_path: Path
) -> None:
    path = archive(tmp_path / "m.zip", theirs(family), config(family))
    folders = weights.import_models([path, path], tmp_path / "out", "gap", "eV")
    assert [folder.name for folder in folders] == ["member-0", "member-1"]
    assert not (tmp_path / "out" / "ensemble.json").exists()
    made, again = weights.convert(path, "gap", "eV"), checkpoint.read(folders[1])
    assert again.properties == made.properties
    assert weights.rule_of(again) == weights.rule_of(made)
    assert "Lr" not in again.elements
    assert "La" in again.elements
    batch = Batch.of(graphs.graphs(disordered[:8], weights.rule_of(again)))
    with torch.no_grad():
        found = again.network(batch)["gap"]
        assert torch.equal(found, made.network(batch)["gap"])
    assert torch.isfinite(found).all()


def test_a_mixed_site_is_embedded_as_the_mean_of_its_elements(alignn: Any, tmp_path: Path) -> None:
    net = theirs("alignn")
    ours = weights.convert(archive(tmp_path / "m.zip", net, config("alignn")), "gap", "eV").network
    species = np.array([29, 30], np.uint8), np.array([0.3, 0.7], np.float32)
    mixed = torch.from_numpy(atoms.features(graphs.FEATURES, np.array([0, 2]), *species))
    table = torch.from_numpy(interop.element_table().copy())
    expected = net.atom_embedding.layer[0](0.3 * table[29:30] + 0.7 * table[30:31])
    torch.testing.assert_close(ours.atom_embedding[0](mixed), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("said", "held", "message"),
    [
        ("alignn", "alignn_atomwise_pure", "'alignn', which has batch normalisation, but its weights have layer"),
        ("alignn_atomwise_pure", "alignn", "has layer normalisation, but its weights have batch"),
    ],
)
def test_the_wrong_family_is_refused(alignn: Any, said: str, held: str, message: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "m.zip", theirs(held), config(said))
    with pytest.raises(ValueError, match=message):
        weights.convert(path, "gap", "eV")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_hidden_features": 64}, r"weights 'angle_embedding.2.0.bias' are \(32,\), .* with \(64,\)"),
        ({"model_alignn_layers": 3}, "weights 'edge_updates.2.* are missing"),
        ({"model_gcn_layers": 0}, "weights 'gcn_layers.0.* have no place"),
        ({"atom_features": "atomic_number"}, r"the atom embedding is \(32, 92\), expected \(hidden, 1\)"),
        ({"atom_features": "magic"}, "'magic', which jarvis-tools does not know"),
        ({"model_name": "cgcnn"}, r"a network 'cgcnn', expected one of \['alignn'"),
        ({"model_link": "log"}, "link = 'log', Assay can import 'identity' only"),
        ({"model_classification": True}, "classification = True"),
        ({"model_output_features": 5}, "output_features = 5"),
        ({"model_extra_features": 6}, "extra_features = 6"),
        ({"standard_scalar_and_pca": True}, "a file that is a pickle"),
        ({"neighbor_strategy": "voronoi"}, "neighbor_strategy is 'voronoi', expected"),
        ({"use_canonize": False}, "use_canonize is false"),
    ],
)
def test_what_cannot_be_represented_is_refused(
    alignn: Any, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = archive(tmp_path / "m.zip", theirs("alignn"), config("alignn", **changes))
    with pytest.raises(ValueError, match=message):
        weights.convert(path, "gap", "eV")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_use_cutoff_function": True}, "use_cutoff_function = True"),
        ({"model_conv_type": "t_alignn"}, "conv_type = 't_alignn'"),
        ({"model_calculate_gradient": True, "model_gradwise_weight": 10.0}, "is a force field"),
    ],
)
def test_networks_of_the_pure_family_that_do_more_are_refused(
    alignn: Any, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = archive(tmp_path / "m.zip", theirs("alignn_atomwise_pure"), config("alignn_atomwise_pure", **changes))
    with pytest.raises(ValueError, match=message):
        weights.convert(path, "gap", "eV")


def test_nothing_is_written_over_or_by_halves(alignn: Any, tmp_path: Path) -> None:
    net, out = theirs("alignn"), tmp_path / "out"
    good = archive(tmp_path / "good.zip", net, config("alignn"))
    bad = archive(tmp_path / "bad.zip", net, config("alignn", model_hidden_features=64))
    with pytest.raises(ValueError, match=r"bad\.zip"):
        weights.import_models([good, bad], out, "gap", "eV")
    assert not out.exists()
    weights.import_models([good], out, "gap", "eV")
    with pytest.raises(ValueError, match="member-0 is there already"):
        weights.import_models([good], out, "gap", "eV")
    with pytest.raises(ValueError, match=r"property name 'a\.b' should be"):
        weights.convert(good, "a.b", "eV")


def test_a_factor_on_the_targets_is_taken_out(alignn: Any, tmp_path: Path) -> None:
    described = config("alignn", target_multiplication_factor=4.0)
    made = weights.convert(archive(tmp_path / "m.zip", theirs("alignn"), described), "gap", "eV")
    assert made.properties[0].decode(np.array([2.0])).tolist() == [0.5]


def test_rules_are_read_from_the_config() -> None:
    model: dict[str, Any] = {"model": {}}
    assert Rule.of({**NEAREST, **model}) == Rule(12, 8.0, mutual=True, angle_cutoff=None, itself=False)
    assert Rule.of({**RADIUS, **model}) == Rule(None, 5.0, mutual=False, angle_cutoff=3.5)
    assert Rule.of({**RADIUS, **model, "three_body_cutoff": 5.0}).angle_cutoff is None
    assert Rule.of({**RADIUS, **model, "max_neighbors": 9}).nearest == 9
    assert Rule.of({"neighbor_strategy": "radius_graph", "cutoff": 4, **model}) == Rule(
        None, 4.0, mutual=False, angle_cutoff=None, itself=False
    )


def test_published_triplets_pass_through_an_atom(crystals: Crystals) -> None:
    built = graphs.graphs(crystals[:5], Rule(12, 8.0, mutual=True, angle_cutoff=None))
    assert (built.target[built.triplet_other] == built.source[built.triplet_edge]).all()
    assert (np.diff(built.triplet_edge) >= 0).all()
    assert (np.diff(built.target) >= 0).all()
    forth = sorted(zip(built.source, built.target, built.distance.round(3), strict=True))
    back = sorted(zip(built.target, built.source, built.distance.round(3), strict=True))
    assert forth == back
    ours = crystal_graphs.build(crystals[:5], replace(built.spec, angles=False))
    assert len(built.source) >= len(ours.source)


def test_a_model_trained_here_has_no_published_rule(tmp_path: Path) -> None:
    from tests.models.ensemble.test_checkpoint_ensemble import untrained

    with pytest.raises(ValueError, match="was trained here, not imported"):
        weights.rule_of(untrained("alignn", 0))
