"""The reference server, configured for the served campaigns.

Enters: campaigns, and the URL under which the server answers. Leaves: an ASGI application. The
package `optimade` reads its environment when this module is imported
(`assay.screening.serving.optimade.server`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from optimade.exceptions import OptimadeHTTPException  # type: ignore[import-untyped]
from optimade.server.config import ServerConfig  # type: ignore[import-untyped]
from optimade.server.create_app import create_app  # type: ignore[import-untyped]
from starlette.types import ASGIApp, Receive, Scope, Send

from assay.screening.serving.optimade.collection import Structures, own
from assay.screening.serving.shelf import Served

PAGE, MOST = 100, 500
"""Entries of a page by default, and at most."""


def make(campaigns: Sequence[Served], url: str, place: Path) -> ASGIApp:
    """The application, whose log lies in the folder `place`."""
    config = ServerConfig(
        insert_test_data=False,
        base_url=url,
        page_limit=PAGE,
        page_limit_max=MOST,
        log_level="error",
        log_dir=place,
        provider={"name": "Assay", "prefix": "assay", "description": "Candidates of screening campaigns"},
        implementation={"name": "Assay", "version": version("assay")},
        provider_fields={
            "structures": [
                {"name": name, "type": told.type, "description": told.description}
                | ({"unit": told.unit} if told.unit else {})
                for name, (_, told) in own(campaigns).items()
            ]
        },
    )
    app = create_app(config, logger_tag="assay")
    app.state.entry_collections["structures"] = Structures(campaigns, config)
    app.state.entry_collections["links"].insert([_link(url)])
    return _Answered(app)


class _Answered:
    """Ends errors that the application has answered: its middleware raises them once more."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        with suppress(OptimadeHTTPException):
            await self._app(scope, receive, send)


def _link(url: str) -> dict[str, Any]:
    told = {"name": "Assay", "description": "Candidates of screening campaigns", "base_url": url, "homepage": None}
    return {"id": "assay", "type": "links", "link_type": "root", "aggregate": "ok", **told}
