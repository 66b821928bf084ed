"""What answers requests share: campaigns, model, store, counters; and how a request is read.

Enters: what a client sent. Leaves: queries, uploads and predictions, or an error with a status of
HTTP. This module does not know paths or pages.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile

from assay.screening.serving import browse
from assay.screening.serving.metrics import Metrics
from assay.screening.serving.predicting import uploads
from assay.screening.serving.predicting.predictor import Predictor, Told, Unanswerable, Upload
from assay.screening.serving.shelf import Served
from assay.screening.serving.store import Store
from assay.sources.crystals import Crystals

MOST_FILES = 20
"""Files of one upload."""
JSON_KINDS = ("application/json", "application/vnd.api+json")


@dataclass
class Desk:
    """Everything that answers requests share."""

    campaigns: dict[str, Served]
    predictor: Predictor
    store: Store
    metrics: Metrics

    def campaign(self, name: str) -> Served:
        """A campaign by its name; 404 when there is none."""
        if name not in self.campaigns:
            raise HTTPException(
                404, f"there is no campaign {name!r:.80}; there are {', '.join(self.campaigns) or 'none'}"
            )
        return self.campaigns[name]

    async def predict(self, given: list[Upload]) -> Told:
        """Predict uploads; HTTPException with the status that fits where that is not possible."""
        try:
            told = await self.predictor.predict(given)
        except Unanswerable as error:
            raise HTTPException(error.status, error.reason) from None
        for row in told.answer["refused"]:
            self.metrics.refused(row["reason"])
        return told

    async def explain(self, crystal: Crystals) -> dict[str, Any]:
        """What each atom of a crystal adds; HTTPException in the same way."""
        try:
            return await self.predictor.explain(crystal)
        except Unanswerable as error:
            raise HTTPException(error.status, error.reason) from None


def asked(request: Request, served: Served) -> browse.Query:
    """The query of a URL; 422 where it is none."""
    try:
        return browse.parse({name: value for name, value in request.query_params.items() if name != "token"}, served)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


async def given(request: Request) -> list[Upload]:
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
