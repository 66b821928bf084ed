"""The progress of a training: bars on a terminal, a line now and then elsewhere.

Enters: the folder of the ensemble. Leaves: text on standard error, and events for TensorBoard where
they are wanted. It reads `member-*/history.jsonl` beside the training, so that it does not matter
which process or machine trains.
"""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from assay.models.training.recipe import Recipe
from assay.screening.settings.exits import Exit, Failure

LOOK_S = 1.0
"""How often the logs are read while bars are shown."""
LINE_INTERVAL_S = 30.0
"""How often a line is written where there is no terminal, if there is news."""


@contextmanager
def shown(recipe: Recipe, output: Path, *, tensorboard: bool = False) -> Iterator[None]:
    """Show the progress of the members in `output` for the length of a block.

    Raises:
        Failure: when TensorBoard's events are wanted and its package is not there.
    """
    with ExitStack() as stack:
        seen: list[Any] = [stack.enter_context(_bars(recipe)) if sys.stderr.isatty() else _Lines(recipe)]
        if tensorboard:
            seen.append(stack.enter_context(_events(output / "tensorboard")))
        over = threading.Event()
        pause = LOOK_S if sys.stderr.isatty() else LINE_INTERVAL_S
        thread = threading.Thread(target=_watch, args=(recipe, output, seen, over, pause), name="training-progress")
        thread.start()
        stack.callback(thread.join)
        stack.callback(over.set)
        yield


def histories(recipe: Recipe, output: Path) -> list[list[dict[str, float]]]:
    """The epochs of each member so far: the rows of its `history.jsonl`."""
    paths = [output / f"member-{k}" / "history.jsonl" for k in range(len(recipe.members))]
    return [_rows(path) for path in paths]


def describe(rows: list[dict[str, float]], epochs: int, unit: str) -> str:
    """Best validation error, speed and time left of one member; it learns at most `epochs`."""
    best = min((row["validation_mae"] for row in rows if math.isfinite(row["validation_mae"])), default=math.inf)
    recent = rows[-5:]
    left = (epochs - len(rows)) * sum(row["seconds"] for row in recent) / len(recent)
    return f"best {best:.4g} {unit}, {recent[-1]['structures_per_s']:,.0f} structures/s, at most {_duration(left)} left"


def _watch(recipe: Recipe, output: Path, seen: list[Any], over: threading.Event, pause: float) -> None:
    ended = False
    while not ended:
        ended = over.wait(pause)  # and look once more after the end
        found = histories(recipe, output)
        for one in seen:
            one.see(found)


def _rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _unit(recipe: Recipe) -> str:
    return recipe.tasks[0].property.unit if len(recipe.tasks) == 1 else "standard deviations"


def _epochs(recipe: Recipe) -> list[int]:
    """The most epochs of each member: its `schedule` may have other ones than the recipe's."""
    return [recipe.schedule_of(member).epochs for member in recipe.members]


class _Lines:
    """One line for each member that has got on."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._before: list[int] | None = None

    def see(self, found: list[list[dict[str, float]]]) -> None:
        before = self._before or [0] * len(found)
        for k, (rows, epochs) in enumerate(zip(found, _epochs(self._recipe), strict=True)):
            if len(rows) > before[k]:
                text = describe(rows, epochs, _unit(self._recipe))
                sys.stderr.write(f"member {k}: epoch {len(rows)} of {epochs}, {text}\n")
        sys.stderr.flush()
        self._before = [len(rows) for rows in found]


class _Bars:
    """One bar for each member."""

    def __init__(self, recipe: Recipe, bars: Any) -> None:
        self._recipe, self._bars = recipe, bars
        self._tasks = [bars.add_task(f"member {k}", total=epochs, text="") for k, epochs in enumerate(_epochs(recipe))]

    def see(self, found: list[list[dict[str, float]]]) -> None:
        for task, rows, epochs in zip(self._tasks, found, _epochs(self._recipe), strict=True):
            if rows:
                text = describe(rows, epochs, _unit(self._recipe))
                self._bars.update(task, completed=len(rows), text=text)


@contextmanager
def _bars(recipe: Recipe) -> Iterator[_Bars]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}")
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield _Bars(recipe, bars)


class _Events:
    """Every number of every epoch, for TensorBoard; what an earlier run wrote is replaced."""

    def __init__(self, folder: Path, writer: Any) -> None:
        self._folder, self._make = folder, writer
        self._writers: dict[int, Any] = {}
        self._written: dict[int, int] = {}

    def see(self, found: list[list[dict[str, float]]]) -> None:
        for k, rows in enumerate(found):
            for row in rows[self._written.get(k, 0) :]:
                if k not in self._writers:
                    self._writers[k] = self._make(str(self._folder / f"member-{k}"), purge_step=0)
                for name, value in row.items():
                    if name != "epoch":
                        self._writers[k].add_scalar(name, value, int(row["epoch"]))
            self._written[k] = len(rows)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


@contextmanager
def _events(folder: Path) -> Iterator[_Events]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise Failure(Exit.CONFIG, "--tensorboard needs TensorBoard: pip install tensorboard") from None
    events = _Events(folder, SummaryWriter)
    try:
        yield events
    finally:
        events.close()
