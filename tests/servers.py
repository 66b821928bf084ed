"""Two OPTIMADE servers on loopback: the reference implementation, and one that misbehaves on command.

Both speak real HTTP on a free port of 127.0.0.1, so that a campaign in another process can talk to them too.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import parse_qs, quote, urlencode, urlsplit

if TYPE_CHECKING:
    from sources.crystals import Crystals

Entry = dict[str, Any]
PREFIX = "_exmpl_"
"""Provider prefix that OPTIMADE reserves for examples."""


def entries_from_crystals(crystals: Crystals, prefix: str = PREFIX) -> list[Entry]:
    """OPTIMADE entries of crystals; numeric columns become provider fields, ids lose their `provider/`."""
    import numpy as np

    from sources.crystals import reduced_formula
    from sources.elements import SYMBOLS

    entries = []
    compositions = crystals.composition()
    for row, identifier in enumerate(crystals.ids.tolist()):
        sites = slice(*crystals.site_ptr[row : row + 2].tolist())
        names, species = _species(crystals, sites)
        elements = sorted(SYMBOLS[z] for z in compositions[row].nonzero()[0])
        total = compositions[row].sum()
        formula = reduced_formula(compositions[row])
        whole = "." not in formula  # OPTIMADE formulas hold whole numbers only
        attributes = {
            "elements": elements,
            "nelements": len(elements),
            "elements_ratios": [float(compositions[row][SYMBOLS.index(e)] / total) for e in elements],
            "chemical_formula_reduced": formula if whole else None,
            "chemical_formula_descriptive": formula,
            "chemical_formula_anonymous": _anonymous(formula) if whole else None,
            "dimension_types": [1, 1, 1],
            "nperiodic_dimensions": 3,
            "lattice_vectors": crystals.lattice[row].tolist(),
            "cartesian_site_positions": (crystals.frac[sites] @ crystals.lattice[row]).tolist(),
            "nsites": sites.stop - sites.start,
            "species": species,
            "species_at_sites": names,
            "structure_features": [] if crystals.is_ordered[row] else ["disorder"],
            "last_modified": "2025-02-12T00:00:00Z",
            "immutable_id": f"{identifier}#1",
        }
        for name, column in crystals.columns.items():
            if column.dtype.kind == "f":
                value = float(column[row])
                attributes[prefix + name] = None if np.isnan(value) else value
        entries.append({"id": identifier.split("/", 1)[-1], "type": "structures", "attributes": attributes})
    return entries


def _species(crystals: Crystals, sites: slice) -> tuple[list[str], list[dict[str, Any]]]:
    """Species name of every site, and the table of species; a vacancy fills what the occupancies leave."""
    from sources.elements import SYMBOLS

    names, species = [], {}
    for site in range(sites.start, sites.stop):
        items = range(*crystals.species_ptr[site : site + 2])
        symbols = [SYMBOLS[crystals.numbers[item]] for item in items]
        shares = [round(float(crystals.occupancy[item]), 5) for item in items]
        if sum(shares) < 1 - 1e-4:
            symbols, shares = [*symbols, "vacancy"], [*shares, round(1 - sum(shares), 5)]
        name = symbols[0] if shares == [1.0] else "-".join(f"{s}{x:g}" for s, x in zip(symbols, shares, strict=True))
        names.append(name)
        species[name] = {"name": name, "chemical_symbols": symbols, "concentration": shares}
    return names, list(species.values())


def _anonymous(formula: str) -> str:
    counts = sorted((int(n or 1) for n in re.findall(r"[A-Z][a-z]?(\d*)", formula)), reverse=True)
    return "".join(letter + (str(n) if n > 1 else "") for letter, n in zip("ABCDEFGHIJKLMNOP", counts, strict=False))


def materials_project(data: Path, n: int = 1000, step: int = 61) -> Crystals:
    """`n` real, labelled Materials Project cells, spread over the data pack."""
    import numpy as np

    from sources import table

    stored = table.read(data / "mp" / "mp_labelled_le40.parquet")
    crystals, refused = table.from_table(stored.take((np.arange(n) * step) % len(stored)), "mp")
    assert not refused
    reported = {"formation_energy_per_atom": "e_form", "band_gap": "gap_pbe"}
    ids = np.array([f"mp/{name.rsplit('/')[-1]}" for name in crystals.ids.tolist()])
    return replace(crystals, ids=ids, columns={name: crystals.columns[source] for name, source in reported.items()})


@contextlib.contextmanager
def reference_server(
    structures: Crystals | Sequence[Entry], tmp_path: Path, page_limit: int = 100, base_url: str | None = None
) -> Iterator[str]:
    """The reference implementation with an in-memory database, in a process of its own; yields its base URL.

    `base_url` replaces the address that its `next` links are built from (a wrong one makes them foreign).
    """
    entries = structures if isinstance(structures, Sequence) else entries_from_crystals(structures)
    folder = tmp_path / "reference-server"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"x-optimade": {"api_version": "1.2.0"}}, *entries]
    (folder / "entries.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    fields = sorted({name.lower() for entry in entries for name in entry["attributes"] if name.startswith("_")})
    settings = {"page_limit": page_limit, "base_url": base_url, "fields": fields}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "optimade.json").write_text("{}")  # else the package reads a file from the home folder
    environment = os.environ | {
        "OPTIMADE_CONFIG_FILE": str(folder / "optimade.json"),
        "OPTIMADE_LOG_DIR": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), str(folder)]
    with (folder / "output.log").open("wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, env=environment, cwd=folder
        )
        try:
            assert child.stdout is not None
            port = child.stdout.readline().strip()
            if not port:
                raise RuntimeError(
                    f"the reference server did not start:\n{(folder / 'output.log').read_text()[-2000:]}"
                )
            yield f"http://127.0.0.1:{int(port)}"
        finally:
            child.kill()
            child.communicate()


def serve_reference(folder: Path) -> None:
    """Child process of `reference_server`: prints its port, then serves until its standard input closes."""
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


class FaultServer:
    """A small OPTIMADE server that serves entries and misbehaves on command.

    `script` lists one fault per request in order ("ok" for none), the last one is repeated; `fault` spoils every page:

    per request: 429, 429-after:S, 429-date:S, any other status such as 503 or 400, hang, drip, truncated, short-gzip,
    html, bomb, big, deep, redirect:URL, close;
    per page: href-next, relative-next, foreign-next:URL, self-next, loop-next, endless, http-next, nan, int-ids,
    wrong-count:N, no-count, forget-fields, ignore-limit:N, refuse-limit:N, errors, delay:S.
    """

    def __init__(
        self,
        entries: Iterable[Entry] = (),
        *,
        page_limit: int = 100,
        script: Sequence[str] = ("ok",),
        faults: Sequence[str] = (),
        gzipped: bool = False,
    ) -> None:
        self.entries = list(entries)
        self._position = {entry["id"]: place for place, entry in enumerate(self.entries)}
        self.page_limit, self.script, self.gzipped = page_limit, list(script), gzipped
        self.faults: dict[str, str] = {fault.partition(":")[0]: fault.partition(":")[2] for fault in faults}
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Path with query and headers (lower-case names) of every request so far."""
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._http = _FaultHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.owner = self

    @property
    def url(self) -> str:
        """Base URL, without the version."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopped.set()
        self._http.shutdown()
        self._http.server_close()

    def note(self, path: str, headers: dict[str, str]) -> str:
        """Remember a request and say which fault it meets."""
        with self._lock:
            number = len(self.requests)
            self.requests.append((path, headers))
        return self.script[min(number, len(self.script) - 1)]

    def document(self, path: str) -> tuple[int, Any]:
        """Status and body of a request for structures."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        limit = int(asked.get("page_limit", self.page_limit))
        if "refuse-limit" in self.faults and limit > int(self.faults["refuse-limit"]):
            return 403, {"errors": [{"detail": f"page_limit {limit} is above {self.faults['refuse-limit']}"}]}
        limit = int(self.faults.get("ignore-limit", min(limit, self.page_limit)))
        start = int(asked.get("page_offset", 0))
        data = [self._spoilt(entry, asked) for entry in self.entries[start : start + limit]]
        if "endless" in self.faults:
            data = [{**entry, "id": f"{start}-{place}"} for place, entry in enumerate(self.entries[:limit])]
        meta: dict[str, Any] = {"data_returned": int(self.faults.get("wrong-count", len(self.entries)))}
        if "no-count" in self.faults:
            meta = {}
        if "delay" in self.faults:
            meta["request_delay"] = float(self.faults["delay"])
        document: dict[str, Any] = {
            "data": data,
            "meta": meta,
            "links": {"next": self._next(path, asked, start + limit)},
        }
        if "errors" in self.faults:
            document = {"errors": [{"status": "500", "detail": "database is asleep"}], "meta": meta}
        return 200, document

    def _spoilt(self, entry: Entry, asked: Mapping[str, str]) -> Entry:
        attributes = dict(entry["attributes"])
        wanted = asked.get("response_fields", "id" if "forget-fields" in self.faults else "")
        if wanted:
            attributes = {name: value for name, value in attributes.items() if name in wanted.split(",")}
        entry = {**entry, "attributes": attributes}
        position = self._position[entry["id"]]
        if "int-ids" in self.faults:
            entry["id"] = position + 1
        if "nan" in self.faults and position == int(self.faults["nan"] or 0):
            attributes["cartesian_site_positions"] = [[float("nan")] * 3 for _ in attributes["species_at_sites"]]
        return entry

    def _next(self, path: str, asked: Mapping[str, str], start: int) -> Any:
        if start >= len(self.entries) and not self.faults.keys() & {"self-next", "loop-next", "endless"}:
            return None
        if "self-next" in self.faults:
            return self.url + path
        if "loop-next" in self.faults and start >= len(self.entries):
            start = 0
        forgotten = {"response_fields"} if "forget-fields" in self.faults else set()
        query = {**{name: value for name, value in asked.items() if name not in forgotten}, "page_offset": start}
        target = f"{urlsplit(path).path}?{urlencode(query, quote_via=quote)}"
        if "foreign-next" in self.faults:
            return self.faults["foreign-next"] + target
        if "relative-next" in self.faults:
            return target
        return {"href": self.url + target} if "href-next" in self.faults else self.url + target


@cache
def bomb() -> bytes:
    """200 MiB of zeros in 200 kB, packed piece by piece."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(200)) + packer.flush()


class _FaultHTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    owner: FaultServer

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def owner(self) -> FaultServer:
        return cast("_FaultHTTPServer", self.server).owner

    def do_GET(self) -> None:
        fault = self.owner.note(self.path, {name.lower(): value for name, value in self.headers.items()})
        with contextlib.suppress(ConnectionError):
            self._answer(fault)

    def _answer(self, fault: str) -> None:
        kind, _, detail = fault.partition(":")
        special = getattr(self, "fault_" + kind.replace("-", "_"), None)
        if special is not None:
            special(detail)
        elif kind.startswith("429"):
            pause = formatdate(time.time() + float(detail), usegmt=True) if kind == "429-date" else detail
            self.send(429, b"slow down", {"Retry-After": pause} if pause else {})
        elif kind.isdigit():
            self.send(int(kind), json.dumps({"errors": [{"detail": f"scripted {kind}"}]}).encode())
        else:
            status, document = self.owner.document(self.path)
            body = json.dumps(document).encode()
            if self.owner.gzipped:
                self.send(status, gzip.compress(body, 1), {"Content-Encoding": "gzip"})
            else:
                self.send(status, body)

    def send(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/vnd.api+json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def _whole(self) -> bytes:
        return json.dumps(self.owner.document(self.path)[1]).encode()

    def fault_hang(self, _: str) -> None:
        self.owner.stopped.wait(60)
        self.close_connection = True

    def fault_drip(self, _: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.owner.stopped.wait(0.05):
            self.wfile.write(b"a")
            self.wfile.flush()

    def fault_truncated(self, _: str) -> None:
        whole = self._whole()
        self.send(200, whole[: len(whole) // 2])

    def fault_short_gzip(self, _: str) -> None:
        whole = gzip.compress(self._whole())
        self.send(200, whole[: len(whole) // 2], {"Content-Encoding": "gzip"})

    def fault_close(self, _: str) -> None:
        self.send(200, self._whole()[:10], length=10_000)
        self.close_connection = True

    def fault_bomb(self, _: str) -> None:
        self.send(200, bomb(), {"Content-Encoding": "gzip"})

    def fault_big(self, size: str) -> None:
        self.send(200, b'{"data": []}' + b" " * int(size))

    def fault_html(self, _: str) -> None:
        self.send(200, b"<html>maintenance</html>")

    def fault_deep(self, _: str) -> None:
        self.send(200, b"[" * 200_000)

    def fault_redirect(self, url: str) -> None:
        self.send(302, b"", {"Location": url})


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file holds `models`, `sources`: never import those by accident
    serve_reference(Path(sys.argv[1]))
