"""The command `assay`: arguments in, exit code out.

Enters: the command line. Leaves: data on standard output, everything else on standard error. The
module of a command is imported when it is invoked, so that `assay --help` is quick. This module
knows no science.
"""

from __future__ import annotations

import difflib
import gc
import logging
import sys
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command

from assay.screening.commands import ending, terminal
from assay.screening.commands.command_table import COMMANDS
from assay.screening.settings.exits import Exit, leave, listen
from assay.sources.checks.importing import spare_pandas


class Commands(TyperGroup):
    """The commands of `COMMANDS`, each imported on use."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # noqa: ARG002 (a signature of typer)
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]  # noqa: ARG002 (the same)
        """The command of a name, imported now."""
        return load(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """The command that the arguments begin with; an unknown name gets the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]  # noqa: ARG002 (the same)
        """Write names and sentences from the table: no command is imported for the list."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in COMMANDS.items()])


def load(name: str) -> Any:
    """Import a command of the table.

    What torch, numba and the others make stays to the end, so no cycles are looked for in it.
    """
    module, _, attribute = COMMANDS[name][0].partition(":")
    gc.disable()
    found: Any = getattr(import_module(module), attribute)
    gc.freeze()
    gc.enable()
    spare_pandas()
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        single.command(name)(found)
        found = single
    return get_command(found)


app = typer.Typer(
    name="assay",
    cls=Commands,
    help="Screen crystals: pull structures, predict a property with an error bar, rank.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text: rich alone would take a third of the time of --help
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more, tracebacks too.")] = False,
) -> None:
    if verbose:
        logging.getLogger().setLevel(logging.DEBUG)


def main() -> NoReturn:
    """Run the command; an expected failure is one line, a defect keeps its traceback.

    A reader of the output that went away (`assay status RUN | head -1`) changes no exit code.
    """
    terminal.set_up()
    listen()
    gc.set_threshold(100_000)
    code = ending.of(app)
    terminal.finish()
    if code is Exit.DONE:
        sys.exit(code)
    leave(code)
