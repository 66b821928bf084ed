"""The command `assay`: arguments in, exit code out.

Enters: the command line. Leaves: data on standard output, everything else on standard error. Heavy
imports wait inside the commands, so that `assay --help` is quick. It knows no science.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from assay.screening.settings.exits import Exit, Failure, explain, leave

if TYPE_CHECKING:
    from assay.screening.campaign.drive import Outcome
    from assay.screening.settings.config import Campaign

app = typer.Typer(
    name="assay",
    help="Screen crystals: pull structures, predict a property with an error bar, rank.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class On(StrEnum):
    """Who runs the work."""

    AUTO = "auto"
    LOCAL = "local"
    RAY = "ray"


class By(StrEnum):
    """What refused crystals are grouped by."""

    REASON = "reason"
    SOURCE = "source"
    STAGE = "stage"


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell more, tracebacks too.")] = False,
) -> None:
    if verbose:
        logging.getLogger().setLevel(logging.DEBUG)


ConfigFile = Annotated[Path, typer.Argument(help="Campaign config, for example configs/quickstart.yaml.")]
Folder = Annotated[Path, typer.Argument(help="Campaign folder.")]
Files = Annotated[list[Path], typer.Argument(help="CIF, POSCAR, extxyz, Parquet, optimade.jsonl, or folders.")]
Model = Annotated[Path, typer.Option("--model", "-m", help="Ensemble folder.")]
MaxBad = Annotated[float, typer.Option(min=0, max=1, help="Accepted fraction of refused crystals.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="a.b=c", help="Override a config key; repeatable.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Campaign folder; default: output of the config.")]
Where = Annotated[On, typer.Option("--on", help="auto: Ray inside a Ray job or with an address, else this process.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Ray worker actors; default: one per CPU of the cluster.")]
Address = Annotated[str | None, typer.Option(help="Address of a running Ray cluster.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, then stop.")]


@app.command()
def run(
    config: ConfigFile,
    overrides: Set = None,
    output: Output = None,
    on: Where = On.AUTO,
    workers: Workers = None,
    address: Address = None,
    dry_run: DryRun = False,
) -> None:
    """Run a campaign, or go on with one that was stopped: pull, score, rank."""
    _campaign(_load(config, overrides, output), on, workers, address, dry_run=dry_run)


@app.command()
def pull(
    config: ConfigFile,
    overrides: Set = None,
    output: Output = None,
    on: Where = On.AUTO,
    address: Address = None,
    dry_run: DryRun = False,
) -> None:
    """Only pull the sources of a campaign into its snapshot; `assay run` goes on from there."""
    _campaign(_load(config, overrides, output), on, None, address, dry_run=dry_run, pull_only=True)


@app.command()
def rank(folder: Folder, overrides: Set = None) -> None:
    """Rank a scored campaign again, for example with --set rank.by=lower."""
    from assay.screening.campaign import drive, plan

    _finish(drive.rerank(plan.make(_stored(folder, overrides))))


@app.command()
def report(folder: Folder) -> None:
    """Write the outputs of a scored campaign again, report.html among them."""
    from assay.screening.campaign import drive, plan

    _finish(drive.rerank(plan.make(_stored(folder, None))), table=False)
    typer.echo(folder / "report.html")


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Tell how a campaign stands, also while it runs: sources, chunks, accounts, who works on it."""
    from assay.screening.audit import status as state

    _show(state.read(folder), state.lines, as_json=as_json)


@app.command()
def verify(folder: Folder) -> None:
    """Read everything in a campaign folder again, and list all that is damaged, lost or changed."""
    from assay.screening.audit import audit

    report = audit.check(folder)
    typer.echo("\n".join(audit.lines(report)))
    if report.code is not Exit.DONE:
        raise Failure(report.code, f"{folder} is not intact: {audit.count(report)}, listed above")


@app.command()
def unlock(
    folder: Folder,
    force: Annotated[bool, typer.Option("--force", help="Also when the holder seems to be alive.")] = False,
) -> None:
    """Remove the lock that a process left behind which is gone."""
    from assay.screening.folder import lock

    holder = lock.unlock(folder, force=force)
    typer.echo(f"{folder} is free; it was held by {holder.describe()}")


@app.command()
def errors(
    folder: Folder,
    by: Annotated[By, typer.Option(help="What the refused crystals are grouped by.")] = By.REASON,
    as_json: AsJson = False,
) -> None:
    """Tell which crystals of a campaign were refused: counts, one example each, and what to do."""
    from assay.screening.audit import refusals as refused

    _show(refused.read(folder, by.value), refused.lines, as_json=as_json)


@app.command()
def predict(
    files: Files,
    model: Model = Path("models/zoo/tc"),
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Parquet file for the predictions.")] = None,
    max_bad: MaxBad = 0.05,
) -> None:
    """Predict the crystals in some files: mean ± std with its interval, and what to beware of."""
    from assay.screening.campaign import plan
    from assay.screening.commands import predict as prediction

    ensemble = plan.load_ensembles([str(model)])[0]
    done = prediction.predict(files, ensemble)
    shown = prediction.lines(done, ensemble, most=None if output is None else 20)
    typer.echo("\n".join(shown))
    if output is not None:
        prediction.write(done, output)
        typer.echo(f"{done.part.table.num_rows} predictions in {output}", err=True)
    for line in prediction.refusals(done, max_bad):
        typer.echo(line, err=True)


@app.command("explain")
def explain_files(
    files: Files,
    model: Model = Path("models/zoo/tc"),
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the tables.")] = Path("runs/explain"),
    name: Annotated[str | None, typer.Option("--property", help="What is explained; unset: the first.")] = None,
    max_bad: MaxBad = 0.05,
) -> None:
    """Tell what each atom adds to a prediction, and where vision networks look: a table and pictures per crystal."""
    from assay.screening.campaign import plan
    from assay.screening.commands import explain as why, predict as prediction

    ensemble = plan.load_ensembles([str(model)])[0]
    done = prediction.predict(files, ensemble)
    for found in why.write(done, ensemble, output, name):
        typer.echo("\n".join(found.lines))
        for note in found.notes:
            typer.echo(note, err=True)
    for line in prediction.refusals(done, max_bad):
        typer.echo(line, err=True)


@app.command()
def render(
    files: Files,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the pictures.")] = Path("runs/render"),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="a=b", help="Key of a view, for example encoding=elements.")
    ] = None,
) -> None:
    """Draw crystals as the vision networks see them: one PNG per view."""
    from assay.screening.commands import predict as prediction, render as pictures

    drawn = pictures.write(files, output, pictures.spec(overrides or []))
    for path in drawn.paths:
        typer.echo(str(path))
    for row in drawn.refused:
        typer.echo(prediction.refusal(row), err=True)
    if drawn.refused:
        raise Failure(Exit.TOO_MANY_BAD, f"{len(drawn.refused)} crystals could not be drawn; the reasons are above")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="Training recipe, for example configs/train-tc.yaml.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the trained ensemble.")],
    overrides: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped training.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Members at once; unset: one, on Ray all that fit.")
    ] = None,
    on: Annotated[On, typer.Option(help="Where members learn; ray: on a cluster, one CPU each.")] = On.LOCAL,
    gpus: Annotated[float, typer.Option(min=0, help="With --on ray: GPUs per member.")] = 0.0,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write events for TensorBoard too.")] = False,
) -> None:
    """Train an ensemble by a recipe, calibrate it, and write its card."""
    from assay.screening.training import progress, recipes

    plan = recipes.load(recipe, overrides or [])
    if not resume and output.is_dir() and any(output.iterdir()):
        raise Failure(Exit.CONFIG, f"{output} is not empty; add --resume to go on with its training, or choose another "
                      "--output")  # fmt: skip
    from assay.models.training import fit

    pool = None
    if on is On.RAY:
        from assay.screening.training import tuning

        pool = tuning.ray_pool(workers=workers, gpus=gpus)
        output = output.absolute()
    settings = "".join(f" --set {text}" for text in overrides or [])
    command = f"assay train {recipe} --output {output}{settings}"
    with progress.shown(plan, output, tensorboard=tensorboard):
        made = fit.run(plan, output, workers=workers or 1, command=command, pool=pool)
    typer.echo(str(output / "README.md") if made else f"{output}: nothing to predict with, a start for others")


@app.command()
def evaluate(
    ensemble: Annotated[Path, typer.Argument(help="Folder of a trained ensemble.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the evaluation.")],
    against: Annotated[Path | None, typer.Option(help="A second ensemble, compared on the same rows.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Training set by name; unset: its own.")] = None,
    part: Annotated[str, typer.Option(help="test, calibration, development or all.")] = "test",
    threshold: Annotated[float | None, typer.Option(help="How well are values above this found?")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processors for the baselines.")] = 1,
) -> None:
    """Measure an ensemble on rows with known values, beside baselines: Markdown, JSON and figures."""
    from assay.models.evaluation import evaluate as evaluation

    evaluation.run(ensemble, output, against=against, dataset=dataset, part=part, threshold=threshold, workers=workers)
    typer.echo(str(output / "evaluation.md"))


@app.command()
def study(
    config: Annotated[Path, typer.Argument(help="Study, for example configs/study-tc.yaml.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the study; an interrupted one goes on.")],
    workers: Annotated[int, typer.Option(min=1, help="Networks that learn at once.")] = 1,
) -> None:
    """Learn one property in several ways on the same rows, and write the table."""
    from assay.screening.training import study as studies

    typer.echo(str(studies.run(config, output, workers=workers)))


@app.command()
def tune(
    config: Annotated[Path, typer.Argument(help="Search, for example configs/tune-tc.yaml.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the search; an interrupted one goes on.")],
    overrides: Set = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Trials that run at once; unset: as many as fit.")] = None,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs per trial.")] = 0.0,
) -> None:
    """Search the sizes and rates of a recipe with Ray Tune, on development rows only."""
    from assay.screening.training import search, trials, tuning

    logging.getLogger().setLevel(logging.INFO)
    plan = search.read(config, overrides or []).load()
    found = tuning.tune(plan, output, workers=workers, gpus=gpus)
    for line in trials.lines(plan, output, found):
        typer.echo(line)


model = typer.Typer(help="Checkpoints from elsewhere.", no_args_is_help=True)
app.add_typer(model, name="model")


@model.command("import")
def import_model(
    files: Annotated[list[Path], typer.Argument(help="Published ALIGNN models: archives or folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the checkpoints.")],
    property_name: Annotated[str, typer.Option("--property", help="What it predicts, for example formation_energy.")],
    unit: Annotated[str, typer.Option(help="Its unit, for example eV/atom.")],
) -> None:
    """Turn published ALIGNN models into checkpoints, for the start of a recipe."""
    from assay.models.published import weights

    for folder in weights.import_models(files, output, property_name, unit):
        typer.echo(str(folder))
    typer.echo(
        "These are starts for training (start.folder), not an ensemble: error bars must be calibrated on data, and the "
        "published numbers hold on the published rule for graphs, not on Assay's.",
        err=True,
    )


def main() -> NoReturn:
    """Run the command; a failure the user can act on is one line, anything else keeps its traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    gc.set_threshold(100_000)  # importing torch and numba makes many objects that stay: 0.4 s of looking for cycles
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        _die(Failure(Exit.STOPPED, "interrupted; everything committed is kept, run again to go on"))
    except Exception as error:  # the last frame of the program: nothing is swallowed
        failure = explain(error)
        if failure is None:
            raise
        logging.getLogger(__name__).debug("the whole story", exc_info=error)
        _die(failure)
    sys.exit(Exit.DONE)


def _die(failure: Failure) -> NoReturn:
    typer.echo(f"assay: {failure}", err=True)
    leave(failure.code)


def _load(config: Path, overrides: list[str] | None, output: Path | None) -> Campaign:
    from assay.screening.settings import config as settings

    campaign = settings.load(config, overrides or [])
    return campaign if output is None else campaign.model_copy(update={"output": str(output)})


def _stored(folder: Path, overrides: list[str] | None) -> Campaign:
    if not (folder / "config.resolved.yaml").is_file():
        raise Failure(Exit.CONFIG, f"{folder} is no campaign folder: it holds no config.resolved.yaml; "
                      "start a campaign with: assay run")  # fmt: skip
    return _load(folder / "config.resolved.yaml", overrides, folder)


def _show(found: dict[str, Any], lines: Callable[[dict[str, Any]], Iterable[str]], *, as_json: bool) -> None:
    typer.echo(json.dumps(found, ensure_ascii=False) if as_json else "\n".join(lines(found)))


def _campaign(
    settings: Campaign,
    on: On,
    workers: int | None,
    address: str | None,
    *,
    dry_run: bool,
    pull_only: bool = False,
) -> None:
    from assay.screening.campaign import plan

    planned = plan.make(settings)
    if dry_run:
        typer.echo("\n".join(plan.describe(planned)))
        return
    from assay.screening.campaign import launch

    on_ray = on is On.RAY or (on is On.AUTO and bool(address or os.environ.get("RAY_ADDRESS")))
    outcome = launch.run(planned, on_ray=on_ray, workers=workers, address=address, pull_only=pull_only)
    _finish(outcome, table=not pull_only)


def _finish(outcome: Outcome, *, table: bool = True) -> None:
    from assay.screening.campaign import outputs
    from assay.screening.folder.results import Results

    if table and outcome.summary is not None:
        typer.echo("\n".join(outputs.table_text(Results(outcome.folder))))
    counts = ", ".join(f"{n:,} {name}" for name, n in vars(outcome.balance).items() if n or name == "ranked")
    typer.echo(f"{counts} -> {outcome.folder}", err=True)
    if outcome.code is not Exit.DONE:
        raise Failure(outcome.code, outcome.note)
