"""The command `assay serve`.

Enters: campaign folders and a model. Leaves: a server, until it is stopped.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from assay.screening.commands.terminal import say
from assay.screening.settings.exits import Exit, Failure

with suppress(ModuleNotFoundError):  # `serve` says what is missing
    from assay.screening.serving import run

NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "mongomock")
"""Modules of the extra."""
Folders = Annotated[list[Path] | None, typer.Argument(help="Campaign folders, ranked ones.")]


def serve(
    folders: Folders = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Ensemble for uploads: a folder or a bundled one.")
    ] = "tc",
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine a token is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8000,
    url: Annotated[str | None, typer.Option(help="Begin of the URLs that clients see, behind a proxy.")] = None,
    max_upload: Annotated[float, typer.Option(min=0.001, max=256, help="Largest upload, MiB.")] = 2,
    waiting: Annotated[int, typer.Option(min=1, help="Uploads that wait at once; more get 429.")] = 128,
    store: Annotated[Path | None, typer.Option(help="Folder that keeps predictions of uploads over a restart.")] = None,
) -> None:
    """Serve campaigns as pages, REST, OPTIMADE; predict uploads.

    Without folders uploads are predicted. Beyond this machine a client must know a token: that of
    the environment variable ASSAY_SERVE_TOKEN, else a new one, which is printed.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise Failure(Exit.USAGE, f"assay serve needs {', '.join(missing)}: pip install 'assay[serve]'")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept, most = store or cache / "assay" / "served", round(max_upload * 2**20)
    address = run.Address(host, port, None if url is None else url.rstrip("/"))
    run.serve(folders or [], model, address, kept, say, most_bytes=most, waiting=waiting)
