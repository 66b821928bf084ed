"""Child process of `tests.servers.reference_server`: the OPTIMADE reference implementation on a free port."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path


def serve_reference(folder: Path) -> None:
    """Print the port, then serve until standard input closes."""
    import socket

    threading.Thread(target=_die_with_parent, daemon=True).start()
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the package logs to standard output, which nobody reads once the port is known
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    settings = json.loads((folder / "settings.json").read_text())

    import uvicorn
    from optimade.server.config import ServerConfig
    from optimade.server.create_app import create_app

    config = ServerConfig(
        insert_test_data=False,  # would fetch the provider list from the internet
        insert_from_jsonl=str(folder / "entries.jsonl"),
        create_default_index=False,
        database_backend="mongomock",
        base_url=settings["base_url"] or f"http://127.0.0.1:{port}",
        page_limit=settings["page_limit"],
        page_limit_max=max(500, settings["page_limit"]),
        provider={"prefix": "exmpl", "name": "Example", "description": "Real crystals, example provider"},
        provider_fields={"structures": settings["fields"]},
        log_level="warning",
        log_dir=str(folder),
    )
    app = create_app(config)
    print(port, file=answer, flush=True)  # connections wait in the backlog until the server runs
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])


def _die_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file holds `models`, `sources`: never import those by accident
    serve_reference(Path(sys.argv[1]))
