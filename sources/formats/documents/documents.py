"""Reads crystals from JSON that pymatgen or ASE wrote.

Enters: the text of one file, with its name for ids and records. Leaves: one crystal per structure
in an assembler, or a record that says why there is none. Nothing is loaded by the name of a class:
of `@module` and `@class` only the word Molecule is looked at, and of a document only structures,
and the numbers and texts beside them, are read. This module does not know files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from assay.sources.assemble import Assembler
from assay.sources.checks import limits
from assay.sources.formats.documents.atoms import add_atoms, is_atoms
from assay.sources.formats.documents.structure import add_structure, is_structure
from assay.sources.formats.records import numbered, scalars
from assay.sources.quarantine import Reason

LISTS = ("structures", "entries", "data", "docs", "frames")
"""Keys under which a document may hold a list of structures."""

Add = Callable[[Assembler, Any, str, str, Mapping[str, Any]], None]


def add_json(assembler: Assembler, text: str, label: str, origin: str) -> int:
    """Hand each structure to the assembler, or refuse it; return how many there were.

    An intact JSON without structures is a file of another sort: it gives 0 and no record.

    Raises:
        Exceeded: when the text holds too many values.
    """
    limits.check("values", sum(map(text.count, ",[{")))
    try:
        document = json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        cause = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        message = f"no intact JSON: {cause}" if text.strip() else "the file is empty"
        assembler.refuse(numbered(label, 1), origin, Reason.UNREADABLE, message)
        return 1
    if not any(_adder(item)[0] for _, item in _items(document)):
        return 0
    number = 0
    for number, (place, item) in enumerate(_items(document), start=1):
        add, structure, beside = _adder(item)
        id = numbered(label, number)
        if add is None:
            assembler.refuse(id, origin, Reason.MALFORMED, f"{place} holds no structure of pymatgen or ASE")
        else:
            add(assembler, structure, id, origin, scalars(beside))
    return number


def _whole(digits: str) -> int | float:
    """Return an integer; one beyond all floats becomes infinite, which no crystal may hold."""
    return int(digits) if len(digits) < 300 else float(digits)


def _items(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield what may be a structure, each with its place in the document."""
    if _adder(document)[0]:
        yield "the document", document
    elif isinstance(document, list):
        yield from ((f"item {number} of the list", item) for number, item in enumerate(document, start=1))
    elif isinstance(document, dict):
        yield from _inside(document)


def _inside(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the items of a document that is no structure itself."""
    if isinstance(document.get("ids"), list) and "nextid" in document:  # a database of ASE
        yield from ((f"row {id}", document.get(str(id))) for id in document["ids"])
        return
    columns = document.get("columns")
    if isinstance(columns, list) and "structure" in columns and isinstance(document.get("data"), list):
        for number, row in enumerate(document["data"], start=1):  # a table that pandas wrote with orient="split"
            yield f"row {number}", dict(zip(map(str, columns), row)) if isinstance(row, list) else row
        return
    for key in LISTS:
        if isinstance(document.get(key), list):
            yield from ((f"item {number} of {key}", item) for number, item in enumerate(document[key], start=1))
            return
    for key, value in document.items():  # names -> structures
        if not key.startswith("@") and not isinstance(value, str | int | float):
            yield f"the value of {key!r}", value


def _adder(item: Any) -> tuple[Add | None, Any, Mapping[str, Any]]:
    """Return how an item is added, its structure, and the values beside that."""
    if not isinstance(item, dict):
        return None, None, {}
    if is_structure(item):
        return add_structure, item, {}
    if is_atoms(item):
        return add_atoms, item, {}
    inner = item.get("structure", item.get("atoms"))
    if isinstance(inner, dict) and is_structure(inner):
        return add_structure, inner, {key: value for key, value in item.items() if not key.startswith("@")}
    if isinstance(inner, dict) and is_atoms(inner):
        return add_atoms, inner, item
    return None, None, {}
