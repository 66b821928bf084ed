"""AFLUX on loopback, as far as recorded replies and public code show how it speaks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tests.loopback import Answer, Loopback

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

Row = dict[str, Any]
ALWAYS = ("auid", "aurl", "compound")
"""Sent without being asked for."""


def rows_of(crystals: Crystals) -> list[Row]:
    """AFLUX rows of ordered crystals with columns formation_energy_per_atom and band_gap; every third has no gap."""
    import numpy as np

    from assay.sources.elements import SYMBOLS

    rows = []
    for place, identifier in enumerate(crystals.ids.tolist()):
        sites = slice(*crystals.site_ptr[place : place + 2].tolist())
        symbols = [SYMBOLS[z] for z in crystals.numbers[sites]]
        order = sorted(range(len(symbols)), key=lambda site, symbols=symbols: symbols[site])
        species = sorted(set(symbols))
        lattice = crystals.lattice[place]
        lengths = np.linalg.norm(lattice, axis=1)
        pairs = ((1, 2), (0, 2), (0, 1))
        angles = [float(np.degrees(np.arccos(lattice[i] @ lattice[j] / lengths[i] / lengths[j]))) for i, j in pairs]
        positions = crystals.frac[sites][order].tolist()
        row: Row = {
            "auid": f"aflow:{identifier.rpartition('-')[2]:0>16}",
            "aurl": f"aflowlib.duke.edu:AFLOWDATA/ICSD_WEB/{identifier.rpartition('/')[2]}",
            "compound": "".join(f"{symbol}{symbols.count(symbol)}" for symbol in species),
            "geometry": [*lengths.tolist(), *angles],
            "species": species,
            "nspecies": len(species),
            "composition": [symbols.count(symbol) for symbol in species],
            "positions_fractional": positions,
            "enthalpy_formation_atom": float(crystals.columns["formation_energy_per_atom"][place]),
            "dft_type": ["PAW_PBE"],
        }
        if place % 3:
            row["Egap"] = float(crystals.columns["band_gap"][place])
        rows.append(row)
    return rows


def as_text(row: Row) -> Row:
    """The same row as older replies write it: lists and numbers as text."""
    joined = {"geometry": ",", "species": ",", "composition": ",", "dft_type": ","}
    text = {name: joined[name].join(map(str, value)) if name in joined else value for name, value in row.items()}
    if "positions_fractional" in row:
        text["positions_fractional"] = ";".join(",".join(map(str, place)) for place in row["positions_fractional"])
    return {name: str(value) if isinstance(value, int | float) else value for name, value in text.items()}


class AfluxServer(Loopback):
    """Serves rows. A row that lacks a property the query names is left out, as AFLOW does.

    `style`: "object" (keys "1 of N"), "restarting" (the numbers start again on each page) or
    "list". `largest` caps the page size in silence.
    """

    def __init__(
        self, rows: Sequence[Row] = (), *, script: Sequence[str] = ("ok",), style: str = "object", largest: int = 10_000
    ) -> None:
        super().__init__(script)
        self.rows, self.style, self.largest = list(rows), style, largest

    def answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        url = urlsplit(path)
        if url.path != "/API/aflux/":
            return 404, b"<html>not here</html>"
        found, named, page, size = list(self.rows), list(ALWAYS), 1, 64
        for term in re.findall(r"[^,(]+(?:\([^)]*\))?", unquote(url.query)):
            name, _, arguments = term.rstrip(")").partition("(")
            if name == "$paging":
                page, size = (int(number) for number in arguments.split(","))
            elif name != "format":
                named.append(name)
                found = [row for row in found if row.get(name) is not None and _fits(row[name], arguments)]
        size = min(size, self.largest)
        start = (page - 1) * size
        sent = [{name: row[name] for name in named} for row in found[start : start + size]]
        if self.style == "list":
            return 200, sent
        first = 1 if self.style == "restarting" else start + 1
        return 200, {f"{first + place} of {len(found)}": row for place, row in enumerate(sent)}


def _fits(value: Any, arguments: str) -> bool:
    if arguments in ("", "*"):
        return True
    if isinstance(value, list):
        return set(arguments.split(",")) <= set(value)
    for bound in arguments.split(","):
        if bound.endswith("*"):
            good = value >= float(bound[:-1])
        elif bound.startswith("*"):
            good = value <= float(bound[1:])
        else:
            good = value == float(bound)
        if not good:
            return False
    return True
