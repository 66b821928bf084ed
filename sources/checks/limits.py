"""The limits on what a file may hold or announce, for all formats in one table.

Enters: the name of a limit and a number that a file announces, or that was counted in it. Leaves:
nothing, or `Exceeded`. Readers compare before they build anything of that size. The limits keep the
time and the memory of a file proportional to its bytes. This module does not know formats.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


class Exceeded(ValueError):
    """A file holds, or announces, more than a limit; the message names the limit."""


@dataclass(frozen=True)
class Limit:
    """The most of one thing that is accepted."""

    most: int
    unit: str
    """What is counted, for messages and documents."""
    why: str
    """Why there is a limit, and why this one."""


LIMITS: dict[str, Limit] = {
    "text": Limit(10 * MIB, "bytes of a CIF or POSCAR", "it is held whole; a cell of 400 sites has some 40 kB"),
    "json": Limit(256 * MIB, "bytes of a JSON", "it is held whole"),
    "values": Limit(16_000_000, "values of a JSON", "each costs up to 100 bytes when it is built"),
    "list": Limit(64 * MIB, "bytes of an id_prop.csv", "it is held whole; a line has some 20 bytes"),
    "line": Limit(MIB, "bytes of a line of extended XYZ", "a line is held whole, and an atom has some 100 bytes"),
    "entry": Limit(64 * MIB, "bytes of a line of OPTIMADE JSON lines", "an entry is held whole"),
    "entry values": Limit(MIB, "values of a line of OPTIMADE JSON lines", "as of one reply of a server"),
    "unpacked": Limit(4096 * MIB, "bytes of a file, unpacked", "it is read as a stream"),
    "ratio": Limit(100, "times its packed size beyond 64 MiB", "texts of crystals shrink to a tenth"),
    "dictionary": Limit(256 * MIB, "bytes of memory to unpack xz", "`xz -9` needs 65 MiB"),
    "held": Limit(512 * MIB, "bytes of a packed trajectory, unpacked", "its reader jumps, so it is held whole"),
    "structures": Limit(1_000_000, "structures of a file, refused ones counted", "each is held in memory"),
    "refused": Limit(100_000, "refused structures of a file", "each is a record; such a file is another kind"),
    "columns": Limit(1_000, "different columns of all structures of a source", "each structure has a cell in each"),
    "kinds": Limit(10_000, "numbers of atoms in a POSCAR", "one per kind; most have fewer than ten"),
    "comment": Limit(4_096, "characters of a comment that names elements", "no list of elements is longer"),
    "blocks": Limit(100_000, "data blocks of a CIF", "the smallest with a crystal has some 300 bytes"),
    "items": Limit(10_000, "data names of a block of a CIF", "all dictionaries together define fewer"),
    "name": Limit(1_000, "characters of a data name", "the dictionaries have 75 at most"),
    "rows": Limit(5_000, "rows of a list of sites", "a cell has at most 400 sites unless a config says more"),
    "operations": Limit(1_536, "symmetry operations of a list", "no group of a cell and its centring has more"),
    "operation": Limit(120, "characters of an operation", "`-x+1/2,y+1/2,-z+1/2,-1` has 23"),
    "images": Limit(1_000_000, "sites times operations", "each image is computed before it is compared"),
    "sites": Limit(10_000, "sites of a cell that symmetry builds", "a cell has at most 400 unless a config says more"),
    "shares": Limit(200, "atoms listed at one place", "one per element is the most that makes sense"),
    "formula": Limit(2_000, "characters of a formula; a longer one is not compared", "it may open brackets"),
    "cells": Limit(100, "bytes per byte of a Parquet file beyond 64 MiB", "repeated values shrink to nothing"),
    "members": Limit(1_000_000, "files of an archive", "each costs a look"),
    "archive": Limit(65_536 * MIB, "bytes of an archive, unpacked", "members are read as streams"),
    "time": Limit(60, "s of processor time to read a file, plus 10 s per MiB", "CIFs, the slowest, take 0.8 s per MiB"),
    "contents": Limit(64 * MIB, "bytes of the table of contents of an archive", "it is held whole"),
}
"""Each limit by its name."""
FREE = 64 * MIB
"""Bytes that a packed file, or a table, may grow to whatever its ratio."""


def most(name: str) -> int:
    """Return the most that a limit accepts."""
    return LIMITS[name].most


def check(name: str, count: int, subject: str = "") -> None:
    """Refuse a count beyond a limit; `subject` says where it stands.

    Raises:
        Exceeded: beyond the limit.
    """
    limit = LIMITS[name]
    if count > limit.most:
        raise Exceeded(f"{subject}{': ' if subject else ''}{count:,} {limit.unit}, at most {limit.most:,} accepted")


def seconds(length: int) -> int:
    """Return the processor time in which a file of so many bytes must be read, in a campaign."""
    return most("time") + 10 * length // MIB


def check_growth(name: str, grown: int, packed: int) -> None:
    """Refuse content that grew from `packed` to `grown` bytes beyond the ratio of a limit.

    Raises:
        Exceeded: beyond `FREE` bytes and beyond the ratio.
    """
    if is_beyond(name, grown, packed):
        ratio = f"{packed:,} bytes would be {grown:,}"
        raise Exceeded(f"{ratio}: at most {FREE:,}, or {LIMITS[name].most} {LIMITS[name].unit}, accepted")


def is_beyond(name: str, grown: int, packed: int) -> bool:
    """Tell whether growth from `packed` to `grown` bytes is beyond the ratio of a limit."""
    return grown > FREE and grown > LIMITS[name].most * packed
