"""The web application: REST, pages and OPTIMADE behind one door.

Enters: campaigns, a predictor and the limits. Leaves: an ASGI application. `screening.serving.run`
opens the port.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

from assay.screening.serving import browse, pages
from assay.screening.serving.desk import Desk, asked, given
from assay.screening.serving.guard import Gate, Guard, Rules
from assay.screening.serving.metrics import Metrics
from assay.screening.serving.predicting.predictor import Predictor
from assay.screening.serving.shelf import Served
from assay.screening.serving.store import Store

STATIC = Path(__file__).parent / "static"
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "text": {"type": "string"},
                    },
                }
            },
            "application/json": {"schema": {"type": "object", "description": "OPTIMADE structures"}},
            "text/plain": {"schema": {"type": "string"}},
        },
    }
}


@dataclass(frozen=True)
class Limits:
    """What a server accepts."""

    most_bytes: int = 2 * 2**20
    """Longest body of a request."""
    waiting: int = 128
    """Uploads that are answered or wait at once; the next one is told to come again."""
    token: str | None = None
    """What a client must know."""
    local: bool = True
    """Whether requests must name this machine."""


def make(
    campaigns: list[Served], predictor: Predictor, store: Store, limits: Limits, optimade: ASGIApp | None = None
) -> ASGIApp:
    """The application; `optimade` answers below `/optimade`."""
    gate = Gate(limits.waiting, wait_s=1)
    metrics = Metrics(lambda: gate.inside)
    predictor.noted = metrics.batch
    desk = Desk({served.name: served for served in campaigns}, predictor, store, metrics)
    app = FastAPI(title="Assay", summary="Candidates of campaigns, and predictions.", docs_url=None, redoc_url=None)
    app.state.desk = desk
    _rest(app, desk)
    pages.add(app, desk)
    app.mount("/static", StaticFiles(directory=STATIC), "static")
    if optimade is not None:
        app.mount("/optimade", optimade, "optimade")
    return Guard(app, Rules(limits.token, limits.local, limits.most_bytes, gate), metrics.request)


def _rest(app: FastAPI, desk: Desk) -> None:
    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the server answers, and with which model."""
        return {"status": "ok", "model": desk.predictor.model["name"], "campaigns": list(desk.campaigns)}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Numbers about the server, for Prometheus."""
        return Response(desk.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.post("/predict", openapi_extra=_BODY)
    async def predict(request: Request) -> JSONResponse:
        """Predict crystals: files, a text, or OPTIMADE structures."""
        told = await desk.predict(await given(request))
        return JSONResponse(told.answer, 200 if told.answer["predictions"] else 422)

    @app.get("/campaigns")
    async def campaigns() -> list[dict[str, Any]]:
        """The campaigns that are served."""
        return [{"name": served.name, "candidates": served.count} for served in desk.campaigns.values()]

    @app.get("/campaigns/{name}/candidates")
    def candidates(request: Request, name: str) -> dict[str, Any]:
        """Candidates of a campaign.

        Parameters: offset, limit, sort (a column, descending with a minus before it), text (part of
        formula or id), elements, and COLUMN_min or COLUMN_max for a column of numbers.
        """
        served = desk.campaign(name)
        query = asked(request, served)
        rows, count = browse.find(served, query)
        units = {field.name: (field.metadata or {}).get(b"unit", b"").decode() for field in served.schema}
        beside = {"campaign": name, "count": count, "offset": query.offset, "limit": query.limit}
        return {**beside, "units": {name: unit for name, unit in units.items() if unit}, "candidates": rows.to_dicts()}
