"""Colour encodings of renderings: what the channels of a pixel say about the element drawn there.

Enters: the name of an encoding. Leaves: a table of channel values by atomic number, 1 to 103, each
from 0 to 1. This module does not know where an atom is.

Sources: element values as in `assay.featurize.elements`; `elements` has the colours of Jmol
(jmol.sourceforge.net/jscolors).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from assay.featurize import elements

_JMOL = """
FFFFFF D9FFFF CC80FF C2FF00 FFB5B5 909090 3050F8 FF0D0D 90E050 B3E3F5 AB5CF2 8AFF00 BFA6A6 F0C8A0 FF8000 FFFF30 1FF01F
80D1E3 8F40D4 3DFF00 E6E6E6 BFC2C7 A6A6AB 8A99C7 9C7AC7 E06633 F090A0 50D050 C88033 7D80B0 C28F8F 668F8F BD80E3 FFA100
A62929 5CB8D1 702EB0 00FF00 94FFFF 94E0E0 73C2C9 54B5B5 3B9E9E 248F8F 0A7D8C 006985 C0C0C0 FFD98F A67573 668080 9E63B5
D47A00 940094 429EB0 57178F 00C900 70D4FF FFFFC7 D9FFC7 C7FFC7 A3FFC7 8FFFC7 61FFC7 45FFC7 30FFC7 1FFFC7 00FF9C 00E675
00D452 00BF38 00AB24 4DC2FF 4DA6FF 2194D6 267DAB 266696 175487 D0D0E0 FFD123 B8B8D0 A6544D 575961 9E4FB5 AB5C00 754F45
428296 420066 007D00 70ABFA 00BAFF 00A1FF 008FFF 0080FF 006BFF 545CF2 785CE3 8A4FE3 A136D4 B31FD4 B31FBA B30DA6 BD0D87
C70066
"""


@dataclass(frozen=True)
class Encoding:
    """How an element becomes a colour."""

    channels: tuple[str, ...]
    """What each channel of `table` shows, in order."""
    table: Callable[[], NDArray[np.float32]]
    """Makes (104, len(channels)) values from 0 to 1 by atomic number; row 0 is zero."""
    reads: tuple[str, ...] = ()
    """Columns of `elements.csv` behind the channels."""
    maps: bool = False
    """Two more channels follow, equal for all elements: the depth of what is seen, from 0 at the
    back to 1 at the front, and whether it is a bond."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every channel of the image, in order."""
        return (*self.channels, "depth", "bond") if self.maps else self.channels


@cache
def _physics() -> NDArray[np.float32]:
    mass = _column("mass")
    return _table(_column("d_electrons") / 10, _valence() / 12, 1 - mass / 238)


@cache
def _elements() -> NDArray[np.float32]:
    levels = np.array([list(bytes.fromhex(colour)) for colour in _JMOL.split()], np.float64) / 255
    return _table(*levels.T)


@cache
def _electronic() -> NDArray[np.float32]:
    return _table(_column("electronegativity") / 4, _column("atomic_radius") / 2.6, _column("ionization_energy") / 25)


_DEEP = (
    "group", "row", "mass", "electronegativity", "covalent_radius", "ionization_energy", "electron_affinity",
    "melting_point", "d_electrons", "f_electrons",
)  # fmt: skip


@cache
def _deep() -> NDArray[np.float32]:
    columns = [_column(name) for name in _DEEP]
    return _table(_valence() / 12, *((c - c.min()) / (c.max() - c.min()) for c in columns))


ENCODINGS: dict[str, Encoding] = {
    "physics": Encoding(("d electrons / 10", "valence electrons / 12", "1 - mass / 238 u"), _physics, ("mass",)),
    "elements": Encoding(("red", "green", "blue"), _elements),
    "electronic": Encoding(
        ("electronegativity / 4", "atomic radius / 2.6 Å", "ionisation energy / 25 eV"),
        _electronic,
        ("electronegativity", "atomic_radius", "ionization_energy"),
    ),
    "deep": Encoding(("valence_electrons", *_DEEP), _deep, _DEEP, maps=True),
}
"""Encodings by name. An encoding never changes: a new one gets a new name."""


def encoding(name: str) -> Encoding:
    """The encoding of that name.

    Raises:
        ValueError: listing the known names.
    """
    if name not in ENCODINGS:
        raise ValueError(f"no encoding {name!r}; known: {', '.join(ENCODINGS)}")
    return ENCODINGS[name]


def estimated(name: str) -> dict[str, tuple[int, ...]]:
    """Element property -> atomic numbers without a measured value, which have their neighbour's."""
    return {column: gaps for column in encoding(name).reads if (gaps := elements.unmeasured(column))}


def _column(name: str) -> NDArray[np.float64]:
    return elements.properties()[1:, elements.property_names().index(name)]


def _valence() -> NDArray[np.float64]:
    """Bonding electrons: group in the s and d blocks, group less 10 in the p block, 3 in the f."""
    group = _column("group")
    helium = np.arange(1, len(group) + 1) == 2
    return np.where(helium, 2.0, np.where(group > 12, group - 10, group))


def _table(*channels: NDArray[np.float64]) -> NDArray[np.float32]:
    values = np.clip(np.column_stack(channels), 0.0, 1.0)
    return np.vstack([np.zeros(values.shape[1]), values]).astype(np.float32)
