"""What answers requests share: campaigns, model, store, counters; and how a request is read.

Enters: what a client sent. Leaves: queries, uploads and predictions, or an error with a status of
HTTP. This module does not know paths or pages.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile

from assay.screening.prediction.predict import Predictions
from assay.screening.serving import browse, uploads
from assay.screening.serving.batching import Oracle
from assay.screening.serving.metrics import Metrics
from assay.screening.serving.shelf import Served
from assay.screening.serving.store import Store
from assay.sources.assemble import join
from assay.sources.quarantine import Quarantined

MOST_FILES = 20
"""Files of one upload."""
JSON_KINDS = ("application/json", "application/vnd.api+json")


@dataclass
class Desk:
    """Everything that answers requests share."""

    campaigns: dict[str, Served]
    oracle: Oracle
    store: Store
    metrics: Metrics
    readers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "reader"))

    def campaign(self, name: str) -> Served:
        """A campaign by its name; 404 when there is none."""
        if name not in self.campaigns:
            raise HTTPException(
                404, f"there is no campaign {name!r:.80}; there are {', '.join(self.campaigns) or 'none'}"
            )
        return self.campaigns[name]

    async def predict(self, given: list[tuple[str, bytes]]) -> Predictions:
        """Read uploads and predict their crystals.

        Raises:
            HTTPException: 415 for a kind that is not read, 422 where there is nothing to predict.
        """
        loop, found = asyncio.get_running_loop(), []
        try:
            for name, content in given:
                found.append(await loop.run_in_executor(self.readers, uploads.read, name, content))
        except uploads.Unknown as error:
            raise HTTPException(415, str(error)) from None
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        except RuntimeError as error:
            raise HTTPException(503, f"no process could read this: {error}") from None
        refused: list[Quarantined] = [row for _, bad in found for row in bad]
        crystals = join([part for part, _ in found])
        predicted = await self.oracle.predict(crystals, refused)
        for row in predicted.refused:
            self.metrics.refused(row.reason.value)
        return predicted


def asked(request: Request, served: Served) -> browse.Query:
    """The query of a URL; 422 where it is none."""
    try:
        return browse.parse({name: value for name, value in request.query_params.items() if name != "token"}, served)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


async def given(request: Request) -> list[tuple[str, bytes]]:
    """The names and contents of what a request brings; 4xx when that is nothing."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in JSON_KINDS:
        try:
            return [("optimade.jsonl", uploads.structures(json.loads(await request.body())))]
        except (ValueError, RecursionError) as error:
            raise HTTPException(422, f"no OPTIMADE structures: {error!s:.200}") from None
    if kind != "multipart/form-data":
        return [("", await request.body())]
    form = await request.form(max_files=MOST_FILES, max_fields=10)
    found = []
    for _, value in form.multi_items():
        if isinstance(value, UploadFile):
            content = await value.read()
            found += [(value.filename or "", content)] if value.filename or content else []
        elif value.strip():
            found.append(("", value.encode()))
    if not found:
        raise HTTPException(422, "choose a file, or paste its text")
    return found
