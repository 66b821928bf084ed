"""Two OPTIMADE servers on loopback: the reference implementation, and `FaultServer`, which misbehaves on command.

Both speak real HTTP on a free port of 127.0.0.1, so that a campaign in another process can talk to
them too.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fault_answers import bomb
from tests.fault_server import Entry, FaultServer

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

__all__ = ["Entry", "FaultServer", "bomb", "entries_from_crystals", "materials_project", "reference_server"]

PREFIX = "_exmpl_"
"""Provider prefix that OPTIMADE reserves for examples."""


def entries_from_crystals(crystals: Crystals, prefix: str = PREFIX) -> list[Entry]:
    """OPTIMADE entries of crystals; numeric columns become provider fields, ids lose their `provider/`."""
    import numpy as np

    from assay.sources.elements import SYMBOLS

    entries = []
    compositions, formulas = crystals.composition(), crystals.formulas().tolist()
    for row, identifier in enumerate(crystals.ids.tolist()):
        sites = slice(*crystals.site_ptr[row : row + 2].tolist())
        names, species = _species(crystals, sites)
        elements = sorted(SYMBOLS[z] for z in compositions[row].nonzero()[0])
        total = compositions[row].sum()
        formula = "".join(sorted(re.findall(r"[A-Z][a-z]?[\d.]*", formulas[row])))  # OPTIMADE wants the alphabet
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
    from assay.sources.elements import SYMBOLS

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

    from assay.sources import table

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

    `base_url` replaces the address that its `next` links are built from (a wrong one makes them
    foreign).
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
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(Path(__file__).with_name("reference_process.py").resolve()),
        str(folder),
    ]
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
