"""The tutorial notebook runs, and its stored outputs are of the kind that it gives today."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient", reason="needs nbclient and ipykernel: pip install assay[dev]")
pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel: pip install assay[dev]")

from tests import notebook

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 60_000
"""Bytes of the stored notebook: its outputs are small."""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return notebook.executed(tmp_path_factory.mktemp("notebook"))


def kinds(cells: Any) -> list[list[list[str]]]:
    """Of each output of each code cell, its kind and the formats that it has."""
    return [
        [[output.output_type, *sorted(output.get("data", {}))] for output in cell.outputs]
        for cell in cells
        if cell.cell_type == "code"
    ]


def columns(cells: Any) -> list[list[str]]:
    """The heads of the tables, in order."""
    tables = [output.data["text/html"] for cell in cells for output in cell.get("outputs", []) if "data" in output
              if "text/html" in output.data]  # fmt: skip
    return [re.findall(r"<th>(.*?)</th>", text) for text in tables]


def test_every_cell_runs_and_gives_what_is_stored(fresh: Any) -> None:
    stored = notebook.read()
    assert kinds(fresh.cells) == kinds(stored.cells)
    assert columns(fresh.cells) == columns(stored.cells)
    assert all(kinds(stored.cells)[1:])


def test_nothing_is_lost_and_files_are_written(fresh: Any) -> None:
    results = {cell.source: cell.outputs[-1].data["text/plain"] for cell in fresh.cells if cell.get("outputs")}
    (balance,) = [text for source, text in results.items() if source.endswith("results.summary.balance")]
    received, ranked = (int(re.search(rf"\b{name}=(\d+)", balance)[1]) for name in ("received", "ranked"))
    assert received == ranked > 100
    (files,) = [text for source, text in results.items() if source.endswith('glob("*.cif"))')]
    assert files.count(".cif") == 3


def test_the_stored_notebook_is_small_and_names_no_place_of_its_maker() -> None:
    text = notebook.NOTEBOOK.read_text()
    assert len(text) < LARGEST
    assert re.findall(r"/tmp/|/home/|/root/", text) == []
    assert "stderr" not in text


def test_links_of_the_notebook_lead_somewhere() -> None:
    texts = [cell.source for cell in notebook.read().cells if cell.cell_type == "markdown"]
    targets = re.findall(r"\]\(([^)#]+)", "\n".join(texts))
    assert len(targets) >= 4
    for target in targets:
        assert (notebook.NOTEBOOK.parent / target).exists(), target
