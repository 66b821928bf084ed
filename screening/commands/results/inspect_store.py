"""The command group `assay store`: the folder in which campaigns keep outputs of members.

Enters: that folder. Leaves: text on standard output. `prune` alone removes anything.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sized
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from assay.models.ensemble.kept.store import File, Store
from assay.screening.commands.terminal import say
from assay.screening.settings.exits import Exit, Failure

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
Folder = Annotated[Path, typer.Argument(metavar="PATH", help="Folder of the store.")]
DEFAULT = Path("runs/.store")
UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@app.callback()
def store() -> None:
    """List, check or shrink the store of outputs that campaigns share."""


@app.command("ls")
def listing(folder: Folder = DEFAULT) -> None:
    """List what is kept, by network: files, GB, and when it was last used."""
    groups: dict[tuple[str, str], list[File]] = defaultdict(list)
    for file in _opened(folder).files():
        notes = file.notes()
        groups[notes.get("network", "unknown"), notes.get("weights", "")[:12]].append(file)
    for (network, weights), files in sorted(groups.items()):
        used = datetime.fromtimestamp(max(file.used for file in files), UTC)
        say(f"{_text(files)}  last used {used:%Y-%m-%d %H:%M} UTC  {network} {weights}".rstrip())
    say(f"{_text([file for files in groups.values() for file in files])}  in {folder}", err=True)


@app.command("verify")
def verify(folder: Folder = DEFAULT) -> None:
    """Read every file again; list the damaged ones.

    A campaign that needs a damaged file removes it and computes its numbers again.
    """
    opened = _opened(folder)
    bad = sorted(str(file.path) for file in opened.damaged())
    say(*bad)
    if bad:
        advice = "remove them, or leave that to the next campaign that needs them"
        raise Failure(Exit.DISK, f"damaged: {_number(bad)} of {folder}; {advice}")
    say(f"{_text(list(opened.files()))}, all intact", err=True)


@app.command("prune")
def prune(
    folder: Folder = DEFAULT,
    most: Annotated[str, typer.Option(metavar="SIZE", help="What may stay, for example 10GB or 512MiB.")] = "20GiB",
) -> None:
    """Remove what was not used for longest, until the rest takes at most SIZE."""
    limit, opened = _bytes(most), _opened(folder)
    gone = opened.prune(limit)
    say(f"removed {_text(gone)}; {_text(list(opened.files()))} stay in {folder}")


def _opened(folder: Path) -> Store:
    made = "a campaign with `store: auto` makes the folder .store beside its own"
    if not folder.is_dir():
        raise Failure(Exit.USAGE, f"{folder} is no folder; {made}")
    inside = [path.name for path in folder.iterdir()]
    if inside and not any(re.fullmatch(r"[0-9a-f]{2}", name) for name in inside):
        raise Failure(Exit.USAGE, f"{folder} is no store; {made}")
    return Store(folder)


def _bytes(text: str) -> int:
    found = re.fullmatch(rf"([0-9]+(?:\.[0-9]+)?) ?({'|'.join(UNITS)})", text.strip())
    if found is None:
        raise Failure(Exit.USAGE, f"--most {text!r}: expected a number and a unit ({', '.join(UNITS)}), as in 10GB")
    return int(float(found[1]) * UNITS[found[2]])


def _text(files: list[File]) -> str:
    return f"{_number(files)}, {sum(file.size for file in files) / 1e9:.3f} GB"


def _number(files: Sized) -> str:
    return "1 file" if len(files) == 1 else f"{len(files):,} files"
