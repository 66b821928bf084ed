"""The commands of README and how-to pages run: offline ones for real and in order, others as far as their arguments."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from assay.models.networks import registry
from assay.screening.settings import config
from assay.screening.training import recipes
from tests.chaos.preloaded import Preloaded

ROOT = Path(__file__).resolve().parents[1]
HOW_TO = sorted((ROOT / "docs" / "how-to").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
LIVE = {"containers", "materials-project", "ray-cluster", "slurm-night"}
"""How-to pages that need a server, a cluster, a queue or a builder of images."""
SMALL = ["--set", "sources.0.n=200"]
"""Makes the quickstart campaign short enough for a test."""


def commands(path: Path) -> list[list[str]]:
    """Every command line in the shell blocks of a document, without prompts, comments and variables in front."""
    blocks = re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [[*words] for words in (_without_variables(words) for words in found) if words]


def _without_variables(words: list[str]) -> list[str]:
    while words and re.match(r"^[A-Z_]+=", words[0]):
        words = words[1:]
    return words


def lines_of(program: str) -> list[tuple[str, list[str]]]:
    return [(path.name, words[1:]) for path in DOCUMENTS for words in commands(path) if words[0] == program]


def named(case: object) -> str | None:
    return " ".join(case)[:60] if isinstance(case, list) else None


@pytest.mark.parametrize(("document", "arguments"), lines_of("make"), ids=named)
def test_make_targets_exist(document: str, arguments: list[str]) -> None:
    child = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 0, f"{document}: {child.stderr}"


@pytest.mark.parametrize(("document", "arguments"), lines_of("assay"), ids=named)
def test_arguments_are_understood(document: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from assay.screening.commands import cli

    monkeypatch.chdir(ROOT)
    if arguments[0].startswith("-"):
        return
    command: Any = cli.load(arguments[0])
    rest = arguments[1:]
    while hasattr(command, "commands"):  # `assay model import`
        command, rest = command.commands[rest[0]], rest[1:]
    if "--help" not in arguments:
        command.make_context(arguments[0], list(rest))
    for word in arguments[1:]:
        if word.startswith(("configs/", "tests/")):
            assert (ROOT / word).exists(), f"{document} names {word}"


def test_documents_explain_ensembles_that_read_structures(zoo: Path) -> None:
    shown = [words[words.index("--model") + 1] for _, words in lines_of("assay") if words[0] == "explain"]
    described = [path for name in shown for path in sorted((zoo / name).glob("*/model.json"))]
    families = {registry.MODELS[json.loads(path.read_text())["network"]].reads.family for path in described}
    assert families == {"graphs"}, shown


def test_the_two_commands_of_the_house_are_shown() -> None:
    shown = {" ".join(words) for words in commands(ROOT / "README.md")}
    assert {"make screen", "make test"} <= shown


def files_of(page: Path) -> dict[str, str]:
    """The blocks of a page that have a name: those that the reader writes into a file of this name."""
    blocks = re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', page.read_text(), re.DOTALL | re.MULTILINE)
    return dict(blocks)


@pytest.fixture
def folder(zoo: Path, tmp_path: Path) -> Path:
    """A folder with the repository's inputs, so that what commands write stays out of it."""
    for name in ("configs", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "models").mkdir()
    for path in (ROOT / "models").iterdir():
        if path.name != "zoo":
            (tmp_path / "models" / path.name).symlink_to(path)
    (tmp_path / "models" / "zoo").symlink_to(zoo)
    return tmp_path


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *(page for page in HOW_TO if page.stem not in LIVE)], ids=lambda page: page.stem
)
def test_the_offline_commands_run_in_order(page: Path, folder: Path, preloaded: Preloaded) -> None:
    for name, text in files_of(page).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    ran = 0
    for words in commands(page):
        if words[0] == "cp":
            for name in words[1:-1]:
                shutil.copy(folder / name, folder / words[-1])
        elif words[0] == "assay" and is_offline(words[1:], files_of(page)):
            extra = SMALL if words[1:3] == ["run", "quickstart"] else []
            child = preloaded.run([*words[1:], *extra], folder)
            assert child.returncode == 0, f"{shlex.join(words)}\n{child.stderr[-2000:]}"
            assert child.stdout
            ran += 1
    assert ran >= (3 if page.stem != "id-prop" else 2)


@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_the_files_of_a_how_to_page_load(page: Path, tmp_path: Path) -> None:
    for name, text in files_of(page).items():
        path = tmp_path / Path(name).name
        path.write_text(text)
        if path.suffix == ".yaml":
            assert recipes.load(path) if "members:" in text else config.load(path)


def is_offline(arguments: list[str], own_files: dict[str, str]) -> bool:
    """Neither live sources, nor Ray, nor a server, nor a training or what follows it, nor files of the reader."""
    skipped = ("train", "evaluate", "study", "simulate", "tune", "model", "pull", "serve")
    if arguments[0] in skipped or "ray" in arguments:
        return False
    if "--model" in arguments and arguments[arguments.index("--model") + 1].startswith("runs/"):
        return False
    if arguments[0] == "run":
        return arguments[1] == "quickstart" or arguments[1] in own_files
    own = [word for word in arguments[1:] if re.search(r"\.(cif|vasp|extxyz)$", word)]
    return all((ROOT / word).exists() for word in own)
