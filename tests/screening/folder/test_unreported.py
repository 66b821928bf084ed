"""A filter on a property that no source reports: a warning before the work, exit 3 after it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from assay.screening.settings.exits import Exit
from assay.sources import prototypes, table
from tests.screening import small_campaign


def campaign(folder: Path, model: Path, name: str) -> small_campaign.Outcome:
    """Crystals of which one column has values, and another has none."""
    content = table.to_table(prototypes.generate(8))
    content = content.append_column("gap", pa.array(np.linspace(0.0, 3.0, 8)))
    content = content.append_column("hull", pa.array([None] * 8, pa.float64()))
    table.write(content, folder / "a.parquet")
    sources = [{"kind": "files", "paths": [str(folder / "a.parquet")]}]
    keys = {"sources": sources, "filters": {"reported": {name: {"max": 9.0}}}}
    return small_campaign.run(small_campaign.make(small_campaign.write_config(folder, model, **keys)))


@pytest.mark.parametrize("name", ["gp", "hull"])
def test_nobody_reports_it(name: str, tmp_path: Path, zoo: Path, caplog: pytest.LogCaptureFixture) -> None:
    done = campaign(tmp_path, zoo / "tc-fast", name)
    assert done.code is Exit.INCOMPLETE
    assert f"no source reports {name}" in done.note
    assert done.balance.filtered == 8
    assert ("files does not report 'gp', so nothing of it is scored; did you mean 'gap'?" in caplog.text) == (
        name == "gp"
    )


def test_a_filter_on_a_reported_property_ends_well(tmp_path: Path, zoo: Path, caplog: pytest.LogCaptureFixture) -> None:
    done = campaign(tmp_path, zoo / "tc-fast", "gap")
    assert (done.code, done.note, done.balance.filtered) == (Exit.DONE, "", 0)
    assert "does not report" not in caplog.text


def test_it_is_warned_of_before_the_pull_where_the_columns_are_known(
    tmp_path: Path, zoo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table.write(table.to_table(prototypes.generate(3)), tmp_path / "a.parquet")
    known = {"kind": "files", "paths": [str(tmp_path / "a.parquet")]}
    (tmp_path / "b.xyz").write_text('1\nLattice="4 0 0 0 4 0 0 0 4" gap=1.0\nCu 0 0 0\n')
    unknown = {"kind": "files", "paths": [str(tmp_path / "b.xyz")]}
    keys = {"filters": {"reported": {"tolerance_": {"max": 9.0}}}}
    for sources, warned in (([known], True), ([known, unknown], False)):
        caplog.clear()
        small_campaign.make(small_campaign.write_config(tmp_path, zoo / "tc-fast", sources=sources, **keys))
        said = "no source reports 'tolerance_', so nothing will be scored; did you mean 'tolerance'?"
        assert (said in caplog.text) == warned
