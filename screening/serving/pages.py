"""The pages for browsers: written here, readable without script.

Enters: what the desk finds. Leaves: HTML. Every text that came from a file, a server or a URL is
escaped. This module computes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException as AnyHTTPException

from assay.screening.display import cells, scripts
from assay.screening.prediction.describe import species
from assay.screening.serving import browse
from assay.screening.serving.desk import Desk, asked, given
from assay.screening.serving.shelf import Served
from assay.screening.serving.store import Kept
from assay.screening.settings import digits
from assay.screening.settings.exits import Failure
from assay.screening.settings.printable import escaped, shortened
from assay.sources.crystals import Crystals
from assay.sources.formats.writing.structures import FORMATS

LONGEST = 300
"""Most characters of a text on a page."""
COLUMNS = ("rank", "front", "p_front", "formula", "nsites", "ood_distance", "id")
"""Columns of the table of candidates beside the objectives, where the campaign has them."""
PARTS = ("mean", "std", "lo", "hi")
"""Columns of a predicted property."""


def add(app: FastAPI, desk: Desk) -> None:
    """Give an application its pages."""
    show = _Pages()
    _of_campaigns(app, desk, show)
    _of_candidates(app, desk, show)
    _of_uploads(app, desk, show)

    @app.get("/crystal.js", include_in_schema=False)
    async def script() -> Response:
        return Response(scripts.text(scripts.CRYSTAL), media_type="text/javascript")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        """The REST interface, from its OpenAPI description."""
        return show("docs", paths=app.openapi()["paths"])

    @app.exception_handler(AnyHTTPException)
    async def failed(request: Request, error: AnyHTTPException) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return show("message", error.status_code, title="This did not work", text=str(error.detail))
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def misused(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        text = f"{first['loc'][-1]}: {first['msg']}"
        return await failed(request, AnyHTTPException(422, text))

    @app.exception_handler(Failure)
    async def damaged(request: Request, error: Failure) -> Response:
        return await failed(request, AnyHTTPException(503, str(error)))


def _of_campaigns(app: FastAPI, desk: Desk, show: _Pages) -> None:
    @app.get("/", include_in_schema=False)
    async def home() -> HTMLResponse:
        return show("home", campaigns=desk.campaigns.values(), model=desk.predictor.model)

    @app.get("/campaigns/{name}", include_in_schema=False)
    def campaign(request: Request, name: str) -> HTMLResponse:
        served = desk.campaign(name)
        query, target = asked(request, served), served.results.summary.target
        known = served.schema.names
        others = [one for one in served.results.summary.objectives if one.name not in (target.name, *COLUMNS)]
        shown = [(one, _columns(one.name, known)) for one in (target, *others)]
        names = [column for column in COLUMNS if column in known]
        names += [column for _, columns in shown for column in columns]
        rows, count = browse.find(served, query, names)
        stated = {key: value for key, value in request.query_params.items() if value and key not in ("offset", "token")}

        def link(**changed: Any) -> str:
            return f"?{urlencode(stated | changed)}"

        return show(
            "campaign",
            served=served,
            target=target,
            objectives=shown,
            rows=rows.to_dicts(),
            count=count,
            query=query,
            stated=stated,
            link=link,
            columns=names,
        )


def _of_candidates(app: FastAPI, desk: Desk, show: _Pages) -> None:
    @app.get("/campaigns/{name}/candidates/{rank}", include_in_schema=False)
    def candidate(name: str, rank: int) -> HTMLResponse:
        served, row, crystal = _candidate(desk, name, rank)
        units = {field.name: (field.metadata or {}).get(b"unit", b"").decode() for field in served.schema}
        facts = [(key, row[key], units[key]) for key in served.schema.names]
        target = served.results.summary.target
        return show(
            "candidate",
            served=served,
            target=target,
            row=row,
            facts=facts,
            drawn=_drawn(crystal),
            formats=list(FORMATS),
        )

    @app.get("/campaigns/{name}/candidates/{rank}/{format}")
    def candidate_file(name: str, rank: int, format: str) -> Response:
        """A candidate as a file: cif, poscar, extxyz or json."""
        served, row, crystal = _candidate(desk, name, rank)
        facts = {"campaign": served.results.summary.campaign, "rank": rank, "id": row["id"]}
        return _file(crystal, format, f"{rank}_{row['formula']}", facts)


def _of_uploads(app: FastAPI, desk: Desk, show: _Pages) -> None:
    @app.get("/upload", include_in_schema=False)
    async def form() -> HTMLResponse:
        return show("upload", model=desk.predictor.model)

    @app.post("/upload", include_in_schema=False)
    async def upload(request: Request) -> Response:
        told = await desk.predict(await given(request))
        key = desk.store.keep(told.crystals, told.answer)
        if told.answer["predictions"]:
            return RedirectResponse(f"/predictions/{key}", 303)
        return show("prediction", 422, kept=_kept(desk, key), crystals=[], formats=[])

    @app.get("/predictions/{key}", include_in_schema=False)
    def kept_prediction(key: str) -> HTMLResponse:
        kept = _kept(desk, key)
        crystals = [_drawn(kept.crystals[row : row + 1]) for row in range(len(kept.crystals))]
        return show("prediction", kept=kept, crystals=crystals, formats=list(FORMATS))

    @app.post("/predictions/{key}/{number}/explain", include_in_schema=False)
    async def explained(key: str, number: int) -> Response:
        kept = _kept(desk, key)
        crystal = _numbered(kept, number)
        if str(number) not in kept.explained:
            kept.explain(number, await desk.explain(crystal))
        return RedirectResponse(f"/predictions/{key}#crystal-{number}", 303)

    @app.get("/predictions/{key}/json")
    def as_json(key: str) -> JSONResponse:
        """A kept prediction as JSON, with what each atom adds where it was asked for."""
        kept = _kept(desk, key)
        return JSONResponse(kept.answer | ({"explained": kept.explained} if kept.explained else {}))

    @app.get("/predictions/{key}/{number}/{format}")
    def as_file(key: str, number: int, format: str) -> Response:
        """A predicted crystal as a file: cif, poscar, extxyz or json."""
        crystal = _numbered(_kept(desk, key), number)
        return _file(crystal, format, str(crystal.formulas()[0]), {"id": str(crystal.ids[0])})


def _candidate(desk: Desk, name: str, rank: int) -> tuple[Served, dict[str, Any], Crystals]:
    served = desk.campaign(name)
    row = served.row(rank)
    if row is None:
        raise HTTPException(404, f"{name} has the ranks 1 to {served.count:,}, not {rank}")
    return served, row, served.crystals([row])


def _columns(name: str, known: Sequence[str]) -> list[str]:
    """The columns of an objective: four of a predicted property, one of what is taken as exact."""
    return [f"{name}_{part}" for part in PARTS] if f"{name}_mean" in known else [name]


def _kept(desk: Desk, key: str) -> Kept:
    kept = desk.store.find(key)
    if kept is None:
        raise HTTPException(404, "there is no such prediction; the oldest are forgotten: upload the file again")
    return kept


def _numbered(kept: Kept, number: int) -> Crystals:
    if not 0 <= number < len(kept.crystals):
        raise HTTPException(404, f"this prediction holds {len(kept.crystals)} crystals, counted from 0")
    return kept.crystals[number : number + 1]


def _file(crystal: Crystals, format: str, stem: str, facts: Mapping[str, str | float | None]) -> Response:
    if format not in FORMATS:
        raise HTTPException(404, f"a crystal is written as {', '.join(FORMATS)}, not as {format!r:.40}")
    try:
        text = FORMATS[format].write(crystal, facts)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    name = re.sub(r"[^A-Za-z0-9.]", "_", stem)[:60] + FORMATS[format].ending
    return Response(
        text, media_type="text/plain; charset=utf-8", headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


def _drawn(crystal: Crystals) -> dict[str, Any]:
    """A crystal as text, and for the script that turns it."""
    sites = [{"species": species(crystal, row), "at": crystal.frac[row].tolist()} for row in range(len(crystal.frac))]
    return {"words": cells.words(crystal), "drawing": cells.drawing(crystal), "sites": sites}


class _Pages:
    """Writes a page from the template of its name."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_shown,
        )
        self._templates.filters |= {
            "formula": _formula,
            "number": _number,
            "measured": _measured,
            "attribute": _attribute,
        }
        self._templates.filters["count"] = lambda n: f"{n:,}"

    def __call__(self, name: str, status: int = 200, **content: Any) -> HTMLResponse:
        """The page, with what its template shows."""
        return HTMLResponse(self._templates.get_template(f"{name}.html.j2").render(**content), status)


def _shown(value: Any) -> Any:
    """A text that may come from a file or a server, without characters that are not seen."""
    if isinstance(value, Markup):  # of a macro or a filter, which escaped its parts
        return value
    return escaped(shortened(value, LONGEST)) if isinstance(value, str) else value


def _formula(text: object) -> Markup:
    """A formula with its amounts as subscripts, escaped first."""
    return Markup(re.sub(r"(?<=[A-Za-z])(\d+\.?\d*)", r"<sub>\1</sub>", str(escape(escaped(str(text))))))  # noqa: S704 (the same)


def _attribute(text: str) -> Markup:
    """A long text of ours for an attribute, escaped and not shortened."""
    return escape(text)


def _number(value: object) -> str:
    """A value as text; an en dash for nothing."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return digits.alone(value) if isinstance(value, float) else str(value)


def _measured(values: Mapping[str, Any], *parts: str) -> str:
    """Mean ± std [low, high], with the digits that the std supports."""
    found = [values[part] for part in parts]
    return "–" if None in found else digits.interval(*found)
