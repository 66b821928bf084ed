"""Crystals survive the way to Parquet and back to the last bit, and a damaged file is never read as a good one."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from assay.sources import prototypes, table
from assay.sources.crystals import Crystals, concat, empty
from assay.sources.quarantine import Quarantined, Reason, Stage
from tests.crystal_batches import batches


@settings(deadline=None, max_examples=40)
@given(batches())
def test_table_and_back_is_exact(crystals: Crystals) -> None:
    back, refused = table.from_table(table.to_table(crystals), "memory")
    assert not refused
    assert back == crystals
    assert {name: field.type for name, field in zip(back.columns, list(table.to_table(back).schema)[-3:])} == {
        "energy": pa.float64(),
        "label": pa.string(),
        "count": pa.int64(),
    }


@settings(deadline=None, max_examples=40)
@given(batches(), batches())
def test_tables_in_pieces_and_slices_read_the_same(first: Crystals, second: Crystals) -> None:
    whole = pa.concat_tables([table.to_table(first), table.to_table(second)])
    both = concat([first, second])
    assert table.from_table(whole, "memory")[0] == both
    assert table.from_table(whole.slice(1, 3), "memory")[0] == both[1:4]


@settings(max_examples=20, deadline=None)
@given(batches())
def test_file_and_back_is_exact(crystals: Crystals) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "crystals.parquet"
        digest = table.write(table.to_table(crystals), path)
        assert table.from_table(table.read(path), path.name)[0] == crystals
        assert table.write(table.to_table(crystals[:]), path) == digest
        assert [item.name for item in Path(folder).iterdir()] == [path.name]


def test_polars_reads_and_rewrites_the_file(tmp_path: Path) -> None:
    import polars as pl

    crystals = prototypes.generate(60)
    table.write(table.to_table(crystals), tmp_path / "a.parquet")
    frame = pl.read_parquet(tmp_path / "a.parquet")
    assert frame["id"].to_list() == crystals.ids.tolist()
    frame.write_parquet(tmp_path / "b.parquet")
    assert table.from_table(table.read(tmp_path / "b.parquet"), "b")[0] == crystals


def test_units_and_meanings_travel_with_the_file(tmp_path: Path) -> None:
    table.write(table.to_table(empty()), tmp_path / "a.parquet")
    schema = table.read(tmp_path / "a.parquet").schema
    assert schema.field("lattice_vectors").metadata[b"unit"] == "Å".encode()
    assert all(field.metadata[b"meaning"] for field in schema)


def test_a_column_of_vectors_survives() -> None:
    crystals = prototypes.generate(4).with_columns(members=np.arange(12.0).reshape(4, 3))
    assert table.from_table(table.to_table(crystals), "memory")[0] == crystals


def _odd() -> Crystals:
    """Three crystals: one whose site is crowded, one that is dense, one without a fault."""
    lattice = np.array([np.eye(3) * edge for edge in (3.0, 1.5, 3.0)])
    ptr = np.array([0, 1, 2, 3])
    shares = np.array([0.5, 0.5, 1.0, 1.0])
    ids = np.array(["x/0", "x/1", "x/2"])
    return Crystals(ids, lattice, ptr, np.zeros((3, 3)), np.array([0, 2, 3, 4]), np.array([26, 27, 29, 29]), shares)


def _crowded(content: pa.Table) -> pa.Table:
    shares = content["occupancy"].to_pylist()
    shares[0] = [0.51, 0.5]
    place = content.column_names.index("occupancy")
    return content.set_column(place, content.field("occupancy"), pa.array(shares, content["occupancy"].type))


SAID = [
    "occupancies of a site add up to 1.01 and were scaled to 1",
    "3.38 Å^3 per atom, less than in any crystal at ordinary pressure",
    "",
]


def test_oddities_of_a_table_are_said_once_however_often_it_is_read(tmp_path: Path) -> None:
    crystals, refused = table.from_table(_crowded(table.to_table(_odd())), "memory")
    assert not refused
    assert crystals.columns["warnings"].tolist() == SAID
    table.write(table.to_table(crystals), tmp_path / "a.parquet")
    assert table.read(tmp_path / "a.parquet").schema.field("warnings").type == pa.string()
    again, _ = table.from_table(table.read(tmp_path / "a.parquet"), "a")
    assert again == crystals
    assert table.from_table(table.to_table(crystals[2:]), "slice")[0].columns["warnings"].tolist() == [""]


_raw = st.lists(st.lists(st.floats(0, 0.6), min_size=1, max_size=4), min_size=1, max_size=4)


@settings(deadline=None, max_examples=200)
@given(st.lists(_raw, min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_a_table_with_any_shares_reads_the_same_once_it_is_read(rows: list[list[list[float]]], seed: int) -> None:
    """Each row is a crystal or a record, a written crystal is the same for ever, and no site holds more than 1."""
    rng = np.random.default_rng(seed)
    sites = [[site for site, shares in enumerate(row) for _ in shares] for row in rows]
    content = pa.table(
        {
            "id": [f"x/{row}" for row in range(len(rows))],
            "n_sites": [len(row) for row in rows],
            "lattice": [(np.eye(3) * rng.uniform(2, 6)).ravel().tolist() for _ in rows],
            "frac_coords": [rng.random(3 * len(row)).tolist() for row in rows],
            "atomic_numbers": [rng.integers(1, 6, len(held)).tolist() for held in sites],
            "site_index": sites,
            "occupancy": [[share for shares in row for share in shares] for row in rows],
        }
    )
    crystals, refused = table.from_table(content, "memory")
    assert len(crystals) + len(refused) == len(rows)
    for sifted in (False, True):
        again, none = table.from_table(table.to_table(crystals), "memory", sifted=sifted)
        assert not none
        assert again == crystals
    total = {f"x/{row}": max(sum(shares) for shares in held) for row, held in enumerate(rows)}
    warned = dict(zip(crystals.ids.tolist(), crystals.columns.get("warnings", [""] * len(crystals)), strict=True))
    assert all(("scaled to 1" in text) == (total[name] > 1.000095) for name, text in warned.items()
               if abs(total[name] - 1.000095) > 1e-4)  # fmt: skip
    assert all(total[name] <= 1.0201 for name in warned)


@pytest.mark.parametrize("kinds", [20, 36, 100])
def test_many_shares_scaled_once_are_not_scaled_again(kinds: int) -> None:
    share = np.full(kinds, 1 / kinds)
    ptr = np.array([0, 1])
    one = Crystals(
        np.array(["x/0"]), np.eye(3)[None] * 3, ptr, np.zeros((1, 3)), ptr * kinds, np.arange(1, kinds + 1), share
    )
    content = table.to_table(one)
    place = content.column_names.index("occupancy")
    rough = pa.array([(share * 1.019).tolist()], content["occupancy"].type)
    crystals, refused = table.from_table(content.set_column(place, content.field("occupancy"), rough), "memory")
    assert not refused
    assert table.from_table(table.to_table(crystals), "memory")[0] == crystals


@pytest.mark.parametrize(
    ("column", "own"),
    [(pa.array(["by hand", None, "old"]), ["by hand", "", "old"]), (pa.nulls(3), ["", "", ""])],
)
def test_a_text_column_called_warnings_keeps_its_texts(column: pa.Array, own: list[str]) -> None:
    content = _crowded(table.to_table(_odd())).append_column("warnings", column)
    crystals, _ = table.from_table(content, "memory")
    found = ["; ".join(filter(None, pair)) for pair in zip(own, SAID, strict=True)]
    assert crystals.columns["warnings"].tolist() == found
    assert list(crystals.columns) == ["warnings"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2, 3]),
        pa.array([1.5, None, 3]),
        pa.array([True, False, None]),
        pa.array([["a", "b"]] * 3, pa.list_(pa.string(), 2)),
    ],
)
def test_another_column_called_warnings_gets_a_prefix(column: pa.Array) -> None:
    content = _crowded(table.to_table(_odd())).append_column("warnings", column)
    crystals, _ = table.from_table(content, "memory")
    assert crystals.columns["warnings"].tolist() == SAID
    assert len(crystals.columns["reported_warnings"]) == 3
    clean, _ = table.from_table(content.slice(2), "memory")
    assert list(clean.columns) == ["reported_warnings"]


def test_a_column_may_not_take_the_name_of_a_field() -> None:
    with pytest.raises(ValueError, match="column 'nsites'"):
        table.to_table(prototypes.generate(2).with_columns(nsites=np.zeros(2)))


def test_every_flipped_bit_of_page_data_is_refused(tmp_path: Path) -> None:
    """Page headers and the footer are under no checksum: there only the sha256 of the whole file helps."""
    path = tmp_path / "crystals.parquet"
    crystals = prototypes.generate(300)
    good = table.to_table(crystals)
    table.write(good, path)
    content = bytearray(path.read_bytes())
    pages = _page_bytes(path)
    rng = np.random.default_rng(0)
    for position in rng.choice(sorted(pages), 200, replace=False):
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"crystals\.parquet is no intact Parquet file"):
            table.read(path)


def _page_bytes(path: Path) -> set[int]:
    """Positions inside compressed page data: column chunks less 200 bytes of headers at their starts and page seams."""
    found: set[int] = set()
    group = pq.read_metadata(path).row_group(0)
    for index in range(group.num_columns):
        column = group.column(index)
        start = column.dictionary_page_offset or column.data_page_offset
        data = column.data_page_offset
        found |= set(range(data + 200, start + column.total_compressed_size - 1))
    return found


def test_what_was_read_once_is_the_same_when_it_is_not_sifted_again(data: Path) -> None:
    for name in ("mp/mp_unlabelled_le40.parquet", "3dsc_mp/3dsc_mp.parquet"):
        crystals, _ = table.from_table(table.read(data / name).slice(0, 3000), name)
        content = table.to_table(crystals).take(pa.array(np.arange(len(crystals))[::-1]))
        one, two = (table.from_table(content, name, sifted=sifted) for sifted in (False, True))
        assert not one[1]
        assert one == two
        assert {k: v.dtype for k, v in vars(one[0]).items() if isinstance(v, np.ndarray)} == {
            k: v.dtype for k, v in vars(two[0]).items() if isinstance(v, np.ndarray)
        }


def test_a_written_file_holds_no_dictionary_and_no_statistics(tmp_path: Path) -> None:
    table.write(table.to_table(prototypes.generate(300)), tmp_path / "a.parquet")
    group = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    assert not any(column.has_dictionary_page or column.is_stats_set for column in columns)


def test_a_torn_file_and_a_foreign_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "torn.parquet"
    table.write(table.to_table(prototypes.generate(50)), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"torn\.parquet"):
        table.read(path)
    path.write_text("no table at all")
    with pytest.raises(ValueError, match=r"torn\.parquet"):
        table.read(path)
    with pytest.raises(FileNotFoundError):
        table.read(tmp_path / "absent.parquet")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    table.write(table.to_table(prototypes.generate(5)), tmp_path / "a.parquet")
    assert table.read(tmp_path / "a.parquet", columns=["id"]).column_names == ["id"]
    with pytest.raises(ValueError, match="has no column gap"):
        table.read(tmp_path / "a.parquet", columns=["id", "gap"])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    digest = table.write(table.to_table(prototypes.generate(5)), path)
    with pytest.raises(pa.ArrowException):
        table.write(pa.table({"a": pa.array([1.0]).cast(pa.float64()), "b": _unwritable()}), path)
    assert [item.name for item in tmp_path.iterdir()] == ["a.parquet"]
    assert table.write(table.read(path), path) == digest
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def _unwritable() -> pa.Array:
    return pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_wrong_lists_cost_their_own_row_only(data: st.DataObject) -> None:
    crystals = prototypes.generate(6)
    rows = table.to_table(crystals).to_pylist()
    victim = data.draw(st.integers(0, 5))
    name = data.draw(st.sampled_from([field.name for field in table.CRYSTAL_FIELDS]))
    value = rows[victim][name]
    rows[victim][name] = (
        None
        if not isinstance(value, list)
        else data.draw(st.sampled_from([None, [], value[:-1], [*value, value[0]], [None, *value[1:]]]))
    )
    broken = pa.Table.from_pylist(rows, schema=table.to_table(crystals).schema)
    kept, refused = table.from_table(broken, "memory")
    assert kept == crystals.select([row for row in range(6) if row != victim])
    assert len(refused) == 1
    assert refused[0].reason in {Reason.MALFORMED, Reason.NON_FINITE, Reason.UNKNOWN_SPECIES}


def test_values_out_of_range_cost_their_own_row_only() -> None:
    rows = table.to_table(prototypes.generate(4)).to_pylist()
    rows[0]["fractional_site_positions"][2] = float("nan")
    rows[1]["lattice_vectors"] = [4.0] * 9
    rows[2]["occupancy"][0] = 1.5
    kept, refused = table.from_table(pa.Table.from_pylist(rows), "memory")
    assert kept.ids.tolist() == [rows[3]["id"]]
    assert [record.reason for record in refused] == [Reason.NON_FINITE, Reason.BAD_LATTICE, Reason.BAD_OCCUPANCY]
    assert [record.id for record in refused] == [row["id"] for row in rows[:3]]


def test_a_table_without_crystals_is_refused_with_its_columns() -> None:
    with pytest.raises(ValueError, match=r"x\.parquet holds no crystals: it has the columns formula, tc"):
        table.from_table(pa.table({"formula": ["Nb"], "tc": [9.2]}), "x.parquet")


def test_disorder_in_the_layout_of_the_data_packs() -> None:
    pack = pa.table(
        {
            "id": ["a", "b", "c"],
            "n_sites": pa.array([2, 1, 1], pa.int32()),
            "lattice": pa.array([np.eye(3).ravel() * 4.0] * 3, pa.list_(pa.float32())),
            "frac_coords": pa.array([[0, 0, 0, 0.5, 0.5, 0.99999999], [0, 0, 0], [0, 0, 0]], pa.list_(pa.float32())),
            "atomic_numbers": pa.array([[57, 38, 29], [8], [8]], pa.list_(pa.uint8())),
            "site_index": pa.array([[0, 0, 1], [0], [1]], pa.list_(pa.uint16())),
            "occupancy": pa.array([[0.925, 0.0750001, 1.0000001], [0.5], [1]], pa.list_(pa.float32())),
            "tc": pa.array([38.0, None, 1.0], pa.float32()),
            "group": pa.array(["La-Sr", None, "O"]).dictionary_encode(),
            "doped": pa.array([True, None, False]),
        }
    )
    crystals, refused = table.from_table(pack, "pack")
    assert crystals.ids.tolist() == ["a", "b"]
    assert crystals.species_ptr.tolist() == [0, 2, 3, 4]
    assert crystals.occupancy.tolist() == np.float32([0.925, 0.075, 1, 0.5]).tolist()
    assert crystals.frac[1].tolist() == [0.5, 0.5, 0.0]
    assert np.array_equal(crystals.columns["tc"], np.float32([38, np.nan]), equal_nan=True)
    assert crystals.columns["group"].tolist() == ["La-Sr", ""]
    assert [(record.id, record.reason) for record in refused] == [("c", Reason.MALFORMED)]


def test_the_superconductor_pack_reads_as_its_readme_says(data: Path) -> None:
    path = data / "3dsc_mp" / "3dsc_mp.parquet"
    raw = table.read(path)
    crystals, refused = table.from_table(raw, path.name)
    assert len(crystals) + len(refused) == 9146
    assert {record.reason for record in refused} == {Reason.BAD_LATTICE}
    assert len(refused) < 10
    declared = dict(zip(raw["id"].to_pylist(), raw["is_ordered"].to_pylist()))
    assert crystals.is_ordered.tolist() == [declared[id] for id in crystals.ids.tolist()]
    assert (crystals.site_occupancy < 1 - 1e-5).any()


def test_the_large_pack_reads_in_seconds(data: Path) -> None:
    began = time.perf_counter()
    crystals, refused = table.from_table(table.read(data / "mp" / "mp_labelled_le40.parquet"), "mp")
    assert time.perf_counter() - began < 10  # 1.1 s on a quiet core
    assert len(crystals) + len(refused) == 69_665
    assert len(refused) < 20
    assert crystals.columns["e_form"].shape == (len(crystals),)


def test_quarantine_records_survive() -> None:
    records = [
        Quarantined("mp/1", "https://example.org", Stage.PULL, Reason.NON_FINITE, "NaN"),
        Quarantined("<b>", "a\nb", Stage.PREDICT, Reason.WORKER_DIED, ""),
    ]
    stored = table.quarantine_table(records)
    assert stored.schema == table.QUARANTINE_SCHEMA
    assert table.quarantine_rows(stored) == records
    assert table.quarantine_table([]).num_rows == 0
