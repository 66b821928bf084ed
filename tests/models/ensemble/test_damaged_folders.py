"""Hand-made and damaged model folders: one line that names the entry, before anything is allocated."""

import hashlib
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from assay.models import memory
from assay.models.ensemble import calibration, checkpoint, stored
from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.ensemble import Ensemble
from tests.models.ensemble.test_checkpoint_ensemble import untrained

MEMBERS = ["member-0", "member-1"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    for k, name in enumerate(MEMBERS):
        checkpoint.write(untrained("cgcnn", k), folder / name)
    stored.write(folder, "test", MEMBERS, {"tc": Calibration(0.9, 2.0, 0.5, 100, 1.5)}, {"note": "untrained"})
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def change(path: Path, change_it: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file as somebody would who knows of the digest."""
    described = json.loads(path.read_text())
    change_it(described)
    path.write_text(json.dumps(described))


def put(keys: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change_it(content: Any) -> None:
        *above, last = keys.split(".")
        for key in above:
            content = content[int(key) if isinstance(content, list) else key]
        content[int(last) if isinstance(content, list) else last] = value

    return change_it


def refused(folder: Path) -> str:
    with pytest.raises(ValueError) as caught:
        Ensemble.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("calibration.tc.quantile", -1.0, r"ensemble.json: calibration.tc.quantile is -1.0, expected a number from 0"),
        ("calibration.tc.quantile", float("nan"), "calibration.tc.quantile is nan"),
        ("calibration.tc.quantile", float("inf"), "100 calibration crystals are too few"),
        ("calibration.tc.quantile", "2", "calibration.tc.quantile is '2'"),
        ("calibration.tc.quantile", True, "calibration.tc.quantile is True"),
        ("calibration.tc.floor", -0.1, "calibration.tc.floor is -0.1"),
        ("calibration.tc.level", 1.5, "calibration.tc.level is 1.5"),
        ("calibration.tc.scale", float("nan"), "calibration.tc.scale is nan"),
        ("calibration.tc.n", 1.5, "calibration.tc.n is 1.5, expected a whole number"),
        ("calibration.tc.quantum", 1.0, "calibration.tc has an unknown key 'quantum'"),
        ("calibration.tc", {"level": 0.9}, "calibration.tc has no 'quantile'"),
        ("calibration.tc", [1], r"calibration.tc is \[1\], expected a mapping"),
        ("calibration", {}, "has no calibration of tc"),
        ("calibration.td", {"level": 0.9, "quantile": 2.0, "floor": 0.5, "n": 9}, "calibration or weights of td"),
        ("weights", {"tc": ["a", 0.5]}, "weights.tc.0 is 'a'"),
        ("weights", {"tc": [float("nan"), 0.5]}, "weights.tc.0 is nan"),
        ("calibration_rows", {"by": "element-set", "rows": {}, "sha256": "0" * 64}, "has no 'out_of_fold'"),
        (
            "calibration_rows",
            {"by": "hour", "out_of_fold": False, "rows": {"tc": 5}, "sha256": "0" * 64},
            "calibration_rows.by is 'hour', expected one of element-set, formula, row",
        ),
        ("members", ["member-0", "member-0"], "members names 'member-0' twice"),
        ("members", "member-0", "members is 'member-0', expected a list"),
        ("name", 7, "name is 7, expected text"),
        ("precision", "float99", "precision is 'float99'"),
    ],
)
def test_a_number_out_of_range_in_ensemble_json_is_named(folder: Path, keys: str, value: object, message: str) -> None:
    change(folder / "ensemble.json", put(keys, value))
    assert re.search(message, refused(folder))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("properties.0.scale", float("nan"), "properties.0.scale is nan"),
        ("properties.0.scale", 0.0, "properties.0.scale is 0.0"),
        ("properties.0.scale", 1e30, "properties.0.scale is 1e+30"),
        ("properties.0.center", "0.5", "properties.0.center is '0.5'"),
        ("properties.0.minimum", float("-inf"), "properties.0.minimum is -inf"),
        ("properties", [], "properties is []"),
        ("elements", ["O", "O"], "elements names 'O' twice"),
        ("elements", ["O", "Xx"], "elements.1 is 'Xx', expected the symbol of an element"),
        ("elements", "OCu", "elements is 'OCu', expected a list"),
        ("graph.k", "12", "model.json: graph.k is '12', expected a whole number"),
        ("graph.cutoff", float("nan"), "cutoff is nan"),
        ("graph.kk", 12, "graph has an unknown key 'kk'"),
        ("network", "transformer", "'transformer' is not one of"),
        ("network", ["cgcnn"], "network is ['cgcnn'], expected text"),
        ("sizes.hidden", "16", "refuses its sizes {'hidden': '16'"),
        ("sizes.hidden", 17, "the sizes in model.json ask for (17, "),
        ("sizes.hidden", -1, "sizes.hidden is -1"),
        ("sizes.cutoff", float("nan"), "sizes.cutoff is nan"),
        ("sizes.cutoff", 0.0, "ZeroDivisionError"),
        ("sizes.depth", 3, "refuses its sizes"),
        ("weights_sha256", None, "weights_sha256 is None"),
        ("format", "1", "format is '1'"),
    ],
)
def test_a_number_out_of_range_in_model_json_is_named(folder: Path, keys: str, value: object, message: str) -> None:
    change(folder / "member-1/model.json", put(keys, value))
    assert message in refused(folder)


@pytest.mark.parametrize("sizes", [{"layers": 10**6}, {"layers": 4000}, {"bins": 10**9}, {"hidden": 4096}])
def test_sizes_are_held_against_the_header_before_anything_is_allocated(folder: Path, sizes: dict[str, int]) -> None:
    before = memory.used(torch.device("cpu"))
    change(folder / "member-0/model.json", lambda described: described["sizes"].update(sizes))
    peak = memory.peak(torch.device("cpu"), lambda: refused(folder))
    assert peak - before < 200 * 2**20


def rewrite(folder: Path, change_it: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the weights of member 0, with the digest that fits."""
    tensors = load((folder / "member-0/weights.safetensors").read_bytes())
    change_it(tensors)
    replace_weights(folder, save(tensors))


def replace_weights(folder: Path, content: bytes) -> None:
    (folder / "member-0/weights.safetensors").write_bytes(content)
    change(folder / "member-0/model.json", put("weights_sha256", hashlib.sha256(content).hexdigest()))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_weights_that_are_no_numbers_are_refused(folder: Path, value: float) -> None:
    rewrite(folder, lambda tensors: tensors["layers.0.source.weight"][3].fill_(value))
    assert "layers.0.source.weight has numbers from" in refused(folder)


def test_integers_under_the_name_of_weights_are_refused(folder: Path) -> None:
    rewrite(folder, lambda t: t.update({"embed.bias": t["embed.bias"].to(torch.int64)}))
    assert "embed.bias is I64, expected BF16 or F16 or F32 or F64" in refused(folder)


def test_negative_variances_and_foreign_tensors_are_refused(folder: Path) -> None:
    rewrite(folder, lambda t: t["layers.0.norm.running_var"].neg_())
    assert "layers.0.norm.running_var has numbers from -1" in refused(folder)
    rewrite(folder, lambda t: t.update({"extra": torch.zeros(3)}))
    assert "has a tensor 'extra'" in refused(folder)


def _huge_header(_: bytes) -> bytes:
    return (10**15).to_bytes(8, "little") + b"{}"


def _false_shape(content: bytes) -> bytes:
    size = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + size])
    entries["embed.bias"]["shape"] = [10**12]
    stated = json.dumps(entries).encode()
    return len(stated).to_bytes(8, "little") + stated + content[8 + size :]


@pytest.mark.parametrize(
    "made",
    [
        lambda _: pickle.dumps({"a": 1}),
        lambda _: b"",
        lambda _: b"\x02",
        lambda content: content[:5000],
        lambda content: content[: int.from_bytes(content[:8], "little") + 20],
        lambda content: content + b"\0\0\0\0",
        lambda _: (20).to_bytes(8, "little") + b"[" * 20,
        lambda _: (100_000).to_bytes(8, "little") + b"[" * 100_000,
        lambda _: (2).to_bytes(8, "little") + b"{}",
        _huge_header,
        _false_shape,
    ],
)
def test_a_file_that_is_no_whole_safetensors_file_costs_one_line(folder: Path, made: Callable[[bytes], bytes]) -> None:
    replace_weights(folder, made((folder / "member-0/weights.safetensors").read_bytes()))
    assert "member-0/weights.safetensors" in refused(folder)


@pytest.mark.parametrize("name", ["ensemble.json", "member-1/model.json"])
def test_no_flipped_bit_in_the_json_files_changes_a_prediction(name: str, folder: Path) -> None:
    """Either the file is refused, or it says the same."""
    path, before = folder / name, Ensemble.load(folder)
    content = path.read_bytes()
    rng = np.random.default_rng(17)
    refusals = []
    for place, bit in zip(rng.integers(0, len(content), 60), rng.integers(0, 8, 60), strict=True):
        broken = bytearray(content)
        broken[place] ^= 1 << int(bit)
        path.write_bytes(broken)
        try:
            now = Ensemble.load(folder)
        except (ValueError, FileNotFoundError) as error:
            refusals.append(str(error))
        else:
            assert (now.calibration, now.weights, now.properties) == (before.calibration, {}, before.properties)
            assert [m.elements for m in now.members] == [m.elements for m in before.members]
    assert len(refusals) > 50
    assert not any("\n" in message for message in refusals)


def test_a_changed_fact_is_refused_until_it_is_sealed(folder: Path) -> None:
    change(folder / "ensemble.json", put("calibration.tc.quantile", 2.5))
    assert "ensemble.json or a model.json of" in refused(folder)
    stored.seal(folder)
    assert Ensemble.load(folder).calibration["tc"].quantile == 2.5
    change(folder / "member-1/model.json", put("properties.0.center", 0.75))
    assert "is damaged or was changed" in refused(folder)


def test_an_ensemble_from_before_the_digest_still_loads(folder: Path) -> None:
    change(folder / "ensemble.json", lambda described: described.pop("sha256"))
    assert Ensemble.load(folder).name == "test"


@pytest.mark.parametrize("text", ['{"name": 1, "name": 2}', "[1]", "[" * 100_000, "\xff", "9" * 5000])
def test_json_that_is_no_plain_object_costs_one_line(folder: Path, text: str) -> None:
    (folder / "ensemble.json").write_bytes(text.encode("latin-1"))
    assert "ensemble.json" in refused(folder)


def test_an_infinite_interval_is_not_written(folder: Path) -> None:
    two = calibration.fit(np.array([1.0, 2.0]), np.array([1.5, 2.5]), np.array([0.1, 0.2]), 0.9)
    with pytest.raises(ValueError, match="2 calibration crystals are too few for intervals at level 0.9"):
        stored.write(folder, "test", MEMBERS, {"tc": two}, {})


def test_facts_that_are_not_finite_are_written_as_null(folder: Path) -> None:
    stored.write(folder, "test", MEMBERS, {"tc": Calibration(0.9, 2.0, 0.5, 100)}, {"r2": float("nan"), "by": {9: 1}})
    assert json.loads((folder / "ensemble.json").read_text())["r2"] is None
    assert Ensemble.load(folder).facts == {"r2": None, "by": {"9": 1}}
