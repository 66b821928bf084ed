"""Makes the pictures of the pages in docs/pictures, from the quickstart: `python -m tests.browser.pictures`.

`report.png` has the table with some rows and one candidate with its cell; `report-plots.png` the map, the elements of
the shortlist and the calibration rows; `server.png` the prediction of an uploaded file and the candidates that are
served.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from playwright.sync_api import sync_playwright

import assay
from tests.browser import chromium
from tests.screening.serving.conftest import Running

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
FILE = Path(__file__).resolve().parents[1] / "data" / "La1.85Sr0.15CuO4.cif"
WIDTH, ROWS, CANDIDATE = 1200, 7, 40
GAP = 16


def main() -> None:
    """Run the quickstart and photograph its report."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        results = assay.screen("quickstart", output=f"{folder}/run")
        browser = chromium.launch(playwright)
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.goto((results.folder / "report.html").as_uri())
        stack([top(page), candidate(page)], PICTURES / "report.png")
        plots = page.locator("figure.panel")
        stack([shot(plots.nth(k)) for k in (2, 1)] + [shot(page.locator(".pair").first)], PICTURES / "report-plots.png")
        with Running(Path(folder) / "uploads", results.folder, "--model", "tc-graphs") as server:
            page.set_viewport_size({"width": WIDTH, "height": 700})
            stack([uploaded(page, server.url), served(page, server.url)], PICTURES / "server.png")
        browser.close()


def top(page: Page) -> Image.Image:
    """The filters and the first rows of the table."""
    form = page.locator("form.filters").bounding_box()
    row = page.locator("table.live tbody tr").nth(ROWS - 1).bounding_box()
    assert form is not None
    assert row is not None
    clip = {"x": 0, "y": form["y"] - 4, "width": WIDTH, "height": row["y"] + row["height"] - form["y"] + 4}
    return picture(page.screenshot(clip=clip, full_page=True))


def candidate(page: Page) -> Image.Image:
    """One candidate, unfolded, with its cell."""
    card = page.locator(f"#candidate-{CANDIDATE}")
    card.locator("summary").first.click()
    card.get_by_role("button").click()
    return shot(card)


def uploaded(page: Page, url: str) -> Image.Image:
    """The prediction of a file, with its cell."""
    page.goto(f"{url}/upload")
    page.get_by_label("File").set_input_files(FILE)
    page.get_by_role("button", name="Predict").click()
    page.get_by_role("button", name="3D").click()
    page.evaluate("scrollTo(0, 0)")
    return picture(page.screenshot())


def served(page: Page, url: str) -> Image.Image:
    """The first candidates of a campaign."""
    page.goto(url)
    page.get_by_role("link", name="quickstart").first.click()
    return picture(page.screenshot())


def shot(place) -> Image.Image:
    """A part of the page."""
    return picture(place.screenshot())


def picture(png: bytes) -> Image.Image:
    """A picture without its transparency."""
    return Image.open(io.BytesIO(png)).convert("RGB")


def stack(images: list[Image.Image], path: Path) -> None:
    """One below the other, in few colours."""
    height = sum(image.height + GAP for image in images) - GAP
    whole = Image.new("RGB", (max(image.width for image in images), height), "white")
    y = 0
    for image in images:
        whole.paste(image, ((whole.width - image.width) // 2, y))
        y += image.height + GAP
    whole.quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main()
