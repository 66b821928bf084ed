"""The command `assay`: arguments in, exit code out.

Enters: the command line. Leaves: data on standard output, everything else on standard error. The
table `COMMANDS` lists every command; the module of a command is imported when it is invoked, so
that `assay --help` is quick. This module knows no science.
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
from assay.screening.settings.exits import Exit, leave, listen

_AT = "assay.screening.commands"
_ON = f"{_AT}.results"
COMMANDS: dict[str, tuple[str, str]] = {
    "run": (f"{_AT}.run_campaign:run", "Run a campaign, or go on with a stopped one: pull, score, rank."),
    "pull": (f"{_AT}.run_campaign:pull", "Pull the sources of a campaign into its snapshot, and stop there."),
    "rank": (f"{_AT}.run_campaign:rank", "Rank a scored campaign again, for example with --set rank.by=lower."),
    "report": (f"{_AT}.run_campaign:report", "Write the outputs of a scored campaign again, report.html among them."),
    "status": (f"{_ON}.inspect_campaign:status", "Show how far a campaign is, also while it runs."),
    "verify": (f"{_ON}.inspect_campaign:verify", "Read a campaign folder again; list damaged, lost or changed files."),
    "unlock": (f"{_ON}.inspect_campaign:unlock", "Remove the lock that a dead process left in a campaign folder."),
    "errors": (f"{_ON}.inspect_campaign:errors", "List the refused crystals of a campaign by cause, with remedies."),
    "export": (f"{_ON}.export_candidates:export", "Write the best of a campaign as CIF, POSCAR, tables and more."),
    "select": (f"{_ON}.select_batch:select", "Choose what to measure next from a finished campaign."),
    "learn": (f"{_ON}.learn_measured:learn", "Learn measured values, and rank the campaign again."),
    "predict": (f"{_AT}.predict_files:predict", "Predict the crystals in some files: mean ± std with its interval."),
    "explain": (f"{_AT}.explain_files:explain", "Show what each atom adds to a prediction: tables and pictures."),
    "relax": (f"{_AT}.relax_files:relax", "Relax crystals with a force field, atoms and cell together."),
    "hull": (f"{_AT}.tables.above_hull:hull", "Say how far formulas lie above a convex hull, by known energies."),
    "check-potential": (f"{_AT}.force_fields:check_potential", "Check a force field: slopes, dynamics, pairs."),
    "render": (f"{_AT}.render_files:render", "Draw crystals as the vision networks see them: one PNG per view."),
    "distil": (f"{_AT}.force_fields:distil", "Make a small, fast force field from a large one."),
    "train": (f"{_AT}.train_ensemble:train", "Train an ensemble by a recipe, calibrate it, and write its card."),
    "evaluate": (f"{_AT}.evaluate_ensemble:evaluate", "Measure an ensemble on known values, beside baselines."),
    "study": (f"{_AT}.study_recipes:study", "Learn one property in several ways on the same rows; write the table."),
    "simulate": (f"{_ON}.simulate_campaign:simulate", "Replay known values as a sequential campaign."),
    "tune": (f"{_AT}.study_recipes:tune", "Search the sizes and rates of a recipe with Ray Tune."),
    "model": (f"{_AT}.import_models:app", "Import checkpoints from elsewhere."),
}  # fmt: skip
"""Name -> (module:function, first sentence of the function's docstring); one line per command."""


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
    """Import a command of the table."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    found: Any = getattr(import_module(module), attribute)
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
    gc.set_threshold(100_000)  # importing torch and numba makes many objects that stay: 0.4 s of looking for cycles
    code = ending.of(app)
    terminal.finish()
    if code is Exit.DONE:
        sys.exit(code)
    leave(code)
