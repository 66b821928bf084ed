"""The command `assay distil`.

Enters: a distillation recipe. Leaves: the folder of a potential with its card.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.models.training.distil import fit
from assay.models.training.distil.recipe import Distillation
from assay.screening.commands.arguments import On, Set, output_option
from assay.screening.commands.terminal import say
from assay.screening.settings import bundled, place, yamlfile
from assay.screening.settings.exits import Exit, Failure
from assay.screening.training import tuning


def distil(
    recipe: Annotated[
        str, typer.Argument(help="Recipe: a YAML file, or the name of a bundled one (distil-potential).")
    ],
    output: Annotated[Path, output_option("Folder of the potential.")],
    overrides: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes at once.")] = 1,
    on: Annotated[On, typer.Option(help="Where they work; ray: on a cluster, one CPU each.")] = On.LOCAL,
) -> None:
    """Make a small, fast force field from a large one: label crystals, train students, measure."""
    content = yamlfile.override(yamlfile.read(bundled.distillation(recipe)), overrides or [])
    checked = yamlfile.validate(Distillation, content, recipe)
    if place.claim(output, "distil") and not resume:
        advice = "add --resume to go on with it, or choose another --output"
        raise Failure(Exit.CONFIG, f"{output} is not empty; {advice}")
    pool = None
    if on is On.RAY:
        pool = tuning.ray_pool(workers=workers, gpus=0.0)
        output = output.absolute()
    settings = "".join(f" --set {text}" for text in overrides or [])
    command = f"assay distil {recipe} --output {output}{settings}"
    fit.run(checked, output, workers=workers, command=command, pool=pool)
    say(str(output / "README.md"))
