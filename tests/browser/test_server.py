"""The pages of `assay serve` in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import overflow
from tests.screening.serving.conftest import Running

if TYPE_CHECKING:
    from playwright.sync_api import Page

FILES = Path(__file__).resolve().parents[1] / "data"
SCRIPT = "<script>document.title='owned'</script>"
HOSTILE_CIF = f"""data_x
_chemical_formula_sum "{SCRIPT}"
_cell_length_a 3.086
_cell_length_b 3.086
_cell_length_c 3.524
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
"Mg{SCRIPT}" Mg 0 0 0
"B<img src=x>" B 0.3333 0.6667 0.5
B2 B 0.6667 0.3333 0.5
"""


@pytest.fixture(scope="module")
def server(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("store"), "--model", zoo / "tc-fast") as running:
        yield running


@pytest.mark.parametrize(
    ("file", "told", "width", "script"),
    [
        ("MgB2.cif", "tc 37 ± 10 [21, 52] K", 1440, True),
        ("Nb3Sn.vasp", "Nb3Sn", 390, True),
        ("La1.85Sr0.15CuO4.cif", "disordered: La/Sr", 1440, False),
    ],
)
def test_a_file_is_uploaded_and_its_prediction_read(
    server: Running, browse: Callable[..., Page], file: str, told: str, width: int, script: bool
) -> None:
    page = browse(f"{server.url}/upload", width=width, script=script)
    page.get_by_label("File").set_input_files(FILES / file)
    page.get_by_role("button", name="Predict").click()
    assert told in page.get_by_role("main").inner_text().replace("\n", "")
    assert "\\n" not in page.get_by_role("main").inner_text()
    assert page.get_by_text("Download:").inner_text() == "Download: cif, poscar, extxyz, json"
    page.get_by_role("button", name="Explain").click()
    assert "What each atom adds" in page.get_by_role("main").inner_text()
    with page.expect_download() as download:
        page.get_by_role("link", name="cif").click()
    assert "_cell_length_a" in download.value.path().read_text()
    if script:
        page.get_by_role("button", name="3D").click()
        assert page.locator("canvas").count() == 1
        assert overflow(page) == 0


def test_markup_in_a_label_and_a_formula_stays_text(server: Running, browse: Callable[..., Page]) -> None:
    page = browse(f"{server.url}/upload")
    page.get_by_label("text").fill(HOSTILE_CIF)
    page.get_by_role("button", name="Predict").click()
    assert "MgB" in page.get_by_role("main").inner_text()
    assert page.title() == "Prediction · Assay"
    assert page.locator("main img, main script").count() == 0


def test_the_pages_can_be_read_by_everybody(
    server: Running, browse: Callable[..., Page], violations: Callable[[Page], list[str]]
) -> None:
    for path in ("/", "/upload", "/docs"):
        for dark in (False, True):
            assert violations(browse(f"{server.url}{path}", dark=dark)) == []
