"""Hypothetical crystals: structure types decorated with elements, ordered and doped.

Enters: a number, a seed, and optionally names of structure types and allowed elements. Leaves:
`Crystals`, always the same for the same request. Nothing is downloaded or stored.

A decoration is a structure type with an element on each role, a role being a set of sites of
`assay.sources.prototype_table`. It is computed from its position in a seeded permutation of all
decorations, so that any range of millions can be made without the ones before. An ordered
decoration has one element on each role, under the charge, radius-ratio or tolerance-factor rule of
its type. A doped one replaces 5 to 30 % of one role by an element of similar radius and a formal
charge at most 1 away. Cells are primitive; the linear radius rules of the table give their size.
This module does not know whether a crystal is stable or has ever been made.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from assay.sources.crystals import Crystals, concat, empty, text_array, wrap
from assay.sources.elements import NUMBERS, SYMBOLS
from assay.sources.prototype_table import ATOMIC, IONIC, PROTOTYPES, Prototype

__all__ = ["PROTOTYPES", "count", "generate"]

FRACTIONS = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30)
"""Share of a role that a dopant takes."""
MAX_MISFIT = 0.18
"""Largest relative difference in radius between a dopant and the element it replaces."""

_CENTRINGS = {
    "P": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "I": ((-0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.5, 0.5, -0.5)),
    "F": ((0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0)),
    "R": ((2 / 3, 1 / 3, 1 / 3), (-1 / 3, 1 / 3, 1 / 3), (-1 / 3, -2 / 3, 1 / 3)),
}
"""Rows: primitive vectors in terms of the conventional ones."""


@dataclass(frozen=True)
class _Space:
    """All decorations of one structure type under one choice of elements."""

    numbers: tuple[NDArray[np.int64], ...]
    """Per role: (choices,) atomic numbers."""
    charges: tuple[NDArray[np.int64], ...]
    """Per role: (choices,) formal charges, 0 for bare elements."""
    radii: tuple[NDArray[np.float64], ...]
    """Per role: (choices,) Å."""
    bases: NDArray[np.int64]
    """(ordered, roles) choice on each role."""
    dopants: tuple[NDArray[np.int64], ...]
    """Per role: choices that may replace each host choice, listed host by host."""
    dopant_ptr: tuple[NDArray[np.int64], ...]
    """Per role: (choices + 1,) where the dopants of each host start in `dopants`."""
    doped_ptr: NDArray[np.int64]
    """(ordered + 1,) number of doped decorations of all bases before each one."""

    @property
    def ordered(self) -> int:
        return len(self.bases)

    @property
    def doped(self) -> int:
        return int(self.doped_ptr[-1])


def generate(
    n: int,
    seed: int = 0,
    prototypes: Sequence[str] | None = None,
    elements: Sequence[str] | None = None,
    start: int = 0,
) -> Crystals:
    """Make `n` different decorations from position `start` of the sequence of a seed.

    Structure types take turns, and so do ordered and doped decorations, until one runs out. A
    shorter sequence is the beginning of a longer one. Columns: `prototype`, `tolerance`
    (Goldschmidt's factor, NaN where it has no meaning), `net_charge` (formal charge per primitive
    cell that doping brings, NaN without formal charges).

    Raises:
        ValueError: for an unknown structure type or element, a negative number, or more decorations
            than there are.
    """
    names, spaces = _spaces(prototypes, elements)
    streams = [(name, space, kind) for kind in ("ordered", "doped") for name, space in zip(names, spaces)]
    sizes = np.array([getattr(space, kind) for _, space, kind in streams], dtype=np.int64)
    if n < 0 or start < 0 or start + n > sizes.sum():
        raise ValueError(f"asked for decorations {start} to {start + n}, there are {sizes.sum()} from 0 on")
    stream, turn = _take_turns(sizes, np.arange(start, start + n))
    parts: list[Crystals] = []
    rows: list[NDArray[np.int64]] = []
    for number, (name, space, kind) in enumerate(streams):
        mine = np.flatnonzero(stream == number)
        if len(mine):
            drawn = _permute(turn[mine], int(sizes[number]), f"{seed}/{name}/{kind}")
            parts.append(_build(name, space, *_decode(space, drawn, kind == "doped")))
            rows.append(mine)
    if not parts:
        none = np.empty(0)
        return empty().with_columns(prototype=text_array([]), tolerance=none, net_charge=none)
    return concat(parts).select(np.argsort(np.concatenate(rows)))


def count(prototypes: Sequence[str] | None = None, elements: Sequence[str] | None = None) -> int:
    """How many decorations exist in total.

    >>> count() > 1_000_000
    True
    """
    return sum(space.ordered + space.doped for space in _spaces(prototypes, elements)[1])


def _spaces(prototypes: Sequence[str] | None, elements: Sequence[str] | None) -> tuple[list[str], list[_Space]]:
    names = list(dict.fromkeys(PROTOTYPES if prototypes is None else prototypes))
    for name in names:
        if name not in PROTOTYPES:
            near = difflib.get_close_matches(name, PROTOTYPES, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown structure type {name!r}, did you mean {near!r}? known: {', '.join(PROTOTYPES)}")
    unknown = sorted(set(elements or ()) - set(NUMBERS))
    if unknown:
        raise ValueError(f"unknown element {', '.join(map(repr, unknown))}; symbols such as 'Nb' are accepted")
    allowed = None if elements is None else frozenset(elements)
    return names, [_space(name, allowed) for name in names]


# Which decorations exist.


@lru_cache(maxsize=256)
def _space(name: str, allowed: frozenset[str] | None) -> _Space:
    prototype = PROTOTYPES[name]
    radii = _radii()
    tokens = [
        [t for t in role.choices.split() if allowed is None or _element(t) in allowed] for role in prototype.roles
    ]
    numbers = tuple(np.array([NUMBERS[_element(t)] for t in role], dtype=np.int64) for role in tokens)
    charges = tuple(np.array([_charge(t) for t in role], dtype=np.int64) for role in tokens)
    sizes = tuple(np.array([radii[t] for t in role], dtype=np.float64) for role in tokens)
    bases = _ordered(prototype, numbers, charges, sizes)
    found = [_dopants(*role) for role in zip(numbers, charges, sizes)]
    per_base = sum((np.diff(ptr)[bases[:, k]] for k, (_, ptr) in enumerate(found)), np.zeros(len(bases), np.int64))
    doped_ptr = np.concatenate([[0], np.cumsum(per_base * len(FRACTIONS))])
    return _Space(numbers, charges, sizes, bases, tuple(d for d, _ in found), tuple(p for _, p in found), doped_ptr)


def _ordered(
    prototype: Prototype,
    numbers: Sequence[NDArray[np.int64]],
    charges: Sequence[NDArray[np.int64]],
    radii: Sequence[NDArray[np.float64]],
) -> NDArray[np.int64]:
    """(m, roles) choices that follow the rules; each assignment of elements once."""
    grids = np.meshgrid(*(np.arange(len(role)) for role in numbers), indexing="ij")
    bases = np.stack([grid.ravel() for grid in grids], axis=1)
    z = np.stack([role[bases[:, k]] for k, role in enumerate(numbers)], axis=1)
    r = np.stack([role[bases[:, k]] for k, role in enumerate(radii)], axis=1)
    good = np.ones(len(bases), dtype=bool)
    for k in range(1, z.shape[1]):
        good &= np.all(z[:, :k] != z[:, k : k + 1], axis=1)
    if prototype.balanced:
        atoms = [len(role.points) for role in prototype.roles]
        good &= sum(atoms[k] * role[bases[:, k]] for k, role in enumerate(charges)) == 0
    ratio = r[:, 0] / r[:, 1]
    good &= (ratio >= prototype.ratio[0]) & (ratio <= prototype.ratio[1])
    if prototype.tolerance is not None:
        factor = _goldschmidt(r)
        good &= (factor >= prototype.tolerance[0]) & (factor <= prototype.tolerance[1])
    bases, z = bases[good], z[good]
    return bases[np.sort(np.unique(z, axis=0, return_index=True)[1])]


def _dopants(
    numbers: NDArray[np.int64], charges: NDArray[np.int64], radii: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choices that may replace each host, listed host by host, and their pointer.

    Of one element, the choice with the best fitting charge is taken.
    """
    found: list[int] = []
    ptr = [0]
    for host in range(len(numbers)):
        misfit = np.abs(radii / radii[host] - 1)
        fits = (numbers != numbers[host]) & (np.abs(charges - charges[host]) <= 1) & (misfit <= MAX_MISFIT)
        best: dict[int, int] = {}
        for choice in sorted(np.flatnonzero(fits).tolist(), key=lambda k: (misfit[k], k)):
            best.setdefault(int(numbers[choice]), choice)
        found += sorted(best.values())
        ptr.append(len(found))
    return np.array(found, dtype=np.int64), np.array(ptr, dtype=np.int64)


def _goldschmidt(radii: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((radii[:, 0] + radii[:, 2]) / (np.sqrt(2) * (radii[:, 1] + radii[:, 2])))


def _element(token: str) -> str:
    return token.rstrip("+-0123456789")


def _charge(token: str) -> int:
    size = token[len(_element(token)) :]
    return int(size[-1] + size[:-1]) if size else 0


@lru_cache(maxsize=1)
def _radii() -> dict[str, float]:
    words = (ATOMIC + IONIC).split()
    return {token: float(radius) for token, radius in zip(words[::2], words[1::2])}


# Which of them come in which order.


def _take_turns(sizes: NDArray[np.int64], index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stream, and position in the stream, of each index; streams take turns until used up."""
    levels = np.unique(sizes[sizes > 0])
    active = [np.flatnonzero(sizes >= level) for level in levels]
    rounds = np.diff(np.concatenate([[0], levels]))
    begins = np.concatenate([[0], np.cumsum(rounds * [len(streams) for streams in active])])
    stream, turn = np.empty_like(index), np.empty_like(index)
    for number, streams in enumerate(active):
        here = (index >= begins[number]) & (index < begins[number + 1])
        offset = index[here] - begins[number]
        stream[here] = streams[offset % len(streams)]
        turn[here] = levels[number] - rounds[number] + offset // len(streams)
    return stream, turn


def _permute(index: NDArray[np.int64], size: int, key: str) -> NDArray[np.int64]:
    """Send each index through a keyed permutation of `range(size)`.

    The permutation is a Feistel network on the next larger power of 4; an index that lands outside
    the range goes through it again.
    """
    half = np.uint64(max(1, (int(size - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    rounds = np.frombuffer(sha256(key.encode()).digest(), dtype="<u8")
    value = index.astype(np.uint64)
    outside = np.arange(len(value))
    while len(outside):
        left, right = value[outside] >> half, value[outside] & mask
        for salt in rounds:
            left, right = right, left ^ (_mix(right + salt) & mask)
        value[outside] = (left << half) | right
        outside = outside[value[outside] >= np.uint64(size)]
    return value.astype(np.int64)


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _decode(
    space: _Space, index: NDArray[np.int64], doped: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(m, roles) host choices, (m,) doped role or -1, (m,) dopant choice, (m,) dopant share."""
    role, dopant, share = np.full(len(index), -1), np.zeros(len(index), np.int64), np.zeros(len(index))
    if not doped:
        return space.bases[index], role, dopant, share
    base = np.searchsorted(space.doped_ptr, index, side="right") - 1
    left = index - space.doped_ptr[base]
    hosts = space.bases[base]
    share = np.array(FRACTIONS)[left % len(FRACTIONS)]
    left //= len(FRACTIONS)
    for k, (choices, ptr) in enumerate(zip(space.dopants, space.dopant_ptr)):
        begins, ends = ptr[hosts[:, k]], ptr[hosts[:, k] + 1]
        here = (role < 0) & (left < ends - begins)
        role[here] = k
        dopant[here] = choices[(begins + left)[here]]
        left = np.where(role < 0, left - (ends - begins), left)
    return hosts, role, dopant, share


# From choices to crystals.


def _build(
    name: str,
    space: _Space,
    hosts: NDArray[np.int64],
    role: NDArray[np.int64],
    dopant: NDArray[np.int64],
    share: NDArray[np.float64],
) -> Crystals:
    """Crystals of one structure type from the choice on each role and the doping."""
    prototype = PROTOTYPES[name]
    m, roles = hosts.shape
    z = np.stack([space.numbers[k][hosts[:, k]] for k in range(roles)], axis=1)
    r = np.stack([space.radii[k][hosts[:, k]] for k in range(roles)], axis=1)
    extra, charge = np.zeros(m, dtype=np.int64), np.zeros(m)
    for k in range(roles):
        mine = np.flatnonzero(role == k)
        extra[mine] = space.numbers[k][dopant[mine]]
        r[mine, k] += share[mine] * (space.radii[k][dopant[mine]] - r[mine, k])
        step = space.charges[k][dopant[mine]] - space.charges[k][hosts[mine, k]]
        charge[mine] = len(prototype.roles[k].points) * share[mine] * step
    site_role = np.repeat(np.arange(roles), [len(part.points) for part in prototype.roles])
    mixed = role[:, None] == site_role
    numbers = np.stack([z[:, site_role], np.broadcast_to(extra[:, None], mixed.shape)], axis=2)
    occupancy = np.stack([np.where(mixed, 1 - share[:, None], 1.0), np.where(mixed, share[:, None], 0.0)], axis=2)
    present = occupancy > 0
    return Crystals(
        ids=text_array(_names(name, z, role, extra, share)),
        lattice=_cells(prototype, r),
        site_ptr=np.arange(m + 1) * len(site_role),
        frac=np.tile(_places(prototype), (m, 1)),
        species_ptr=np.concatenate([[0], np.cumsum(present.sum(axis=2).ravel())]),
        numbers=numbers[present].astype(np.uint8),
        occupancy=occupancy[present].round(5).astype(np.float32),
        columns={
            "prototype": np.full(m, name),
            "tolerance": _goldschmidt(r) if prototype.tolerance else np.full(m, np.nan),
            "net_charge": charge.round(5) + 0.0 if prototype.balanced else np.full(m, np.nan),
        },
    )


def _cells(prototype: Prototype, radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m, 3, 3) primitive cells in Å."""
    sizes = np.concatenate([np.ones((len(radii), 1)), radii], axis=1)
    a = (sizes * np.array(prototype.a)).sum(axis=1)  # not @, whose last bits depend on the number of rows
    c = (sizes * np.array(prototype.c)).sum(axis=1) if prototype.c else a
    shape = np.zeros((len(radii), 3, 3))
    shape[:, 0, 0], shape[:, 1, 1], shape[:, 2, 2] = a, a, c
    if prototype.system == "hexagonal":
        shape[:, 1, 0], shape[:, 1, 1] = -a / 2, a * np.sqrt(0.75)
    return np.asarray(np.array(_CENTRINGS[prototype.centring]) @ shape)


def _places(prototype: Prototype) -> NDArray[np.float64]:
    """(sites, 3) fractional coordinates in the primitive cell."""
    conventional = np.array([point for role in prototype.roles for point in role.points])
    primitive = conventional @ np.linalg.inv(np.array(_CENTRINGS[prototype.centring]))
    return wrap(primitive.round(12))


def _names(
    name: str,
    numbers: NDArray[np.int64],
    role: NDArray[np.int64],
    extra: NDArray[np.int64],
    share: NDArray[np.float64],
) -> list[str]:
    """One id per decoration, for example `prototype/K2NiF4/La0.925Sr0.075-Cu-O`."""
    found = []
    for hosts, k, dopant, x in zip(numbers.tolist(), role.tolist(), extra.tolist(), share.tolist()):
        parts = [SYMBOLS[host] for host in hosts]
        if k >= 0:
            parts[k] = f"{parts[k]}{1 - x:.2f}{SYMBOLS[dopant]}{x:.2f}"
        found.append(f"prototype/{name}/{'-'.join(parts)}")
    return found
