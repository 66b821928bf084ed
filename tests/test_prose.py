"""The prose: narrow lines, links that lead somewhere, words that the glossary explains."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 100
EXEMPT = {"CHANGELOG.md", "docs/log.md"}
"""Records of the past, which stay as they were written."""
PROSE = sorted(
    path
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "benchmarks/README.md",
        ROOT / "tests/chaos/README.md",
    )
    if str(path.relative_to(ROOT)) not in EXEMPT
)
GUIDES = [path for path in PROSE if path.name not in ("CHANGELOG.md", "glossary.md")]
GLOSSARY = ROOT / "docs" / "glossary.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
TREES = ("assay", "sources", "featurize", "models", "screening", "configs", "benchmarks", "tests", "docs", "containers")
MADE_ON_THE_WAY = re.compile(r"[*<>{}]|runs/|\.\.\.")
"""What stands in a path that is a pattern, or that a command of the reader will make."""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def without_code(text: str) -> str:
    """The lines of a document, those of its code blocks blank."""
    return re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """What a link can lead to inside a document, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.*)$", without_code(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def entries() -> dict[str, str]:
    """The words of the glossary, with their explanations on one line."""
    sections = re.split(r"^## ", GLOSSARY.read_text(), flags=re.MULTILINE)[1:]
    return {word: " ".join(text.split()) for word, _, text in (section.partition("\n") for section in sections)}


@pytest.mark.parametrize("path", PROSE, ids=name)
def test_prose_is_at_most_100_columns_wide(path: Path) -> None:
    free = ("|", "![", "<http")
    lines = enumerate(without_code(path.read_text()).splitlines(), 1)
    wide = [number for number, line in lines if len(line) > WIDTH and not line.lstrip("-*> ").startswith(free)]
    assert not wide, f"{name(path)}: lines {wide}"


@pytest.mark.parametrize("path", PROSE, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text())):
        if target.startswith(("http:", "https:")):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{name(path)} links to {target}"
        assert not anchor or anchor in anchors(found), f"{name(path)}: {name(found)} has no heading for #{anchor}"


@pytest.mark.parametrize("path", PROSE, ids=name)
def test_paths_of_the_repository_exist(path: Path) -> None:
    for span in re.findall(r"`([^`\n]+)`", without_code(path.read_text())):
        for word in span.split():
            tree, slash, _ = word.partition("/")
            if slash and tree in TREES and not MADE_ON_THE_WAY.search(word):
                assert (ROOT / word).exists(), f"{name(path)} names {word}"


@pytest.mark.parametrize("path", PROSE, ids=name)
def test_names_of_the_package_exist(path: Path) -> None:
    for dotted in sorted(set(re.findall(r"`(assay(?:\.\w+)+)", without_code(path.read_text())))):
        found: Any = importlib.import_module("assay")
        for place, part in enumerate(dotted.split(".")[1:], 2):
            if not hasattr(found, part):
                importlib.import_module(".".join(dotted.split(".")[:place]))
            found = getattr(found, part)


@pytest.mark.parametrize("path", [path for path in GUIDES if path.name != "CONTRIBUTING.md"], ids=name)
def test_a_guide_links_to_the_glossary(path: Path) -> None:
    assert "glossary.md#" in path.read_text()


def test_an_explanation_is_short_and_has_an_example() -> None:
    for word, text in entries().items():
        said = re.sub(r"<[^>]+>|`[^`]*`|\d\.\d", "x", text)  # no full stops but those of sentences
        assert len(re.findall(r"[.?!](?= |$)", said)) <= 3, f"{word} takes more than three sentences"
        assert text.count("Example: ") == 1, f"{word} has no example"
    assert list(entries()) == sorted(entries(), key=str.lower)


def test_the_words_that_a_reader_meets_are_explained() -> None:
    wanted = {"shard", "chunk", "page", "part", "tier", "audit", "quotient", "frozen network", "ledger", "member"}
    assert wanted | {"ood_distance", "calibration", "balance", "snapshot", "cascade", "prototype"} <= set(entries())


def test_the_layers_of_the_architecture_are_those_that_import_linter_holds() -> None:
    rows = re.findall(r"^(screening|models|sources) +(.+ > .+)$", ARCHITECTURE.read_text(), re.MULTILINE)
    told = {f"inside-{room}": layers.split(" > ") for room, layers in rows}
    assert told == {key: value["layers"] for key, value in contracts().items() if key.startswith("inside-")}


def test_the_doors_of_the_architecture_are_those_that_import_linter_holds() -> None:
    held: dict[str, set[str]] = {}
    for line in contracts()["doors"]["ignore_imports"]:
        module, library = line.removeprefix("assay.").split(" -> ")
        path = module.replace(".", "/").rstrip("*")
        held.setdefault(library.replace("_", "-"), set()).add(path if path.endswith("/") else f"{path}.py")
    table = ARCHITECTURE.read_text().partition("| library | only in |")[2].partition("\n\n")[0]
    told: dict[str, set[str]] = {}
    for libraries, places in re.findall(r"^\| (.+?) \| (.+) \|$", table, re.MULTILINE):
        for library in libraries.split(", "):
            told[library.replace("scikit-learn", "sklearn")] = set(re.findall(r"`([^`]+)`", places))
    assert told == held


def contracts() -> dict[str, Any]:
    """The contracts of import-linter by id."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {contract["id"]: contract for contract in settings["tool"]["importlinter"]["contracts"]}


def test_every_test_that_the_security_promises_name_exists() -> None:
    promised = re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text())
    written = {
        found
        for path in (ROOT / "tests").rglob("test_*.py")
        for found in re.findall(r"def (test_\w+)\(", path.read_text())
    }
    assert len(promised) > 30
    assert [found for found in promised if found not in written] == []


def test_every_promise_of_security_names_its_test() -> None:
    text = (ROOT / "SECURITY.md").read_text().partition("\n## ")[2]
    promises = [" ".join(item.split()) for item in re.split(r"\n- |\n\n", text) if not item.startswith(("## ", "\n"))]
    assert len(promises) > 15
    assert [promise for promise in promises if promise.count(" ") > 3 and "`test_" not in promise] == []
