"""Pulls crystals from AFLOW over AFLUX, the search language of AFLOW.

Enters: a `Client` bound to AFLOW, and an `AfluxQuery`. Leaves: `Page`s of crystals and quarantined
rows, with the columns and rules of an OPTIMADE server. AFLUX serves as a second way to AFLOW,
whose OPTIMADE server was reported to fail.

A query in AFLUX is called a matchbook: restrictions joined by commas. AFLUX does not send a row
that lacks any property the matchbook names. This module therefore adds only the properties that
make a crystal (`REQUIRED`). A reported number such as the band gap arrives only where the
matchbook names it (`Egap(*)`, `Egap(1*)`); rows without that number are then not sent. The module
first counts the rows that match without `REQUIRED`; rows that do not arrive afterwards count as
missing. Rows are not judged again against the matchbook.

This module was written from recorded replies and public code, not by asking the server. It does
not know how pages are stored, nor HTTP beyond the client.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import numpy as np

from assay.sources.crystals import Crystals, text_array
from assay.sources.databases.client import Client, Reply, SourceRefused
from assay.sources.databases.numbered_pages import PageContent, Window, walk
from assay.sources.databases.optimade_entries import entries_to_crystals, entry_id
from assay.sources.databases.paging import Page, Resume, check_limits
from assay.sources.databases.providers import PROVIDERS, Provider
from assay.sources.databases.trust import BrokenEntry, printable
from assay.sources.quarantine import Quarantined, Reason, Stage
from assay.sources.sift import MAX_SITES

REQUIRED = ("geometry", "species", "composition", "positions_fractional")
"""AFLUX properties that make a crystal; AFLOW sends identifiers without being asked."""
MAX_MATCHBOOK = 2000
"""Longest accepted matchbook, in characters."""
MAX_PAGE = 1000
"""Largest accepted page."""
PROVIDER = replace(
    PROVIDERS["aflow"],
    title="AFLOW, over AFLUX",
    base_url="https://aflow.org/API/aflux",
    page_limit=200,
    timeout_s=180.0,
    properties=tuple(
        replace(known, functional="as in dft_type (PBE as a rule), element references")
        for known in PROVIDERS["aflow"].properties
    ),
    refused=(),
    caveat="rows that lack a property the matchbook names are not sent",
)
"""AFLOW as this module asks it; `replace` its base_url, and set `local`, for a server elsewhere."""
_RANK = re.compile(r"\d{1,9} of (\d{1,9})")
_FIELDS = {"enthalpy_formation_atom": "_aflow_enthalpy_formation_atom", "Egap": "_aflow_Egap"}


@dataclass(frozen=True)
class AfluxQuery:
    """What to ask AFLOW for.

    Raises:
        ValueError: for a matchbook that is no matchbook, or a limit that is not accepted.
    """

    matchbook: str
    """Restrictions in AFLUX, joined by commas, for example species(Nb,Sn),nspecies(2); no
    directives."""
    page_limit: int | None = None
    """Rows per page, at most 1000; None takes the provider's."""
    max_entries: int | None = None
    """Stop after this many rows; None takes all."""
    max_sites: int = MAX_SITES
    """Larger cells go to quarantine."""

    def __post_init__(self) -> None:
        _check_matchbook(self.matchbook)
        check_limits(MAX_PAGE, page_limit=self.page_limit, max_entries=self.max_entries, max_sites=self.max_sites)


def connect(provider: Provider = PROVIDER, **limits: Any) -> Client:
    """Open a client with the interval and timeout that AFLOW needs; `limits` go to `Client`."""
    own = {"min_interval_s": provider.min_interval_s, "timeout_s": provider.timeout_s}
    return Client(provider.base_url, local=provider.local, **{**own, **limits})


def announced(client: Client, query: AfluxQuery) -> int | None:
    """Ask how many rows match, with or without geometry; None when the server does not say."""
    reply = client.get_json(_address(client, query.matchbook, Window(1, 1)))
    return _rows(reply)[1]


def pages(client: Client, query: AfluxQuery, resume: Resume | None = None) -> Iterator[Page]:
    """Yield every page of a query as it arrives; the last one says how many rows are missing.

    With `resume`, only the pages behind those already kept.

    Raises:
        CursorExpired: when `resume` is of another query.
        SourceError: what `Client.get_json` raises; pages yielded before stay good.
    """
    named = set(re.findall(r"[A-Za-z_]\w*", re.sub(r"'[^']*'", "", query.matchbook)))
    summons = ",".join([query.matchbook, *(name for name in REQUIRED if name not in named)])

    def fetch(window: Window) -> PageContent:
        reply = client.get_json(_address(client, summons, window))
        return PageContent(*_rows(reply), reply)

    def convert(rows: list[Any], origin: str) -> tuple[Crystals, list[Quarantined], list[str]]:
        return rows_to_crystals(rows, origin, query.max_sites)

    yield from walk(
        PROVIDER.id,
        fetch,
        convert,
        address=lambda window: _address(client, summons, window),
        size=min(query.page_limit or PROVIDER.page_limit, query.max_entries or MAX_PAGE),
        max_entries=query.max_entries,
        announced=announced(client, query) if resume is None else None,
        resume=resume,
    )


def rows_to_crystals(
    rows: list[Any], origin: str, max_sites: int = MAX_SITES
) -> tuple[Crystals, list[Quarantined], list[str]]:
    """Turn AFLUX rows into crystals with ids `aflow/auid`.

    The columns are those of `assay.sources.databases.optimade_entries`; immutable_id holds the
    aurl.

    Returns:
        The crystals, the refused rows, and the id of every row in order.
    """
    names: list[str] = []
    entries: list[dict[str, Any]] = []
    refused: list[Quarantined] = []
    methods: dict[str, str] = {}
    for place, row in enumerate(rows):
        identifier = row.get("auid") if isinstance(row, dict) else None
        name = entry_id({"id": identifier}, PROVIDER, origin, place)
        names.append(name)
        try:
            if isinstance(row, BrokenEntry):
                raise ValueError(row.message)  # noqa: TRY004 - the row is refused like any other
            if not isinstance(row, dict) or "?" in name.partition("/")[2][:1]:
                raise ValueError(f"auid {identifier!r:.60} is not a printable text")
            entries.append({"id": identifier, "type": "structures", "attributes": _attributes(row)})
        except (ValueError, TypeError, OverflowError) as error:
            refused.append(Quarantined(name, origin, Stage.PULL, Reason.MALFORMED, printable(str(error), 500)))
        else:
            methods[name] = ",".join(_items(row.get("dft_type") or []))
    crystals, quarantined = entries_to_crystals(entries, PROVIDER, origin, max_sites=max_sites)
    return _with_methods(crystals, methods), refused + quarantined, names


def _with_methods(crystals: Crystals, methods: Mapping[str, str]) -> Crystals:
    """Write the functional of each row into its columns, where the row names it."""
    said = text_array([methods[name] for name in crystals.ids.tolist()])
    columns = dict(crystals.columns)
    for known in PROVIDER.properties:
        name = f"{known.column}_functional"
        known_method = (said != "") & (columns[name] != "")
        columns[name] = np.where(known_method, said + ", element references", columns[name])
    return replace(crystals, columns=columns)


def _attributes(row: Mapping[str, Any]) -> dict[str, Any]:
    """OPTIMADE attributes of a row; `entries_to_crystals` refuses a row with missing ones."""
    found: dict[str, Any] = {"immutable_id": row.get("aurl"), "structure_features": []}
    if row.get("geometry") is not None:
        found["lattice_vectors"] = _cell(_items(row["geometry"]))
    if row.get("positions_fractional") is not None:
        places = row["positions_fractional"]
        places = places.split(";") if isinstance(places, str) else places
        found["fractional_site_positions"] = [[float(number) for number in _items(place)] for place in places]
        found["species_at_sites"] = _sites(row, len(places))
        found["species"] = [
            {"name": symbol, "chemical_symbols": [symbol], "concentration": [1.0]}
            for symbol in dict.fromkeys(found["species_at_sites"])
        ]
    for field, name in _FIELDS.items():
        value = row.get(field)
        found[name] = float(value) if isinstance(value, str) and _is_number(value) else value
    return found


def _sites(row: Mapping[str, Any], count: int) -> list[str]:
    """Element on every site: AFLOW lists sites element by element, in the order of `species`."""
    species = _items(row.get("species") or [])
    if row.get("composition") is not None:
        amounts = [float(number) for number in _items(row["composition"])]
    else:
        amounts = [float(share) * count for share in _items(row.get("stoichiometry") or [])]
    whole = [round(amount) for amount in amounts]
    unsound = len(species) != len(amounts) or any(abs(n - amount) > 0.01 for n, amount in zip(whole, amounts))
    if unsound or sum(whole) != count:
        raise ValueError(f"species {species!r:.80} and composition {amounts!r:.80} do not add up to {count} sites")
    return [symbol for symbol, n in zip(species, whole) for _ in range(n)]


def _cell(geometry: list[str]) -> list[list[float]]:
    """Lattice vectors, Å, of a, b, c (Å) and alpha, beta, gamma (degrees)."""
    if len(geometry) != 6:
        raise ValueError(f"geometry {geometry!r:.120} must be a, b, c, alpha, beta, gamma")
    a, b, c, *degrees = (float(number) for number in geometry)
    x, y, z = (math.cos(math.radians(angle)) for angle in degrees)
    sine = math.sin(math.radians(degrees[2]))
    square = 1 - x * x - y * y - z * z + 2 * x * y * z
    if not (min(a, b, c, sine) > 0 and square > 0):
        raise ValueError(f"geometry {geometry!r:.120} spans no cell")
    return [[a, 0.0, 0.0], [b * z, b * sine, 0.0], [c * y, c * (x - y * z) / sine, c * math.sqrt(square) / sine]]


def _items(value: Any) -> list[str]:
    """Items of a list, which AFLOW writes as a JSON list or as text with commas."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",")] if value.strip() else []
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.80} is no list")
    return [str(item) for item in value]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _rows(reply: Reply) -> tuple[list[Any], int | None]:
    """Rows of a reply, and the count of matches: 912 for the key "1 of 912"; None for a list."""
    document = reply.json
    if isinstance(document, list):
        return document, None
    ranks = {key: _RANK.fullmatch(key) for key in document} if isinstance(document, dict) else {"": None}
    if ranks and 2 * sum(map(bool, ranks.values())) <= len(ranks):
        raise SourceRefused(f"{reply.url}: not an AFLUX reply: {printable(str(document), 200)}")
    rows = [row if ranks[key] else _unnumbered(key) for key, row in document.items()]
    return rows, max((int(rank[1]) for rank in ranks.values() if rank), default=0)


def _unnumbered(key: str) -> BrokenEntry:
    return BrokenEntry(f"its key {printable(key, 80)!r} is not the number of a row, such as '1 of 912'")


def _address(client: Client, summons: str, window: Window) -> str:
    matchbook = quote(summons, safe="(),:*!'.-+_")
    return f"{client.base_url}/?{matchbook},$paging({window.page},{window.size}),format(json)"


def _check_matchbook(text: str) -> None:
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_MATCHBOOK:
        raise ValueError(f"matchbook {text!r:.80} must be text of 1 to {MAX_MATCHBOOK} characters; AFLOW has millions")
    if not text.isascii() or not text.isprintable():
        raise ValueError(f"matchbook {text!r:.200} must hold printable ASCII only")
    bare = re.sub(r"'[^']*'", "", text)
    if directive := re.search(r"\$\w*|\b(paging|format)\s*\(|[&#?%;\"'\\]", bare):
        raise ValueError(f"matchbook {text!r:.200} holds {directive[0]!r}; paging and format are chosen here")
    depth = 0
    for character in bare:
        depth += (character == "(") - (character == ")")
        if depth < 0 or (depth == 0 and character == ":"):
            break
    if depth != 0 or (depth == 0 and character == ":"):
        raise ValueError(
            f"matchbook {text!r:.200} must have matching parentheses, and alternatives (:) inside parentheses"
        )
    if bare.strip(" ,") != bare:
        raise ValueError(f"matchbook {text!r:.200} must neither begin nor end with a comma or a space")
