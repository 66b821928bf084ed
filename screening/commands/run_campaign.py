"""The commands that make or remake the outputs of a campaign: run, pull, rank, report.

Enters: a config or a campaign folder. Leaves: the campaign folder, the ranked table on standard
output and the counts on standard error.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.screening.campaign import drive, launch, outputs, plan, preview
from assay.screening.campaign.drive import Outcome
from assay.screening.commands.arguments import Folder, On, Set, output_option
from assay.screening.commands.terminal import say
from assay.screening.folder.results import Results
from assay.screening.settings import bundled, config as settings
from assay.screening.settings.config import Campaign
from assay.screening.settings.exits import Exit, Failure
from assay.sources.checks import importing

if TYPE_CHECKING:
    from assay.screening.campaign.reporting import report as report_page
else:
    report_page = importing.later("assay.screening.campaign.reporting.report")

Config = Annotated[str, typer.Argument(help="Campaign config: a YAML file, or the name of a bundled one (quickstart).")]
Output = Annotated[Path | None, output_option("Campaign folder; default: output of the config.")]
Where = Annotated[On, typer.Option("--on", help="auto: Ray inside a Ray job or with an address, else this process.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Ray worker actors; default: one per CPU of the cluster.")]
Address = Annotated[str | None, typer.Option(help="Address of a running Ray cluster.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, then stop.")]


def run(
    config: Config,
    overrides: Set = None,
    output: Output = None,
    on: Where = On.AUTO,
    workers: Workers = None,
    address: Address = None,
    dry_run: DryRun = False,
) -> None:
    """Run a campaign, or go on with a stopped one: pull, score, rank."""
    _campaign(_load(bundled.campaign(config), overrides, output), on, workers, address, dry_run=dry_run)


def pull(
    config: Config,
    overrides: Set = None,
    output: Output = None,
    on: Where = On.AUTO,
    address: Address = None,
    dry_run: DryRun = False,
) -> None:
    """Pull the sources of a campaign into its snapshot, and stop there.

    `assay run` with the same config goes on from the snapshot.
    """
    campaign = _load(bundled.campaign(config), overrides, output)
    _campaign(campaign, on, None, address, dry_run=dry_run, pull_only=True)


def rank(folder: Folder, overrides: Set = None) -> None:
    """Rank a scored campaign again, for example with --set rank.by=lower."""
    finish(drive.rerank(plan.make(stored(folder, overrides))))


def report(folder: Folder) -> None:
    """Write the outputs of a scored campaign again, report.html among them."""
    finish(drive.rerank(plan.make(stored(folder, None))), table=False)
    say(folder / "report.html")


def _load(config: Path, overrides: list[str] | None, output: Path | None) -> Campaign:
    campaign = settings.load(config, overrides or [])
    return campaign if output is None else campaign.model_copy(update={"output": str(output)})


def stored(folder: Path, overrides: list[str] | None) -> Campaign:
    """The config that a campaign folder was made with."""
    if not (folder / "config.resolved.yaml").is_file():
        missing = f"{folder} is no campaign folder: it holds no config.resolved.yaml"
        raise Failure(Exit.CONFIG, f"{missing}; start a campaign with: assay run")
    return _load(folder / "config.resolved.yaml", overrides, folder)


def _campaign(
    campaign: Campaign, on: On, workers: int | None, address: str | None, *, dry_run: bool, pull_only: bool = False
) -> None:
    planned = plan.make(campaign)
    if dry_run:
        say(*preview.lines(planned))
        return
    on_ray = on is On.RAY or (on is On.AUTO and bool(address or os.environ.get("RAY_ADDRESS")))
    outcome = launch.run(planned, on_ray=on_ray, workers=workers, address=address, pull_only=pull_only)
    finish(outcome, table=not pull_only)


def finish(outcome: Outcome, *, table: bool = True) -> None:
    """Show how a campaign ended."""
    if table and outcome.summary is not None:
        say(*outputs.table_text(Results(outcome.folder)))
    if outcome.summary is not None and (cut := report_page.cut(outcome.summary)):
        say(cut, err=True)
    counts = ", ".join(f"{n:,} {name}" for name, n in vars(outcome.balance).items() if n or name == "ranked")
    say(f"{counts} -> {outcome.folder}", err=True)
    if outcome.code is not Exit.DONE:
        raise Failure(outcome.code, outcome.note)
