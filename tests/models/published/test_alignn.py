"""The door to alignn and dgl: graphs cross it unchanged, files are read without trust."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.featurize import graphs
from assay.featurize.graphs import Graphs, GraphSpec
from assay.featurize.quotient import quotient
from assay.models.networks.batch import Batch
from assay.models.published import alignn as interop
from assay.sources.crystals import Crystals
from assay.sources.elements import SYMBOLS

SPEC = GraphSpec(angles=True, atom_features="properties-identity-v1")


@pytest.fixture(scope="session")
def alignn() -> Any:
    """alignn.graphs, with dgl."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = interop.import_alignn("alignn.graphs")
        except ImportError as error:
            pytest.skip(str(error))
    if found.dgl is None:
        pytest.skip("dgl does not load on this machine")
    return found


def jarvis_atoms(alignn: Any, crystals: Crystals) -> list[Any]:
    sites = zip(crystals.site_ptr[:-1], crystals.site_ptr[1:], strict=True)
    return [
        alignn.Atoms(
            lattice_mat=lattice,
            coords=crystals.frac[a:b],
            elements=[SYMBOLS[z] for z in crystals.numbers[a:b]],
            cartesian=False,
        )
        for lattice, (a, b) in zip(crystals.lattice, sites, strict=True)
    ]


def assert_same_batch(found: Batch, expected: Batch) -> None:
    """Equal up to the order of triplets of one edge, which is kept too."""
    for name in expected.__dataclass_fields__:
        left, right = getattr(found, name), getattr(expected, name)
        if right is None:
            assert left is None, name
        else:
            torch.testing.assert_close(left, right, rtol=0, atol=1e-6, msg=name)


def test_there_and_back_is_the_same_batch(alignn: Any, crystals: Crystals) -> None:
    built = graphs.build(crystals[:20], SPEC)
    g, line = interop.to_dgl(built)
    assert g.batch_size == line.batch_size == 20
    assert_same_batch(interop.from_dgl(g, line), Batch.of(built))


def test_disorder_survives(alignn: Any, disordered: Crystals) -> None:
    built = graphs.build(disordered[:20], SPEC)
    assert_same_batch(interop.from_dgl(*interop.to_dgl(built)), Batch.of(built))


def test_dgl_takes_one_crystal_out(alignn: Any, crystals: Crystals) -> None:
    built = graphs.build(crystals[:6], SPEC)
    g, line = interop.to_dgl(built)
    alone = alignn.dgl.unbatch(g)[4], alignn.dgl.unbatch(line)[4]
    assert_same_batch(interop.from_dgl(*alone), Batch.of(built.select(np.array([4]))))


def test_displacements_lead_from_source_to_target(alignn: Any, crystals: Crystals) -> None:
    few = crystals[:5]
    g, _ = interop.to_dgl(graphs.build(few, SPEC))
    source, target = (end.numpy() for end in g.edges())
    inverse = np.linalg.inv(few.lattice)[few.site_crystal[target]]
    cells = np.einsum("ei,eij->ej", g.edata["r"].numpy(), inverse) - few.frac[target] + few.frac[source]
    np.testing.assert_allclose(cells, np.rint(cells), atol=1e-4)


def test_node_features_of_a_foreign_table_are_weighted_by_occupancy(alignn: Any, disordered: Crystals) -> None:
    table = np.arange(104, dtype=np.float32)[:, None]
    built = graphs.build(disordered[:10], SPEC)
    g, _ = interop.to_dgl(built, table)
    site = 3
    a, b = built.species_ptr[site : site + 2]
    expected = np.average(built.numbers[a:b], weights=built.occupancy[a:b])
    assert g.ndata["atom_features"][site, 0].item() == pytest.approx(expected, rel=1e-5)


def test_a_graph_without_line_graph_has_no_triplets(alignn: Any, crystals: Crystals) -> None:
    g, _ = interop.to_dgl(graphs.build(crystals[:2], SPEC))
    batch = interop.from_dgl(g)
    assert len(batch.triplet_edge) == len(batch.cosine) == 0


def test_quotients_stay_here(crystals: Crystals) -> None:
    merged: Graphs = quotient(graphs.build(crystals[:2], SPEC))
    with pytest.raises(ValueError, match="quotients: dgl has no multiplicities"):
        interop.to_dgl(merged)


def test_the_element_table_says_which_elements_it_holds(alignn: Any) -> None:
    table = interop.element_table("cgcnn")
    np.testing.assert_array_equal(table, interop.element_table.__wrapped__("cgcnn"))  # jarvis has it in its cache now
    assert table.shape == (104, 92)
    assert np.flatnonzero(np.isnan(table).all(axis=1)).tolist() == [0, 101, 102, 103]
    assert interop.element_table("atomic_number")[[1, 26, 103], 0].tolist() == [1, 26, 103]
    with pytest.raises(ValueError, match="'magic', which jarvis-tools does not know"):
        interop.element_table("magic")


# Reading published files needs neither alignn nor dgl.

CONFIG = {"model": {"name": "alignn"}}


def weights(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def archive(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as out:
        for name, content in files.items():
            out.writestr(name, content)
    return path


STATE = {"fc.bias": torch.ones(1)}
SOUND = {"config.json": json.dumps(CONFIG).encode(), "best_model.pt": weights(STATE)}


@pytest.mark.parametrize("folder", ["", "mp_e_form_alignnn/"])
@pytest.mark.parametrize("name", ["best_model.pt", "checkpoint_300.pt"])
def test_both_layouts_are_read(folder: str, name: str, tmp_path: Path) -> None:
    state = {"model": STATE, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}} if "300" in name else STATE
    files = {f"{folder}config.json": SOUND["config.json"], f"{folder}{name}": weights(state)}
    found = interop.published(archive(tmp_path / "m.zip", files))
    assert found.config == CONFIG
    assert found.state == STATE


def test_a_folder_is_read_like_an_archive(tmp_path: Path) -> None:
    for name, content in SOUND.items():
        (tmp_path / name).write_bytes(content)
    assert interop.published(tmp_path).state == STATE


def test_the_best_or_else_the_last_checkpoint_is_taken(tmp_path: Path) -> None:
    files = {"config.json": SOUND["config.json"]}
    files |= {f"checkpoint_{n}.pt": weights({"n": torch.tensor(n)}) for n in (9, 300, 10)}
    assert interop.published(archive(tmp_path / "a.zip", files)).state["n"] == 300
    files["best_model.pt"] = weights({"n": torch.tensor(-1)})
    assert interop.published(archive(tmp_path / "b.zip", files)).state["n"] == -1


def test_names_of_a_parallel_trainer_and_doubles_are_plain_floats(tmp_path: Path) -> None:
    files = SOUND | {"best_model.pt": weights({"module.fc.bias": torch.ones(1, dtype=torch.float64)})}
    state = interop.published(archive(tmp_path / "m.zip", files)).state
    assert {name: tensor.dtype for name, tensor in state.items()} == {"fc.bias": torch.float32}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"config.json": None}, FileNotFoundError, "one config.json, it has none"),
        ({"a/config.json": b"{}"}, FileNotFoundError, "one config.json, it has 2"),
        ({"best_model.pt": None}, FileNotFoundError, r"neither best_model.pt nor checkpoint_\*.pt"),
        ({"best_model.pt": None, "checkpoint_x.pt": b""}, FileNotFoundError, "neither best_model.pt nor"),
        ({"config.json": b"{"}, ValueError, "is not valid JSON"),
        ({"config.json": b"[1]"}, ValueError, "no object 'model'"),
        ({"best_model.pt": b"not weights"}, ValueError, "best_model.pt of .* is damaged, or holds more than tensors"),
        ({"best_model.pt": b""}, ValueError, "is damaged, or holds more than tensors"),
        ({"best_model.pt": weights({"a": Path()})}, ValueError, "is damaged, or holds more than tensors"),
        ({"best_model.pt": weights({"model": {"a": 1}})}, ValueError, "holds no state dict"),
        ({"best_model.pt": weights(torch.ones(2))}, ValueError, "holds no state dict"),
        ({"../evil.pt": b""}, ValueError, "a path that leads out of it"),
        ({"/etc/evil": b""}, ValueError, "a path that leads out of it"),
        ({"..\\evil": b""}, ValueError, "a path that leads out of it"),
        ({"C:/evil": b""}, ValueError, "a path that leads out of it"),
    ],
)
def test_what_cannot_be_trusted_is_refused(change: dict[str, Any], error: Any, message: str, tmp_path: Path) -> None:
    files = {name: content for name, content in {**SOUND, **change}.items() if content is not None}
    with pytest.raises(error, match=message):
        interop.published(archive(tmp_path / "m.zip", files))


def test_no_code_in_a_file_runs(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    with pytest.raises(ValueError, match="holds more than tensors"):
        interop.published(archive(tmp_path / "m.zip", SOUND | {"best_model.pt": weights({"a": Evil()})}))
    assert not (tmp_path / "ran").exists()


def test_bombs_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interop, "LARGEST", 100_000)
    outer = archive(tmp_path / "a.zip", SOUND | {"best_model.pt": bytes(200_000)}, zipfile.ZIP_DEFLATED)
    assert outer.stat().st_size < 10_000
    with pytest.raises(ValueError, match="larger than 100000 bytes"):
        interop.published(outer)
    inner = archive(tmp_path / "w.pt", {"archive/data/0": bytes(200_000)}, zipfile.ZIP_DEFLATED).read_bytes()
    with pytest.raises(ValueError, match="unpacks to 200000 bytes"):
        interop.published(archive(tmp_path / "b.zip", SOUND | {"best_model.pt": inner}))


def test_damaged_and_missing_archives_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"m\.zip does not exist"):
        interop.published(tmp_path / "m.zip")
    path = archive(tmp_path / "m.zip", SOUND)
    content = bytearray(path.read_bytes())
    content[content.index(b'{"model"') + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json of .*m\.zip cannot be unpacked: Bad CRC"):
        interop.published(path)
    path.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="is not a zip archive"):
        interop.published(path)
