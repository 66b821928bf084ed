"""The Materials Project's own API on loopback, as far as mp-api 0.46.5 and its documents show how it speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.loopback import Answer, Loopback

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

Doc = dict[str, Any]
KEY = "abcdefghijklmnopqrstuvwxyz012345"


def documents(crystals: Crystals) -> list[Doc]:
    """Rows of the summary page for crystals with columns formation_energy_per_atom and band_gap."""
    from assay.sources.elements import SYMBOLS

    docs: list[Doc] = []
    for row, identifier in enumerate(crystals.ids.tolist()):
        sites: list[Doc] = []
        for site in range(*crystals.site_ptr[row : row + 2].tolist()):
            items = range(*crystals.species_ptr[site : site + 2].tolist())
            species = [
                {"element": SYMBOLS[crystals.numbers[item]], "occu": float(crystals.occupancy[item])} for item in items
            ]
            frac = crystals.frac[site]
            sites.append({"species": species, "abc": frac.tolist(), "xyz": (frac @ crystals.lattice[row]).tolist()})
        gap, energy = (float(crystals.columns[name][row]) for name in ("band_gap", "formation_energy_per_atom"))
        docs.append(
            {
                "material_id": identifier.split("/", 1)[-1],
                "elements": sorted({part["element"] for site in sites for part in site["species"]}),
                "nsites": len(sites),
                "structure": {
                    "@module": "pymatgen.core.structure",
                    "@class": "Structure",
                    "lattice": {"matrix": crystals.lattice[row].tolist(), "pbc": [True, True, True]},
                    "sites": sites,
                },
                "band_gap": gap,
                "energy_above_hull": round(0.001 * (row % 200), 6),
                "formation_energy_per_atom": energy,
                "is_stable": row % 200 == 0,
                "is_metal": gap == 0,
                "is_gap_direct": row % 3 == 0,
                "theoretical": row % 2 == 0,
                "deprecated": False,
                "last_updated": {"$date": "2025-09-25T00:00:00"},
                "builder_meta": {"license": "BY-C", "batch_id": None},
            }
        )
    return docs


class MpApiServer(Loopback):
    """Serves documents. `ignored` names parameters the server does not know; FastAPI passes over those in silence."""

    def __init__(
        self,
        docs: Sequence[Doc] = (),
        *,
        script: Sequence[str] = ("ok",),
        ignored: Sequence[str] = (),
        largest: int = 1000,
    ) -> None:
        super().__init__(script)
        self.docs, self.ignored, self.largest = list(docs), set(ignored), largest
        self.thermo: list[Doc] = []
        self.release = "2025.09.25"

    def answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        url = urlsplit(path)
        if url.path == "/heartbeat":
            return 200, {"db_version": self.release, "access_controlled_batch_ids": []}
        if headers.get("x-api-key") != KEY:
            return 401, {"detail": "Invalid or missing API key"}
        asked = {name: values[0] for name, values in parse_qs(url.query).items() if name not in self.ignored}
        if url.path == "/materials/summary/":
            return self._page([doc for doc in self.docs if _fits(doc, asked)], asked)
        if url.path == "/materials/thermo/":
            ids, kinds = asked["material_ids"].split(","), asked["thermo_types"].split(",")
            if len(ids) > 100:
                return 414, {"detail": "URI too long"}
            return self._page([t for t in self.thermo if t["material_id"] in ids and t["thermo_type"] in kinds], asked)
        return 404, {"detail": "Not Found"}

    def _page(self, found: list[Doc], asked: Mapping[str, str]) -> Answer:
        limit, skip = int(asked.get("_limit", 100)), int(asked.get("_skip", 0))
        if "_page" in asked:
            limit = int(asked.get("_per_page", 100))
            skip = (int(asked["_page"]) - 1) * limit
        if limit > self.largest:
            return 422, {"detail": [{"loc": ["query", "_limit"], "msg": f"at most {self.largest}"}]}
        fields = asked.get("_fields", "material_id").split(",")
        data = [{name: doc[name] for name in fields if name in doc} for doc in found[skip : skip + limit]]
        return 200, {"data": data, "meta": {"total_doc": len(found), "api_version": "0.86", "max_limit": self.largest}}


def _fits(doc: Doc, asked: Mapping[str, str]) -> bool:
    tests: list[tuple[str, Callable[[str], bool]]] = [
        ("deprecated", lambda text: doc["deprecated"] == (text.lower() == "true")),
        ("elements", lambda text: set(text.split(",")) <= set(doc["elements"])),
        ("exclude_elements", lambda text: not set(text.split(",")) & set(doc["elements"])),
        ("chemsys", lambda text: "-".join(doc["elements"]) in text.split(",")),
        ("batch_id_not_eq", lambda text: doc["builder_meta"]["batch_id"] != text),
        ("nelements_min", lambda text: len(doc["elements"]) >= float(text)),
        ("nelements_max", lambda text: len(doc["elements"]) <= float(text)),
    ]
    for name in ("band_gap", "energy_above_hull", "formation_energy_per_atom", "nsites"):
        tests.append((f"{name}_min", lambda text, name=name: doc[name] >= float(text)))
        tests.append((f"{name}_max", lambda text, name=name: doc[name] <= float(text)))
    flags = ("is_stable", "is_metal", "is_gap_direct", "theoretical")
    tests += [(name, lambda text, name=name: doc[name] == (text.lower() == "true")) for name in flags]
    return all(test(asked[name]) for name, test in tests if name in asked)
