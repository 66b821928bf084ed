"""The OPTIMADE reference server over the served campaigns.

Enters: campaigns, and the URL under which the server answers. Leaves: an ASGI application with the
paths `/v1/structures`, `/v1/info`, `/v1/links` and the others of the standard. Own properties are
described with units in `/v1/info/structures`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from starlette.types import ASGIApp

from assay.screening.serving.shelf import Served


def make(campaigns: Sequence[Served], url: str, place: Path) -> ASGIApp | None:
    """The application, whose log lies in the folder `place`; None where no campaign is served."""
    if not campaigns:
        return None
    _configure(place)
    database = import_module("assay.screening.serving.optimade.database")  # it reads what was configured
    made: ASGIApp = database.make(campaigns, url, place)
    return made


def _configure(place: Path) -> None:
    """What the package reads when it is imported: no file of the user, nothing below /var/log."""
    empty = place / "optimade.json"
    empty.write_text("{}")
    os.environ.update(OPTIMADE_CONFIG_FILE=str(empty), OPTIMADE_LOG_DIR=str(place), OPTIMADE_LOG_LEVEL="error")
    logging.getLogger("optimade").addFilter(lambda record: record.levelno >= logging.WARNING)
