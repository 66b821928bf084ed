"""Pulls crystals from the own API of the Materials Project.

The API serves band gaps and is_stable, which the OPTIMADE server of the Materials Project does not.

Enters: an `MPQuery` and an API key. Leaves: `Page`s of crystals and quarantined rows. Their columns
are those of `assay.sources.databases.optimade_entries`, and is_stable, is_metal, is_gap_direct and
theoretical (1 or 0; NaN where the row does not say).

The library mp-api turns criteria into parameters and knows the fields. It makes no request here,
because its own client waits as long as a server demands, follows redirects with the key, holds all
pages in memory, and downloads whole tables into the home folder. Each request goes through
`assay.sources.databases.client`, which sends the key to one origin only; mp-api never gets the key.

This module was written from the source code of mp-api 0.46.5 and emmet-core, not by asking the
server. It does not know how pages are stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode, urlsplit

from assay.sources.checks.importing import one_at_a_time
from assay.sources.crystals import Crystals, text_array
from assay.sources.databases.client import Client, Reply, SourceRefused
from assay.sources.databases.filters.checker import MAX_MISSES
from assay.sources.databases.mp_query import MAX_PAGE, THERMO_TYPES, MPQuery
from assay.sources.databases.numbered_pages import PageContent, Window, walk
from assay.sources.databases.optimade_entries import entries_to_crystals, entry_id
from assay.sources.databases.paging import Page, Resume
from assay.sources.databases.provider_table import number_of, properties
from assay.sources.databases.providers import PROVIDERS, Provider, is_local
from assay.sources.databases.trust import BrokenEntry, printable
from assay.sources.quarantine import Quarantined, Reason, Stage

__all__ = ["ENDPOINT", "PROVIDER", "MPQuery", "answering", "connect", "count", "pages", "rows_to_crystals"]

ENDPOINT = "https://api.materialsproject.org"
PAGE = 512
"""Rows per page unless the query says otherwise."""
FLAG_COLUMNS = ("is_stable", "is_metal", "is_gap_direct", "theoretical")
"""Columns of 1 and 0."""
ENERGIES = ("formation_energy_per_atom", "energy_above_hull")
"""Columns in eV/atom, on the scale that the query asks for."""
FIELDS = (
    *("material_id", "structure", "band_gap", "energy_above_hull", "formation_energy_per_atom"),
    *(*FLAG_COLUMNS, "deprecated", "last_updated", "builder_meta"),
)
"""Fields asked for; a row has hundreds more."""
PROVIDER = replace(
    PROVIDERS["mp"],
    title="Materials Project, over mp-api",
    base_url=ENDPOINT,
    page_limit=PAGE,
    properties=(
        *properties(
            THERMO_TYPES["GGA_GGA+U_R2SCAN"],  # the scale of the summary page
            formation_energy_per_atom="formation_energy_per_atom",
            energy_above_hull="energy_above_hull",
        ),
        *properties("PBE(+U) or r2SCAN, the API does not say which", band_gap="band_gap"),
    ),
    caveat="",
)
"""The Materials Project as this module asks it; crystals have the same ids as over OPTIMADE."""
_LICENCES = {"BY-C": "CC-BY-4.0", "BY-NC": "CC-BY-NC-4.0"}
_PLACEHOLDER = "0" * 32  # what mp-api gets in place of a key


def answering(query: MPQuery) -> Provider:
    """The Materials Project as it answers a query: energies on the scale of `query.thermo_type`."""
    scale = THERMO_TYPES.get(query.thermo_type or "")
    if scale is None:
        return PROVIDER
    own = [replace(known, functional=scale) if known.column in ENERGIES else known for known in PROVIDER.properties]
    return replace(PROVIDER, properties=tuple(own))


def connect(key: str, endpoint: str | None = None, **limits: Any) -> Client:
    """Open a client that sends the key to one origin only; `limits` (and `pace`) go to `Client`.

    Raises:
        ValueError: for a text that cannot be a key (the message does not quote it), or for a wrong
            endpoint.
    """
    if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9_.~+/=-]{32}", key):
        raise ValueError(
            "the key of the Materials Project must have 32 characters, letters and digits; "
            "https://materialsproject.org/api shows yours"
        )
    url = endpoint or ENDPOINT  # never from the environment: mp-api would take MP_API_ENDPOINT
    own = {"min_interval_s": PROVIDER.min_interval_s, "timeout_s": PROVIDER.timeout_s}
    local = is_local(urlsplit(url).hostname or "")
    return Client(url, headers={"x-api-key": key}, local=local, **{**own, **limits})


def count(query: MPQuery, key: str, endpoint: str | None = None, **limits: Any) -> int | None:
    """Ask how many rows match, without fetching them; None when the server does not say.

    Raises:
        SourceError: as `pages`.
    """
    with connect(key, endpoint, **limits) as client:
        return Api(client).summary(query, Window(1, 1), ("material_id",)).announced


def pages(
    query: MPQuery, key: str, endpoint: str | None = None, resume: Resume | None = None, **limits: Any
) -> Iterator[Page]:
    """Yield every page of a query as it arrives; memory holds one page at a time.

    With `resume`, only the pages behind those already kept.

    Raises:
        ValueError: for a text that cannot be a key.
        ImportError: without mp-api.
        CursorExpired: when `resume` is of another query, or of an earlier release of the database.
        SourceError: what `Client.get_json` raises, or a refusal by mp-api; the message is one line
            without the key.
    """
    with connect(key, endpoint, **limits) as client:
        api = Api(client)
        unproven = resume is None

        def fetch(window: Window) -> PageContent:
            return api.summary(query, window, FIELDS)

        def convert(rows: list[Any], origin: str) -> tuple[Crystals, list[Quarantined], list[str]]:
            nonlocal unproven
            energies = api.energies(rows, query.thermo_type) if query.thermo_type else None
            found = rows_to_crystals(rows, query, origin, energies)
            if unproven:
                _check_honest(query, found[1], len(rows))
            unproven = False
            return found

        yield from walk(
            PROVIDER.id,
            fetch,
            convert,
            address=lambda window: _address(client, query, window),
            size=min(query.page_limit or PAGE, query.max_entries or MAX_PAGE),
            max_entries=query.max_entries,
            resume=resume,
            state={"database": api.database},
        )


class Api:
    """mp-api without its network: mp-api makes the parameters, `Client` makes the requests."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.database = _heartbeat(client)
        self._kinds = _resters(client, self.database)

    def summary(self, query: MPQuery, window: Window, fields: Sequence[str]) -> PageContent:
        """One page of the summary table."""
        rester = self.rester(0)
        with _plain_errors():
            rester.search(**query.search, _page=window.page, **_one_page(window.size, fields))
        (reply,) = rester.replies
        meta = reply.json.get("meta")
        total = meta.get("total_doc") if isinstance(meta, dict) else None
        whole = isinstance(total, int) and not isinstance(total, bool) and 0 <= total < 1e9
        return PageContent(reply.json["data"], total if whole else None, reply)

    def energies(self, rows: list[Any], thermo_type: str) -> dict[str, Mapping[str, Any]]:
        """Thermodynamic data on one energy scale, by `material_key`; some materials have none."""
        names = [row.get("material_id") for row in rows if isinstance(row, dict)]
        usable = [name for name in names if isinstance(name, str) and re.fullmatch(r"[a-z]{1,20}-[a-z0-9]{1,20}", name)]
        if not usable:
            return {}
        fields = ("material_id", "thermo_type", "formation_energy_per_atom", "energy_above_hull", "is_stable")
        rester = self.rester(1)
        with _plain_errors():
            rester.search(material_ids=usable, thermo_types=[thermo_type], **_one_page(1000, fields))
        found = [row for reply in rester.replies for row in reply.json["data"] if isinstance(row, dict)]
        same = [row for row in found if str(row.get("thermo_type", "")).upper() == thermo_type]
        return {material_key(row.get("material_id")): row for row in same}

    def rester(self, kind: int) -> Any:
        """Make mp-api's object for one kind of request: 0 for the summary page, 1 for energies."""
        with _plain_errors():
            return self._kinds[kind](
                api_key=_PLACEHOLDER,
                endpoint=self._client.base_url + "/",
                use_document_model=False,
                mute_progress_bars=True,
                session=_NoSession(),
            )


class _NoSession:
    """Takes the place of mp-api's HTTP session, so that mp-api cannot make a request."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def get(self, *_: object, **__: object) -> None:
        """Refuse."""
        raise SourceRefused("this version of mp-api makes requests of its own; install the one Assay was built for")

    post = patch = request = get


def _one_page(size: int, fields: Sequence[str]) -> dict[str, Any]:
    return {"num_chunks": 1, "chunk_size": size, "all_fields": False, "fields": list(fields)}


def _mp_api() -> SimpleNamespace:
    """The parts of mp-api that this module uses."""
    try:
        with one_at_a_time():
            from mp_api.client.core.exceptions import MPRestError
            from mp_api.client.routes.materials.summary import SummaryRester
            from mp_api.client.routes.materials.thermo import ThermoRester
    except ImportError as error:
        raise ImportError(f"mp-api cannot be imported ({error}); pip install 'assay[mp]'") from error
    return SimpleNamespace(MPRestError=MPRestError, SummaryRester=SummaryRester, ThermoRester=ThermoRester)


def _resters(client: Client, database: str) -> tuple[Any, Any]:
    """mp-api's two classes that make requests, with `Client` in place of their network."""
    mp_api = _mp_api()

    class Bound:
        """The part that both classes share."""

        def __init__(self, **options: Any) -> None:
            self.replies: list[Reply] = []
            super().__init__(**options)

        @staticmethod
        def _get_heartbeat_info(_: str) -> tuple[str, list[str]]:
            return database, []

        def _submit_request_and_process(
            self, url: str, params: Mapping[str, Any], **_: object
        ) -> tuple[dict[str, Any], int]:
            try:
                reply = client.get_json(url, params)
            except SourceRefused as error:
                if error.status in (414, 422):  # too long: mp-api knows how to ask in parts
                    raise mp_api.MPRestError(str(error)) from None
                raise
            if not isinstance(reply.json, dict) or not isinstance(reply.json.get("data"), list):
                raise SourceRefused(f"{reply.url}: not a reply of the Materials Project: it holds no list of data")
            self.replies.append(reply)
            return {"data": [], "meta": {}}, 0  # rows are read from the replies: mp-api cuts lists to what it expects

        def _query_delta_backed(self, *_: object, **__: object) -> None:
            raise SourceRefused("mp-api wanted to download a whole table; this is never done")

    def bind(kind: Any) -> Any:
        known = list(kind.document_model.model_json_schema()["properties"])  # mp-api makes it anew for every field
        return type(kind.__name__, (Bound, kind), {"available_fields": known})

    return bind(mp_api.SummaryRester), bind(mp_api.ThermoRester)


def _heartbeat(client: Client) -> str:
    """Release of the database, for example 2025.09.25; empty when the server does not say."""
    document = client.get_json("heartbeat").json
    release = document.get("db_version") if isinstance(document, dict) else None
    return printable(release, 100) if isinstance(release, str) else ""


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn an error of mp-api into a refusal of one line; errors of Assay pass unchanged."""
    try:
        yield
    except (_mp_api().MPRestError, ValueError, TypeError, KeyError, AttributeError) as error:
        message = re.sub(r"\x1b\[\d+m", "", str(error))
        raise SourceRefused(
            f"the Materials Project cannot be asked: {printable(message) or type(error).__name__}"
        ) from None


def _address(client: Client, query: MPQuery, window: Window) -> str:
    """Name of a page in cursors; it differs from the URL of the request, which mp-api makes."""
    words = {**query.search, "thermo_type": query.thermo_type, "_page": window.page, "_per_page": window.size}
    return f"{client.base_url}/materials/summary/?{urlencode(sorted((k, str(v)) for k, v in words.items()))}"


def _check_honest(query: MPQuery, refused: Sequence[Quarantined], n_rows: int) -> None:
    contradictory = [row for row in refused if row.reason is Reason.FILTER_MISMATCH]
    if len(contradictory) > MAX_MISSES * n_rows:
        raise SourceRefused(
            f"mp ignores criteria {dict(query.criteria)!r:.200}: {len(contradictory)} of {n_rows} rows on its first "
            f"page contradict them, for example {contradictory[0].id}: {contradictory[0].message}"
        )


def rows_to_crystals(
    rows: Sequence[Any], query: MPQuery, origin: str, energies: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[Crystals, list[Quarantined], list[str]]:
    """Turn rows of the summary page into crystals.

    `energies` maps the `material_key` of ids to thermodynamic data of `query.thermo_type`; where it
    is given, the energies and is_stable come from it.

    Returns:
        The crystals, the refused rows, and the id of every row in order.
    """
    names, entries, refused = [], [], []
    licences: dict[str, str] = {}
    for place, found in enumerate(rows):
        row = found if isinstance(found, dict) else {}
        identifier = row.get("material_id")
        name = entry_id({"id": identifier}, PROVIDER, origin, place)
        names.append(name)
        if isinstance(found, BrokenEntry):
            refused.append(Quarantined(name, origin, Stage.PULL, Reason.MALFORMED, found.message))
            continue
        attributes, elements = _attributes(row)
        message = query.contradiction(row, elements, len(attributes["species_at_sites"])) if elements else ""
        if message:
            refused.append(Quarantined(name, origin, Stage.PULL, Reason.FILTER_MISMATCH, message))
            continue
        if energies is not None:
            own = energies.get(material_key(identifier), {})
            attributes.update({field: own.get(field) for field in ENERGIES})
            attributes["is_stable"] = _one_or_zero(own.get("is_stable"))
        licences[name] = _licence(row, str(identifier))
        entries.append({"id": identifier, "type": "structures", "attributes": attributes})
    crystals, quarantined = entries_to_crystals(
        entries, answering(query), origin, extra=FLAG_COLUMNS, max_sites=query.max_sites
    )
    licence = text_array([licences[name] for name in crystals.ids.tolist()])
    columns = {**crystals.columns, "licence": licence}
    return replace(crystals, columns=columns), refused + quarantined, names


def _attributes(row: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """OPTIMADE attributes of a row, and its elements; `entries_to_crystals` refuses gaps."""
    found: dict[str, Any] = {
        name: row.get(name) for name in ("band_gap", "energy_above_hull", "formation_energy_per_atom")
    }
    found.update({name: _one_or_zero(row.get(name)) for name in FLAG_COLUMNS})
    found.update(immutable_id=row.get("material_id"), last_modified=_date(row.get("last_updated")))
    structure = row.get("structure")
    lattice = structure.get("lattice") if isinstance(structure, dict) else None
    sites = structure.get("sites") if isinstance(structure, dict) else None
    if not isinstance(lattice, dict) or not isinstance(sites, list):
        return found, set()
    found["lattice_vectors"] = lattice.get("matrix")
    if isinstance(lattice.get("pbc"), list):
        found["dimension_types"] = [int(bool(periodic)) for periodic in lattice["pbc"]]
    found["fractional_site_positions"] = [site.get("abc") if isinstance(site, dict) else None for site in sites]
    kinds = [_kind(site) for site in sites]
    found["species_at_sites"] = [str(kind) for kind in kinds]
    found["species"] = [
        {"name": str(kind), "chemical_symbols": [s for s, _ in kind], "concentration": [x for _, x in kind]}
        for kind in dict(zip(map(str, kinds), kinds, strict=True)).values()
    ]
    return found, {symbol for kind in kinds for symbol, _ in kind if isinstance(symbol, str)}


def _kind(site: Any) -> list[tuple[Any, Any]]:
    """(symbol, occupancy) of each species on a site of pymatgen's JSON; no oxidation states."""
    species = site.get("species") if isinstance(site, dict) else None
    parts = [part for part in species if isinstance(part, dict)] if isinstance(species, list) else []
    return [(part.get("element"), part.get("occu")) for part in parts]


def material_key(identifier: Any) -> str:
    """Text that is the same for both spellings of an id, in digits and in letters."""
    number = number_of(identifier) if isinstance(identifier, str) else None
    return str(identifier) if number is None else f"{identifier.partition('-')[0].lower()}-{number}"


def _one_or_zero(value: Any) -> float | None:
    return float(value) if isinstance(value, bool) else None


def _date(value: Any) -> Any:
    """Text of a date, which the API writes as text or as {"$date": text}."""
    return value.get("$date") if isinstance(value, dict) else value


def _licence(row: Mapping[str, Any], identifier: str) -> str:
    meta = row.get("builder_meta")
    said = meta.get("license") if isinstance(meta, dict) else None
    return PROVIDER.licence_of(identifier) if said is None else _LICENCES.get(said, "unknown")
