"""Builds the documentation site, strictly: `python docs/site/build.py [FOLDER]`.

Enters: the README, the documents, the notebook, and whatever file of the repository they link to.
Leaves: `FOLDER/html`, by default in `build/site`; a broken link ends it with an error. The pages
keep their places in the repository, so that every relative link leads to the same file as there.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs")
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")

LIST = re.compile(r"^((?!- |\d+\. )\S.*\n)(?=- |1\. )", re.MULTILINE)
"""A line that is no item of a list, before a list."""


def main(folder: Path) -> int:
    """Build the site in a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    if missing := stage(folder / "pages"):
        sys.stderr.writelines(f"{line}\n" for line in missing)
        return 1
    shutil.copy(ROOT / "docs" / "site" / "zensical.toml", folder)
    config = folder / "zensical.toml"
    config.write_text(config.read_text().replace('paths = ["../.."]', f"paths = [{json.dumps(str(ROOT))}]"))
    command = [str(Path(sys.executable).parent / "zensical"), "build", "--strict", "--config-file", str(config)]
    return subprocess.run(command, check=False).returncode  # noqa: S603 (our own program)


def stage(pages: Path, start: Sequence[str] = START) -> list[str]:
    """Copy the pages, and all files that they link to, into a folder; name missing ones.

    Zensical checks links between pages alone: of other files and of pictures it says nothing.
    """
    waiting = [path for name in start for path in _files(ROOT / name)]
    seen: set[Path] = set()
    missing: list[str] = []
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        place = (pages / path.relative_to(ROOT)).with_suffix(".md" if path.suffix == ".ipynb" else path.suffix)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix not in {".md", ".ipynb"}:
            shutil.copy(path, place)
            continue
        text = path.read_text() if path.suffix == ".md" else as_markdown(json.loads(path.read_text()))
        place.write_text(_spaced(LINK.sub(_moved, text)))
        targets = _targets(path, text)
        missing += [
            f"{path.relative_to(ROOT)} links to {target}, which is not there"
            for target in targets
            if not target.exists()
        ]
        waiting += [target for target in targets if target.is_file() and target.is_relative_to(ROOT)]
    return missing


def as_markdown(notebook: dict[str, Any]) -> str:
    """A notebook with its outputs as a page."""
    parts: list[str] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = {kind: "".join(text) for kind, text in output.get("data", {}).items()}
            if "image/png" in data:
                parts.append(f'<img alt="output" src="data:image/png;base64,{data["image/png"].strip()}">')
            else:
                parts.append(f"```text\n{data.get('text/plain', ''.join(output.get('text', '')))}\n```")
    return "\n\n".join(parts) + "\n"


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _targets(page: Path, text: str) -> list[Path]:
    return [(page.parent / link[1]).resolve() for link in LINK.findall(text) if ":" not in link[1]]


def _spaced(text: str) -> str:
    """A blank line before each list, which Markdown of Python needs and GitHub does not."""
    parts = re.split(r"(^```.*?^```)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else LIST.sub(r"\1\n", part) for part in parts)


def _moved(link: re.Match[str]) -> str:
    """A link to the notebook leads to its page."""
    target = re.sub(r"\.ipynb$", ".md", link[2]) if ":" not in link[2] else link[2]
    return f"{link[1]}{target}{link[3]}"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site").resolve()))
