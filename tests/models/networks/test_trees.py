"""Trees: the numbers of scikit-learn, medians that honour weights, and arrays that are whole trees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from assay.featurize import composition
from assay.models.networks import registry
from assay.models.networks.batch import Compositions
from assay.models.networks.forest import arrays
from assay.models.networks.forest.arrays import DECISIONS, Forest, Packed
from assay.models.networks.trees import Trees
from assay.models.target import LOG_VARIANCE
from assay.models.training import forests
from assay.sources.crystals import Crystals

sklearn = pytest.importorskip("sklearn.ensemble", reason="needs scikit-learn: pip install assay[train]")
SMALL = {"trees": 12, "max_features": 0.3, "min_leaf": 2}


@pytest.fixture(scope="module")
def rows(crystals: Crystals) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, scaled targets and weights of real crystals; no two have the same composition."""
    features = composition.features(crystals.composition())
    _, first = np.unique(features, axis=0, return_index=True)
    first.sort()
    target = crystals.columns["e_form"][first].astype(np.float32)
    weight = np.random.default_rng(0).uniform(0.1, 2.0, len(first))
    return features[first], target, weight


def fitted(rows: Any, seed: int = 0, **sizes: Any) -> Trees:
    features, target, weight = rows
    return forests.fit(features, {"y": target}, weight, {**SMALL, **sizes}, seed)


def table(features: np.ndarray) -> Compositions:
    """What trees read: no shares."""
    return Compositions(torch.from_numpy(features), torch.empty(len(features), 0))


def told(trees: Trees, features: np.ndarray) -> np.ndarray:
    return trees(table(features))["y"].numpy()


def slow(forest: Forest, row: np.ndarray, decision: str) -> float:
    """Walk down one by one, and sort."""
    pairs = []
    for root in forest.root:
        at = int(root)
        while at >= 0:
            node = forest.node[at]
            right = row[node["feature"]] > node["threshold"]
            at = int(node["left"] + node["further"]) if right else int(node["left"])
        held = slice(forest.leaf_ptr[-1 - at], forest.leaf_ptr[-at])
        pairs += [(float(v), float(w) / len(forest.root)) for v, w in zip(forest.value[held], forest.share[held])]
    values, weights = (np.array(part) for part in zip(*sorted(pairs)))
    reached = np.cumsum(weights)
    if decision == "median":
        place = int(np.searchsorted(reached, 0.5 - 1e-6))
        return float((values[place] + values[place + 1]) / 2 if abs(reached[place] - 0.5) < 1e-6 else values[place])
    low, high = (0.25, 0.75) if decision == "interquartile-mean" else (0.0, 1.0)
    parts = np.clip(reached, low, high) - np.clip(reached - weights, low, high)
    return float((parts * values).sum() / parts.sum())


@pytest.mark.parametrize("sizes", [{"min_leaf": 1}, {"min_leaf": 5}, {"max_features": 0.1}, {"splits": "best"}])
def test_the_mean_is_what_scikit_learn_predicts(rows: Any, sizes: dict[str, Any]) -> None:
    features, target, weight = rows
    unique, first = np.unique(np.column_stack([features, target]), axis=0, return_index=True)
    shape = {**SMALL, **sizes}
    kind = sklearn.RandomForestRegressor if shape.get("splits") == "best" else sklearn.ExtraTreesRegressor
    model = kind(
        n_estimators=shape["trees"], min_samples_leaf=shape["min_leaf"], max_features=shape["max_features"],
        bootstrap=False, random_state=3,
    ).fit(unique[:, :-1], unique[:, -1], sample_weight=weight[first].astype(np.float32))  # fmt: skip
    new = np.concatenate([features, features[:-1] / 2 + features[1:] / 2])  # known and unknown rows
    assert abs(told(fitted(rows, 3, decision="mean", **sizes), new) - model.predict(new)).max() < 1e-6


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("sizes", [{"min_leaf": 1}, {"min_leaf": 4}, {"bootstrap": True, "splits": "best"}])
def test_decisions_are_those_of_a_slow_reference(rows: Any, sizes: dict[str, Any], decision: str) -> None:
    trees = fitted(rows, decision=decision, **sizes)
    new = rows[0][:-1] / 2 + rows[0][1:] / 2
    grown = next(iter(trees.heads.heads.values())).grown()
    wanted = [slow(grown, row, decision) for row in new]
    np.testing.assert_allclose(told(trees, new), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("splits", ["random", "best"])
def test_resampled_trees_differ_and_know_some_rows_only(rows: Any, splits: str) -> None:
    grown = fitted(rows, bootstrap=True, splits=splits, min_leaf=1).heads.heads["y"]
    known = np.split(grown.entry.numpy(), SMALL["trees"])  # as many draws as rows
    shares = [len(np.unique(part)) / len(rows[0]) for part in known]
    assert 0.55 < min(shares) <= max(shares) < 0.71  # 1 - 1/e
    assert len({part.tobytes() for part in known}) == len(known)


def test_a_heavy_row_moves_the_median() -> None:
    """Counted by rows the median is 0; three light zeros weigh less than one row of value 5."""
    features, target = np.zeros((4, 3), np.float32), np.array([0, 0.1, 0.2, 5], np.float32)
    trees = forests.fit(features, {"y": target}, np.array([1.0, 1.0, 1.0, 4.0]), {"trees": 3}, 0)
    assert told(trees, features[:1]) == pytest.approx(5.0)


def test_two_equal_halves_share_the_median() -> None:
    features, target = np.zeros((2, 3), np.float32), np.array([1, 3], np.float32)
    assert told(forests.fit(features, {"y": target}, np.ones(2), {"trees": 3}, 0), features[:1]) == pytest.approx(2.0)


def test_equal_rows_count_once_with_the_sum_of_their_weights(rows: Any) -> None:
    features, target, weight = rows
    twice = np.concatenate([features, features]), np.concatenate([target] * 2), np.concatenate([weight / 2] * 2)
    new = features[:-1] / 2 + features[1:] / 2
    np.testing.assert_array_equal(told(fitted(twice), new), told(fitted(rows), new))


def test_the_order_of_rows_changes_no_byte_and_the_seed_does(rows: Any) -> None:
    order = np.random.default_rng(1).permutation(len(rows[0]))
    states = [fitted(part, seed).state_dict() for part, seed in ((rows, 0), ([p[order] for p in rows], 0), (rows, 1))]
    parts = [[state[f"heads.heads.y.{name}"] for name in ("kind", "feature", "threshold", "entry")] for state in states]
    assert all(torch.equal(a, b) for a, b in zip(parts[0], parts[1], strict=True))
    assert not torch.equal(parts[0][2][:50], parts[2][2][:50])


def test_neighbours_in_a_batch_do_not_matter(rows: Any) -> None:
    trees, new = fitted(rows, variance=True), rows[0][:-1] / 2 + rows[0][1:] / 2
    together = trees.look(table(new))
    for k in (0, 7, len(new) - 1):
        alone = trees.look(table(new[k : k + 1]))
        assert torch.equal(alone[0][0], together[0][k])
        assert all(alone[1][name][0] == together[1][name][k] for name in ("y", "y" + LOG_VARIANCE))


def test_the_variance_is_that_of_the_leaves(rows: Any) -> None:
    """With one row in each leaf it is that of one value per tree."""
    features = rows[0]
    trees = fitted(rows, min_leaf=1, variance=True, trees=40)
    said = trees(table(features))["y" + LOG_VARIANCE].exp().numpy()
    assert (said >= np.exp(-10) * 0.99).all()  # a training row reaches its own leaf in every tree
    assert np.median(said) < 1e-4
    new = features[:-1] / 2 + features[1:] / 2
    grown = trees.heads.heads["y"].grown()
    each = grown.value[grown.leaf_ptr[grown.reach(new).leaf]]
    found = trees(table(new))["y" + LOG_VARIANCE].exp().numpy()
    np.testing.assert_allclose(found, np.maximum(each.var(axis=1), np.exp(-10)), rtol=1e-4)


def test_a_gap_stands_for_the_median_of_training(rows: Any) -> None:
    features, target, weight = rows
    holed = features.copy()
    holed[::7, 3] = np.nan
    holed[:, 5] = np.nan  # known nowhere
    trees = forests.fit(holed, {"y": target}, weight, SMALL, 0)
    filled = np.where(np.isnan(holed), np.nanmedian(holed[:, 3]), holed)
    filled[:, 5] = 0
    np.testing.assert_array_equal(told(trees, holed), told(trees, filled))


@pytest.mark.parametrize(("half", "most"), [(False, 9.0), (True, 7.5)])
def test_a_tree_takes_few_bytes_per_training_row(rows: Any, half: bool, most: float) -> None:
    state = fitted(rows, min_leaf=1, half=half).heads.state_dict()
    of_trees = [part for name, part in state.items() if not name.endswith(("value", "weight"))]
    size = sum(part.numel() * part.element_size() for part in of_trees)
    assert size / SMALL["trees"] / len(rows[0]) < most


@pytest.mark.parametrize("nodes", [1, 3, 4, 5, 200])
def test_codes_are_squeezed_and_read_again(nodes: int) -> None:
    code = np.random.default_rng(nodes).choice([0, 1, 6, 7, 8, 9, 10, 65535], nodes).astype(np.uint16)
    kind, feature, large = arrays.squeeze(code, 7)
    assert len(kind) == -(-nodes // 4)
    np.testing.assert_array_equal(arrays.codes(nodes, kind, feature, large, 7), code)


def test_squeezed_codes_that_do_not_fit_together_are_refused() -> None:
    kind, feature, large = arrays.squeeze(np.array([1, 0, 9, 7, 7, 12], np.uint16), 7)
    for changed in (
        (kind[:1], feature, large),
        (kind, feature[:0], large),
        (kind, np.append(feature, feature).astype(np.uint16), large),
        (kind, feature + np.uint16(6), large),
        (kind, feature, large[:0]),
        (kind, feature, np.array([2], np.uint16)),
        (kind, feature, np.array([65535], np.uint16)),
        (np.array([0, 0], np.uint8), feature, large),
        (np.array([], np.uint8), feature, large),
        (np.append(kind, kind[:1]), feature, large),
        (kind | np.array([0, 0x40], np.uint8), feature, large),  # beyond the last node
    ):
        with pytest.raises(ValueError, match="splits and|a split asks|large leaves hold"):
            arrays.codes(6, *changed, 7)


@pytest.mark.parametrize("sizes", [{"min_leaf": 1}, {"min_leaf": 4}, {"bootstrap": True}, {"splits": "best"}])
def test_halved_thresholds_divide_the_training_rows_as_before(rows: Any, sizes: dict[str, Any]) -> None:
    full, half = (fitted(rows, half=half, **sizes) for half in (False, True))
    grown = [trees.heads.heads["y"].grown() for trees in (full, half)]
    if not sizes.get("bootstrap"):  # rows that a tree has not drawn may go elsewhere
        np.testing.assert_array_equal(grown[0].reach(rows[0]).leaf, grown[1].reach(rows[0]).leaf)
        np.testing.assert_array_equal(told(full, rows[0]), told(half, rows[0]))
    state = half.heads.heads["y"]
    assert state.threshold.dtype == torch.float16
    assert len(state.exact) < 0.2 * len(state.threshold)
    new = rows[0][:-1] / 2 + rows[0][1:] / 2
    gap = np.abs(told(full, new) - told(half, new))
    assert np.median(gap) < 0.1
    thresholds = [one.node["threshold"] for one in grown]
    assert (thresholds[0] != thresholds[1]).any()


def test_what_16_bits_cannot_hold_is_kept_exactly() -> None:
    """Rows nearer to each other than numbers of 16 bits, and rows beyond the largest of them."""
    near = np.float32(1) + np.arange(40, dtype=np.float32) * np.float32(1e-5)
    features = np.concatenate([near, np.float32(1e5) + np.arange(40, dtype=np.float32)])[:, None].repeat(2, axis=1)
    target = np.arange(80, dtype=np.float32)
    trees = forests.fit(features, {"y": target}, np.ones(80), {"trees": 5, "half": True}, 0)
    np.testing.assert_array_equal(told(trees, features), target)
    assert len(trees.heads.heads["y"].exact) > 5 * 60


GOOD = Packed(
    code=np.array([1, 0, 4, 3, 3, 3], np.uint16),  # (split 1: (split 0: leaf of 2, leaf), leaf), and a tree of one leaf
    threshold=np.array([0.5, 0.25], np.float32),
    entry=np.array([0, 1, 2, 0, 1], np.uint16),
    value=np.array([1, 2, 3], np.float32),
    weight=np.array([1, 1, 1], np.float32),
)


def test_packed_trees_are_read_as_they_were_meant() -> None:
    forest = arrays.unpack(GOOD, 2, 3)
    rows = np.array([[0.2, 0.5, 0], [0.3, 0.5, 0], [0, 0.6, 0]], np.float32)
    np.testing.assert_allclose(forest.predict(rows, "mean"), [(1.5 + 2) / 2, (3 + 2) / 2, (1 + 2) / 2])


@pytest.mark.parametrize(
    "part",
    [
        {"code": GOOD.code[:-1]},  # a tree is missing
        {"code": np.array([1, 0, 4, 3, 3], np.uint16)},
        {"code": np.array([1, 0, 4, 3, 1, 3], np.uint16)},  # a split without an end
        {"code": np.array([3, 4, 4, 0, 1, 3], np.uint16)},  # ends before its last split
        {"code": np.array([1, 0, 4, 3, 3, 65535], np.uint16)},  # a leaf beyond the entries
        {"code": np.array([1, 2, 4, 3, 3, 3], np.uint16), "threshold": np.array([0.5], np.float32)},
        {"threshold": np.array([0.5, np.nan], np.float32)},
        {"threshold": np.array([0.5, np.inf], np.float32)},
        {"entry": np.array([0, 1, 2, 0, 3], np.uint16)},
        {"entry": np.array([0, 1, 2, 0, -1], np.int32)},
        {"entry": np.array([0, 1, 2, 0], np.uint16)},
        {"value": np.array([1, 2, np.nan], np.float32)},
        {"weight": np.array([1, 0, 1], np.float32)},
        {"weight": np.array([1, -1, 1], np.float32)},
        {"value": np.empty(0, np.float32), "weight": np.empty(0, np.float32)},
    ],
)
def test_arrays_that_are_no_whole_trees_are_refused(part: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        arrays.unpack(Packed(**{**vars(GOOD), **part}), 2, 3)
    assert "\n" not in str(caught.value)


def test_any_bytes_are_refused_or_walked_to_an_end() -> None:
    """Whatever the codes are, unpacking ends, and what it accepts predicts a number for every row."""
    rng, rows = np.random.default_rng(5), np.random.default_rng(6).normal(size=(9, 3)).astype(np.float32)
    accepted = 0
    for _ in range(3000):
        splits, trees = int(rng.integers(0, 6)), int(rng.integers(1, 4))
        code = rng.choice([0, 1, 2, 3, 3, 3, 4], 2 * splits + trees).astype(np.uint16)
        count = int(np.maximum(code.astype(int) - 2, 0).sum())
        thresholds = rng.normal(size=splits).astype(np.float32)
        entry = rng.integers(0, 3, count).astype(np.uint16)
        made = Packed(code, thresholds, entry, GOOD.value, GOOD.weight)
        try:
            forest = arrays.unpack(made, trees, 3)
        except ValueError:
            continue
        accepted += 1
        for decision in DECISIONS:
            assert np.isfinite(forest.predict(rows, decision)).all()
    assert accepted > 50


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"trees": 0}, "trees is 0"),
        ({"splits": "worst"}, "splits is 'worst', expected random or best"),
        ({"max_features": 0.0}, "max_features is 0.0"),
        ({"max_features": 1.5}, "max_features is 1.5"),
        ({"min_leaf": 0}, "min_leaf is 0"),
        ({"decision": "mode"}, "decision is 'mode', expected one of median"),
        ({"counts": [[1, 2]]}, "expected five numbers for each of 1"),
    ],
)
def test_sizes_out_of_range_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        registry.create("trees", 4, ["y"], **sizes)


def test_thresholds_of_64_bits_are_rounded_to_the_side_that_decides_alike() -> None:
    """Neighbouring numbers of 32 bits with a threshold between them that 32 bits cannot hold."""
    below = np.random.default_rng(2).uniform(0.5, 1, 2000).astype(np.float32)
    above = np.nextafter(below, np.float32(np.inf))
    features = np.repeat(np.concatenate([below, above])[:, None], 2, axis=1)
    target = np.concatenate([np.zeros(2000), np.ones(2000)]).astype(np.float32)
    trees = forests.fit(
        features, {"y": target}, np.ones(4000), {"trees": 2, "max_features": 1.0, "decision": "mean"}, 0
    )
    unique = np.unique(np.column_stack([features, target]), axis=0)
    model = sklearn.ExtraTreesRegressor(n_estimators=2, max_features=1.0, random_state=0)
    model.fit(unique[:, :-1], unique[:, -1])
    exact = np.concatenate([tree.tree_.threshold for tree in model.estimators_])
    assert (exact != exact.astype(np.float32)).any()
    np.testing.assert_allclose(told(trees, features), model.predict(features), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"trees": 2.5}, "trees is 2.5, expected a whole number"),
        ({"min_leaf": "two"}, "min_leaf is 'two', expected a whole number"),
        ({"min_leaf": True}, "min_leaf is True, expected a whole number"),
        ({"half": "maybe"}, "half is 'maybe', expected true or false"),
        ({"max_features": True}, "max_features is True, expected a number"),
        ({"max_features": 2}, "max_features is 2, expected a share"),
    ],
)
def test_sizes_of_another_type_are_refused(sizes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Trees(4, ["y"], **sizes)


def test_a_share_of_one_is_all_features_whether_written_as_1_or_as_1_0(rows: Any) -> None:
    whole, share = (fitted(rows, max_features=value, trees=5).state_dict() for value in (1, 1.0))
    assert all(torch.equal(whole[name], share[name]) for name in share)
