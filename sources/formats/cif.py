"""Reads crystals from the text of a CIF.

Enters: the text of one file, with its name for ids and records. Leaves: one crystal per data block
with atom sites in an assembler, and a record for each block that cannot be used. This module does
not know files.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from assay.sources.assemble import Assembler
from assay.sources.elements import NUMBERS
from assay.sources.formats.convert import add_pymatgen
from assay.sources.formats.records import described, numbered
from assay.sources.quarantine import Reason
from assay.sources.sift import CROWDED

SITE_TOLERANCE = 1.5e-3
"""Fractional; CIF sites closer than this are one site. It allows for 3 decimals."""
FORMULA_TOLERANCE = 0.1
"""Relative difference accepted between an element's share in the sites of a CIF and in its stated
formula."""


def add_cif(assembler: Assembler, text: str, label: str, origin: str) -> None:
    """Hand each data block with atom sites to the assembler; refuse a block that cannot be used."""
    blocks = [block for block in _cif_blocks(text) if "_atom_site_" in block.lower()]
    if not blocks:
        assembler.refuse(f"file/{label}", origin, Reason.UNREADABLE, "no data block with atom sites")
    for number, block in enumerate(blocks, start=1):
        _add_cif_block(assembler, block, numbered(label, number), origin)


def _cif_blocks(text: str) -> list[str]:
    return re.split(r"(?im)^[ \t]*(?=data_)", text)[1:]


def _add_cif_block(assembler: Assembler, block: str, id: str, origin: str) -> None:
    from pymatgen.io.cif import CifParser  # not with the parser of POSCAR, which takes twice as long to import

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser = CifParser.from_str(block, occupancy_tolerance=CROWDED, site_tolerance=SITE_TOLERANCE)
            refusal = _unusable_species(parser.as_dict())
            if refusal:
                assembler.refuse(id, origin, *refusal)
                return
            structure = parser.parse_structures(primitive=False, on_error="raise")[0]
            contradiction = _contradiction(parser.as_dict(), structure.composition.get_el_amt_dict())
            if contradiction:
                assembler.refuse(id, origin, Reason.MALFORMED, contradiction)
                return
        add_pymatgen(assembler, structure, id, origin)
    except Exception as error:  # noqa: BLE001 - pymatgen raises a dozen types; this crystal alone is lost
        crowded = "exceeded tolerance" in str(error)
        assembler.refuse(
            id,
            origin,
            Reason.BAD_OCCUPANCY if crowded else Reason.UNREADABLE,
            described(error),
        )


def _unusable_species(
    blocks: Mapping[str, Mapping[str, Any]],
) -> tuple[Reason, str] | None:
    """Reason to refuse a CIF block whose species pymatgen would drop or guess, else None."""
    for data in blocks.values():
        typed = data.get("_atom_site_type_symbol")
        for symbol in typed or data.get("_atom_site_label", []):
            letters = "".join(re.findall(r"^[A-Za-z]+", str(symbol)))
            if letters in ("Wat", "wat", "O-H", "OH", "OHH", "NH", "CH", "H2O") or str(symbol).startswith("O-H"):
                return (
                    Reason.UNSUPPORTED,
                    f"species {symbol!r} stands for atoms without positions",
                )
            prefixes = {letters.title()} if typed else {letters[:2].title(), letters[:1].upper()}
            if not prefixes & (NUMBERS.keys() | {"D", "T"}) or letters.lower() in (
                "va",
                "vac",
            ):
                return (
                    Reason.UNKNOWN_SPECIES,
                    f"species {symbol!r} is no chemical element",
                )
    return None


def _contradiction(blocks: Mapping[str, Mapping[str, Any]], amounts: Mapping[str, float]) -> str | None:
    """How the atoms differ from the formula that the CIF states, as after lost sites; else None."""
    formula = next(
        (str(data["_chemical_formula_sum"]) for data in blocks.values() if "_chemical_formula_sum" in data), ""
    )
    parts = re.findall(r"([A-Z][a-z]?)(\d*\.?\d*)", re.sub(r"\(\d+\)", "", formula))
    stated = _amounts((symbol, float(amount or 1)) for symbol, amount in parts)
    found = _amounts(amounts.items())
    if not parts or not stated.keys() <= NUMBERS.keys() or not sum(stated.values()):
        return None  # nothing stated, or nothing that can be compared
    for symbol in sorted(stated.keys() | found.keys()):
        expected = stated.get(symbol, 0.0) / sum(stated.values())
        share = found.get(symbol, 0.0) / sum(found.values())
        if abs(share - expected) > max(FORMULA_TOLERANCE * expected, 0.005):
            return f"{share:.1%} of the atoms are {symbol}, but {expected:.1%} in the stated formula {formula!r}"
    return None


def _amounts(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Amount of each element, isotopes of hydrogen counted as hydrogen."""
    total: dict[str, float] = {}
    for symbol, amount in pairs:
        name = "H" if symbol in ("D", "T") else symbol
        total[name] = total.get(name, 0.0) + amount
    return total
