"""Pages -> chunks: rows are conserved, and chunks depend on the crystals alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from assay.screening.campaign import fingerprint
from assay.screening.folder import balance, snapshot, stamp
from assay.screening.folder.balance import Balance
from assay.screening.folder.journal import Journal
from assay.screening.folder.ledger import Ledger
from assay.screening.pulling import filters
from assay.screening.pulling.steps import Portion, ShardEnd, Sharding, SourceEnd
from assay.screening.settings import yamlfile
from assay.screening.settings.choice import Filters
from assay.screening.settings.config import Campaign
from assay.screening.settings.exits import Exit, Failure
from assay.sources import prototypes, table
from assay.sources.crystals import Crystals
from assay.sources.databases.paging import Shard
from assay.sources.quarantine import Quarantined, Reason, Stage

ELEMENTS = [5, 8, 26, 41]


def cubic(names: list[int]) -> Crystals:
    """Simple cubic crystals; the id fixes the content."""
    n = len(names)
    return Crystals(
        ids=np.array([f"db/{name}" for name in names], dtype=np.str_),
        lattice=np.eye(3) * (2.5 + np.array(names).reshape(-1, 1, 1) / 50),
        site_ptr=np.arange(n + 1),
        frac=np.zeros((n, 3)),
        species_ptr=np.arange(n + 1),
        numbers=np.array([ELEMENTS[name % len(ELEMENTS)] for name in names], dtype=np.uint8),
        occupancy=np.ones(n, np.float32),
        columns={"gap": np.array([name / 10 for name in names])},
    )


def campaign(**keys: Any) -> Campaign:
    sources = [{"kind": "prototypes", "n": 1, "name": name} for name in ("one", "two")]
    return yamlfile.validate(Campaign, {"name": "t", "models": ["m"], "sources": sources, **keys}, "here")


def step(name: str, shard: int, number: int, good: list[int], bad: list[int], walk: int = 0) -> Portion:
    refused = [Quarantined(f"db/{b}" if b else "", "here", Stage.PULL, Reason.MALFORMED, "no") for b in bad]
    return Portion(name, shard, walk, number, table.to_table(cubic(good)), refused, len(good) + len(bad))


def committed(folder: Path, settings: Campaign, shards: dict[str, list[list[tuple[list[int], list[int]]]]]) -> Ledger:
    """A ledger after a pull: for every source its shards, for every shard its pages, each with good and bad ids."""
    ledger = Ledger(folder)
    journal = Journal(ledger, settings)
    for name, content in shards.items():
        journal.take(Sharding(name, [Shard("", None) for _ in content]))
        for shard, pages in enumerate(content):
            for number, (good, bad) in enumerate(pages):
                journal.take(step(name, shard, number, good, bad))
            journal.take(ShardEnd(name, shard, None, ""))
        journal.take(SourceEnd(name, len(content)))
    return ledger


def sealed(ledger: Ledger, settings: Campaign) -> Ledger:
    taken, columns = snapshot.taken_ids(settings), snapshot.Columns(ledger)
    for source, shard in snapshot.plan_order(ledger, settings):
        snapshot.seal(ledger, settings, (source, shard), snapshot.unique(ledger, source, shard, taken), columns)
    assert snapshot.sealed(ledger, settings)
    return ledger


some_ids = st.lists(st.integers(0, 30), max_size=12)
some_pages = st.lists(st.tuples(some_ids, st.lists(st.integers(0, 30), max_size=3)), max_size=3)
some_shards = st.lists(some_pages, max_size=3)


@settings(max_examples=40)
@given(one=some_shards, two=some_shards, size=st.integers(1, 9), low=st.none() | st.floats(0, 3))
def test_rows_are_conserved(one: Any, two: Any, size: int, low: float | None) -> None:
    chosen = campaign(chunk_size=size, filters={} if low is None else {"reported": {"gap": {"min": low}}})
    with tempfile.TemporaryDirectory() as folder:
        ledger = sealed(committed(Path(folder), chosen, {"one": one, "two": two}), chosen)
        counted = balance.take(ledger)  # raises when the balance is broken
        rows = [table.read(Path(folder) / chunk.path) for chunk in snapshot.chunks(ledger)]
        refused = snapshot.quarantined(ledger)
    pages = [page for shards in (one, two) for shard in shards for page in shard]
    good = {i for ids, _ in pages for i in ids}
    assert counted.received == sum(len(ids) + len(bad) for ids, bad in pages)
    assert {row.id for row in refused if row.id} >= {f"db/{i}" for _, bad in pages for i in bad if i} - {
        f"db/{i}" for i in good
    }
    assert sum(row.id == "" for row in refused) == sum(bad.count(0) for _, bad in pages)
    assert counted.quarantined == len(refused)
    assert counted.unique == len(good) + len(refused)
    kept = sorted(f"db/{i}" for i in good if low is None or i / 10 >= low)
    assert sorted(i for part in rows for i in part["id"].to_pylist()) == kept
    assert counted.pending == len(kept)
    assert counted.filtered == len(good) - len(kept)


def test_chunks_do_not_depend_on_pages(tmp_path: Path) -> None:
    ids = list(range(1, 41))
    ways = {
        "a": {"one": [[(ids, [])]], "two": []},
        "b": {"one": [[(ids[20:], []), (ids[:20][::-1], [])]], "two": [[(ids[::-1][:7], []), (ids[:35], [])]]},
    }
    names = {}
    for key, shards in ways.items():
        ledger = sealed(committed(tmp_path / key, campaign(chunk_size=8), shards), campaign(chunk_size=8))
        names[key] = [chunk.name for chunk in snapshot.chunks(ledger)]
    assert names["a"] == names["b"]
    assert len(set(names["a"])) == 5


def test_a_shard_waits_for_the_ones_before_it(tmp_path: Path) -> None:
    chosen, ledger = campaign(), Ledger(tmp_path)
    journal = Journal(ledger, chosen)
    for name in ("two", "one"):
        journal.take(Sharding(name, [Shard("", None)]))
        journal.take(step(name, 0, 0, [1], []))
    journal.take(ShardEnd("two", 0, None, ""))
    journal.take(SourceEnd("two", 1))
    assert list(snapshot.plan_order(ledger, chosen)) == []
    journal.take(ShardEnd("one", 0, None, ""))
    journal.take(SourceEnd("one", 1))
    assert list(snapshot.plan_order(ledger, chosen)) == [("one", 0), ("two", 0)]


def test_a_walk_that_begins_again_leaves_no_old_page(tmp_path: Path) -> None:
    chosen, ledger = campaign(), Ledger(tmp_path)
    journal = Journal(ledger, chosen)
    journal.take(Sharding("one", [Shard("", None)]))
    for k in range(3):
        journal.take(step("one", 0, k, [10 + k], []))
    journal.take(step("one", 0, 0, [1, 2], [], walk=1))
    (job,) = [job for job in journal.jobs() if job.name == "one"]
    assert job.kept is not None
    assert (job.kept.walk, len(job.kept.cursors), job.kept.seen) == (1, 1, ["db/1", "db/2"])
    assert balance.take(ledger).received == 2


def test_an_unfinished_shard_goes_on_behind_its_last_page(tmp_path: Path) -> None:
    chosen, ledger = campaign(), Ledger(tmp_path)
    journal = Journal(ledger, chosen)
    journal.take(Sharding("one", [Shard("a", 1), Shard("b", 4)]))
    journal.take(step("one", 0, 0, [9], []))
    journal.take(ShardEnd("one", 0, 1, ""))
    journal.take(step("one", 1, 0, [3], [4]))
    job = Journal(Ledger(tmp_path), chosen).jobs()[0]
    assert job.sharding is not None
    assert [shard.filter for shard in job.sharding.shards] == ["a", "b"]
    assert (job.done, job.delivered) == (1, True)
    assert job.kept is not None
    assert sorted(job.kept.seen) == ["db/3", "db/4"]


def test_sources_in_another_order_are_another_campaign(tmp_path: Path) -> None:
    """A shard that is cut names its rows by the shards before it: in another order, equal ids were scored twice."""

    def taken(*names: str) -> dict[str, str]:
        sources = [{"kind": "prototypes", "n": 1, "name": name} for name in names]
        return fingerprint.take(campaign(sources=sources), [])

    stamp.check_fingerprint(tmp_path, taken("one", "two"))
    stamp.check_fingerprint(tmp_path, taken("one", "two"))
    for names, message in {
        ("two", "one"): "order of sources: was one, two, now two, one",
        ("one",): "(sources.two: was {.*, now absent)",
        ("two", "one", "three"): "(sources.three: was absent, now {.*)",
    }.items():
        with pytest.raises(Failure, match=f"another campaign .*{message}.*; restore the old setting"):
            stamp.check_fingerprint(tmp_path, taken(*names))
    earlier = tmp_path / "earlier"  # earlier builds did not write the order down
    both = taken("one", "two")
    stamp.check_fingerprint(earlier, {name: value for name, value in both.items() if name != stamp.ORDER})
    stamp.check_fingerprint(earlier, both)


def test_sources_whose_columns_do_not_fit_are_refused_before_scoring(tmp_path: Path) -> None:
    chosen, ledger = campaign(), Ledger(tmp_path)
    journal = Journal(ledger, chosen)
    for name in ("one", "two"):
        crystals = cubic([1 if name == "one" else 2])
        crystals = crystals if name == "one" else crystals.with_columns(gap=np.array(["wide"]))
        journal.take(Sharding(name, []))
        journal.take(Portion(name, 0, 0, 0, table.to_table(crystals), [], 1))
        journal.take(ShardEnd(name, 0, None, ""))
        journal.take(SourceEnd(name, 1))
    with pytest.raises(Failure, match="'gap' with different types: number in one/000000, text in two/000000"):
        sealed(ledger, chosen)


def test_only_accepted_licences_are_kept() -> None:
    source = {"kind": "optimade", "provider": "mp"}
    chosen = yamlfile.validate(Campaign, {"name": "t", "sources": [source], "models": ["m"]}, "here")
    crystals = cubic([1, 2, 3]).with_columns(licence=np.array(["CC-BY-4.0", "CC-BY-NC-4.0", "unknown"]))
    assert snapshot.keep(chosen, "mp", crystals).tolist() == [True, False, False]
    assert snapshot.keep(campaign(), "one", crystals).all()  # own crystals need none


def test_each_crystal_that_is_left_out_counts_for_the_first_key_that_it_does_not_pass() -> None:
    source = {"kind": "optimade", "provider": "mp"}
    rule = {"elements": {"exclude": ["O"]}, "nsites": {"max": 9}, "reported": {"gap": {"max": 0.25}}}
    content = {"name": "t", "sources": [source], "models": ["m"], "filters": rule}
    chosen = yamlfile.validate(Campaign, content, "here")
    said = np.array(["CC-BY-4.0"] * 7 + ["unknown"])
    crystals = cubic(list(range(8))).with_columns(licence=said)
    found = snapshot.filtered_by(chosen, "mp", crystals)
    assert found == {"licences": 1, "filters.elements": 2, "filters.reported.gap": 3}
    assert sum(found.values()) == (~snapshot.keep(chosen, "mp", crystals)).sum()
    assert snapshot.filtered_by(campaign(), "one", crystals) == {}


@pytest.mark.parametrize("gaps", [[np.nan, 1.0], [1.0, np.nan]])
def test_a_row_that_is_left_out_for_what_it_reports_hides_no_equal_row(tmp_path: Path, gaps: list[float]) -> None:
    """One source lacks the gap that the other one reports of the same crystals, under the same ids."""
    chosen, ledger = campaign(filters={"reported": {"gap": {"min": 0.5}}}), Ledger(tmp_path)
    journal = Journal(ledger, chosen)
    for name, gap in zip(("one", "two"), gaps, strict=True):
        content = table.to_table(cubic([1, 2]).with_columns(gap=np.array([gap, gap])))
        journal.take(Sharding(name, []))
        for number in range(2):  # each row comes twice
            journal.take(Portion(name, 0, 0, number, content, [], 2, cursor=None if number else {}))
        journal.take(ShardEnd(name, 0, None, ""))
        journal.take(SourceEnd(name, 1))
    counts = balance.take(sealed(ledger, chosen))
    assert (counts.received, counts.duplicate, counts.filtered, counts.pending) == (8, 4, 2, 2)
    assert sum(chunk.rows for chunk in snapshot.chunks(ledger)) == 2
    taken = snapshot.taken_ids(chosen)
    snapshot.note(ledger, "one", 0, taken)  # as a run that goes on
    assert len(snapshot.unique(ledger, "two", 0, taken).crystals) == 2
    again = snapshot.taken_ids(chosen)
    kept = [snapshot.rows(ledger, name, 0, again, out=False)["id"].to_pylist() for name in ("one", "two")]
    assert sorted(kept) == [[], ["db/1", "db/2"]]


def test_a_broken_balance_is_an_error() -> None:
    with pytest.raises(Failure, match="received = unique") as caught:
        Balance(10, 8, 1, 8, 0, 0, 0, 8, 0).check()
    assert caught.value.code is Exit.BALANCE_BROKEN


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({"elements": {"include": ["O"]}}, [1, 5]),
        ({"elements": {"exclude": ["O", "B"]}}, [2, 3, 6, 7]),
        ({"elements": {"only": ["Nb"]}}, [3, 7]),
        ({"formula": ["Nb", "O"]}, [1, 3, 5, 7]),
        ({"nsites": {"min": 2.0}}, []),
        ({"reported": {"gap": {"min": 0.2, "max": 0.5}}}, [2, 3, 4, 5]),
        ({"reported": {"unheard_of": {"max": 1.0}}}, []),
    ],
)
def test_filters(rule: dict[str, Any], kept: list[int]) -> None:
    mask = filters.keep(cubic(list(range(8))), yamlfile.validate(Filters, rule, "here"))
    assert np.flatnonzero(mask).tolist() == kept


def test_crystals_with_shared_sites_can_be_left_out_and_old_folders_stay() -> None:
    crystals = prototypes.generate(100)
    assert 0 < crystals.is_ordered.sum() < 100
    for wanted in (True, False):
        assert (filters.keep(crystals, Filters(ordered=wanted)) == (crystals.is_ordered == wanted)).all()
    assert filters.keep(crystals, Filters()).all()
    assert "ordered" not in fingerprint._filters(Filters())
    assert fingerprint._filters(Filters(ordered=True)) != fingerprint._filters(Filters(ordered=False))


def test_a_missing_value_passes_no_range() -> None:
    crystals = cubic([1, 2]).with_columns(gap=np.array([np.nan, 1.0]))
    rule = yamlfile.validate(Filters, {"reported": {"gap": {"min": -9.0}}}, "here")
    assert filters.keep(crystals, rule).tolist() == [False, True]


def test_formulas_match_in_any_order_and_bad_ones_are_refused() -> None:
    assert np.array_equal(filters.composition("MgB2"), filters.composition("B4Mg2"))
    for wrong in ("", "mgb2", "Mg B2!", "Xx2", "Mg0"):
        with pytest.raises(ValueError, match=r"filters\.formula"):
            filters.composition(wrong)


def test_a_formula_of_a_filter_is_read_as_printed(caplog: pytest.LogCaptureFixture) -> None:
    rule = yamlfile.validate(Filters, {"formula": ["CaSO4.2H2O", "La(O0.9,F0.1)FeAs"]}, "here")
    filters.check_formulas(rule)
    assert "read as CaSO4" in caplog.text
    assert caplog.text.count("WARNING") == 1
    assert np.array_equal(filters.composition("CaSO4.2H2O"), filters.composition("CaSO6H4"))
    assert np.array_equal(filters.composition("La(O0.9,F0.1)FeAs"), filters.composition("LaO0.9F0.1FeAs"))
    rule = yamlfile.validate(Filters, {"formula": ["MgB2", "YBa2Cu3O7-d"]}, "here")
    with pytest.raises(ValueError, match=r"filters\.formula: 'YBa2Cu3O7-d' .*position 10: .*'d' is unknown"):
        filters.check_formulas(rule)


def cell(amounts: dict[int, float]) -> Crystals:
    """One crystal with these atoms, by atomic number; of an amount that is not whole, one site is partly filled."""
    sites = [(z, 1.0) for z, amount in amounts.items() for _ in range(int(amount))]
    sites += [(z, amount % 1) for z, amount in amounts.items() if amount % 1]
    n = len(sites)
    place = np.stack([np.arange(n) / n, np.zeros(n), np.zeros(n)], axis=1)
    lattice = np.diag([3.0 * n, 3.0, 3.0])[None]
    numbers, shares = np.array([z for z, _ in sites], np.uint8), np.array([share for _, share in sites], np.float32)
    return Crystals(np.array(["x"]), lattice, np.array([0, n]), place, np.arange(n + 1), numbers, shares)


@pytest.mark.parametrize(
    ("formula", "amounts", "kept"),
    [
        ("YBa2Cu3O6.5", {39: 2, 56: 4, 29: 6, 8: 13}, True),  # ordered, in a doubled cell
        ("YBa2Cu3O6.5", {39: 1, 56: 2, 29: 3, 8: 6.5}, True),
        ("Y2Ba4Cu6O13", {39: 1, 56: 2, 29: 3, 8: 6.5}, True),
        ("YBa2Cu3O6.5", {39: 1, 56: 2, 29: 3, 8: 6.51}, False),
        ("YBa2Cu3O6.5", {39: 1, 56: 2, 29: 3, 8: 7}, False),
        ("Li0.5CoO2", {3: 1, 27: 2, 8: 4}, True),
        ("Li0.3333CoO2", {3: 1, 27: 3, 8: 6}, True),  # as a table prints it
        ("Al2O3", {13: 3, 8: 4.5, 24: 0.001}, False),
        ("MgB2", {12: 2, 5: 4}, True),
        ("MgB2", {12: 1, 5: 1}, False),
    ],
)
def test_formulas_are_compared_as_compositions(formula: str, amounts: dict[int, float], kept: bool) -> None:
    rule = yamlfile.validate(Filters, {"formula": ["NbN", formula]}, "here")
    assert filters.keep(cell(amounts), rule).tolist() == [kept]
