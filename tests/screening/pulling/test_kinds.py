"""A kind of source from outside the package: this file, and one line in the registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from assay.screening.campaign import drive, plan, preview
from assay.screening.pulling import source as sources
from assay.screening.pulling.local import LocalSource
from assay.screening.pulling.source import Provenance, Source
from assay.screening.runners.local import LocalRunner
from assay.screening.settings import config
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.section import Count
from assay.screening.settings.sources import SOURCES, kind
from assay.sources import table
from assay.sources.crystals import Crystals
from assay.sources.quarantine import Quarantined, Reason, Stage


class SaltSource(LocalSource):
    """Rock salt, swollen step by step, and one row that is no crystal."""

    kind: Literal["salt"]
    n: Count
    metal: str = "Na"

    def check(self, licences: Sequence[str], *, begun: bool) -> None:
        if self.metal not in {"Na", "K"}:
            raise ValueError(f"metal: {self.metal!r} makes no salt; use Na or K")

    def describe(self) -> list[str]:
        return [f"{self.n} crystals of {self.metal}Cl"]

    def provenance(self) -> Provenance:
        return Provenance("a salt mine", "none needed")

    def read(self) -> Iterator[tuple[Crystals, list[Quarantined]]]:
        cell = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
        crystals = Crystals(
            ids=np.array([f"salt/{i}" for i in range(self.n)]),
            lattice=cell * (2.8 + 0.01 * np.arange(self.n)).reshape(-1, 1, 1),
            site_ptr=2 * np.arange(self.n + 1),
            frac=np.tile([[0.0] * 3, [0.5] * 3], (self.n, 1)),
            species_ptr=np.arange(2 * self.n + 1),
            numbers=np.tile([11 if self.metal == "Na" else 19, 17], self.n).astype(np.uint8),
            occupancy=np.ones(2 * self.n, np.float32),
            columns={},
        )
        yield crystals, [Quarantined("salt/wet", "the mine", Stage.PULL, Reason.MALFORMED, "is wet")]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "salt", f"{__name__}:SaltSource")


SALT: dict[str, Any] = {"kind": "salt", "n": 7}


def load(path: Path, folder: Path, *settings: str) -> config.Campaign:
    return config.load(path, [f"output={folder}", "max_bad=0.5", *settings])


@pytest.mark.usefixtures("registered")
def test_a_kind_from_outside_is_loaded_described_pulled_scored_and_ranked(
    tmp_path: Path, write_config: Callable[..., Path]
) -> None:
    path = write_config([SALT, {"kind": "prototypes", "n": 5}], identity=False)
    asked = plan.make(load(path, tmp_path / "out"))
    assert "source salt: 7 crystals of NaCl" in preview.lines(asked)
    assert '"metal": "Na"' in asked.fingerprint["sources.salt"]
    done = drive.run(asked, LocalRunner(asked.worker()), lambda: False)
    assert done.code is Exit.DONE
    rows = table.read(tmp_path / "out" / "candidates.parquet").to_pylist()
    assert {row["id"] for row in rows if row["source"] == "salt"} == {f"salt/{i}" for i in range(7)}
    assert len(rows) == 12
    assert "a salt mine" in (tmp_path / "out" / "report.html").read_text()
    refused = table.read(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert [row["id"] for row in refused] == ["salt/wet"]
    again = config.load(tmp_path / "out" / "config.resolved.yaml")
    assert again == asked.campaign
    assert "source salt: pulled already, 8 rows in 1 pages" in preview.lines(plan.make(again))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sources.0.metall=K", "unknown key 'sources.0.metall'; did you mean 'metal'?"),
        ("sources.0.n=0", "sources.0.n: Input should be greater than or equal to 1, got 0"),
        ("sources.0.metal=Fe", "source salt: metal: 'Fe' makes no salt; use Na or K"),
        ("sources.0.kind=malt", "sources.0: kind 'malt' is not known; did you mean 'salt'?"),
    ],
)
def test_its_section_is_as_strict_as_any_other(
    tmp_path: Path, write_config: Callable[..., Path], setting: str, message: str
) -> None:
    with pytest.raises(Failure) as caught:
        plan.make(load(write_config(SALT), tmp_path / "out", setting))
    assert message in str(caught.value)
    assert caught.value.code is Exit.CONFIG


def test_without_its_line_in_the_registry_it_is_unknown(tmp_path: Path, write_config: Callable[..., Path]) -> None:
    with pytest.raises(Failure, match="kind 'salt' is not known; known kinds: aflux, files"):
        load(write_config(SALT), tmp_path / "out")


@pytest.mark.parametrize("name", list(SOURCES))
def test_every_registered_kind_is_a_source_that_is_called_by_its_name(name: str) -> None:
    found = kind(name)
    assert issubclass(found, Source)
    assert found.model_json_schema()["properties"]["kind"]["const"] == name


def test_what_changes_no_number_is_not_in_the_fingerprint(write_config: Callable[..., Path]) -> None:
    quiet = {"name": "x", "page_limit": 7, "when_down": "skip", "patience_s": 1.0, "headers": {"A": {"env": "KEY"}}}
    plain = {"kind": "optimade", "provider": "mp", "filter": "nsites<9"}
    path = write_config([plain, {**plain, **quiet}, {**plain, "max_entries": 3}])
    first, same, other = (source.fingerprint() for source in sources.named(config.load(path)).values())
    assert first == same != other
