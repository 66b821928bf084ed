"""Pages -> chunks: rows are conserved, and chunks depend on the crystals alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from screening import accounts, filters, snapshot, yamlfile
from screening.accounts import Accounts
from screening.config import Campaign, Filters
from screening.exits import Exit, Failure
from screening.ledger import Ledger
from screening.pull import Job, Journal, Page
from sources import table
from sources.crystals import Crystals
from sources.quarantine import Quarantined, Reason, Stage

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
    return yamlfile.validate(Campaign, {"name": "t", "sources": sources, "models": ["m"], **keys}, "here")


def committed(folder: Path, settings: Campaign, pages: dict[str, list[tuple[list[int], list[int]]]]) -> Ledger:
    """A ledger after a pull: for every source its pages, each with good and bad ids."""
    book = Ledger(folder)
    journal = Journal(book, [Job(n, s, n) for n, s in settings.named_sources().items()])
    for name, content in pages.items():
        for good, bad in content:
            refused = [Quarantined(f"db/{b}" if b else "", "here", Stage.PULL, Reason.MALFORMED, "no") for b in bad]
            journal.page(name, Page(table.to_table(cubic(good)), refused, len(good) + len(bad)))
        journal.end(name)
    return book


some_ids = st.lists(st.integers(0, 30), max_size=12)
some_pages = st.lists(st.tuples(some_ids, st.lists(st.integers(0, 30), max_size=3)), max_size=4)


@settings(max_examples=40)
@given(one=some_pages, two=some_pages, size=st.integers(1, 9), low=st.none() | st.floats(0, 3))
def test_rows_are_conserved(one: Any, two: Any, size: int, low: float | None) -> None:
    chosen = campaign(chunk_size=size, filters={} if low is None else {"reported": {"gap": {"min": low}}})
    with tempfile.TemporaryDirectory() as folder:
        book = committed(Path(folder), chosen, {"one": one, "two": two})
        record = snapshot.seal(book, chosen)
        counted = accounts.take(book)  # raises when the identity is broken
        rows = [table.read(Path(folder) / chunk.path) for chunk in snapshot.chunks(book)]
    good = {i for pages in (one, two) for ids, _ in pages for i in ids}
    bad = {i for pages in (one, two) for _, ids in pages for i in ids} - good
    nameless = sum(ids.count(0) for pages in (one, two) for _, ids in pages)
    assert record.counts["quarantined"] == len(bad - {0}) + nameless
    assert counted.unique == len(good) + record.counts["quarantined"]
    kept = sorted(f"db/{i}" for i in good if low is None or i / 10 >= low)
    assert [i for part in rows for i in part["id"].to_pylist()] == kept
    assert counted.pending == len(kept)
    assert counted.filtered == len(good) - len(kept)
    assert all(part.num_rows == size for part in rows[:-1])


def test_chunks_do_not_depend_on_pages_or_arrival(tmp_path: Path) -> None:
    ids = list(range(1, 41))
    ways = {"a": {"one": [(ids, [])], "two": []}, "b": {"one": [], "two": [(ids[::-1][:7], []), (ids[:35], [])]}}
    names = {}
    for key, pages in ways.items():
        book = committed(tmp_path / key, campaign(chunk_size=8), pages)
        snapshot.seal(book, campaign(chunk_size=8))
        names[key] = [chunk.name for chunk in snapshot.chunks(book)]
    assert names["a"] == names["b"]
    assert len(set(names["a"])) == 5


def test_a_shorter_second_attempt_leaves_no_old_page(tmp_path: Path) -> None:
    chosen = campaign()
    book = Ledger(tmp_path)
    todo = [Job(n, s, n) for n, s in chosen.named_sources().items()]
    journal = Journal(book, todo)
    for k in range(3):  # killed before the end of the source
        journal.page("one", Page(table.to_table(cubic([10 + k])), [], 1))
    journal = Journal(book, todo)
    journal.page("one", Page(table.to_table(cubic([1, 2])), [], 2))
    journal.end("one")
    journal.end("two")
    snapshot.seal(book, chosen)
    assert accounts.take(book).received == 2


def test_a_broken_identity_is_an_error() -> None:
    with pytest.raises(Failure, match="received = unique") as caught:
        Accounts(10, 8, 1, 8, 0, 0, 0, 8, 0).check()
    assert caught.value.code is Exit.IDENTITY_BROKEN


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


def test_a_missing_value_passes_no_range() -> None:
    crystals = cubic([1, 2]).with_columns(gap=np.array([np.nan, 1.0]))
    rule = yamlfile.validate(Filters, {"reported": {"gap": {"min": -9.0}}}, "here")
    assert filters.keep(crystals, rule).tolist() == [False, True]


def test_formulas_match_in_any_order_and_bad_ones_are_refused() -> None:
    assert filters.canonical_formula("MgB2") == filters.canonical_formula("B4Mg2")
    for wrong in ("", "mgb2", "Mg B2!", "Xx2"):
        with pytest.raises(ValueError, match=r"filters\.formula"):
            filters.canonical_formula(wrong)
