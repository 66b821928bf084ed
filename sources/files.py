"""Reads crystals from files, from folders of files, and from archives of files.

Enters: paths of files of the kinds in `assay.sources.storage.kinds`, or of folders, or patterns
(`runs/*/CONTCAR`), or the stream of a text. Leaves: `Crystals`, and a quarantine record for each
crystal or file that could not be read, and for each file of a known kind without crystals. What a
folder holds beside is counted in the log. An `id_prop.csv` in a folder gives the crystals of the
files beside it columns of values; named itself, it stands for the files that it lists.

The id of a crystal from a structure file is `file/<name>`; in a folder or an archive, `<name>` is
the path below it. The second and later crystals of one file end in `#2`, `#3` and so on. Crystals
of a Parquet file keep the ids in the file; an entry of `mp.optimade.jsonl` is `mp/<entry id>`. This
module does not know servers.
"""

from __future__ import annotations

import io
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from assay.sources import table
from assay.sources.assemble import Assembler, Kinds, join
from assay.sources.checks import importing, limits
from assay.sources.crystals import Crystals
from assay.sources.formats import id_prop, parquet
from assay.sources.formats.counted import CountedAssembler
from assay.sources.formats.documents.documents import add_json
from assay.sources.formats.jsonl import read_jsonl
from assay.sources.formats.poscar import add_poscar
from assay.sources.formats.records import described, numbered
from assay.sources.formats.trajectories import add_trajectory
from assay.sources.formats.xyz import add_xyz
from assay.sources.quarantine import Quarantined, Reason
from assay.sources.sift import MAX_SITES
from assay.sources.storage import archives, contents, folders, footer
from assay.sources.storage.kinds import HIDDEN, KNOWN, OWN, Kind, counted_as, is_hidden, kind_of
from assay.sources.storage.opening import lines, read_text, regular, sort_of, through, unpacked

if TYPE_CHECKING:
    from assay.sources.formats.cif import read as cif
else:
    cif = importing.later("assay.sources.formats.cif.read")

log = logging.getLogger(__name__)

Begin = Callable[[str, int], None]
"""Called with origin and bytes of a file before it is read; an error becomes the file's record."""
Add = Callable[[Assembler, BinaryIO, str, str], int | None]
"""Adds the crystals of one stream, with the name for ids and the origin for records; 0 where the
file is of another sort and holds none."""


FORMATS: Mapping[Kind, Add] = {
    Kind.CIF: lambda assembler, stream, *names: cif.add_cif(assembler, read_text(stream), *names),
    Kind.POSCAR: lambda assembler, stream, *names: add_poscar(assembler, read_text(stream), *names),
    Kind.XYZ: lambda assembler, stream, *names: add_xyz(assembler, lines(stream), *names),
    Kind.JSON: lambda assembler, stream, *names: add_json(assembler, read_text(stream, "json"), *names),
    Kind.TRAJECTORY: add_trajectory,
}
"""The formats that give their crystals one by one; `optimade.jsonl` and Parquet give blocks."""


UNFORESEEN = (ValueError, OSError, ArithmeticError, LookupError, TypeError, RecursionError, MemoryError)
"""Errors that cost one file its rest, and the other files nothing."""


@dataclass(frozen=True)
class Item:
    """A file to read."""

    path: Path
    label: str
    """Its name in ids."""
    named: bool = False
    """Whether the caller named the file itself, and not a folder above it."""
    lost: str = ""
    """Why it cannot be opened; empty where it can."""


def read(
    path: Path | str, max_sites: int = MAX_SITES, kinds: Kinds | None = None
) -> tuple[Crystals, list[Quarantined]]:
    """Read all crystals of one file, or of a folder and the folders below it.

    Files of a folder are read in the order of their paths; those of no known kind are counted in
    the log.

    Raises:
        FileNotFoundError: when there is no such path.
        ValueError: when `path` is no regular file, a file of no known kind, a damaged table or a
            table without crystals, or when nothing in it can be read.
    """
    return read_many([path], max_sites, kinds)


def blocks(
    path: Path | str, size: int, max_sites: int = MAX_SITES, kinds: Kinds | None = None, begin: Begin | None = None
) -> Iterator[table.Sifted]:
    """Read all crystals of one file or folder, as `read` does.

    A Parquet file comes in blocks of at most `size` crystals, so that memory holds a few of them.

    Raises:
        FileNotFoundError: as `read` does.
        ValueError: as `read` does.
    """
    path = Path(path)
    if path.is_dir() or kind_of(path.name) is not Kind.PARQUET or not _has_rows(item := _named(path), begin):
        yield read_many([path], max_sites, kinds, begin)
        return
    for crystals, refused in parquet.blocks(item.path, size, str(item.path), max_sites):
        if kinds is not None:
            kinds.take_batch(crystals, str(item.path))
        yield crystals, refused


def _has_rows(item: Item, begin: Begin | None) -> bool:
    """Whether a Parquet file holds rows and keeps the limits; else `read` makes a record of it."""
    regular(item.path).close()
    try:
        if begin is not None:
            begin(str(item.path), item.path.stat().st_size)
        return footer.rows(item.path) > 0
    except limits.Exceeded:
        return False


def read_many(
    paths: Iterable[Path | str], max_sites: int = MAX_SITES, kinds: Kinds | None = None, begin: Begin | None = None
) -> tuple[Crystals, list[Quarantined]]:
    """Read all crystals of several files, folders and patterns, in order, each file once.

    The result has each column that any of the files has. `kinds` notes what each file calls a
    number or a text; a column of both kinds is a text.

    Raises:
        FileNotFoundError: when there is no such path.
        ValueError: as `read` does; of several folders, when none holds anything that can be read.
    """
    given = [Path(path) for path in paths]
    reading = _Reading(max_sites, kinds, begin)
    items, reading.ignored = _items(given)
    for item in items:
        reading.add(item)
    crystals, refused = reading.finish()
    for item, listed in reading.lists:
        crystals, more = _with_values(item, listed, items, crystals, refused)
        refused = [*refused, *more]
    told = folders.summary(reading.ignored)
    names = ", ".join(map(str, given[:3])) + (f" and {len(given) - 3} more" if len(given) > 3 else "")
    if given and not reading.taken:
        raise ValueError(f"nothing in {names} can be read; ignored: {told}; known are {KNOWN}")
    level = logging.WARNING if reading.ignored.keys() - {HIDDEN, OWN} else logging.INFO
    log.log(level, "%s: %d %s read; ignored: %s", names, reading.taken, "file" if reading.taken == 1 else "files", told)
    return crystals, refused


def read_stream(
    stream: BinaryIO, name: str = "stdin", origin: str = "standard input", max_sites: int = MAX_SITES
) -> tuple[Crystals, list[Quarantined]]:
    """Read all crystals of a text, whose kind is found by its content.

    Raises:
        ValueError: when it is of no kind that is told apart so, too large, or without structures.
    """
    most = limits.most("json")
    content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{origin} has more than {most:,} bytes; put it into a file, whose name says its kind")
    kind = contents.kind_of(content)
    if kind is None:
        begin = f"it begins with {content.split(maxsplit=1)[0][:40]!r}" if content.strip() else "it is empty"
        raise ValueError(f"{origin} is of no known kind: {begin}; known are {', '.join(contents.TOLD_APART)}")
    reading = _Reading(max_sites, None, None)
    reading.add_stream(kind, io.BytesIO(content), name, origin)
    if not reading.taken:
        raise ValueError(f"{origin} is {kind} without structures")
    return reading.finish()


def check(path: Path) -> None:
    """Check that a path can be read, as far as that shows without reading it.

    Raises:
        FileNotFoundError: when there is no such path.
        ValueError: when it is no regular file, of no known kind, or a folder without such files.
    """
    items, ignored = _items([path])
    if not items:
        raise ValueError(f"nothing in {path} can be read; ignored: {folders.summary(ignored)}; known are {KNOWN}")


def found(path: Path) -> list[Path]:
    """Return the files that `read` would open, in order."""
    return [item.path for item in _items([path])[0] if not item.lost]


def _items(paths: list[Path]) -> tuple[list[Item], Counter[str]]:
    """Return each file once, and the number of those of no known kind, by their endings."""
    first: dict[str, Item] = {}
    ignored: Counter[str] = Counter()
    for path in paths:
        if path.is_dir() or folders.is_pattern(path):
            listing = folders.walk(path) if path.is_dir() else folders.matching(path)
            ignored += listing.ignored
            inside = [Item(file, label) for file, label in listing.files]
            inside += [Item(file, label, lost=why) for file, label, why in listing.lost]
            if not inside:
                log.warning("%s holds no file of a known kind", path)
        elif kind_of(path.name) is Kind.ID_PROP:
            inside = [*_listed(path), _named(path)]
        else:
            inside = [_named(path)]
        for item in inside:
            first.setdefault(os.path.realpath(item.path), item)
    labels = Counter(item.label for item in first.values())
    if any(count > 1 for count in labels.values()):
        root = os.path.commonpath([Path(place).parent for place in first])
        return [replace(item, label=Path(place).relative_to(root).as_posix()) for place, item in first.items()], ignored
    return list(first.values()), ignored


def _named(path: Path) -> Item:
    """Return the file that the caller named, which must be of a known kind."""
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    sort = sort_of(path.stat().st_mode)
    if sort is not None:
        raise ValueError(f"{path} is {sort}, expected a regular file or a folder")
    if kind_of(path.name) is None:
        hint = f"; export it first: ase convert {path} {path.stem}.json" if path.suffix == ".db" else ""
        raise ValueError(f"{path} is of no known kind; known are {KNOWN}{hint}")
    return Item(path, path.name, named=True)


def _listed(path: Path) -> list[Item]:
    """Return the files that a list of values names, of those in its folder and below it."""
    _named(path)
    given, listing = _lines_of(path), folders.walk(path.parent)
    found = [Item(file, label) for file, label in listing.files if given.lists(label)]
    return [*found, *(Item(file, label, lost=why) for file, label, why in listing.lost if given.lists(label))]


def _lines_of(path: Path) -> id_prop.Given:
    with regular(path) as stream:
        return id_prop.read(read_text(stream, "list"))


def _with_values(
    item: Item, given: id_prop.Given, items: list[Item], crystals: Crystals, refused: list[Quarantined]
) -> tuple[Crystals, list[Quarantined]]:
    """Return the crystals with the values of a list, and records of the lines without a crystal."""
    folder = item.path.parent
    beside = {one.path.relative_to(folder).as_posix(): one.label for one in items if one.path.is_relative_to(folder)}
    return id_prop.attach(given, item.label, str(item.path), beside, crystals, refused)


class _Reading:
    """The crystals of one file after the other."""

    def __init__(self, max_sites: int, kinds: Kinds | None, begin: Begin | None) -> None:
        self.taken = 0
        """Files that hold crystals, or should."""
        self.ignored: Counter[str] = Counter()
        self.lists: list[tuple[Item, id_prop.Given]] = []
        """Lists of values of the files beside them."""
        self._max_sites = max_sites
        self._parts: list[Crystals] = []
        self._refused: list[Quarantined] = []
        self._kinds = kinds
        self._begin: Begin = begin or (lambda *_: None)
        self._assembler = CountedAssembler(max_sites, kinds=kinds)

    def add(self, item: Item) -> None:
        """Read one file; its own failure is a record, unless the caller named it."""
        kind, origin = kind_of(item.path.name), str(item.path)
        blocks = kind in (Kind.PARQUET, Kind.OPTIMADE)
        before = self.taken
        self._assembler.begin()
        try:
            if item.lost:
                raise ValueError(item.lost)
            self._begin(origin, item.path.stat().st_size)
            if kind is Kind.ARCHIVE:
                self._archive(item)
            elif kind is Kind.ID_PROP:
                self._list(item, origin)
            elif kind is Kind.PARQUET:
                regular(item.path).close()
                footer.rows(item.path)
                self._block(item.label, origin, *table.from_table(table.read(item.path), origin, self._max_sites))
            else:
                with unpacked(item.path) as stream:
                    self._stream(kind, stream, item.label, origin)
        except UNFORESEEN as error:
            if item.named and blocks and not isinstance(error, limits.Exceeded):
                raise
            if kind is Kind.ARCHIVE:
                self._assembler.begin()
            self._lose(item.label, origin, error)
        if item.named and self.taken == before:
            raise ValueError(f"{item.path} holds no structures; ignored: {folders.summary(self.ignored)}")

    def add_stream(self, kind: Kind, stream: BinaryIO, label: str, origin: str) -> None:
        """Read a text that is no file; what fails is a record."""
        try:
            self._stream(kind, stream, label, origin)
        except UNFORESEEN as error:
            self._lose(label, origin, error)

    def finish(self) -> tuple[Crystals, list[Quarantined]]:
        """Return all crystals in order, and the records."""
        self._close()
        return join(self._parts), self._refused

    def _stream(self, kind: Kind | None, stream: BinaryIO, label: str, origin: str) -> None:
        self._assembler.begin()
        if kind is Kind.OPTIMADE:
            self._block(label, origin, *read_jsonl(stream, label, origin, self._max_sites))
        elif kind is None or kind not in FORMATS:
            raise ValueError(f"a file of the kind {kind} inside an archive is not read; unpack the archive first")
        elif FORMATS[kind](self._assembler, stream, label, origin) == 0:
            self.ignored[f"{Path(label).suffix.lower()} without structures"] += 1
        else:
            self.taken += 1

    def _list(self, item: Item, origin: str) -> None:
        given = _lines_of(item.path)
        if not given.values and not given.refused:
            raise ValueError("the list has no line")
        if self._kinds is not None:
            for name in given.columns:
                self._kinds.take(name, "number", origin)
        self.lists.append((item, given))
        self.taken += 1

    def _archive(self, item: Item) -> None:
        names: set[str] = set()
        before = self.taken
        with regular(item.path) as file:
            for member in archives.members(file, item.path.name, item.path.stat().st_size):
                name, kind = PurePosixPath(member.name).as_posix(), kind_of(member.name)
                if kind is None or is_hidden(name):
                    self.ignored[counted_as(name)] += 1
                    continue
                label, origin = f"{item.label}/{name}", f"{item.path}/{name}"
                try:
                    if name in names:
                        raise ValueError("the archive holds this name twice")
                    names.add(name)
                    self._begin(origin, member.size)
                    with member.open() as stream, through(stream, member.name, member.size) as content:
                        self._stream(kind, content, label, origin)
                except UNFORESEEN as error:
                    self._lose(label, origin, error)
        if self.taken == before and not item.named:
            raise ValueError("the archive holds no file with structures")

    def _block(self, label: str, origin: str, crystals: Crystals, refused: list[Quarantined]) -> None:
        if not len(crystals) and not refused:
            self._lose(label, origin, ValueError("the file holds no row or entry of a structure"))
            return
        self._close()
        if self._kinds is not None:
            self._kinds.take_batch(crystals, origin)
        self._parts.append(crystals)
        self._refused.extend(refused)
        self.taken += 1

    def _close(self) -> None:
        crystals, refused = self._assembler.finish()
        self._parts.append(crystals)
        self._refused.extend(refused)
        self._assembler = CountedAssembler(self._max_sites, kinds=self._kinds)

    def _lose(self, label: str, origin: str, error: Exception) -> None:
        """Record a file that cannot be read, or not on from the structures that it gave."""
        reason = Reason.TOO_LARGE if isinstance(error, limits.Exceeded) else Reason.UNREADABLE
        self._assembler.end(numbered(label, self._assembler.count + 1), origin, reason, described(error))
        self.taken += 1
