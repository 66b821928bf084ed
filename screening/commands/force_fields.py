"""The commands `assay check-potential` and `assay distil`.

Enters: the name of a potential, or a distillation recipe. Leaves: a table on standard output,
failures on standard error and a JSON file if asked for, or the folder of a potential with its card.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.models.potentials import check as checking, potential as potentials
from assay.models.potentials.check import Settings
from assay.models.training.distil import fit
from assay.models.training.distil.recipe import Distillation
from assay.screening.commands.arguments import On, Set, output_option
from assay.screening.commands.terminal import say
from assay.screening.prediction import check_potential as checks, describe, inputs
from assay.screening.settings import bundled, place, yamlfile
from assay.screening.settings.exits import Exit, Failure
from assay.screening.training import pulled, tuning

_DEFAULT = Settings()


def check_potential(
    name: Annotated[str, typer.Argument(help="Force field: potential, chgnet, nequix:FILE, ase:MODULE:CLASS.")],
    crystals: Annotated[
        list[Path] | None, typer.Option("--crystals", help="File of crystals; repeatable. Unset: 24 hypothetical ones.")
    ] = None,
    output: Annotated[Path | None, output_option("JSON file with every value of every crystal.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of each of the three runs of dynamics.")] = _DEFAULT.steps,
    timestep: Annotated[float, typer.Option(help="fs.")] = _DEFAULT.timestep,
    atoms: Annotated[int, typer.Option(help="Cells with fewer atoms are repeated.")] = _DEFAULT.atoms,
    seed: Annotated[int, typer.Option(help="Of velocities, noise, and hypothetical crystals.")] = _DEFAULT.seed,
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="Accepted fraction of failures in each check.")] = 0.05,
) -> None:
    """Check a force field: slopes, dynamics, pairs.

    Forces and stress are compared with slopes of the energy, the energy is watched without a
    thermostat, crystals are heated to 300 and 1000 K, squeezed and stretched, and atoms pushed
    together.
    """
    if output is not None:
        checks.check_output(output)
    try:
        settings = Settings(steps, timestep, atoms, seed)
        potential = potentials.load(name)
    except (ValueError, ImportError, OSError) as error:
        raise Failure(Exit.USAGE, str(error)) from error
    given, refused = inputs.crystals_of(crystals) if crystals else (checks.bundled(potential, seed), [])
    for line in describe.refusals(refused, len(given), max_bad, done="read"):
        say(line, err=True)
    if short := checks.too_short(settings):
        say(short, err=True)
    found = checking.check(given, potential, settings)
    for line in checks.lines(found):
        say(line)
    if output is not None:
        checks.write(found, potential, settings, output)
    for line in checks.failures(found):
        say(line, err=True)
    checks.judge(found, potential.name, max_bad)


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
    """Make a small, fast force field from a large one.

    The large one, the teacher, labels displaced crystals; students learn from the labels, if the
    recipe says so in several rounds, and are measured on chemical systems that they never saw.
    """
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
    fit.run(pulled.drawn(checked, output), output, workers=workers, command=command, pool=pool)
    say(str(output / "README.md"))
