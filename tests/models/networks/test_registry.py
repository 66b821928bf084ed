"""A network from outside the package: one class and one line of the registry, and everything works with it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assay.featurize.graphs import GraphSpec
from assay.featurize.pictures.scene import ViewSpec
from assay.models.ensemble import checkpoint, explain, stored
from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.ensemble import Ensemble
from assay.models.evaluation.split import SplitSpec
from assay.models.networks import registry
from assay.models.networks.batch import Batch
from assay.models.networks.kinds import ANGLES, GRAPHS
from assay.models.networks.layers import GraphPool, Network, PropertyHeads
from assay.models.networks.registry import Entry
from assay.models.target import Property
from assay.models.training import fit, prepare, train
from assay.models.training.recipe import MemberSpec, Recipe, Schedule, Start, Task
from assay.sources.crystals import Crystals

ENERGY = Property("formation_energy", "eV/atom")
ROWS = 24


class Toy(Network):
    """Pools what the atoms are, and looks at no bond."""

    def __init__(
        self,
        features: int,
        properties: Sequence[str],
        *,
        hidden: int = 32,
        dropout: float = 0.0,
        variance: bool = False,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(features, hidden)
        self.pool = GraphPool()
        self.heads = PropertyHeads(2 * hidden, hidden, properties, dropout, variance=variance)

    def encode(self, batch: Batch) -> Tensor:
        return self.pool(torch.relu(self.embed(batch.x)), batch)

    def stages(self) -> list[nn.Module]:
        return [self.embed]


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.MODELS, "toy", Entry(f"{__name__}:Toy", GRAPHS))


def recipe(**schedule: int) -> Recipe:
    members = MemberSpec("toy", 1, {"hidden": 48}), MemberSpec("toy", 2)
    how = Schedule(**{"batch_size": 8, "epochs": 120, "patience": 120, "learning_rate": 1e-2, **schedule})
    return Recipe("t", (Task("mp-formation-energy", ENERGY),), members, schedule=how)


def trained(plan: Recipe, crystals: Crystals, folder: Path) -> np.ndarray:
    """Members of the plan in the folder, which have learned a few crystals by heart; returns the known values."""
    target = crystals.columns["e_form"][:ROWS].astype(np.float64)
    rows = np.arange(ROWS)
    for k, member in enumerate(plan.members):
        read = prepare.inputs(crystals[:ROWS], plan.reads(member), plan.quotient)
        material = train.Material(read, target[:, None], np.ones(ROWS), rows, rows)
        train.member(plan, k, material, folder / f"member-{k}", {})
    return target


def test_a_network_from_outside_learns_is_saved_and_predicts_in_an_ensemble(crystals: Crystals, tmp_path: Path) -> None:
    target = trained(recipe(), crystals, tmp_path)
    stored.write(tmp_path, "toys", ["member-0", "member-1"], {ENERGY.name: Calibration(0.9, 2.0, 0.5, 9, 1.0)}, {})
    loaded = Ensemble.load(tmp_path)
    assert [type(member.network) for member in loaded.members] == [Toy, Toy]
    assert [member.sizes for member in loaded.members] == [{"hidden": 48}, {}]
    found, refused = loaded.predict(crystals[:ROWS])
    assert refused == []
    error = np.abs(found.values[ENERGY.name].mean - target).mean()
    assert error < 0.2 * np.abs(target - np.median(target)).mean()
    explained = explain.attribute(loaded.members[0].network, explain.read(loaded.members[0], crystals[:1]), ENERGY.name)
    assert len(explained.sites) == crystals.nsites[0]
    assert abs(explained.error) < 0.05


def test_a_network_from_outside_starts_from_trained_weights_of_its_kind(crystals: Crystals, tmp_path: Path) -> None:
    trained(recipe(epochs=2), crystals, tmp_path / "first")
    plan = replace(recipe(epochs=2), start=Start(str(tmp_path / "first"), freeze="head-only"))
    trained(plan, crystals, tmp_path / "second")
    for k in range(2):
        before, after = (checkpoint.read(tmp_path / run / f"member-{k}").network for run in ("first", "second"))
        assert torch.equal(before.embed.weight, after.embed.weight)
        assert not torch.equal(next(before.heads.parameters()), next(after.heads.parameters()))


def test_its_entry_says_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = recipe()
    assert plan.reads(plan.members[0]) == GraphSpec(angles=False)
    monkeypatch.setitem(registry.MODELS, "toy", Entry(f"{__name__}:Toy", ANGLES))
    assert plan.reads(plan.members[0]) == GraphSpec(angles=True)


@pytest.mark.usefixtures("data")
def test_too_few_calibration_rows_are_refused_before_training(tmp_path: Path) -> None:
    plan = replace(recipe(), limit=60, split=SplitSpec(calibration=0.1))
    with pytest.raises(ValueError, match="are too few for intervals at level 0.9; raise split.calibration"):
        fit.run(plan, tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_network_of_its_name_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(registry.MODELS, "toy")
    with pytest.raises(ValueError, match="network 'toy' is not one of"):
        registry.create("toy", 4, ["y"])


def test_a_size_it_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="network 'toy' refuses its sizes {'depth': 3}"):
        registry.create("toy", 4, ["y"], depth=3)


def test_networks_that_learn_without_known_values_are_not_mixed_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.MODELS, "own-loss", Entry(f"{__name__}:Toy", GRAPHS, labelled=False))
    with pytest.raises(ValueError, match="have a recipe of their own"):
        replace(recipe(), members=(MemberSpec("toy", 1), MemberSpec("own-loss", 2)))


def test_specs_know_the_shape_of_what_a_network_reads() -> None:
    assert GraphSpec(atom_features="properties-identity-v1").shape == GraphSpec().shape + 103
    assert ViewSpec(encoding="physics", size=64).shape == (3, 64)
