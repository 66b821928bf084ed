"""The tables behind hypothetical crystals: atomic radii, and structure types with their elements.

Enters: nothing. Leaves: `IONIC`, `ATOMIC` and `PROTOTYPES`. This module does not know how
decorations are counted or drawn.

Radii. `IONIC`: effective ionic radii, coordination number 6, high spin (Shannon, Acta Cryst. A 32,
751, 1976); N3- for four neighbours; P3-, As3-, Sb3-, Bi3- from Pauling's series; H1- 1.40 Å; Ni1+
taken equal to Cu1+, Bi4+ as the mean of Bi3+ and Bi5+. `ATOMIC`: metals for 12 neighbours (Wells,
Structural Inorganic Chemistry; Greenwood and Earnshaw), covalent radii for H, B, C, N, O, F, Si, P,
S, Cl, Ge, As, Se, Br, Sb, Te and I (Cordero et al., Dalton Trans. 2832, 2008); ytterbium at 1.80 Å,
between its two valences.

Cells. Each lattice parameter is a linear rule in the radii. The coefficients are our own
least-squares fits to relaxed Materials Project cells (v2025.02.12) of the same structure type, 10
to 342 cells each, median error 0.4 to 3.5 %. Measured cells took their place for ThCr2Si2,
anti-PbO, Hg1201, and for c of the dichalcogenides and of ZrCuSiAs: there PBE, or one straight line
through all cells, misses the forces between layers. The rule of ThCr2Si2 rests on 22 measured
cells. The others rest on one to six, with slopes chosen by hand. All slopes of 0.300 and 0.500 are
chosen by hand too, for roles with too few different radii. Free positions are those of a known
superconductor, or the median of the fitted cells.
"""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Role:
    """A set of sites of a structure type, all filled by one element or one mixture."""

    name: str
    """Letter of the role in the literature's formula."""
    choices: str
    """Elements that may fill it, `Nb` or with a formal charge `Cu2+`."""
    points: tuple[Point, ...]
    """Fractional coordinates in the conventional cell, without copies by the centring."""


@dataclass(frozen=True)
class Prototype:
    """A structure type, the elements on its sites, and the rules for its size."""

    group: int
    """Space group number."""
    system: str
    """cubic, tetragonal or hexagonal."""
    centring: str
    """P, I, F, or R (hexagonal axes, obverse)."""
    roles: tuple[Role, ...]
    a: tuple[float, ...]
    """Å; a constant, then the factor of the radius in each role."""
    c: tuple[float, ...] = ()
    """As `a`; empty for cubic types."""
    ratio: tuple[float, float] = (0.0, 99.0)
    """Accepted range of the radius of the first role over that of the second."""
    tolerance: tuple[float, float] | None = None
    """Accepted range of Goldschmidt's tolerance factor of the first three roles A, B, X
    (six-coordinate radii)."""
    balanced: bool = False
    """True where formal charges must add up to zero before doping."""


IONIC = """
H1- 1.40 Li1+ 0.76 N3- 1.46 O2- 1.40 F1- 1.33 Na1+ 1.02 Mg2+ 0.72 Al3+ 0.535 P3- 2.12 S2- 1.84 Cl1- 1.81 K1+ 1.38
Ca2+ 1.00 Sc3+ 0.745 Ti3+ 0.67 Ti4+ 0.605 V3+ 0.64 V4+ 0.58 V5+ 0.54 Cr2+ 0.80 Cr3+ 0.615 Cr4+ 0.55 Mn2+ 0.83
Mn3+ 0.645 Mn4+ 0.53 Fe2+ 0.78 Fe3+ 0.645 Fe4+ 0.585 Co2+ 0.745 Co3+ 0.61 Co4+ 0.53 Ni1+ 0.77 Ni2+ 0.69 Ni3+ 0.60
Cu1+ 0.77 Cu2+ 0.73 Cu3+ 0.54 Zn2+ 0.74 Ga3+ 0.62 Ge2+ 0.73 Ge4+ 0.53 As3- 2.22 Se2- 1.98 Br1- 1.96 Rb1+ 1.52
Sr2+ 1.18 Y3+ 0.90 Zr4+ 0.72 Nb4+ 0.68 Nb5+ 0.64 Mo4+ 0.65 Mo5+ 0.61 Mo6+ 0.59 Ru4+ 0.62 Rh3+ 0.665 Rh4+ 0.60
Pd2+ 0.86 Ag1+ 1.15 Ag2+ 0.94 Cd2+ 0.95 In3+ 0.80 Sn4+ 0.69 Sb3- 2.45 Sb5+ 0.60 Te2- 2.21 I1- 2.20 Cs1+ 1.67
Ba2+ 1.35 La3+ 1.032 Ce3+ 1.01 Ce4+ 0.87 Pr3+ 0.99 Nd3+ 0.983 Sm3+ 0.958 Eu2+ 1.17 Eu3+ 0.947 Gd3+ 0.938 Tb3+ 0.923
Dy3+ 0.912 Ho3+ 0.901 Er3+ 0.89 Tm3+ 0.88 Yb3+ 0.868 Lu3+ 0.861 Hf4+ 0.71 Ta5+ 0.64 W5+ 0.62 W6+ 0.60 Re5+ 0.58
Re6+ 0.55 Ir4+ 0.625 Pt2+ 0.80 Pt4+ 0.625 Au1+ 1.37 Hg2+ 1.02 Tl1+ 1.50 Tl3+ 0.885 Pb2+ 1.19 Pb4+ 0.775 Bi3+ 1.03
Bi3- 2.50 Bi4+ 0.895 Bi5+ 0.76 Th4+ 0.94 U4+ 0.89
"""
"""Å, by element and formal charge."""

ATOMIC = """
H 0.31 Li 1.52 Be 1.12 B 0.84 C 0.76 N 0.71 O 0.66 F 0.57 Na 1.86 Mg 1.60 Al 1.43 Si 1.11 P 1.07 S 1.05 Cl 1.02 K 2.27
Ca 1.97 Sc 1.62 Ti 1.47 V 1.34 Cr 1.28 Mn 1.27 Fe 1.26 Co 1.25 Ni 1.24 Cu 1.28 Zn 1.34 Ga 1.41 Ge 1.20 As 1.19 Se 1.20
Br 1.20 Rb 2.48 Sr 2.15 Y 1.80 Zr 1.60 Nb 1.46 Mo 1.39 Tc 1.36 Ru 1.34 Rh 1.34 Pd 1.37 Ag 1.44 Cd 1.51 In 1.67 Sn 1.58
Sb 1.39 Te 1.38 I 1.39 Cs 2.65 Ba 2.22 La 1.87 Ce 1.82 Pr 1.82 Nd 1.81 Sm 1.80 Eu 2.04 Gd 1.80 Tb 1.77 Dy 1.78 Ho 1.76
Er 1.76 Tm 1.76 Yb 1.80 Lu 1.74 Hf 1.59 Ta 1.46 W 1.39 Re 1.37 Os 1.35 Ir 1.355 Pt 1.385 Au 1.44 Hg 1.51 Tl 1.70
Pb 1.75 Bi 1.70 Th 1.79 U 1.56
"""
"""Å, by element."""

_LANTHANIDES = "La Ce Pr Nd Sm Eu Gd Tb Dy Ho Er Tm Yb Lu"
_RARE = f"Sc Y {_LANTHANIDES}"
_RARE3 = "Y3+ La3+ Ce3+ Pr3+ Nd3+ Sm3+ Eu3+ Gd3+ Tb3+ Dy3+ Ho3+ Er3+ Tm3+ Yb3+ Lu3+"
_LARGE3 = "La3+ Ce3+ Pr3+ Nd3+ Sm3+ Eu3+ Gd3+ Tb3+ Dy3+ Ho3+ Er3+ Tm3+ Yb3+ Lu3+ Bi3+"
_EARLY = "Ti Zr Hf V Nb Ta"
_LATE = "Cr Mn Fe Co Ni Cu Zn Ru Rh Pd Ag Os Ir Pt"
_OCTAHEDRAL = (
    "Mg2+ Mn2+ Fe2+ Co2+ Ni2+ Cu2+ Zn2+ Pd2+ Ag2+ Cd2+ "
    "Al3+ Ga3+ In3+ Sc3+ Ti3+ V3+ Cr3+ Mn3+ Fe3+ Co3+ Ni3+ Rh3+ "
    "Ti4+ V4+ Cr4+ Mn4+ Fe4+ Co4+ Zr4+ Nb4+ Mo4+ Ru4+ Rh4+ Hf4+ Ir4+ Pt4+ Ge4+ Sn4+ Pb4+"
)
_K2NIF4_ANIONS = "O2- F1- Cl1- S2-"

_ORIGIN: tuple[Point, ...] = ((0, 0, 0),)
_CENTRE: tuple[Point, ...] = ((0.5, 0.5, 0.5),)
_TOP: tuple[Point, ...] = ((0, 0, 0.5),)
_EDGES: tuple[Point, ...] = ((0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5))
_QUARTERS: tuple[Point, ...] = ((0.25, 0.25, 0.25), (0.75, 0.75, 0.75))
_LAYER: tuple[Point, ...] = ((0, 0.5, 0.25), (0.5, 0, 0.25))
_THIRD, _TWO_THIRDS = 1 / 3, 2 / 3


def _axis(z: float) -> tuple[Point, ...]:
    """Two points on the fourfold axis of I4/mmm or P4/mmm."""
    return (0, 0, z), (0, 0, -z)


def _pair(z: float) -> tuple[Point, ...]:
    """Position 2c of P4/nmm, origin at the inversion centre."""
    return (0.25, 0.25, z), (0.75, 0.75, -z)


def _net(z: float) -> tuple[Point, ...]:
    """Positions 2a (z = 0) and 2b (z = 1/2) of P4/nmm: a square net."""
    return (0.75, 0.25, z), (0.25, 0.75, z)


def _cyclic(y: float, z: float) -> tuple[Point, ...]:
    """Position 24g of Im-3 without the centring."""
    signs = ((y, z), (y, -z), (-y, z), (-y, -z))
    return tuple(p for v, w in signs for p in ((0.0, v, w), (w, 0.0, v), (v, w, 0.0)))


def _threefold(x: float, y: float, z: float) -> tuple[Point, ...]:
    """Position 18f of R-3 (hexagonal axes) without the centring."""
    half: tuple[Point, ...] = ((x, y, z), (-y, x - y, z), (y - x, -x, z))
    return half + tuple((-u, -v, -w) for u, v, w in half)


PROTOTYPES: dict[str, Prototype] = {
    "A15": Prototype(  # Nb3Sn
        223, "cubic", "P",
        (
            Role("A", "Ti V Cr Zr Nb Mo Hf Ta W",
                 ((0.25, 0, 0.5), (0.75, 0, 0.5), (0.5, 0.25, 0), (0.5, 0.75, 0), (0, 0.5, 0.25), (0, 0.5, 0.75))),
            Role("B", "Be Al Si Ga Ge As In Sn Sb Tl Pb Bi Tc Ru Rh Pd Re Os Ir Pt Au Hg", _ORIGIN + _CENTRE),
        ),
        a=(0.516, 2.634, 0.570), ratio=(0.8, 1.4),
    ),
    "AlB2": Prototype(  # MgB2
        191, "hexagonal", "P",
        (
            Role("A", f"Li Mg Al Ca Sr Ba {_RARE} {_EARLY} Cr Mo W Mn Ag Au Th U", _ORIGIN),
            Role("B", "B Be Si Ge Al Ga Cu Zn Ag Au Hg In Tl",
                 ((_THIRD, _TWO_THIRDS, 0.5), (_TWO_THIRDS, _THIRD, 0.5))),
        ),
        a=(0.754, 0.638, 1.656), c=(0.576, 1.533, 0.603), ratio=(1.0, 2.3),
    ),
    "ThCr2Si2": Prototype(  # BaFe2As2: layers apart
        139, "tetragonal", "I",
        (
            Role("A", "Na1+ K1+ Rb1+ Cs1+ Tl1+ Ca2+ Sr2+ Ba2+ Eu2+", _ORIGIN),
            Role("T", "Cr Mn Fe Co Ni Cu Zn", _LAYER),
            Role("X", "P As Sb S Se Te", _axis(0.3545)),
        ),
        a=(0.868, -0.047, 1.286, 1.290), c=(-2.445, 5.185, 2.343, 4.713),
    ),
    "CeRu2Si2": Prototype(  # the same type with bonds from layer to layer
        139, "tetragonal", "I",
        (
            Role("A", f"Ca Sr Ba Y {_LANTHANIDES} Zr Hf Th U", _ORIGIN),
            Role("T", f"{_LATE} Au", _LAYER),
            Role("X", "Si P Ge As Sn", _axis(0.374)),
        ),
        a=(-0.018, 0.149, 1.931, 1.130), c=(2.992, 1.114, 1.771, 2.287), ratio=(1.1, 1.75),
    ),
    "borocarbide": Prototype(  # LuNi2B2C
        139, "tetragonal", "I",
        (
            Role("A", f"Ca {_RARE} Zr Hf Th U", _ORIGIN),
            Role("T", "Cr Mn Fe Co Ni Cu Ru Rh Pd Os Ir Pt", _LAYER),
            Role("B", "B", _axis(0.357)),
            Role("C", "B C N", _TOP),
        ),
        a=(-0.221, 0.480, 1.995, 0.300, 0.300), c=(9.154, -0.244, 0.882, 0.300, 0.300), ratio=(1.15, 1.6),
    ),
    "ZrCuSiAs": Prototype(  # LaFeAsO
        129, "tetragonal", "P",
        (
            Role("R", f"{_RARE3} Bi3+ Ca2+ Sr2+ Ba2+ Eu2+ Th4+ U4+", _pair(0.1415)),
            Role("T", "Cr2+ Mn2+ Fe2+ Co2+ Ni2+ Zn2+ Cd2+ Cu1+ Ag1+", _net(0.5)),
            Role("X", "P3- As3- Sb3- Bi3- S2- Se2- Te2-", _pair(0.66)),
            Role("Z", "N3- O2- F1- H1-", _net(0)),
        ),
        a=(0.708, 0.959, 0.416, 0.554, 0.584), c=(1.133, 1.140, 3.000, 1.490, 0.560), balanced=True,
    ),
    "PbFCl": Prototype(  # LiFeAs
        129, "tetragonal", "P",
        (
            Role("A", "Li1+ Na1+ K1+ Mg2+ Ca2+ Sr2+ Ba2+", _pair(0.1541)),
            Role("T", "Mg2+ Cr2+ Mn2+ Fe2+ Co2+ Ni2+ Zn2+ Cd2+ Cu1+ Ag1+", _net(0.5)),
            Role("X", "P3- As3- Sb3- Bi3- S2- Se2- Te2-", _pair(0.7365)),
        ),
        a=(0.027, 1.026, 0.399, 1.244), c=(1.130, 2.459, 0.143, 1.493), balanced=True,
    ),
    "anti-PbO": Prototype(  # FeSe
        129, "tetragonal", "P",
        (
            Role("T", "Mg2+ Cr2+ Mn2+ Fe2+ Co2+ Ni2+ Cu2+ Zn2+ Pd2+", _net(0)),
            Role("X", "O2- S2- Se2- Te2-", _pair(0.2668)),
        ),
        a=(2.349, 0.800, 0.386), c=(-1.460, 0.300, 3.400), balanced=True,
    ),
    "K2NiF4": Prototype(  # La2CuO4
        139, "tetragonal", "I",
        (
            Role("A", f"Na1+ K1+ Rb1+ Cs1+ Ca2+ Sr2+ Ba2+ Eu2+ Pb2+ {_LARGE3}", _axis(0.3606)),
            Role("B", _OCTAHEDRAL, _ORIGIN),
            Role("X", _K2NIF4_ANIONS, ((0, 0.5, 0), (0.5, 0, 0), *_axis(0.17))),
        ),
        a=(-0.033, 0.733, 0.976, 1.773), c=(4.650, 2.527, 1.825, 2.846), tolerance=(0.78, 1.02), balanced=True,
    ),
    "T-prime": Prototype(  # Nd2CuO4
        139, "tetragonal", "I",
        (
            Role("A", f"Ca2+ Sr2+ {_LARGE3} Th4+ Ce4+", _axis(0.3513)),
            Role("B", _OCTAHEDRAL, _ORIGIN),
            Role("X", "O2- F1-", ((0, 0.5, 0), (0.5, 0, 0), *_LAYER)),
        ),
        a=(2.099, 0.694, 0.623, 0.500), c=(10.366, 0.690, 0.562, 0.500), tolerance=(0.66, 0.83), balanced=True,
    ),
    "infinite-layer": Prototype(  # CaCuO2
        123, "tetragonal", "P",
        (
            Role("A", f"Na1+ K1+ Mg2+ Ca2+ Sr2+ Ba2+ Eu2+ Pb2+ Cd2+ {_LARGE3}", _CENTRE),
            Role("B", "Cr2+ Mn2+ Fe2+ Co2+ Ni1+ Ni2+ Ni3+ Cu1+ Cu2+ Cu3+ Zn2+ Pd2+ Pt2+ Ag2+", _ORIGIN),
            Role("X", "O2- S2- F1-", ((0.5, 0, 0), (0, 0.5, 0))),
        ),
        a=(0.726, 0.395, 0.922, 1.498), c=(0.168, 1.387, -0.036, 1.246), balanced=True,
    ),
    "Hg1201": Prototype(  # HgBa2CuO4
        123, "tetragonal", "P",
        (
            Role("M", "Hg2+ Zn2+ Cd2+ Pb2+ Tl1+ Tl3+ Bi3+ In3+ Au1+ Cu1+ Ag1+", _ORIGIN),
            Role("A", "K1+ Ca2+ Sr2+ Ba2+ Eu2+ Pb2+ La3+ Nd3+", ((0.5, 0.5, 0.298), (0.5, 0.5, -0.298))),
            Role("B", "Ni1+ Cu1+ Mg2+ Mn2+ Fe2+ Co2+ Ni2+ Cu2+ Zn2+ Pd2+ Al3+ Fe3+ Co3+ Ni3+ Cu3+ Ga3+", _TOP),
            Role("X", "O2- F1-", ((0.5, 0, 0.5), (0, 0.5, 0.5), *_axis(0.207))),
        ),
        a=(1.620, 0.500, 0.500, 0.500, 0.500), c=(7.270, 0.500, 0.500, 0.500, 0.500), balanced=True,
    ),
    "perovskite": Prototype(  # SrTiO3
        221, "cubic", "P",
        (
            Role("A", f"Na1+ K1+ Rb1+ Cs1+ Ag1+ Tl1+ Ca2+ Sr2+ Ba2+ Eu2+ Pb2+ {_LARGE3}", _CENTRE),
            Role("B", f"{_OCTAHEDRAL} Ca2+ Sr2+ Pb2+ Ge2+ Bi4+ V5+ Nb5+ Ta5+ Mo5+ W5+ Re5+ Sb5+ Bi5+ Mo6+ W6+ Re6+",
                 _ORIGIN),
            Role("X", "O2- F1- Cl1- Br1- I1- H1- S2- N3-", _EDGES),
        ),
        a=(0.328, 0.400, 1.398, 1.641), tolerance=(0.78, 1.06), balanced=True,
    ),
    "antiperovskite": Prototype(  # MgCNi3
        221, "cubic", "P",
        (
            Role("A", "Mg Al Si P Ca Zn Ga Ge As Se Cd In Sn Sb Te Tl Pb Bi Cu Ag Au Pd Pt Rh Ir Hg Y La Ce Nd Sm Gd",
                 _CENTRE),
            Role("X", "B C N O", _ORIGIN),
            Role("M", f"Mg Ca Sr Ba Ti Cr Mn Fe Co Ni Pd Pt Rh {_RARE}", _EDGES),
        ),
        a=(0.729, 0.443, 0.448, 1.729),
    ),
    "rock-salt": Prototype(  # NbC
        225, "cubic", "F",
        (
            Role("M", f"Li Na K Rb Mg Ca Sr Ba {_RARE} {_EARLY} Cr Mo W Re Mn Fe Co Ni Cu Pd Cd In Sn Pb Bi Th U",
                 _ORIGIN),
            Role("X", "H B C N O F P S Cl As Se Br Sb Te I", _CENTRE),
        ),
        a=(0.891, 1.549, 1.870),
    ),
    "CsCl": Prototype(  # YPd-like intermetallics
        221, "cubic", "P",
        (
            Role("A", f"Li Mg Ca Sr Ba {_RARE} {_EARLY} Al Th", _ORIGIN),
            Role("B", "Be Mn Fe Co Ni Cu Zn Ru Rh Pd Ag Cd Re Os Ir Pt Au Hg Ga In Tl", _CENTRE),
        ),
        a=(0.012, 1.212, 0.976), ratio=(0.95, 1.75),
    ),
    "Cu3Au": Prototype(  # YSn3
        221, "cubic", "P",
        (
            Role("A", f"Na K Mg Ca Sr Ba {_RARE} {_EARLY} Th U", _ORIGIN),
            Role("B", "Al Ga In Tl Si Ge Sn Pb Bi Ni Ru Rh Pd Ir Pt Au Ag Cu Co Hg Cd Zn",
                 ((0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5))),
        ),
        a=(0.313, 0.572, 2.023), ratio=(0.9, 1.65),
    ),
    "Heusler": Prototype(  # Pd2YSn
        225, "cubic", "F",
        (
            Role("X", "Li Mg Mn Fe Co Ni Cu Zn Ru Rh Pd Ag Cd Os Ir Pt Au", _QUARTERS),
            Role("Y", f"{_RARE} {_EARLY} Ca Cr Mn Th U", _CENTRE),
            Role("Z", "Al Ga In Tl Si Ge Sn Pb P As Sb Bi Be B", _ORIGIN),
        ),
        a=(0.696, 2.247, 0.919, 0.806), ratio=(0.5, 1.15),
    ),
    "half-Heusler": Prototype(  # YPtBi
        216, "cubic", "F",
        (
            Role("X", "Mn Fe Co Ni Cu Zn Ru Rh Pd Ag Cd Ir Pt Au", _QUARTERS[:1]),
            Role("Y", f"{_RARE} {_EARLY} Li Mg Ca Th U", _CENTRE),
            Role("Z", "Al Ga In Si Ge Sn Pb P As Sb Bi S Se Te", _ORIGIN),
        ),
        a=(1.431, 1.581, 1.160, 0.599), ratio=(0.5, 1.15),
    ),
    "fluorite": Prototype(  # fcc dihydrides, CoSi2, AuAl2
        225, "cubic", "F",
        (
            Role("M", f"{_RARE} Ca Sr Ba {_EARLY} Cr Mo Mn Fe Co Ni Ru Rh Pd Ir Pt Au Th U Cd Pb Sn", _ORIGIN),
            Role("X", "H Li Be B N O F Na Mg Al Si P Ga Ge As In Sn Pb", _QUARTERS),
        ),
        a=(1.694, 1.667, 1.443), ratio=(0.7, 99.0),
    ),
    "K2PtCl6": Prototype(  # Mg2FeH6, Mg2IrH6
        225, "cubic", "F",
        (
            Role("A", "Li Na K Rb Mg Ca Sr Ba Eu Yb Sm Y La Al Cd Zn", _QUARTERS),
            Role("T", "Mn Fe Co Ni Cu Tc Ru Rh Pd Re Os Ir Pt Au Mo W", _ORIGIN),
            Role("X", "H", tuple(p for x in (0.23, -0.23) for p in ((x, 0, 0), (0, x, 0), (0, 0, x)))),
        ),
        a=(2.640, 1.697, 0.865, 0.500),
    ),
    "C15": Prototype(  # CeRu2, HfV2
        227, "cubic", "F",
        (
            Role("A", f"Na K Rb Cs Mg Ca Sr Ba {_RARE} Ti Zr Hf Nb Ta Th U Pb Bi Au",
                 ((0.125, 0.125, 0.125), (0.875, 0.875, 0.875))),
            Role("B", "Mg Al V Cr Mn Fe Co Ni Cu Zn Mo W Ru Rh Pd Re Os Ir Pt Au Ag Bi Be",
                 ((0.5, 0.5, 0.5), (0.5, 0.25, 0.25), (0.25, 0.5, 0.25), (0.25, 0.25, 0.5))),
        ),
        a=(0.652, 0.965, 3.834), ratio=(1.04, 1.75),
    ),
    "filled-skutterudite": Prototype(  # LaFe4P12
        204, "cubic", "I",
        (
            Role("M", "Na K Rb Tl Ca Sr Ba Y La Ce Pr Nd Sm Eu Gd Tb Dy Yb Lu Th U", _ORIGIN),
            Role("T", "Mn Fe Co Ni Ru Rh Pd Os Ir Pt",
                 ((0.25, 0.25, 0.25), (0.25, 0.75, 0.75), (0.75, 0.25, 0.75), (0.75, 0.75, 0.25))),
            Role("X", "Si P Ge As Sn Sb", _cyclic(0.350, 0.152)),
        ),
        a=(0.540, 0.270, 2.159, 3.856),
    ),
    "2H-NbSe2": Prototype(
        194, "hexagonal", "P",
        (
            Role("M", "Ti Zr Hf V Nb Ta Cr Mo W Tc Re Sn", ((0, 0, 0.25), (0, 0, 0.75))),
            Role("X", "S Se Te",
                 ((_THIRD, _TWO_THIRDS, 0.1172), (_TWO_THIRDS, _THIRD, -0.1172),
                  (_THIRD, _TWO_THIRDS, 0.3828), (_TWO_THIRDS, _THIRD, -0.3828))),
        ),
        a=(0.813, 1.063, 0.905), c=(7.165, 0.000, 4.700),
    ),
    "CdI2": Prototype(  # 1T-TiSe2
        164, "hexagonal", "P",
        (
            Role("M", "Ti Zr Hf V Nb Ta Cr Mo W Re Mn Sn Th", _ORIGIN),
            Role("X", "S Se Te", ((_THIRD, _TWO_THIRDS, 0.25), (_TWO_THIRDS, _THIRD, -0.25))),
        ),
        a=(0.727, 1.195, 0.946), c=(3.230, 0.000, 2.400),
    ),
    "Chevrel": Prototype(  # PbMo6S8
        148, "hexagonal", "R",
        (
            Role("M", "Na K Rb Mg Ca Sr Ba Y La Ce Pr Nd Sm Eu Gd Tb Dy Ho Er Yb Pb Sn In Tl Ag Cd Zn Cu", _ORIGIN),
            Role("T", "Mo W Nb Ta Tc Re Ru", _threefold(0.0132, -0.1612, 0.4019)),
            Role("X", "S Se Te", (*_threefold(0.0324, -0.2912, 0.5829), *_axis(0.2447))),
        ),
        a=(7.498, -0.248, 0.300, 1.730), c=(7.744, 0.801, 0.300, 1.828),
    ),
}  # fmt: skip
"""Structure types by name."""
