"""Starting a campaign: the runner, and the signals that stop it after the running chunk.

Enters: a plan, and where to run it. Leaves: the outcome. It knows no command line.
"""

from __future__ import annotations

import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from assay.screening.campaign import drive
from assay.screening.runners import local, worker
from assay.screening.settings.exits import Exit, Failure, Stopped

if TYPE_CHECKING:
    from assay.screening.campaign.drive import Outcome
    from assay.screening.campaign.plan import Plan
    from assay.screening.runners.runner import Runner


def run(planned: Plan, *, on_ray: bool, workers: int | None, address: str | None, pull_only: bool = False) -> Outcome:
    """Run a campaign in this process or on Ray.

    SIGTERM and the first Ctrl-C end it after the running chunk.
    """
    asked: list[int] = []
    _listen(asked)  # before Ray starts, which takes seconds
    runner = _runner(planned, on_ray=on_ray, workers=workers, address=address)
    _listen(asked)  # and again, because Ray sets handlers of its own
    try:
        return drive.run(planned, runner, lambda: bool(asked), pull_only=pull_only)
    finally:
        runner.close()


def _runner(planned: Plan, *, on_ray: bool, workers: int | None, address: str | None) -> Runner:
    settings = planned.campaign.ray
    tiers = [str(tier.folder.absolute()) for tier in planned.tiers]
    make = partial(worker.loaded, planned.models, tiers, planned.campaign, worker.opened(planned.campaign))
    if not on_ray:
        if planned.campaign.device != "cpu":
            _check_device(planned.campaign.device)
        return local.LocalRunner(planned.worker(), make)
    from assay.screening.runners import cluster

    if workers is not None:
        settings = settings.model_copy(update={"workers": workers})
    return cluster.ClusterRunner(make, settings, address=address)


def _check_device(name: str) -> None:
    from assay.models.ensemble import device

    try:
        device.chosen(name)
    except ValueError as error:
        raise Failure(Exit.CONFIG, str(error)) from None


def _listen(asked: list[int]) -> None:
    """Turn SIGTERM and the first Ctrl-C into a request to stop, in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        return

    def note(number: int, _frame: Any) -> None:
        if asked and number == signal.SIGINT:
            raise Stopped
        asked.append(number)

    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
