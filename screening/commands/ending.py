"""How a command ends: its exit code, and the one line that says why it failed.

Enters: the application. Leaves: an exit code, and text on standard error. It knows no command.
"""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

from assay.screening.commands import terminal
from assay.screening.settings.exits import STOPPED, Exit, Failure, Stopped, explain

if TYPE_CHECKING:
    import typer

INTERRUPTED = 130
"""What typer makes of a `KeyboardInterrupt` that a library raised."""


def of(app: typer.Typer) -> Exit:
    """Run the command, and say how it failed."""
    stopped = Failure(Exit.STOPPED, STOPPED)
    try:
        if app(standalone_mode=False) == INTERRUPTED:
            return _failed(stopped)
    except Stopped:
        return _failed(stopped)
    except SystemExit:
        return Exit.DONE  # typer gives up so when nobody reads its help
    except Exception as error:  # the last frame of the program: nothing is swallowed
        if isinstance(getattr(error, "exit_code", None), int):  # typer's own: the command line is wrong
            return _misused(error)
        failure = explain(error)
        if failure is None:
            terminal.trace(error)
            return Exit.DEFECT
        logging.getLogger(__name__).debug("the whole story", exc_info=error)
        return _failed(failure)
    return Exit.DONE


def _failed(failure: Failure) -> Exit:
    terminal.say(f"assay: {failure}", err=True)
    return failure.code


def _misused(error: Any) -> Exit:
    """Show typer's words about the command line: how to call the command, and the mistake."""
    text = io.StringIO()
    error.show(text)
    terminal.say(*text.getvalue().rstrip("\n").split("\n"), err=True)
    return Exit.USAGE
