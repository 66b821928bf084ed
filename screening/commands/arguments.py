"""Arguments and options that several commands share.

Leaves: annotated types for the signatures of commands. It reads nothing.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.screening.settings import place


class On(StrEnum):
    """Where the work runs."""

    AUTO = "auto"
    LOCAL = "local"
    RAY = "ray"


def output_option(what: str) -> Any:
    """The option `--output`, with a help that says `what` it names; never an empty text."""
    return typer.Option("--output", "-o", help=what, parser=place.named, metavar="PATH")


class Cell(StrEnum):
    """A standard cell of a crystal."""

    PRIMITIVE = "primitive"
    CONVENTIONAL = "conventional"


Folder = Annotated[Path, typer.Argument(help="Campaign folder.")]
Files = Annotated[
    list[Path], typer.Argument(help="CIF, POSCAR, extxyz, JSON, Parquet and more, archives of them, or folders.")
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", help="Ensemble folder, or the name of a bundled ensemble; default: tc."),
]
"""What `--model` named, each time it was given."""
DEFAULT_MODEL = "tc"
MaxBad = Annotated[float, typer.Option(min=0, max=1, help="Accepted fraction of refused crystals.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="a.b=c", help="Override a config key; repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]
