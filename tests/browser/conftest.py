"""A real browser: headless Chromium that reaches this machine and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

FOLDER = Path(os.environ.get("ASSAY_BROWSER") or Path(sys.prefix) / "browser")
"""Where `make browser` puts it."""
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--font-render-hinting=none"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
HERE = "file:", "data:", "blob:", "http://127.0.0.1:"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; one per file of tests, because Playwright holds the event loop of its process."""
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install assay[dev]")
    if not (FOLDER / "chromium").exists():
        pytest.skip(f"no browser in {FOLDER}: make browser puts one there")
    place = {"LD_LIBRARY_PATH": FOLDER / "al2023" / "lib", "FONTCONFIG_PATH": FOLDER / "fonts", "HOME": FOLDER}
    environment = os.environ | {name: str(path) for name, path in place.items()}
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=FOLDER / "chromium", args=ARGUMENTS, env=environment, chromium_sandbox=False
        )
        yield chromium
        chromium.close()


@pytest.fixture
def browse(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a page: `browse(path_or_url, width=1440, script=True, dark=False)`.

    After the test, every request must have stayed on this machine, and no script may have failed.
    """
    wrong: list[str] = []
    contexts = []

    def guard(route: Route) -> None:
        url = route.request.url
        if url.startswith(HERE):
            route.continue_()
        else:
            wrong.append(f"request to {url}")
            route.abort()

    def open_page(
        place: Path | str,
        *,
        width: int = 1440,
        height: int = 900,
        script: bool = True,
        dark: bool = False,
        **options: Any,
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            java_script_enabled=script,
            color_scheme="dark" if dark else "light",
            **options,
        )
        contexts.append(context)
        context.route("**/*", guard)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
        page.on("console", lambda said: wrong.append(f"console: {said.text}") if said.type == "error" else None)
        page.goto(place.resolve().as_uri() if isinstance(place, Path) else place)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="session")
def violations() -> Callable[[Page], list[str]]:
    """What axe-core finds against WCAG 2 A and AA on a page: one line per rule and element."""
    source = FOLDER / "node_modules" / "axe-core" / "axe.min.js"

    def find(page: Page) -> list[str]:
        page.evaluate(source.read_text())
        found = page.evaluate("axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] })")
        return [f"{rule['id']}: {node['html']}" for rule in found["violations"] for node in rule["nodes"]]

    return find


def overflow(page: Page) -> int:
    """Pixels by which a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
