"""Kinds of files, told apart by their names.

Enters: the name of a file. Leaves: its kind, or the words under which a file that is not read is
counted. This module opens nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import PurePath

PACKED = (".gz", ".bz2", ".xz")
"""Endings of files that hold one packed file."""
HIDDEN = "hidden"
"""The word under which hidden files are counted."""
OWN = "written by Assay"
"""The words under which tables of predictions and the like are counted."""
CAMPAIGN = "folder of a campaign"
"""The words under which folders of campaigns are counted."""


class Kind(StrEnum):
    """A kind of file that is read; the text names it to a user."""

    CIF = "CIF"
    POSCAR = "POSCAR"
    XYZ = "extended XYZ"
    TRAJECTORY = "ASE trajectory"
    JSON = "JSON"
    OPTIMADE = "OPTIMADE JSON lines"
    PARQUET = "Parquet"
    ARCHIVE = "archive"
    ID_PROP = "list of values"


ENDINGS: Mapping[str, Kind] = {
    ".cif": Kind.CIF,
    ".mcif": Kind.CIF,
    ".vasp": Kind.POSCAR,
    ".poscar": Kind.POSCAR,
    ".contcar": Kind.POSCAR,
    ".xyz": Kind.XYZ,
    ".extxyz": Kind.XYZ,
    ".traj": Kind.TRAJECTORY,
    ".json": Kind.JSON,
    ".jsonl": Kind.OPTIMADE,
}
"""Kind by the end of a name; each of these may be packed: `.cif.gz`."""
WHOLE_ENDINGS: Mapping[str, Kind] = {
    ".parquet": Kind.PARQUET,
    ".zip": Kind.ARCHIVE,
    ".tar": Kind.ARCHIVE,
    ".tgz": Kind.ARCHIVE,
    **{f".tar{packed}": Kind.ARCHIVE for packed in PACKED},
}
"""Kind by the end of a name, for files that are not packed once more."""

ID_PROP = "id_prop.csv"
"""Name of the list of values beside the structure files of CGCNN and ALIGNN."""

KNOWN = (
    f"{', '.join([*ENDINGS, *WHOLE_ENDINGS, ID_PROP])}, POSCAR and CONTCAR; most of them also with {', '.join(PACKED)}"
)
"""All known kinds in one line, for messages."""


def kind_of(name: str) -> Kind | None:
    """Return the kind of a file by its name or path, None when such files are not read.

    A name that starts with POSCAR or CONTCAR is a POSCAR.

    >>> kind_of("runs/Si.CIF.gz").value, kind_of("CONTCAR_relaxed").value, kind_of("OUTCAR")
    ('CIF', 'POSCAR', None)
    """
    last = PurePath(name).name.lower()
    if last == ID_PROP:
        return Kind.ID_PROP
    for ending, kind in WHOLE_ENDINGS.items():
        if last.endswith(ending):
            return kind
    plain = _unpacked(last)
    for ending, kind in ENDINGS.items():
        if plain.endswith(ending):
            return kind
    return Kind.POSCAR if plain.startswith(("poscar", "contcar")) else None


def counted_as(name: str) -> str:
    """Return the words under which a file that is not read is counted: its ending, or its name.

    >>> counted_as("notes.TXT"), counted_as("WAVECAR.gz"), counted_as("XDATCAR")
    ('.txt', 'WAVECAR.gz', 'XDATCAR')
    """
    if is_hidden(name):
        return HIDDEN
    last = PurePath(name).name
    suffix = PurePath(last).suffix.lower()
    if suffix not in PACKED:
        return suffix or last
    inner = PurePath(_unpacked(last)).suffix.lower()
    return inner + suffix if inner else last


def is_hidden(path: str) -> bool:
    """Tell whether a file, or a folder above it on a relative path, is hidden.

    >>> is_hidden("a/.trash/b.cif"), is_hidden("./a/b.cif")
    (True, False)
    """
    return any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in PurePath(path).parts)


def _unpacked(name: str) -> str:
    return name[: -len(PurePath(name).suffix)] if PurePath(name).suffix.lower() in PACKED else name
