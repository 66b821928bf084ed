"""The README's commands run: offline ones for real and in order, live and long ones as far as their arguments."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.preloaded import Preloaded

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
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


def test_the_two_commands_of_the_house_are_shown() -> None:
    shown = {" ".join(words) for words in commands(ROOT / "README.md")}
    assert {"make screen", "make test"} <= shown


def test_the_offline_commands_run_in_order(zoo: Path, tmp_path: Path, preloaded: Preloaded) -> None:
    """In a folder with the repository's inputs, so that what they write stays out of it."""
    for name in ("configs", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "models").mkdir()
    for path in (ROOT / "models").iterdir():
        if path.name != "zoo":
            (tmp_path / "models" / path.name).symlink_to(path)
    (tmp_path / "models" / "zoo").symlink_to(zoo)
    ran = 0
    for words in commands(ROOT / "README.md"):
        if words[0] == "assay" and is_offline(words[1:]):
            extra = SMALL if words[1] == "run" else []
            child = preloaded.run([*words[1:], *extra], tmp_path)
            assert child.returncode == 0, f"{shlex.join(words)}\n{child.stderr[-2000:]}"
            assert child.stdout
            ran += 1
    assert ran >= 3


def is_offline(arguments: list[str]) -> bool:
    """Neither live sources, nor Ray, nor a training or what follows it, nor a server, nor files the reader brings."""
    if (
        arguments[0] in ("train", "evaluate", "study", "simulate", "tune", "model", "pull", "serve")
        or "ray" in arguments
    ):
        return False
    if arguments[0] == "run":
        return arguments[1] == "quickstart"
    own = [word for word in arguments[1:] if re.search(r"\.(cif|vasp|extxyz)$", word)]
    return all((ROOT / word).exists() for word in own)
