"""Training on Ray and the search for hyper-parameters: what is refused, what resumes, what no trial may see."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
import yaml

from assay.screening.settings import bundled
from assay.screening.settings.exits import Exit, Failure
from assay.screening.training import design, progress, recipes, search, trials, tuning

ROOT = Path(__file__).resolve().parents[3]
MEMBER: dict[str, Any] = {"network": "cgcnn", "sizes": {"hidden": 8, "layers": 1, "bins": 8}}
RECIPE: dict[str, Any] = {
    "name": "small",
    "tasks": [{"dataset": "3dsc-tc", "property": {"name": "tc", "unit": "K", "minimum": 0.0}}],
    "graph": {"neighbours": "nearest", "k": 8},
    "split": {"folds": 3, "seed": 0},
    "limit": 300,
    "schedule": {"epochs": 2, "batch_size": 64, "patience": 40},
    "members": [MEMBER | {"seed": k, "sizes": dict(MEMBER["sizes"])} for k in range(2)],
}
SPACE = {"schedule.learning_rate": {"loguniform": [1e-4, 1e-2]}, "members.sizes.hidden": {"choice": [8, 16]}}


@pytest.fixture(autouse=True)
def by_value() -> None:
    """Workers cannot import this file: send its functions along."""
    pytest.importorskip("ray").cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def make_search(tmp_path: Path) -> Callable[..., search.Search]:
    """A small search, with keys replaced."""

    def make(recipe: dict[str, Any] | None = None, **keys: Any) -> search.Search:
        path = tmp_path / "recipe.yaml"
        path.write_text(recipes.dump(RECIPE | (recipe or {})))
        config = tmp_path / "tune.yaml"
        config.write_text(yaml.safe_dump({"recipe": str(path), "space": SPACE, "trials": 3} | keys))
        return search.read(config).load()

    return make


# --- recipes
# ----------------------------------------------------------------------------------------------------------


def test_a_path_below_members_is_that_of_every_member() -> None:
    changed = recipes.vary(RECIPE, {"members.sizes.hidden": 32, "schedule.learning_rate": 1e-5})
    assert [member["sizes"]["hidden"] for member in changed["members"]] == [32, 32]
    assert recipes.check(changed, "here").schedule.learning_rate == 1e-5
    assert RECIPE["members"][0]["sizes"]["hidden"] == 8


def test_a_recipe_survives_being_written_out(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipes.dump(RECIPE, ["a comment"]))
    assert recipes.load(path) == recipes.check(RECIPE, "here")
    assert path.read_text().startswith("# a comment\n")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("members.sizes.hiden", 8, r"unknown key 'members\.0\.sizes\.hiden'; did you mean 'hidden'\?"),
        ("members.network", "cgcn", r"no network 'cgcn'; did you mean 'cgcnn'\?"),
        ("members.sizes.hidden", "wide", r"members\.0\.sizes: "),
        ("schedule.learning_rat", 1, r"unknown key 'schedule\.learning_rat'; did you mean 'learning_rate'\?"),
    ],
)
def test_what_a_recipe_cannot_be_is_told(path: str, value: Any, told: str) -> None:
    with pytest.raises(Failure, match=told) as caught:
        recipes.check(recipes.vary(RECIPE, {path: value}), "here")
    assert caught.value.code is Exit.CONFIG


# --- what a search varies
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"space": {"schedule.learning_rat": {"choice": [1e-3]}}}, "did you mean 'learning_rate'"),
        ({"space": {"members.sizes.layer": {"choice": [1]}}}, "did you mean 'layers'"),
        ({"space": {"shedule.clip": {"choice": [1.0]}}}, "did you mean 'schedule'"),
        ({"space": {"schedule.ema": {"uniform": [0.9, 1.0]}}}, r"schedule\.ema = 1\.0 does not fit the recipe"),
        ({"space": {"split.seed": {"integers": [0, 9]}}}, "split.seed cannot be varied: trials could not be compared"),
        ({"space": {"limit": {"integers": [10, 99]}}}, "limit cannot be varied"),
        ({"space": {"schedule.epochs": {"integers": [1, 9]}}}, "set `epochs` of the search instead"),
        ({"space": {"members.0.sizes.hidden": {"choice": [8]}}}, "a search varies all alike"),
        ({"space": {"schedule.clip": {"uniform": [2.0, 1.0]}}}, "expected the smaller end first"),
        ({"space": {"schedule.clip": {"loguniform": [0.0, 1.0]}}}, "expected ends above 0"),
        ({"space": {"schedule.clip": {"choice": [1.0], "uniform": [1.0, 2.0]}}}, "give exactly one of"),
        ({"space": {}}, "space"),
        ({"trails": 3}, "did you mean 'trials'"),
        ({"folds": 3}, "folds is 3, expected at most 2"),
        ({"recipe": {"cross_validation": {}}}, "cross_validation keeps no rows that a search can decide by"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused_before_it_starts(
    make_search: Callable[..., search.Search], keys: dict[str, Any], told: str
) -> None:
    with pytest.raises(Failure, match=told) as caught:
        make_search(**keys)
    assert caught.value.code is Exit.CONFIG


def test_what_a_trial_draws_depends_on_the_seed_and_its_number_alone(make_search: Callable[..., search.Search]) -> None:
    drawn = [make_search(trials=9).values(k) for k in range(9)]
    assert drawn[0] == {}
    assert drawn[:3] == [make_search(trials=3).values(k) for k in range(3)]
    assert drawn[1:] != [make_search(trials=9, seed=1).values(k) for k in range(1, 9)]
    rates = [values["schedule.learning_rate"] for values in drawn[1:]]
    assert len(set(rates)) == 8
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert {values["members.sizes.hidden"] for values in drawn[1:]} == {8, 16}


def test_a_range_reaches_all_of_itself() -> None:
    dice = np.random.default_rng(0)
    logarithms = [math.log10(search.Range(loguniform=[1e-4, 1.0]).draw(dice)) for _ in range(400)]
    assert -2.2 < np.mean(logarithms) < -1.8
    assert {search.Range(integers=[2, 4]).draw(dice) for _ in range(50)} == {2, 3, 4}
    assert 0.4 < np.mean([search.Range(uniform=[0.0, 1.0]).draw(dice) for _ in range(400)]) < 0.6


def test_a_folder_holds_one_search_and_may_get_more_trials(
    make_search: Callable[..., search.Search], tmp_path: Path
) -> None:
    folder = tmp_path / "search"
    make_search(trials=3).claim(folder)
    make_search(trials=30).claim(folder)
    for other in (make_search(seed=5), make_search({"limit": 299})):
        with pytest.raises(Failure, match=r"holds another search: .*(seed|limit).*only `trials` may change"):
            other.claim(folder)
    with pytest.raises(Failure, match="is not empty .* and holds no search"):
        make_search().claim(tmp_path)


def test_a_search_on_other_files_is_refused(
    make_search: Callable[..., search.Search], zoo: Path, tmp_path: Path
) -> None:
    begun, mine = tmp_path / "begun", tmp_path / "mine.parquet"
    shutil.copytree(zoo / "band-gap", begun)
    pl.DataFrame({"id": ["a"], "tc": [1.0]}).write_parquet(mine)
    members = [{"network": "cgcnn", "seed": k, "sizes": {"hidden": 64, "layers": 3, "bins": 40}} for k in range(2)]
    tasks = [{"dataset": f"{mine}#tc", "property": {"name": "tc", "unit": "K"}}]
    graph = {"neighbours": "nearest", "k": 12, "taper": 0.3, "atom_features": "properties-identity-v1"}
    recipe = {"tasks": tasks, "graph": graph, "start": {"folder": str(begun)}, "members": members}
    found = make_search(recipe, space={"schedule.clip": {"choice": [1.0]}})
    for _ in range(2):
        trials.hold_files(found, tmp_path)
    shutil.rmtree(begun / "member-0")
    shutil.copytree(begun / "member-1", begun / "member-0")
    with pytest.raises(Failure, match=r"other files \(members\.0\.start: was \w{16}, now \w{16}\); put the old"):
        trials.hold_files(found, tmp_path)
    (tmp_path / "files.json").unlink()
    trials.hold_files(found, tmp_path)
    pl.DataFrame({"id": ["a"], "tc": [2.0]}).write_parquet(mine)
    with pytest.raises(Failure, match=r"on other files \(tasks\.0\.dataset: was \w{16}, now \w{16}\)"):
        trials.hold_files(found, tmp_path)


# --- one trial
# --------------------------------------------------------------------------------------------------------


class Stop(Exception):
    """Raised in place of a kill."""


def stopping(told: list[dict[str, float]], after: int) -> Callable[[dict[str, float]], None]:
    def tell(row: dict[str, float]) -> None:
        told.append(row)
        if len(told) == after:
            raise Stop

    return tell


def test_a_trial_stopped_and_resumed_tells_what_an_unbroken_one_tells(
    make_search: Callable[..., search.Search], data: Path, tmp_path: Path
) -> None:
    small, whole, first, rest = make_search(folds=2), [], [], []
    trials.learn(small, tmp_path / "whole", 1, whole.append)
    with pytest.raises(Stop):
        trials.learn(small, tmp_path / "broken", 1, stopping(first, 3))
    assert trials.trial(small, tmp_path / "broken", 1).ended == "unfinished"
    trials.learn(small, tmp_path / "broken", 1, rest.append)
    scores = [row["validation_mae"] for row in whole]
    assert [row["step"] for row in whole] == [1, 2, 3, 4]
    assert [row["validation_mae"] for row in first] == scores[:3]
    assert [row["validation_mae"] for row in rest] == scores
    assert [row["validation_mae"] for row in trials.trial(small, tmp_path / "broken", 1).reported] == scores
    assert trials.trial(small, tmp_path / "broken", 1).ended == "finished"
    bests = [
        min(json.loads(line)["validation_mae"] for line in path.read_text().splitlines())
        for path in sorted((tmp_path / "whole").rglob("history.jsonl"))
    ]
    assert len(bests) == 2
    assert scores[-1] == pytest.approx(np.mean(bests))


def test_no_trial_sees_a_value_of_a_calibration_or_test_row(
    make_search: Callable[..., search.Search], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from assay.models.training import prepare, train

    seen: list[Any] = []
    monkeypatch.setattr(train, "member", lambda recipe, k, material, *rest, **more: seen.append((recipe, k, material)))
    trials.learn(make_search(folds=2), tmp_path, 1, lambda row: None)
    assert [k for _, k, _ in seen] == [0, 1]
    for recipe, k, material in seen:
        prepared = prepare.prepare(recipe)
        held = np.concatenate([prepared.split.test, prepared.split.calibration])
        assert len(held) > 20
        assert np.isfinite(prepared.target[held]).all()
        assert np.isnan(material.target[held]).all()
        assert not np.isin(held, [*material.train, *material.validation]).any()
        assert (material.target[material.train] == prepared.target[material.train]).all()
        assert (material.validation == prepared.split.validation(k)).all()


def test_values_the_training_refuses_are_a_failed_trial(
    make_search: Callable[..., search.Search], data: Path, tmp_path: Path
) -> None:
    trials.learn(make_search(metric="validation_r2"), tmp_path, 1, lambda row: None)
    found = trials.trial(make_search(), tmp_path, 1)
    assert found.ended == "failed"
    assert "metric 'validation_r2' is not one of a training's: epoch, loss" in found.reason


# --- the search on Ray
# ------------------------------------------------------------------------------------------------


def test_a_search_on_ray_gives_tables_and_a_recipe_and_is_not_done_twice(
    make_search: Callable[..., search.Search],
    data: Path,
    ray_cluster: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, small = tmp_path / "search", make_search(scheduler="none", trials=2)
    found = tuning.tune(small, folder, workers=2)
    assert sorted(trial.number for trial in found) == [0, 1]
    assert [trial.ended for trial in found] == ["finished"] * 2
    table = pl.read_parquet(folder / "trials.parquet")
    assert table["validation_mae"].is_sorted()
    assert pl.read_csv(folder / "trials.csv").columns == table.columns
    assert table["epochs"].to_list() == [2, 2]
    best = recipes.load(folder / "best.yaml")
    row = table.row(0, named=True)
    assert best.schedule.learning_rate == row["schedule.learning_rate"]
    assert {member.sizes["hidden"] for member in best.members} == {row["members.sizes.hidden"]}
    assert best.schedule.epochs == 2
    assert not list(folder.glob(".seen-*"))
    assert "next: assay train" in trials.lines(small, folder, found)[-1]

    monkeypatch.setattr(tuning, "connected", lambda *_: pytest.fail("trials that ended must not run again"))
    assert tuning.tune(small, folder, workers=2) == found


def write_trial(folder: Path, number: int, errors: list[float]) -> None:
    """A trial that ended after these validation errors."""
    path = trials.folder_of(folder, number) / "fold-0" / "history.jsonl"
    path.parent.mkdir(parents=True)
    rows = [{"epoch": k + 1, "validation_mae": error, "seconds": 1.0} for k, error in enumerate(errors)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    trials.end(folder, number, "finished")


def test_the_scheduler_remembers_what_earlier_runs_saw(
    make_search: Callable[..., search.Search], tmp_path: Path
) -> None:
    small = make_search({"schedule": {"epochs": 9}}, trials=6, grace=1)
    for number, error in enumerate([1.0, 2.0, 3.0, 4.0]):
        write_trial(tmp_path, number, [error] * 9)
    decisions = {}
    for error in (1.5, 3.5):
        scheduler = tuning.scheduler(small, tmp_path)
        new: Any = SimpleNamespace(trial_id="new")
        scheduler.on_trial_add(None, new)
        decisions[error] = scheduler.on_trial_result(None, new, {"step": 1, "validation_mae": error})
    assert decisions == {1.5: "CONTINUE", 3.5: "STOP"}


def test_a_stopped_trial_is_never_taken_for_the_best_while_one_finished(
    make_search: Callable[..., search.Search], tmp_path: Path
) -> None:
    small = make_search(epochs=7)
    write_trial(tmp_path, 0, [3.0, 2.0])
    write_trial(tmp_path, 1, [1.0])
    (trials.folder_of(tmp_path, 1) / "end.json").write_text('{"ended": "stopped"}')
    found = trials.write(small, tmp_path)
    assert [trial.ended for trial in found] == ["finished", "stopped", "unfinished"]
    assert recipes.load(tmp_path / "best.yaml").schedule.epochs == 2  # the recipe's own, not those of the search


# --- members on Ray
# ---------------------------------------------------------------------------------------------------


def note(folder: Path, name: str, deaths: int) -> None:
    """Write where it runs; die as often as asked before."""
    tries = len(list(folder.glob(f"{name}-try-*")))
    (folder / f"{name}-try-{tries}").touch()
    if tries < deaths:
        os._exit(1)
    import torch

    (folder / name).write_text(f"{os.getpid()} {torch.get_num_threads()} {os.environ['OMP_NUM_THREADS']}")


def test_calls_run_in_processes_of_ray_with_one_thread(ray_cluster: Any, tmp_path: Path) -> None:
    tuning.ray_pool(workers=2)(note, [(tmp_path, "a", 0), (tmp_path, "b", 0)])
    for name in "ab":
        pid, *threads = (tmp_path / name).read_text().split()
        assert int(pid) != os.getpid()
        assert threads == ["1", "1"]
    assert not list(tmp_path.glob(".seen-*"))


def test_a_call_whose_process_dies_is_made_again(ray_cluster: Any, tmp_path: Path) -> None:
    tuning.ray_pool(workers=1)(note, [(tmp_path, "a", 2)])
    assert (tmp_path / "a").exists()
    assert len(list(tmp_path.glob("a-try-*"))) == 3


def test_a_call_that_always_dies_ends(ray_cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "DEATHS", 2)
    with pytest.raises(Failure, match=r"died 2 times; .* go on with --resume"):
        tuning.ray_pool(workers=1)(note, [(tmp_path, "a", 99)])
    assert len(list(tmp_path.glob("a-try-*"))) == 2


def refuse(folder: Path) -> None:
    raise ValueError(f"not in {folder.name}")


def test_what_a_call_raises_is_raised_as_itself(ray_cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not in") as caught:
        tuning.ray_pool(workers=1)(refuse, [(tmp_path,)])
    assert type(caught.value) is ValueError


def test_gpus_that_nobody_has_are_told_and_not_waited_for(ray_cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no node has 1 CPUs and 1 GPUs for a training.* 1 nodes, 2 CPUs and 0 GPUs"):
        tuning.ray_pool(workers=1, gpus=1)(note, [(tmp_path, "a", 0)])


def test_a_node_that_does_not_see_the_output_says_so(tmp_path: Path) -> None:
    place = tuning.Place.here([tmp_path / "elsewhere" / ".seen-x"])
    with pytest.raises(Failure, match="does not see .*elsewhere of the driver; choose an --output that all nodes see"):
        place.enter()


def test_an_ensemble_trained_on_ray_has_the_weights_of_one_trained_here(
    data: Path, ray_cluster: Any, tmp_path: Path
) -> None:
    from assay.models.training import members

    recipe = recipes.check(RECIPE, "here")
    tuning.ray_pool(workers=2)(members.train_one, [(recipe, k, tmp_path / "ray") for k in range(2)])
    members.train_one(recipe, 1, tmp_path / "here")
    ours, theirs = (tmp_path / where / "member-1/weights.safetensors" for where in ("here", "ray"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert (tmp_path / "ray/member-0/model.json").is_file()


# --- progress
# ---------------------------------------------------------------------------------------------------------


def rows(*errors: float) -> list[dict[str, float]]:
    return [
        {"epoch": k + 1, "validation_mae": e, "seconds": 30.0, "structures_per_s": 1234.0} for k, e in enumerate(errors)
    ]


def test_progress_says_best_speed_and_time_left() -> None:
    told = progress.describe(rows(3.0, 2.0, math.nan), 10, "K")
    assert told == "best 2 K, 1,234 structures/s, at most 4 min left"


@pytest.fixture
def half_done(tmp_path: Path) -> Path:
    """Member 1 has learned two epochs, member 0 none."""
    path = tmp_path / "member-1" / "history.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(3.0, 2.0)))
    return tmp_path


def test_progress_is_read_from_the_logs_of_the_members(half_done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown(recipes.check(RECIPE, "here"), half_done):
        pass
    written = capsys.readouterr()
    assert written.err == "member 1: epoch 2 of 2, best 2 K, 1,234 structures/s, at most 0 s left\n"
    assert written.out == ""


def test_progress_counts_the_epochs_of_a_members_own_schedule(
    half_done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [RECIPE["members"][0], {**RECIPE["members"][1], "schedule": {"epochs": 4}}]
    with progress.shown(recipes.check({**RECIPE, "members": members}, "here"), half_done):
        pass
    assert capsys.readouterr().err == "member 1: epoch 2 of 4, best 2 K, 1,234 structures/s, at most 60 s left\n"


def test_progress_ends_with_the_training_that_fails(half_done: Path) -> None:
    with pytest.raises(Stop), progress.shown(recipes.check(RECIPE, "here"), half_done):
        raise Stop


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_bars_are_filled(half_done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with progress.shown(recipes.check(RECIPE, "here"), half_done):
        pass
    last = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", screen.getvalue()).replace("\r", "\n")
    assert re.search(r"member 0 .* 0/2", last)
    assert re.search(r"member 1 .* 2/2", last)


class Writer:
    """A writer of TensorBoard that keeps what it is given."""

    heard: ClassVar[list[Any]] = []

    def __init__(self, folder: str, **options: Any) -> None:
        self.name = Path(folder).name

    def add_scalar(self, name: str, value: float, step: int) -> None:
        Writer.heard.append((self.name, name, value, step))

    def close(self) -> None:
        Writer.heard.append((self.name, "closed"))


@pytest.fixture
def heard() -> Iterator[list[Any]]:
    Writer.heard.clear()
    yield Writer.heard
    Writer.heard.clear()


def test_every_number_of_every_epoch_becomes_one_event(
    half_done: Path, heard: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    board = ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.01)
    with progress.shown(recipes.check(RECIPE, "here"), half_done, tensorboard=True):
        time.sleep(0.2)  # the logs are read many times
    assert len(heard) == 7
    assert ("member-1", "validation_mae", 2.0, 2) in heard
    assert heard[-1] == ("member-1", "closed")


def test_without_tensorboard_its_events_are_refused(half_done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(Failure, match="pip install tensorboard"),
        progress.shown(recipes.check(RECIPE, "here"), half_done, tensorboard=True),
    ):
        pass


# --- the documentation
# ------------------------------------------------------------------------------------------------


def examples() -> list[dict[str, Any]]:
    """The YAML blocks of docs/training.md."""
    text = (ROOT / "docs" / "training.md").read_text()
    return [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]


def test_every_example_of_the_documentation_is_a_recipe_or_a_part_of_one_or_a_search(tmp_path: Path) -> None:
    wholes = 0
    for content in examples():
        if "space" in content:
            recipe = tmp_path / "recipe.yaml"
            recipe.write_text(recipes.dump(RECIPE))
            search.read(_written(tmp_path / "tune.yaml", content | {"recipe": str(recipe)})).load()
        elif "rows" in content:
            wanted = design.load(_written(tmp_path / "study.yaml", content))
            base = recipes.read(ROOT / "configs" / wanted.recipe)
            assert all(design.cell(wanted, base, *cell, tmp_path) for cell in design.trained(wanted))
        else:
            wholes += "tasks" in content
            recipes.check(content if "tasks" in content else RECIPE | content, "docs/training.md")
    assert len(examples()) == 15
    assert wholes == 5


def _written(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_search_of_the_repository_fits_a_recipe(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "configs" / "tune-tc.yaml").read_text())
    assert bundled.recipe(config["recipe"]).is_file()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipes.dump(RECIPE))
    found = search.read(ROOT / "configs" / "tune-tc.yaml", [f"recipe={recipe}"]).load()
    assert found.steps == 2
