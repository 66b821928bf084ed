"""The command `assay simulate`.

Enters: the file of a simulation. Leaves: a folder with its page, tables and figure; the page on
standard output.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from assay.screening.commands.arguments import Set, output_option
from assay.screening.commands.terminal import say
from assay.screening.deciding import simulate as rehearsal


def simulate(
    config: Annotated[str, typer.Argument(help="Simulation: a YAML file, or the name of a bundled one (simulate-tc).")],
    output: Annotated[Path, output_option("Folder of the simulation.")],
    overrides: Set = None,
) -> None:
    """Replay known values as a sequential campaign.

    Each strategy measures batch after batch, and learns from what it has measured.
    """
    page = rehearsal.run(rehearsal.read(config, overrides or []), output, partial(say, err=True))
    say(*page.read_text(encoding="utf-8").splitlines())
