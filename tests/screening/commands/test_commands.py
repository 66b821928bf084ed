"""The table of commands: what --help says is what the commands say, and a command may come from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from assay.screening.commands import cli

FOLDER = Path(cli.__file__).parent


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_of_the_table_is_the_first_sentence_of_the_docstring(name: str) -> None:
    path, sentence = cli.COMMANDS[name]
    module, _, attribute = path.partition(":")
    found = getattr(import_module(module), attribute)
    documented = found.registered_callback.callback if isinstance(found, typer.Typer) else found
    assert sentence == documented.__doc__.partition("\n")[0]
    assert sentence.endswith(".")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_a_help_of_its_own(name: str) -> None:
    done = CliRunner().invoke(cli.app, [name, "--help"])
    assert done.exit_code == 0
    assert " ".join(cli.COMMANDS[name][1].split()) in " ".join(done.stdout.split())


def test_the_group_for_checkpoints_keeps_its_command() -> None:
    assert "import" in CliRunner().invoke(cli.app, ["model", "--help"]).stdout
    assert "--property" in CliRunner().invoke(cli.app, ["model", "import", "--help"]).stdout


def test_an_unknown_command_is_refused_with_the_nearest() -> None:
    done = CliRunner().invoke(cli.app, ["predickt", "x.cif"])
    assert done.exit_code == 2
    assert "No such command 'predickt'. Did you mean 'predict'?" in done.stderr


def test_a_command_from_outside_the_package_is_one_file_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(
        words: Annotated[list[str], typer.Argument(help="Words.")],
        loud: Annotated[bool, typer.Option("--loud", help="With an exclamation mark.")] = False,
    ) -> None:
        """Count words."""
        typer.echo(f"{len(words)}{'!' * loud}")

    count.__annotations__ = {"words": Annotated[list[str], typer.Argument(help="Words.")],
                             "loud": Annotated[bool, typer.Option("--loud")]}  # fmt: skip
    toy = ModuleType("toy_command")
    toy.count = count  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_command", toy)
    monkeypatch.setitem(cli.COMMANDS, "count", ("toy_command:count", "Count words."))
    assert "Count words." in CliRunner().invoke(cli.app, ["--help"]).stdout
    done = CliRunner().invoke(cli.app, ["count", "one", "two", "--loud"])
    assert (done.exit_code, done.stdout) == (0, "2!\n")


def test_commands_that_look_at_a_folder_load_no_network() -> None:
    code = "import sys; from assay.screening.commands import cli; [cli.load(name) for name in sys.argv[1:]]"
    words = [sys.executable, "-c", f"{code}; print('torch' in sys.modules)"]
    for names, loaded in ((("status", "errors", "unlock", "verify", "run"), "False"), (("explain",), "True")):
        done = subprocess.run([*words, *names], capture_output=True, text=True, cwd=FOLDER.parents[1], check=False)
        assert (done.stdout.strip(), done.stderr) == (loaded, ""), names


def test_the_files_of_commands_are_short_and_shadow_no_module() -> None:
    rooms = FOLDER.parent
    others = {path.stem for path in rooms.rglob("*.py") if path.parent != FOLDER}
    for path in FOLDER.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 120, path.name
        assert path.stem == "__init__" or path.stem not in others, path.name
        taken = re.findall(r"^def ([a-z]\w*)", path.read_text(), re.MULTILINE)
        imported = re.findall(r"^from [\w.]+ import (.*)$", path.read_text(), re.MULTILINE)
        names = {word.split()[-1] for line in imported for word in line.split(", ")}
        assert not names & set(taken), f"{path.name} defines {names & set(taken)} over an import"
