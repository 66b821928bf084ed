"""The command group `assay model`: checkpoints of other programs become checkpoints of Assay.

Enters: published model files. Leaves: checkpoint folders that training can start from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.models.published import weights
from assay.screening.commands.arguments import Cell, output_option
from assay.screening.commands.terminal import say
from assay.screening.settings import place

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def model() -> None:
    """Import checkpoints from elsewhere."""


@app.command("import")
def import_model(
    files: Annotated[list[Path], typer.Argument(help="Published ALIGNN models: archives or folders.")],
    output: Annotated[Path, output_option("Folder of the checkpoints.")],
    property_name: Annotated[str, typer.Option("--property", help="Predicted property, for example formation_energy.")],
    unit: Annotated[str, typer.Option(help="Unit of the property, for example eV/atom.")],
    cell: Annotated[
        Cell | None, typer.Option(help="Cell it was trained on, if you know; the archive is silent.")
    ] = None,
) -> None:
    """Turn published ALIGNN models into checkpoints, for the start of a recipe."""
    place.claim(output, "model import")
    for folder in weights.import_models(files, output, property_name, unit, cell.value if cell else None):
        say(folder)
    say(
        "These are starts for training (start.folder), not an ensemble: error bars must be calibrated on data, and the "
        "published numbers hold on the published rule for graphs, not on Assay's.",
        err=True,
    )
