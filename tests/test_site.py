"""The documentation site: built strictly, complete, and whole without a network."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import assay

pytest.importorskip("zensical", reason="needs zensical and mkdocstrings: pip install assay[dev]")
pytest.importorskip("mkdocstrings", reason="needs zensical and mkdocstrings: pip install assay[dev]")

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "docs" / "site" / "build.py"
SETTINGS = ROOT / "docs" / "site" / "zensical.toml"
LAZY = ("mermaid", "glightbox", "pyodide", "md-exec")
"""Classes for which the theme would load a script from elsewhere."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def pages(site: Path) -> dict[str, str]:
    html = site / "html"
    return {str(path.relative_to(html)): path.read_text() for path in html.rglob("*.html")}


def test_the_reference_has_each_public_name_with_its_docstring(site: Path) -> None:
    text = pages(site)["docs/site/api.html"]
    assert [name for name in assay.__all__ if f'id="assay.{name}"' not in text] == []
    assert "An unreadable crystal is left out with a warning" in text
    assert "(n, 3, 3)" in text


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for name, text in pages(site).items():
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]* src=\"?([^\s\">]+)", text)
        loaded += re.findall(
            r"<link[^>]* rel=\"?(?:stylesheet|preconnect|icon|preload)\"?[^>]*?href=\"?([^\s\">]+)", text
        )
        assert len(loaded) > 2, name
        assert [place for place in loaded if place.startswith(("http:", "https:", "//"))] == [], name
        assert not re.search(rf'class="[^"]*({"|".join(LAZY)})', text), name
    styles = "".join(path.read_text() for path in (site / "html").rglob("*.css"))
    assert re.findall(r"@import|url\(\"?(?:https?:)?//[^)]*", styles) == []


def test_every_document_is_in_the_navigation(site: Path) -> None:
    listed = re.findall(r'"([^"\s]+\.md)"', SETTINGS.read_text().partition("nav = ")[2].partition("\n]\n")[0])
    written = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "how-to").glob("*")]
    names = {str(path.relative_to(ROOT).with_suffix(".md")) for path in written}
    assert names <= set(listed)
    assert all((site / "html" / place).with_suffix(".html").exists() for place in listed if place != "README.md")
    assert "From three CIFs to a shortlist" in pages(site)["docs/how-to/tutorial.html"]
    assert "<img" in pages(site)["docs/how-to/tutorial.html"]


def test_a_broken_link_or_anchor_ends_the_build(tmp_path: Path) -> None:
    content = tomllib.loads(SETTINGS.read_text())["project"]
    assert content["docs_dir"] == "pages"
    (tmp_path / "pages").mkdir()
    (tmp_path / "zensical.toml").write_text('[project]\nsite_name = "a"\ndocs_dir = "pages"\nsite_dir = "html"\n')
    command = [Path(sys.executable).parent / "zensical", "build", "--strict", "-f", tmp_path / "zensical.toml"]
    for text, code in (("[a](#b)\n\n## b\n", 0), ("[a](nowhere.md)\n", 1), ("[a](#nowhere)\n", 1)):
        (tmp_path / "pages" / "index.md").write_text(f"# a\n\n{text}")
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == code, text + done.stdout + done.stderr


def script() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("site_build", SCRIPT)
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    return build


def test_files_that_pages_link_to_are_copied_and_missing_ones_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = script()
    monkeypatch.setattr(build, "ROOT", tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.yaml").write_text("a: 1\n")
    (tmp_path / "a.md").write_text(
        "[a](configs/a.yaml) ![p](p.png) [web](https://example.org) [top](#a)\ntext\n- item\n"
    )
    told = f"a.md links to {tmp_path / 'p.png'}, which is not there"
    assert build.stage(tmp_path / "out", ["a.md"]) == [told]
    assert (tmp_path / "out" / "configs" / "a.yaml").read_text() == "a: 1\n"
    assert (tmp_path / "out" / "a.md").read_text().endswith("text\n\n- item\n")


def test_a_notebook_becomes_a_page() -> None:
    build = script()
    picture = {"output_type": "display_data", "data": {"image/png": "QUJD\n", "text/plain": ["<Figure>"]}}
    table = {"output_type": "execute_result", "data": {"text/html": "<table>", "text/plain": ["a\n", "1"]}}
    cells = [
        {"cell_type": "markdown", "source": ["# T\n", "\n", "words"]},
        {"cell_type": "code", "source": "x", "outputs": [table, picture]},
    ]
    text = build.as_markdown({"cells": cells})
    assert text == (
        "# T\n\nwords\n\n```python\nx\n```\n\n```text\na\n1\n```\n\n"
        '<img alt="output" src="data:image/png;base64,QUJD">\n'
    )
