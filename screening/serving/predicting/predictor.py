"""Uploads -> predictions in words and numbers, and what each atom adds.

Enters: names and bytes of files, or a crystal. Leaves: the crystals with everything that is said
about them, or the reason why there is no answer. `Predictor` is what the server asks;
`LocalPredictor` answers in this process, `assay.screening.serving.predicting.replicas` on Ray. This
module does not know HTTP, but for the status of a refusal.
"""

from __future__ import annotations

import asyncio
import csv
import io
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from assay.models.ensemble.ensemble import Ensemble
from assay.screening.prediction import explain, predict as prediction
from assay.screening.serving.predicting import answers, uploads
from assay.screening.serving.predicting.batching import Oracle
from assay.sources.assemble import join
from assay.sources.crystals import Crystals

SAMPLE = b"""Si
1
0 2.715 2.715
2.715 0 2.715
2.715 2.715 0
Si
2
direct
0 0 0
0.25 0.25 0.25
"""
"""Silicon, which every predictor predicts at its start."""
Upload = tuple[str, bytes]
"""The name of a file, or "", and its content."""


@dataclass(frozen=True)
class Told:
    """The answer to some uploads."""

    crystals: Crystals
    """The predicted crystals."""
    answer: dict[str, Any]
    """What `assay.screening.serving.predicting.answers` says about them and about the refused."""


class Unanswerable(Exception):
    """There is no prediction; the status of HTTP that fits, and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status, self.reason = status, reason


class Predictor(Protocol):
    """Predicts uploads."""

    model: dict[str, Any]
    """The ensemble, as `assay.screening.serving.predicting.answers.model` describes it."""
    noted: Callable[[int], Any]
    """Is told the number of crystals of each batch that this process predicts."""

    async def predict(self, given: Sequence[Upload]) -> Told:
        """Read uploads and predict their crystals.

        Raises:
            Unanswerable: 415 for a kind that is not read, 422 where there is nothing to predict,
                503 where no process could do it.
        """

    async def explain(self, crystal: Crystals) -> dict[str, Any]:
        """What each atom of a crystal adds: lines to read, a row per site or kind of species.

        Raises:
            Unanswerable: 422 when a member does not read structures.
        """


class LocalPredictor:
    """A `Predictor` in this process: one ensemble, one thread that computes, two that read."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.model = answers.model(ensemble)
        self.noted: Callable[[int], Any] = lambda _: None
        self._ensemble = ensemble
        self._oracle = Oracle(ensemble, lambda crystals: self.noted(crystals))  # noqa: PLW0108 (it may change)
        self._readers = ThreadPoolExecutor(2, "reader")
        prediction.predict(uploads.read("", SAMPLE)[0], [ensemble])  # what is loaded once is loaded now

    async def predict(self, given: Sequence[Upload]) -> Told:
        """As `Predictor.predict`."""
        loop, found = asyncio.get_running_loop(), []
        try:
            for name, content in given:
                found.append(await loop.run_in_executor(self._readers, uploads.read, name, content))
        except uploads.Unknown as error:
            raise Unanswerable(415, str(error)) from None
        except ValueError as error:
            raise Unanswerable(422, str(error)) from None
        except RuntimeError as error:
            raise Unanswerable(503, f"no process could read this: {error}") from None
        refused = [row for _, bad in found for row in bad]
        predicted = await self._oracle.predict(join([part for part, _ in found]), refused)
        return Told(predicted.crystals, answers.answer(predicted, self._ensemble))

    async def explain(self, crystal: Crystals) -> dict[str, Any]:
        """As `Predictor.explain`."""
        try:
            return await self._oracle.alone(lambda: _explain(crystal, self._ensemble))
        except ValueError as error:
            raise Unanswerable(422, str(error)) from None

    def close(self) -> None:
        """End the threads after what they do."""
        self._oracle.close()
        self._readers.shutdown(wait=False, cancel_futures=True)


def _explain(crystal: Crystals, ensemble: Ensemble) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="assay-explain-") as folder:
        (made,) = explain.write(prediction.predict(crystal, [ensemble]), ensemble, Path(folder))
        rows = list(csv.DictReader(io.StringIO(made.table.read_text())))
    means = [row for row in rows if not row["network"]]
    sites = [row for row in means if row["row"] == "site" and row["of"] == means[-1]["of"]]
    shown = sites or [row for row in means if row["row"] == "kind" and row["of"] == means[-1]["of"]]
    return {"lines": made.lines[:-1], "rows": shown}
