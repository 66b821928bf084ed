"""One model for many requests: batches of the crystals that wait for it.

Enters: crystals of a request. Leaves: their predictions, computed in one batch with those of other
requests. While the model works, requests wait, and all that wait are its next batch. One thread
computes; the last bits of a number can depend on the batch. This module does not know HTTP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from assay.models.ensemble.ensemble import Ensemble
from assay.screening.prediction import predict as prediction
from assay.screening.prediction.predict import Predictions
from assay.screening.serving.predicting import uploads
from assay.sources.assemble import join
from assay.sources.crystals import Crystals
from assay.sources.quarantine import Quarantined

MOST_ATOMS = 4_000
"""Atoms of a batch, beyond the first request in it."""
R = TypeVar("R")


@dataclass(frozen=True)
class _Waiting:
    crystals: Crystals
    refused: list[Quarantined]
    answer: asyncio.Future[Predictions]


class Oracle:
    """An ensemble that predicts the crystals of several requests at once."""

    def __init__(self, ensemble: Ensemble, noted: Callable[[int], Any] = lambda _: None) -> None:
        """`noted` is told the number of crystals of each batch."""
        self.ensemble = ensemble
        self._noted = noted
        self._waiting: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, "model")
        self._working: asyncio.Task[None] | None = None

    async def predict(self, crystals: Crystals, refused: Sequence[Quarantined]) -> Predictions:
        """Predict crystals; `refused` are the records of those that could not be read."""
        answer: asyncio.Future[Predictions] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(crystals, list(refused), answer))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await answer

    async def alone(self, work: Callable[[], R]) -> R:
        """Do other work with the ensemble, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """End the thread after what it does."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        while self._waiting:
            batch = self._batch()
            try:
                every = await self.alone(lambda batch=batch: _together(batch, self.ensemble))  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 (each request gets it)
                for one in batch:
                    if not one.answer.done():
                        one.answer.set_exception(error)
                continue
            self._noted(sum(len(one.crystals) for one in batch))
            for one, found in zip(batch, every, strict=True):
                if not one.answer.done():  # the client may have gone
                    one.answer.set_result(found)

    def _batch(self) -> list[_Waiting]:
        found: list[_Waiting] = []
        atoms = 0
        while self._waiting and (not found or atoms + len(self._waiting[0].crystals.frac) <= MOST_ATOMS):
            found.append(self._waiting.popleft())
            atoms += len(found[-1].crystals.frac)
        return [one for one in found if not one.answer.done()]


def _together(batch: Sequence[_Waiting], ensemble: Ensemble) -> list[Predictions]:
    """Predict the crystals of several requests, and part the rows again."""
    if not batch:
        return []
    parts = [
        uploads.renamed(one.crystals, [f"{k}:{row}" for row in range(len(one.crystals))]) for k, one in enumerate(batch)
    ]
    whole = prediction.predict(join(parts), [ensemble])
    owners = np.array([int(name.partition(":")[0]) for name in whole.crystals.ids.tolist()], np.int64)
    found = []
    for k, one in enumerate(batch):
        rows = np.flatnonzero(owners == k)
        names = one.crystals.ids.tolist()
        places = [int(name.partition(":")[2]) for name in whole.crystals.ids[rows].tolist()]
        ids = [names[place] for place in places]
        table = whole.table.take(pa.array(rows)).set_column(0, "id", pa.array(ids, pa.string()))
        lost = [
            replace(row, id=names[int(row.id.partition(":")[2])])
            for row in whole.refused
            if row.id.partition(":")[0] == str(k)
        ]
        crystals = uploads.renamed(whole.crystals.select(rows), ids)
        found.append(Predictions(crystals, table, [*one.refused, *lost], whole.properties))
    return found
