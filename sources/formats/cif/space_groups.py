"""Space groups by name: Hermann-Mauguin symbol, Hall symbol or number -> operations.

Enters: a symbol as people and programs spell it, or a number. Leaves: the settings that it may
mean, each with its operations. The symbols are those of the tables of gemmi (Wojdyr, J. Open Source
Softw. 7, 4200, 2022) and spglib (Togo, Shinohara & Tanaka, 2024): 530 settings of the International
Tables and some more. This module does not know cells or files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import gemmi
import numpy as np
from numpy.typing import NDArray

from assay.sources.checks.importing import one_at_a_time
from assay.sources.formats.cif.operations import Operations, distinct

MAX_SYMBOL = 80
"""Characters of a symbol; a longer text is none."""


@dataclass(frozen=True)
class Setting:
    """One space group on one choice of axes and origin."""

    number: int
    """1 to 230."""
    name: str
    """Hermann-Mauguin symbol with its choice, for example `F d -3 m:2`."""
    choice: str
    """`1` or `2` (origin), `H` or `R` (axes), or an empty text."""
    axes: str
    """Unique axis and cell choice such as `b1`, or a permutation such as `ba-c`; mostly empty."""
    hall: str

    @cached_property
    def operations(self) -> Operations:
        """All operations, centring included."""
        return of_hall(self.hall)


@lru_cache(maxsize=4096)
def of_hall(symbol: str) -> Operations:
    """Operations of a Hall symbol; any origin and change of basis.

    Raises:
        ValueError: when the text is no Hall symbol.
    """
    text = " ".join(symbol[: MAX_SYMBOL + 1].replace("_", " ").replace("''", '"').split())
    for spelling in (text, text.lower(), _cased(text)) if re.match(r"-?[PABCIRF]\b", text, re.IGNORECASE) else ():
        try:
            group = gemmi.symops_from_hall(spelling)
        except (RuntimeError, ValueError):
            continue
        return of_group(group)
    raise ValueError(f"{symbol[:MAX_SYMBOL]!r} is no Hall symbol")


def _cased(text: str) -> str:
    """The Hall symbol with a capital lattice letter and small letters elsewhere."""
    low = text.lower()
    return re.sub(r"^-?[a-z]", lambda match: match.group().upper(), low)


def of_group(group: gemmi.GroupOps) -> Operations:
    """Operations of a group of gemmi, centring included."""
    every = [(op.rot, op.tran) for op in group]
    rot = np.array([rot for rot, _ in every], dtype=np.int64) // gemmi.Op.DEN
    return distinct(rot, np.array([tran for _, tran in every], dtype=np.float64) / gemmi.Op.DEN)


def named(symbol: str) -> list[Setting]:
    """Settings that a Hermann-Mauguin symbol may mean; none for an unknown one.

    A symbol that names its origin or its axes gives those alone: `F d -3 m :2`, `F d -3 m Z`,
    `R -3 m H`, `P m m n (origin choice 2)`, `F d -3 m (origin at -43m)`.

    >>> [setting.name for setting in named("Cmca")]
    ['C m c a']
    >>> [setting.name for setting in named("P2(1)/n")]
    ['P 1 21/n 1', 'P 1 1 21/n', 'P 21/n 1 1']
    >>> [setting.name for setting in named("F 41/d -3 2/m (origin choice 2)")]
    ['F d -3 m:2']
    """
    return list(_named(symbol)) if len(symbol) <= MAX_SYMBOL else []


@lru_cache(maxsize=4096)
def _named(symbol: str) -> tuple[Setting, ...]:
    text = _plain(symbol)
    if text.isdigit():
        return _standard().get(int(text), ())
    found = _index().get(_key(text))
    if found:
        return found
    for pattern in _SUFFIXES:
        match = pattern.search(text)
        found = _index().get(_key(text[: match.start()])) if match else None
        if match and found:
            choice = match[1].lower()
            return _chosen(found, _ORIGINS.get(choice, choice))
    if match := _ORIGIN_AT.search(text):
        return _with_origin_at(_index().get(_key(text[: match.start()]), ()), match[1])
    return ()


def numbered(number: int) -> list[Setting]:
    """The standard setting of a space group, or both where it has two origins or two pairs of axes.

    The axis b of a monoclinic group is unique, with cell choice 1.
    """
    return list(_standard().get(number, ()))


def setting_of(operations: Operations) -> Setting | None:
    """The tabled setting with exactly these operations, if there is one."""
    return _by_key().get(operations.key)


@lru_cache(maxsize=1024)
def number_of(operations: Operations) -> int:
    """Number of the space group with these operations, on any axes and origin; 0 when unknown."""
    setting = setting_of(operations)
    if setting is not None:
        return setting.number
    with one_at_a_time():
        import spglib  # costs 0.1 s, and few files need it

    found = spglib.get_spacegroup_type_from_symmetry(operations.rot.astype(np.intc), operations.shift)
    return int(found.number) if found is not None else 0


# The index: every spelling of every setting.


@lru_cache(maxsize=1)
def _settings() -> tuple[Setting, ...]:
    return tuple(
        Setting(group.number, group.xhm(), group.ext.strip("\0 "), group.qualifier, group.hall)
        for group in gemmi.spacegroup_table()
    )


@lru_cache(maxsize=1)
def _by_key() -> dict[bytes, Setting]:
    found: dict[bytes, Setting] = {}
    for setting in _settings():
        found.setdefault(setting.operations.key, setting)
    return found


@lru_cache(maxsize=1)
def _standard() -> dict[int, tuple[Setting, ...]]:
    first: dict[int, str] = {}
    found: dict[int, tuple[Setting, ...]] = {}
    for setting in _settings():
        symbol = setting.name.split(":")[0]
        if first.setdefault(setting.number, symbol) == symbol:
            found[setting.number] = (*found.get(setting.number, ()), setting)
    return found


@lru_cache(maxsize=1)
def _index() -> dict[str, tuple[Setting, ...]]:
    index: dict[str, list[Setting]] = {}
    for group, setting in zip(gemmi.spacegroup_table(), _settings(), strict=True):
        for spelling in {group.hm, group.short_name(), *_short(group), *_older(group.hm), *_full(setting)}:
            index.setdefault(_key(spelling), []).append(setting)
        index.setdefault(_key(group.xhm()), []).append(setting)
    return {spelling: tuple(dict.fromkeys(settings)) for spelling, settings in index.items()}


def _short(group: gemmi.SpaceGroup) -> Iterable[str]:
    """The symbol of a monoclinic group without the directions that have no symmetry: `B 2/b`."""
    if 3 <= group.number <= 15:
        yield " ".join(part for part in group.hm.split(" ") if part != "1")


def _older(hm: str) -> Iterable[str]:
    """Spellings of a symbol before 1995 and after 1992: `F m 3 m`, and the e-glide of `C m c e`."""
    lattice, *parts = hm.split(" ")
    if len(parts) > 1 and parts[1] == "-3":
        yield " ".join([lattice, parts[0], "3", *parts[2:]])


def _full(setting: Setting) -> Iterable[str]:
    """The symbol with an axis and a plane for every direction, and with e for a double glide."""
    return _full_symbols().get(setting.operations.key, ())


@lru_cache(maxsize=1)
def _full_symbols() -> dict[bytes, tuple[str, ...]]:
    with one_at_a_time():
        import spglib  # costs 0.1 s, and few files need it

    found: dict[bytes, tuple[str, ...]] = {}
    for hall_number in range(1, 531):
        kind = spglib.get_spacegroup_type(hall_number)
        assert kind is not None
        short = kind.international.split("=")[-1]
        key = of_hall(kind.hall_symbol).key
        found[key] = (*found.get(key, ()), kind.international_full, short, *_without_e(kind.international_full))
    return found


def _without_e(full: str) -> Iterable[str]:
    """Full symbols with the letter of either glide in place of e: `C 2/m 2/c 21/a`."""
    lattice, *parts = full.split(" ")
    for place, part in enumerate(parts):
        if part.endswith("e"):
            for letter in {"a", "b", "c"} - {"abc"[place]} if len(parts) == 3 else ():
                yield " ".join([lattice, *parts[:place], part[:-1] + letter, *parts[place + 1 :]])


# Spellings.


def _plain(symbol: str) -> str:
    """The symbol without marks of typesetting: `P2(1)/c`, `P 2~1~/c` and `P2_1/c` are `P21/c`."""
    text = symbol.strip().strip("'\"").replace("\\", "").replace("~", "")
    text = re.sub("([1346])[\u0304\u0305]|[\u0304\u0305]([1346])", r"-\1\2", text.replace("\u2212", "-"))
    text = re.sub(r"\s*[\[(]\s*(?:#|no\.?|number)\s*\d+\s*[\])]\s*$", "", text, flags=re.IGNORECASE)
    text = re.sub(r"\s+[\[(]\d{1,3}[\])]\s*$", "", text)
    text = re.sub(r"(?<=\d)\((\d)\)", r"\1", text)
    return re.sub(r"<su[bp]>|</su[bp]>|[_$^{}]", "", text)


def _key(symbol: str) -> str:
    return re.sub(r"\s+", "", _plain(symbol)).lower()


_ORIGINS = {"s": "1", "z": "2", "1": "1", "2": "2", "o1": "1", "o2": "2", "h": "H", "r": "R", "hr": "H"}
"""What the ends of symbols mean; S and Z are those of the ICSD."""
_OPEN, _CLOSE = r"\s*[:,(\[]?\s*", r"\s*[)\]]?\s*$"
_SUFFIXES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\s*[:,-]\s*(o?[12]|[szhr])\s*$",
        r"\s*[:,-]\s*(-?[abc](?:[123]|[abc-]{2,4})?[123]?)\s*$",
        _OPEN + r"origin(?:\s*choice)?\s*:?\s*(?:no\.?\s*)?([12])" + _CLOSE,
        _OPEN + r"(h|r)[a-z]*\s*(?:axes|cell|setting)" + _CLOSE,
        _OPEN + r"unique\s*axis\s*([abc])(?:[\s,]*cell\s*choice\s*[123])?" + _CLOSE,
        r"\s*(?<=[\s\da-z])(o[12]|[szhr]|hr)\s*$",
    )
)
"""The ends of a symbol that name an origin or axes; the group is the choice."""


_ORIGIN_AT = re.compile(_OPEN + r"(?:with\s+)?origin\s*(?:is\s*)?(?:at|on|in)\s*(.+?)" + _CLOSE, re.IGNORECASE)
"""The end of a symbol that names the symmetry of the origin; the group is what it names."""


def _with_origin_at(settings: tuple[Setting, ...], site: str) -> tuple[Setting, ...]:
    """Of these settings, those whose origin has a symmetry such as `-1`, `centre` or `-43m`."""
    if re.match(r"(?:the\s+|an?\s+)?(?:-1\b|inversion|symmetry\s*cent|cent(?:er|re)\b)", site, re.IGNORECASE):
        return tuple(one for one in settings if (-np.eye(3) == _at_origin(one)).all(axis=(1, 2)).any())
    group = _index().get(_key(f"P{site}"), ())
    return tuple(one for one in settings if group and _same_kinds(_at_origin(one), group[0].operations.rot))


def _at_origin(setting: Setting) -> NDArray[np.int64]:
    """(m, 3, 3) rotations of the operations that leave the origin where it is."""
    return np.asarray(setting.operations.rot[np.abs(setting.operations.shift).max(axis=1) < 1e-6])


def _same_kinds(first: NDArray[np.int64], second: NDArray[np.int64]) -> bool:
    """Whether two groups have as many axes and planes of each kind, in whatever directions."""
    kinds = (np.trace(first, axis1=1, axis2=2), np.trace(second, axis1=1, axis2=2))
    dets = (np.linalg.det(first).round(), np.linalg.det(second).round())
    return sorted(zip(*(kinds[0], dets[0]), strict=True)) == sorted(zip(*(kinds[1], dets[1]), strict=True))


def _chosen(settings: tuple[Setting, ...], choice: str) -> tuple[Setting, ...]:
    """Of these settings, those with this choice; all where none of them leaves any choice."""
    found = tuple(one for one in settings if one.choice == choice or (one.axes and one.axes.startswith(choice)))
    return found or (() if any(one.choice for one in settings) else settings)
