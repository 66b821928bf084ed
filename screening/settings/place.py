"""Where commands may write: the one rule for every `--output`.

Enters: the text or path given as `--output`. Leaves: a path that may be written to, or one line
that names what lies there. A folder is written to when it is absent, empty, or was made by the same
command; Assay leaves every other one alone. This module does not know what is written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from assay.screening.settings.exits import Exit, Failure
from assay.sources import durable

MARK = ".assay"
"""File in a folder that a command made; it holds the name of the command."""
SHOWN = 3
"""Names of foreign files that a message lists."""


def named(text: str | Path) -> Path:
    """The path that an option names; an empty text is not taken for the current folder.

    A path, which is a default, stays as it is.

    Raises:
        Failure: USAGE, when the text is empty or blank.
    """
    if not str(text).strip():
        raise Failure(Exit.USAGE, f"--output {text!r} names nothing; give a path (is a shell variable not set?)")
    return Path(text)


def claim(folder: Path, command: str) -> bool:
    """Make the folder of a command and mark it; whether the command left files there before.

    What a killed run of the command began to write there is removed.

    Raises:
        Failure: CONFIG, when the folder holds files that this command did not make.
    """
    mark = folder / MARK
    begun = mark.is_file() and mark.read_text(encoding="utf-8", errors="replace").strip() == command
    check(folder, lambda _: begun, f"nothing that assay {command} made")
    if begun:
        durable.sweep(folder)
    else:
        durable.write(mark, f"{command}\n")
    return any(entry.name != MARK for entry in folder.iterdir())


def check(folder: Path, ours: Callable[[str], bool], lacks: str) -> None:
    """Refuse a path that is no folder, or a folder in which something lies that is not ours.

    `ours` judges the names in the folder; `lacks` says what the folder does not hold.

    Raises:
        Failure: CONFIG, with the first foreign names and the way out.
    """
    try:
        foreign = sorted(entry.name for entry in folder.iterdir() if not ours(entry.name))
    except FileNotFoundError:
        foreign = []
    except NotADirectoryError:
        what = f"{folder} or a part of it is a file, expected a folder"
        raise Failure(Exit.CONFIG, f"{what}; choose another --output") from None
    if foreign:
        more = f" and {len(foreign) - SHOWN} more" if len(foreign) > SHOWN else ""
        lie = f"{', '.join(foreign[:SHOWN])}{more}"
        advice = "choose another --output, or move them away: Assay neither overwrites nor deletes them"
        raise Failure(Exit.CONFIG, f"{folder} is not empty ({lie}) and holds {lacks}; {advice}")
    if not folder.parts and not ours(""):
        raise Failure(Exit.CONFIG, f"--output {folder} is the current folder; name a folder of its own")
