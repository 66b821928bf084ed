"""The OPTIMADE reference server over the served campaigns.

Enters: campaigns, and the URL under which the server answers. Leaves: an ASGI application with the
paths `/v1/structures`, `/v1/info`, `/v1/links` and the others of the standard. Own properties are
described with units in `/v1/info/structures`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from assay.screening.serving.shelf import Served

PAGE, MOST = 100, 500
"""Entries of a page by default, and at most."""


def make(campaigns: Sequence[Served], url: str, place: Path) -> ASGIApp | None:
    """The application, whose log lies in the folder `place`; None where no campaign is served."""
    if not campaigns:
        return None
    _configure(place)
    from optimade.server.config import ServerConfig  # type: ignore[import-untyped]
    from optimade.server.create_app import create_app  # type: ignore[import-untyped]

    from assay.screening.serving.optimade.collection import Structures, own

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
        from optimade.exceptions import OptimadeHTTPException  # type: ignore[import-untyped]

        with suppress(OptimadeHTTPException):
            await self._app(scope, receive, send)


def _configure(place: Path) -> None:
    """What the package reads when it is imported: no file of the user, nothing below /var/log."""
    empty = place / "optimade.json"
    empty.write_text("{}")
    os.environ.update(OPTIMADE_CONFIG_FILE=str(empty), OPTIMADE_LOG_DIR=str(place), OPTIMADE_LOG_LEVEL="error")
    logging.getLogger("optimade").addFilter(lambda record: record.levelno >= logging.WARNING)


def _link(url: str) -> dict[str, Any]:
    told = {"name": "Assay", "description": "Candidates of screening campaigns", "base_url": url, "homepage": None}
    return {"id": "assay", "type": "links", "link_type": "root", "aggregate": "ok", **told}
