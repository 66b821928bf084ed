"""The drawing of a cell: it turns, and shows the shares of a site."""

from __future__ import annotations

import base64
import io
import json
from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import assay
from assay.screening.display import cells, scripts
from assay.sources.crystals import Crystals

DATA = Path(__file__).resolve().parents[1] / "data"


def page_of(crystal: Crystals, folder: Path) -> Path:
    """A page with nothing but a crystal."""
    script = scripts.text(scripts.CRYSTAL)
    holder = f'<div data-crystal="{escape(cells.drawing(crystal))}" data-name="it"></div>'
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {scripts.digest(script)}"
    path = folder / "crystal.html"
    path.write_text(
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>A crystal</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<style>canvas {{ width: 400px; height: 300px; touch-action: none }}</style></head>"
        f"<body>{holder}<script>{script}</script></body></html>"
    )
    return path


def pixels(page, canvas="canvas") -> np.ndarray:
    """(height, width, 4) what a canvas shows."""
    url = page.evaluate("selector => document.querySelector(selector).toDataURL()", canvas)
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA"))


def area(image: np.ndarray, colour: str) -> int:
    """Pixels of about a colour, lit or in the shade."""
    wanted = np.array(list(bytes.fromhex(colour[1:])), float)
    return int((np.abs(image[..., :3] - wanted).max(axis=-1) < 12)[image[..., 3] == 255].sum())


def test_a_crystal_turns_by_mouse_and_keys_and_comes_back(browse, tmp_path: Path) -> None:
    page = browse(page_of(assay.read(DATA / "Nb3Sn.vasp"), tmp_path))
    page.get_by_role("button", name="Show the cell in 3D").click()
    first = pixels(page)
    assert (first[..., 3] > 0).mean() > 0.05
    page.keyboard.press("ArrowRight")
    turned = pixels(page)
    assert (turned != first).any(axis=-1).mean() > 0.02
    page.keyboard.press("Home")
    assert (pixels(page) == first).all()
    page.mouse.move(150, 150)
    page.mouse.down()
    page.mouse.move(190, 130, steps=4)
    page.mouse.up()
    dragged = pixels(page)
    assert (dragged != first).any(axis=-1).mean() > 0.02
    page.mouse.move(100, 100)
    assert (pixels(page) == dragged).all()  # nothing is dragged any more
    page.keyboard.press("+")
    assert (pixels(page)[..., 3] > 0).sum() > (dragged[..., 3] > 0).sum()


def test_a_turn_by_touch(browse, tmp_path: Path) -> None:
    page = browse(page_of(assay.read(DATA / "MgB2.cif"), tmp_path), width=390, has_touch=True)
    page.get_by_role("button").tap()
    first = pixels(page)
    finger = page.context.new_cdp_session(page)
    for kind, x in (("touchStart", 100), ("touchMove", 120), ("touchMove", 160), ("touchEnd", None)):
        finger.send(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [] if x is None else [{"x": x, "y": 150}]}
        )
    assert (pixels(page) != first).any(axis=-1).mean() > 0.02


def shared(shares: dict[int, float]) -> Crystals:
    """One site that several elements share."""
    n = len(shares)
    return Crystals(["x"], [np.eye(3) * 3.0], [0, 1], [[0.5, 0.5, 0.5]], [0, n], [*shares], [*shares.values()])


def test_the_sectors_of_a_site_are_as_wide_as_the_shares(browse, tmp_path: Path) -> None:
    halves, quarters = {11: 0.5, 19: 0.5}, {11: 0.75, 19: 0.25}
    found = []
    for shares in (halves, quarters):
        crystal = shared(shares)
        colours = {symbol: colour for symbol, colour, _ in json.loads(cells.drawing(crystal))["elements"]}
        page = browse(page_of(crystal, tmp_path))
        page.get_by_role("button").click()
        image = pixels(page)
        found.append(area(image, colours["K"]) / area(image, colours["Na"]))
        assert page.locator(".legend").inner_text().split() == ["Na", "K"]
    assert found[0] > 2 * found[1] > 0


def test_a_vacancy_has_no_colour(browse, tmp_path: Path) -> None:
    found = []
    for share in (1.0, 0.5):
        page = browse(page_of(shared({41: share}), tmp_path))
        page.get_by_role("button").click()
        found.append(area(pixels(page), "#73c2c9"))
    assert found[1] == pytest.approx(found[0] / 2, rel=0.4)


def test_an_atom_on_a_corner_stands_on_all_of_them(browse, tmp_path: Path) -> None:
    page = browse(page_of(assay.read(DATA / "MgB2.cif"), tmp_path))
    counts = page.evaluate("""() => {
        const crystal = JSON.parse(document.querySelector("[data-crystal]").dataset.crystal);
        return [crystal.sites.length, atomsOf(crystal).length];
    }""")
    assert counts == [3, 8 + 2]
