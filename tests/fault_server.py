"""An OPTIMADE server on loopback that answers filters rightly and misbehaves on command, over real HTTP.

What it does to a request depends on the request's address and on how often that address was asked,
never on the clock: a pull that is broken off and resumed meets the same server as an unbroken one.
"""

from __future__ import annotations

import random
import re
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self, cast
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from assay.sources.databases.filters.checker import Checker
from assay.sources.databases.filters.grammar import validate_filter
from tests.fault_answers import RAW, FaultHTTPServer, Handler

Entry = dict[str, Any]

LOOPS = {"self-next", "loop-next", "endless"}
SPOILERS = LOOPS | {
    "href-next", "relative-next", "foreign-next", "cursor-next", "forget-fields", "forget", "next-key", "page-count",
    "ignore-limit", "refuse-limit", "ignore-filter", "ignore-offset", "old-version",
    "wrong-count", "no-count", "no-available", "more-lies", "shrink", "lost", "doubled", "errors", "delay",
    "nan", "int-ids", "no-species", "disorder", "vacancy", "unknown", "fat",
    "bad-byte", "digits", "nested", "null-attributes", "null-data", "empty-next", "api-version",
}  # fmt: skip
"""Faults that spoil documents; every other fault takes the place of the answer to a request."""


@dataclass(frozen=True)
class Placed:
    """A fault of single requests: `KIND[:DETAIL][@OFFSET | #ENTRY][*TIMES]`.

    `@OFFSET` meets requests from this offset on, `#ENTRY` those whose window holds this entry (a
    place in the list of all entries), without either all; `*TIMES` only the first times that an
    address is asked.
    """

    fault: str
    offset: int | None
    entry: int | None
    times: float

    @classmethod
    def parse(cls, text: str) -> Placed:
        found = re.fullmatch(r"(.+?)(?:@(\d+)|#(\d+))?(?:\*(\d+))?", text)
        assert found is not None
        fault, offset, entry, times = found.groups()
        return cls(fault, int(offset) if offset else None, int(entry) if entry else None, float(times or "inf"))


class FaultServer:
    """Serves entries, and faults.

    `script` lists one fault per request in order ("ok" for none), the last one is repeated.
    `faults` are kept for all requests; with a `seed`, faults of single requests without a place are
    dealt out: every address meets none to two of them, in an order that only the seed and the
    address decide, and answers rightly from then on.

    Of single requests: 429, 429-after:S, 429-date:S, any other status such as 503 or 400, hang,
    drip (a header), trickle (the body), truncated, half-chunk, short-gzip, not-gzip, twice-gzip,
    gzip-tail, brotli, html, text-type, no-body, bomb, big:N, deep, headers (100,000), redirect:URL,
    close, reset; see `Placed` for where they strike. Of links: href-next, relative-next, foreign-next:URL, cursor-next
    (opaque; see `forget_cursors`), self-next, loop-next, endless, forget-fields, forget:NAMES
    (parameters that the next link lacks), next-key:NAME (of the link; none without a name). (Every
    link is http, as those of OQMD are.) Of counts: wrong-count:N, no-count, no-available,
    more-lies, shrink:N (less on every later page), page-count (that of the page). Of pages: lost:N
    and doubled:N (rows between two pages), ignore-limit:N, refuse-limit:N, ignore-filter,
    ignore-offset, old-version (refuses fields of OPTIMADE 1.3), errors (in a good reply), delay:S,
    null-data, empty-next:OFFSET (once a page without entries), api-version:V.
    Of entries (K is a place in the list, or several as in 3,7): nan:K, no-species:K, disorder:K,
    vacancy:K, unknown:K (no nelements, nsites nor elements), fat:K (2 MB), bad-byte:K, digits:K (5,000 of them),
    nested:K (5,000 lists), null-attributes:K, int-ids. In place of entries: junk:N (N empty lists).
    """

    def __init__(
        self,
        entries: Iterable[Entry] = (),
        *,
        page_limit: int = 100,
        script: Sequence[str] = ("ok",),
        faults: Sequence[str] = (),
        gzipped: bool = False,
        seed: int | None = None,
    ) -> None:
        self.page_limit, self.script, self.gzipped = page_limit, list(script), gzipped
        self.seed = seed
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Path with query and headers (lower-case names) of every request so far."""
        self.stopped = threading.Event()
        self.matching = lru_cache(256)(self._matching)
        self.raw: dict[int, bytes] = {}
        """Place of an entry -> the bytes that are sent in its stead."""
        self.rewrite: Callable[[str, bytes], bytes] = lambda path, body: body
        """What becomes of a whole body, for its path."""
        self._cursors: dict[str, int] = {}
        self._times: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._pristine = list(entries)
        self.become(faults)
        self._http = FaultHTTPServer(("127.0.0.1", 0), Handler)
        self._http.owner = self

    def become(self, faults: Sequence[str]) -> None:
        """Have these faults from now on, as if nothing had been asked before."""
        self.faults = {
            name: detail for name, _, detail in (fault.partition(":") for fault in faults) if name in SPOILERS
        }
        placed = [Placed.parse(fault) for fault in faults if fault.partition(":")[0] not in SPOILERS]
        self.loose = [each for each in placed if self.seed is not None and each.offset is None and each.entry is None]
        self.placed = [each for each in placed if each not in self.loose]
        self.entries = [self._entry(entry, place) for place, entry in enumerate(self._pristine)]
        self.matching.cache_clear()
        self._cursors.clear()
        self._times.clear()

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

    def forget_cursors(self) -> None:
        """Expire every link given out under cursor-next: asking for it is a 400 from now on."""
        self._cursors.clear()

    def note(self, path: str, headers: dict[str, str]) -> str:
        """Remember a request and say which fault it meets."""
        with self._lock:
            scripted = self.script[min(len(self.requests), len(self.script) - 1)]
            self.requests.append((path, headers))
            time_before = self._times[path]
            self._times[path] += 1
        if scripted != "ok":
            return scripted
        asked = self._asked(path)
        start = self._start(asked)
        window = self.matching(asked.get("filter", ""))[start : start + self._limit(asked)]
        for each in self.placed:
            here = each.offset in (None, start) and (each.entry is None or each.entry in window)
            if here and time_before < each.times:
                return each.fault
        return self._dealt(path)[time_before] if time_before < len(self._dealt(path)) else "ok"

    def _dealt(self, path: str) -> list[str]:
        rng = random.Random(f"{self.seed} {path}")
        return [rng.choice(self.loose).fault for _ in range(rng.choice([0, 0, 1, 2]))] if self.loose else []

    def document(self, path: str) -> tuple[int, Any]:
        """Status and body of a request for structures."""
        asked = self._asked(path)
        refusal = self._refusal(asked)
        if refusal:
            return refusal
        start, limit = self._start(asked), self._limit(asked)
        slip = int(self.faults.get("lost") or 0) - int(self.faults.get("doubled") or 0) if start else 0
        places = self.matching(asked.get("filter", ""))
        window = places[max(0, start + slip) : start + slip + limit]
        data = [self._shown(place, asked) for place in window]
        if "endless" in self.faults:
            data = [{**entry, "id": f"{start}-{place}"} for place, entry in enumerate(self.entries[:limit])]
        following = self._next(path, asked, start + limit, len(places))
        meta: dict[str, Any] = {
            "data_returned": int(self.faults.get("wrong-count", len(places))),
            "data_available": len(self.entries),
            "more_data_available": "more-lies" in self.faults or following is not None,
        }
        meta["data_returned"] -= int(self.faults.get("shrink", 0)) * (start // max(1, limit))
        self._spoil(meta, len(data))
        if "errors" in self.faults:
            return 200, {"errors": [{"status": "500", "detail": "database is asleep"}], "meta": meta}
        if self.faults.get("empty-next") == str(start) and "again" not in asked:
            return 200, {"data": [], "meta": meta | {"more_data_available": True}, "links": {"next": f"{path}&again=1"}}
        key = self.faults.get("next-key", "next")
        shown = None if "null-data" in self.faults else data
        return 200, {"data": shown, "meta": meta, "links": {key: following} if key else {}}

    def _spoil(self, meta: dict[str, Any], count: int) -> None:
        """What a page of so many entries says wrongly of itself."""
        for fault, name in (("no-count", "data_returned"), ("no-available", "data_available")):
            if fault in self.faults:
                del meta[name]
        if "api-version" in self.faults:
            meta["api_version"] = self.faults["api-version"]
        if "page-count" in self.faults:
            meta["data_returned"] = count
        if "delay" in self.faults:
            meta["request_delay"] = float(self.faults["delay"])

    def _refusal(self, asked: Mapping[str, str]) -> tuple[int, Any] | None:
        limit = int(asked.get("page_limit", self.page_limit))
        if "refuse-limit" in self.faults and limit > int(self.faults["refuse-limit"]):
            return 403, {"errors": [{"detail": f"page_limit {limit} is above {self.faults['refuse-limit']}"}]}
        if "old-version" in self.faults and "site_coordinate_span" in asked.get("response_fields", ""):
            return 400, {"errors": [{"detail": "unknown property site_coordinate_span"}]}
        if asked.get("page_cursor", "") not in {"", *self._cursors}:
            return 400, {"errors": [{"detail": "this cursor has expired"}]}
        return None

    def _asked(self, path: str) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}

    def _start(self, asked: Mapping[str, str]) -> int:
        if "page_cursor" in asked:
            return self._cursors.get(asked["page_cursor"], 0)
        return 0 if "ignore-offset" in self.faults else int(asked.get("page_offset", 0))

    def _limit(self, asked: Mapping[str, str]) -> int:
        limit = min(int(asked.get("page_limit", self.page_limit)), self.page_limit)
        return int(self.faults.get("ignore-limit", limit))

    def _matching(self, text: str) -> list[int]:
        """Places of the entries that the filter lets through."""
        if not text or "ignore-filter" in self.faults:
            return list(range(len(self.entries)))
        # the checker leaves IS KNOWN to servers, so here it becomes a number that the checker
        # compares
        asked = re.findall(r"(\w+) IS (?:UN)?KNOWN", text)
        text = re.sub(r"(\w+) IS KNOWN", r"_known_\1=1", re.sub(r"(\w+) IS UNKNOWN", r"_known_\1=0", text))
        check = Checker(validate_filter(text))
        known = [
            {f"_known_{name}": int(each["attributes"].get(name) is not None) for name in asked} for each in self.entries
        ]
        rows = [
            {"id": each["id"], **each["attributes"], **extra} for each, extra in zip(self.entries, known, strict=True)
        ]
        return [place for place, row in enumerate(rows) if check(row)]

    def _entry(self, entry: Entry, place: int) -> Entry:
        """The entry with what is wrong with it."""
        attributes = dict(entry["attributes"])
        wrong = {name for name, detail in self.faults.items() if str(place) in (detail or "0").split(",")}
        if "nan" in wrong:
            attributes["cartesian_site_positions"] = [[float("nan")] * 3 for _ in attributes["species_at_sites"]]
        if "no-species" in wrong:
            attributes["species"] = None
        if "unknown" in wrong:
            attributes.update(nelements=None, nsites=None, elements=None)
        for name, partner in (("disorder", "Xe"), ("vacancy", "vacancy")):
            if name in wrong:
                first = attributes["species"][0]
                mixed = {**first, "chemical_symbols": [first["chemical_symbols"][0], partner]}
                attributes["species"] = [{**mixed, "concentration": [0.75, 0.25]}, *attributes["species"][1:]]
        identifier = place + 1 if "int-ids" in self.faults else entry["id"]
        for name in RAW.keys() & wrong:
            attributes["_raw"] = f"<{name}>"
        if "null-attributes" in wrong:
            attributes["_null"] = True
        fat = {"meta": {"padding": "x" * 2_000_000}} if "fat" in wrong else {}
        return {**entry, **fat, "id": identifier, "attributes": attributes}

    def _shown(self, place: int, asked: Mapping[str, str]) -> Entry:
        entry = self.entries[place]
        if place in self.raw:
            return cast("Entry", f"<entry {place}>")
        if "_null" in entry["attributes"]:
            return {**entry, "attributes": None}
        wanted = asked.get("response_fields", "id" if "forget-fields" in self.faults else "")
        if not wanted:
            return entry
        asked_for = {*wanted.split(","), "_raw"}
        shown = {name: value for name, value in entry["attributes"].items() if name in asked_for}
        return {**entry, "attributes": shown}

    def _next(self, path: str, asked: Mapping[str, str], start: int, count: int) -> Any:
        if start >= count and not self.faults.keys() & LOOPS:
            return None
        if "self-next" in self.faults:
            return self.url + path
        if "loop-next" in self.faults and start >= count:
            start = 0
        forgotten = {"response_fields"} if "forget-fields" in self.faults else set()
        forgotten |= set(self.faults.get("forget", "").split(","))
        query = {name: value for name, value in asked.items() if name not in forgotten}
        if "cursor-next" in self.faults:
            token = f"c{zlib.crc32((asked.get('filter', '') + str(start)).encode()):08x}"
            self._cursors[token] = start
            query["page_cursor"] = token
        else:
            query["page_offset"] = str(start)
        target = f"{urlsplit(path).path}?{urlencode(query, quote_via=quote)}"
        if "foreign-next" in self.faults:
            return self.faults["foreign-next"] + target
        if "relative-next" in self.faults:
            return target
        return {"href": self.url + target} if "href-next" in self.faults else self.url + target
