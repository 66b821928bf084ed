"""The report of a real campaign in a real browser: it sorts, filters, turns, and nothing leaves the machine."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pytest
import yaml

import assay
from assay.screening.campaign.reporting.report import render
from assay.screening.display import scripts
from tests.browser.conftest import overflow
from tests.browser.test_crystal import DATA, pixels
from tests.screening.campaign.test_report import HOSTILE, content, evidence

MARKUP = "<img src=x onerror=document.title='owned'>"
SHOWN = 40


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> assay.Results:
    """A campaign of hypothetical crystals and of files, one with a script for a label and markup for a name."""
    folder = tmp_path_factory.mktemp("report")
    files = folder / "files"
    files.mkdir()
    for name in ("MgB2.cif", "La1.85Sr0.15CuO4.cif", "unknown_coordinates.cif"):
        shutil.copy(DATA / name, files / name)
    text = (DATA / "MgB2.cif").read_text()
    (files / f"{MARKUP}.cif").write_text(text.replace("data_MgB2", f"data_{MARKUP}"))
    label = "Mg<script>document.title='owned'</script>"
    (files / "label.cif").write_text(text.replace("Mg1", label).replace("3.086", "3.12"))
    config = {
        "name": "seen",
        "sources": [{"kind": "files", "paths": [str(files)]}, {"kind": "prototypes", "n": 120, "seed": 0}],
        "models": ["tc"],
        "rank": {"by": "mean", "order": "descending", "top": SHOWN},
        "max_bad": 0.5,
        "output": str(folder / "run"),
    }
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(config))
    return assay.screen(path)


@pytest.fixture(scope="module")
def report(results: assay.Results) -> Path:
    """Its page."""
    return results.folder / "report.html"


def column(page, place: int) -> list[str]:
    """The texts of a column of the shown rows."""
    return page.locator(f"table.live tbody tr:not([hidden]) > :nth-child({place})").all_inner_texts()


def ranks(page) -> list[int]:
    """The ranks of the shown rows, from top to bottom."""
    return [int(text) for text in column(page, 1)]


def test_the_table_sorts_by_any_column(browse, report: Path, results) -> None:
    page = browse(report)
    rows = results.best(SHOWN).to_pylist()
    heads = page.locator("table.live thead th")
    place = {name.strip(): heads.nth(k) for k, name in enumerate(heads.all_inner_texts())}
    assert place["rank"].get_attribute("aria-sort") == "ascending"
    place["tc (K)"].get_by_role("button").click()
    assert place["tc (K)"].get_attribute("aria-sort") == "ascending"
    assert place["rank"].get_attribute("aria-sort") is None
    rising = [row["rank"] for row in sorted(rows, key=lambda row: row["tc_mean"])]
    assert ranks(page) == rising != sorted(rising)
    place["tc (K)"].get_by_role("button").press("Enter")  # by keyboard, the other way
    assert place["tc (K)"].get_attribute("aria-sort") == "descending"
    assert ranks(page) == [row["rank"] for row in sorted(rows, key=lambda row: -row["tc_mean"])]
    place["id"].get_by_role("button").click()
    names = column(page, heads.count())
    assert (names[0] < names[-1], len(set(names))) == (True, SHOWN)
    place["rank"].get_by_role("button").click()
    assert ranks(page) == list(range(1, SHOWN + 1))


def test_the_table_filters_by_text_element_and_value_and_says_how_many(browse, report: Path, results) -> None:
    page = browse(report)
    rows = results.best(SHOWN).to_pylist()
    assert page.get_by_role("status").inner_text() == f"{SHOWN} of {SHOWN} rows"
    page.get_by_label("With all of these elements").fill("cu, o")
    held = [row for row in rows if {"Cu", "O"} <= set(row["elements"].split("-"))]
    assert 0 < len(held) < SHOWN
    assert ranks(page) == [row["rank"] for row in held]
    page.get_by_label("Without these elements").fill("Hg")
    left = [row for row in held if "Hg" not in row["elements"].split("-")]
    assert ranks(page) == [row["rank"] for row in left]
    assert page.get_by_role("status").inner_text() == f"{len(left)} of {SHOWN} rows"
    page.get_by_label("With all of these elements").fill("")
    page.get_by_label("Without these elements").fill("")
    middle = rows[SHOWN // 2]["tc_mean"]
    page.get_by_text("Smallest and largest values").click()
    page.get_by_label("tc (K) at least").fill(str(middle))
    assert ranks(page) == [row["rank"] for row in rows if row["tc_mean"] >= middle]
    page.get_by_label("Text in the row").fill("no such text")
    assert ranks(page) == []


def test_the_rows_that_are_shown_are_downloaded_with_all_digits(browse, report: Path, results) -> None:
    page = browse(report)
    page.get_by_label("With all of these elements").fill("O")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download these rows as CSV").click()
    assert download.value.suggested_filename == "candidates.csv"
    found = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    expected = [row for row in results.best(SHOWN).to_pylist() if "O" in row["elements"].split("-")]
    for name in ("rank", "tc_mean", "tc_std", "tc_lo", "tc_hi", "score", "nsites"):
        assert [float(row[name]) for row in found] == [row[name] for row in expected], name
    assert [(row["formula"], row["id"]) for row in found] == [(row["formula"], row["id"]) for row in expected]


def test_nan_stands_last_and_no_text_is_a_formula_of_a_spreadsheet(browse, tmp_path: Path) -> None:
    rows = [("2.0", "b"), ("nan", "=1+1"), ("-3.5", 'a, "quoted"')]
    body = "".join(f'<tr data-elements=""><td data-values="{x}">{x}</td><td>{text}</td></tr>' for x, text in rows)
    head = '<th data-columns="x" data-range>x</th><th data-columns="text">text</th>'
    table = f'<div><table class="live"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    path = tmp_path / "table.html"
    path.write_text(f"<!DOCTYPE html><title>t</title>{table}<script>{scripts.text(scripts.TABLE)}</script>")
    page = browse(path)
    for expected in (["-3.5", "2.0", "nan"], ["2.0", "-3.5", "nan"]):
        page.get_by_role("button", name="x", exact=True).click()
        assert column(page, 1) == expected
    with page.expect_download() as download:
        page.get_by_role("button", name="Download these rows as CSV").click()
    found = list(csv.reader(io.StringIO(Path(download.value.path()).read_text())))
    assert found == [["x", "text"], ["2.0", "b"], ["-3.5", 'a, "quoted"'], ["nan", "'=1+1"]]


def test_a_crystal_unfolds_and_turns_beside_its_numbers(browse, report: Path) -> None:
    page = browse(report)
    page.locator("table.live a").nth(2).click()
    card = page.locator("#candidate-3")
    assert card.get_attribute("open") is not None
    card.get_by_role("button", name="Show the cell in 3D").click()
    first = pixels(page)
    page.keyboard.press("ArrowLeft")
    assert (pixels(page) != first).any(axis=-1).mean() > 0.02
    assert "members" in card.inner_text()
    assert "volume" in card.inner_text()


def test_without_a_script_everything_is_there_to_read(browse, report: Path) -> None:
    page = browse(report, script=False)
    assert len(column(page, 1)) == SHOWN
    assert page.locator("button, input").count() == 0
    page.locator("#candidate-1 > summary").click()  # details need no script
    assert page.locator("#candidate-1 dl").is_visible()
    assert page.locator("#candidate-1").get_by_text("A cell of").is_visible()


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("width", [390, 1440])
def test_no_page_is_wider_than_its_window(browse, report: Path, width: int, script: bool) -> None:
    page = browse(report, width=width, script=script)
    assert overflow(page) == 0
    page.evaluate("document.querySelectorAll('details').forEach(folded => { folded.open = true })")
    assert overflow(page) == 0


@pytest.mark.parametrize("dark", [False, True])
def test_people_with_a_screen_reader_or_a_keyboard_lose_nothing(browse, report: Path, violations, dark: bool) -> None:
    page = browse(report, dark=dark)
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") is not dark
    page.locator("table.live a").first.click()
    page.locator("#candidate-1").get_by_role("button").first.click()
    page.get_by_text("Smallest and largest values").click()
    assert violations(page) == []


def test_markup_in_names_and_labels_stays_text(browse, report: Path, results) -> None:
    names = [name for row in results.best(SHOWN)["ids"].to_pylist() for name in row]
    assert {f"file/{MARKUP}.cif", "file/label.cif"} <= set(names)
    page = browse(report)
    assert page.title() == "seen · Assay"
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    page.get_by_label("Text in the row").fill(MARKUP)  # the script reads it, and writes nothing of it as markup
    assert page.title() == "seen · Assay"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_anywhere_is_text_even_without_the_policy_of_the_page(browse, tmp_path: Path, text: str) -> None:
    summary, (row,), bad, columns, means = content(text)
    row |= {"elements": text, "warnings": text, "reported": text, "ids": [text, "mp/mp-763"]}
    html = render(summary, [row], bad, [*columns, "warnings"], means, evidence=evidence(text))
    assert "Content-Security-Policy" in html
    path = tmp_path / "hostile.html"
    path.write_text(html.replace("Content-Security-Policy", "nothing"))
    page = browse(path)
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.locator("table.live a").click()
    page.get_by_role("button", name="Show the cell in 3D").click()
    page.get_by_label("Text in the row").fill(text)
    assert page.locator("table.live tbody th").inner_text() == f"Fe2{text}"
    assert page.locator("script, img, iframe, [onload], [onerror]").count() == 1
    assert page.get_by_role("link").evaluate_all("links => links.map(link => link.protocol)") == ["file:", "https:"]
    assert dialogs == []


def test_a_page_that_asks_for_something_elsewhere_is_caught(browse, tmp_path: Path) -> None:
    path = tmp_path / "leak.html"
    path.write_text('<!DOCTYPE html><title>t</title><img src="https://example.org/x.png" alt="">')
    browse(path)
    assert "request to https://example.org/x.png" in browse.wrong
    browse.wrong.clear()
