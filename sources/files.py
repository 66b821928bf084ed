"""Reads crystals from files, and from folders of files.

Enters: paths of CIF, POSCAR, extended XYZ, Parquet and `optimade.jsonl` files, or folders of them.
Leaves: `Crystals`, and a quarantine record for each crystal or file that could not be read.

The id of a crystal from a structure file is `file/<name>`; in a folder, `<name>` is the path below
that folder. The second and later crystals of one file end in `#2`, `#3` and so on. Crystals of a
Parquet file keep the ids in the file; an entry of `mp.optimade.jsonl` is `mp/<entry id>`. This
module does not know servers.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from assay.sources import table
from assay.sources.assemble import Assembler, join
from assay.sources.crystals import Crystals, empty
from assay.sources.formats.cif.read import add_cif
from assay.sources.formats.jsonl import read_jsonl
from assay.sources.formats.poscar import add_poscar
from assay.sources.formats.records import described
from assay.sources.formats.xyz import add_xyz
from assay.sources.quarantine import Quarantined, Reason, Stage
from assay.sources.sift import MAX_SITES

log = logging.getLogger(__name__)

MAX_TEXT_BYTES = 10 * 2**20
"""Largest CIF or POSCAR that is opened."""

KINDS: Mapping[str, str] = {
    ".cif": "cif",
    ".mcif": "cif",
    ".vasp": "poscar",
    ".poscar": "poscar",
    ".xyz": "xyz",
    ".extxyz": "xyz",
    ".parquet": "parquet",
    ".jsonl": "optimade",
    ".jsonl.gz": "optimade",
}
"""Kind of file by the end of its name; a name that starts with POSCAR or CONTCAR is a POSCAR
too."""


def kind_of(path: Path) -> str | None:
    """Kind of a file by its name, None when it is no structure file."""
    name = path.name.lower()
    for suffix, kind in KINDS.items():
        if name.endswith(suffix):
            return kind
    return "poscar" if name.startswith(("poscar", "contcar")) else None


def read(path: Path | str, max_sites: int = MAX_SITES) -> tuple[Crystals, list[Quarantined]]:
    """Read all crystals of one file, or of a folder and the folders below it.

    Files of a folder are read in the order of their paths; those of no known kind are skipped.

    Raises:
        FileNotFoundError: when there is no such path.
        ValueError: when `path` is a file of no known kind, a damaged table or a table without
            crystals.
    """
    return read_many([path], max_sites)


def read_many(paths: Iterable[Path | str], max_sites: int = MAX_SITES) -> tuple[Crystals, list[Quarantined]]:
    """Read all crystals of several files and folders, in order, each file once.

    The result has each column that any of the files has.

    Raises:
        FileNotFoundError: when there is no such path.
        ValueError: when one of `paths` is a file of no known kind, a damaged table or a table
            without crystals.
    """
    parts: list[Crystals] = []
    refused: list[Quarantined] = []
    assembler = Assembler(max_sites)

    def close() -> None:
        crystals, bad = assembler.finish()
        parts.append(crystals)
        refused.extend(bad)

    for path, label, asked in _files([Path(path) for path in paths]):
        kind = kind_of(path)
        if kind in _ADD:
            _ADD[kind](assembler, path, label)
            continue
        close()
        assembler = Assembler(max_sites)
        try:
            crystals, bad = _tables(path, max_sites) if kind == "parquet" else read_jsonl(path, max_sites)
        except ValueError as error:
            if asked:
                raise
            crystals, bad = empty(), [_lost(label, path, error)]
        parts.append(crystals)
        refused.extend(bad)
    close()
    return join(parts), refused


def _files(paths: list[Path]) -> Iterator[tuple[Path, str, bool]]:
    """Yield each structure file once: path, name for ids, and whether the caller named the file."""
    found: dict[Path, tuple[Path, str, bool]] = {}
    for path in paths:
        if path.is_dir():
            below = sorted(item for item in path.rglob("*") if kind_of(item) and _visible(item.relative_to(path)))
            files = [(item, item.relative_to(path).as_posix(), False) for item in below if item.is_file()]
            log.info("%s holds %d structure files", path, len(files))
        elif not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}")
        elif kind_of(path) is None:
            raise ValueError(f"{path} is of no known kind; known are {', '.join(KINDS)}, POSCAR and CONTCAR")
        else:
            files = [(path, path.name, True)]
        for item in files:
            found.setdefault(item[0].resolve(), item)
    names = Counter(label for _, label, _ in found.values())
    if any(count > 1 for count in names.values()):
        root = Path(os.path.commonpath([path.parent for path in found]))
        yield from ((path, place.relative_to(root).as_posix(), asked) for place, (path, _, asked) in found.items())
    else:
        yield from found.values()


def _visible(path: Path) -> bool:
    return not any(part.startswith(".") for part in path.parts)


def _lost(label: str, path: Path, error: Exception) -> Quarantined:
    return Quarantined(f"file/{label}", str(path), Stage.PULL, Reason.UNREADABLE, described(error))


def _text(path: Path) -> str:
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"{size} bytes, at most {MAX_TEXT_BYTES} accepted")
    return path.read_text(encoding="utf-8-sig", errors="replace")


# Formats that hand their crystals to an assembler one by one.


def _add_cif(assembler: Assembler, path: Path, label: str) -> None:
    try:
        text = _text(path)
    except (ValueError, OSError) as error:
        assembler.refuse(f"file/{label}", str(path), Reason.UNREADABLE, described(error))
        return
    add_cif(assembler, text, label, str(path))


def _add_poscar(assembler: Assembler, path: Path, label: str) -> None:
    try:
        text = _text(path)
    except (ValueError, OSError) as error:
        assembler.refuse(f"file/{label}", str(path), Reason.UNREADABLE, described(error))
        return
    add_poscar(assembler, text, label, str(path))


def _add_xyz(assembler: Assembler, path: Path, label: str) -> None:
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            add_xyz(assembler, file, label, str(path))
    except OSError as error:
        assembler.refuse(f"file/{label}", str(path), Reason.UNREADABLE, described(error))


_ADD: Mapping[str | None, Any] = {
    "cif": _add_cif,
    "poscar": _add_poscar,
    "xyz": _add_xyz,
}


# Formats that are read in bulk.


def _tables(path: Path, max_sites: int) -> tuple[Crystals, list[Quarantined]]:
    return table.from_table(table.read(path), str(path), max_sites)
