"""Formulas as people print them: read as meant, or refused with the position. Never read wrongly."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from assay.sources.elements import NUMBERS, SYMBOLS, reduced_formulas
from assay.sources.formulas.read import FormulaError, Formulas, read, read_many


def atoms(text: str) -> dict[str, float]:
    amounts = read(text).amounts
    return {SYMBOLS[number]: round(float(amounts[number]), 9) for number in np.flatnonzero(amounts)}


def of(**amounts: float) -> dict[str, float]:
    return {symbol: float(amount) for symbol, amount in sorted(amounts.items(), key=lambda item: NUMBERS[item[0]])}


YBCO = of(Y=1, Ba=2, Cu=3, O=6.9)
GYPSUM = of(Ca=1, S=1, O=6, H=4)
READ = [
    # hydrates and other parts
    *((text, GYPSUM) for text in ("CaSO4.2H2O", "CaSO4\u00b72H2O", "CaSO4 * 2 H2O", "CaSO4 . 2H2O", "CaSO4.2(H2O)")),
    *((text, GYPSUM) for text in ("CaSO4\u22c52H2O", "CaSO4\u20222 H2O", "CaSO4\u00d72H2O", "CaSO4. 2 H2O")),
    ("CaSO4.0.5H2O", of(Ca=1, S=1, O=4.5, H=1)),
    ("CaSO4.1/2H2O", of(Ca=1, S=1, O=4.5, H=1)),
    ("CaSO4\u00b7\u00bdH2O", of(Ca=1, S=1, O=4.5, H=1)),
    ("Na2CO3.10H2O", of(Na=2, C=1, O=13, H=20)),
    ("Na2S2O3.5H2O", of(Na=2, S=2, O=8, H=10)),
    ("Ba(OH)2.8H2O", of(Ba=1, O=10, H=18)),
    ("[Cu(NH3)4]SO4.H2O", of(Cu=1, N=4, H=14, S=1, O=5)),
    ("NaCl.2H2O", of(Na=1, Cl=1, O=2, H=4)),
    ("KAl(SO4)2.12H2O", of(K=1, Al=1, S=2, O=20, H=24)),
    ("K3[Fe(CN)6].3H2O", of(K=3, Fe=1, C=6, N=6, O=3, H=6)),
    ("AlCl3.6NH3", of(Al=1, Cl=3, N=6, H=18)),
    ("MgO.Al2O3", of(Mg=1, Al=2, O=4)),
    ("3CaO.Al2O3.6H2O", of(Ca=3, Al=2, O=12, H=12)),
    ("0.5Li2O\u00b70.5MnO2", of(Li=1, Mn=0.5, O=1.5)),
    ("2H2O", of(H=4, O=2)),
    ("2 H2O", of(H=4, O=2)),
    # amounts
    ("YBa2Cu3O6.9", YBCO),
    ("O6.5", of(O=6.5)),
    ("Pb(Mg1/3Nb2/3)O3", of(Pb=1, Mg=round(1 / 3, 9), Nb=round(2 / 3, 9), O=3)),
    ("La1.85Sr.15CuO4", of(La=1.85, Sr=0.15, Cu=1, O=4)),
    ("Ba.6K.4BiO3", of(Ba=0.6, K=0.4, Bi=1, O=3)),
    ("LaO.9F.1FeAs", of(La=1, O=0.9, F=0.1, Fe=1, As=1)),
    ("H00.33Nb0.67", of(H=0.33, Nb=0.67)),
    ("Ga1Sr2Ca3Cu4O11.", of(Ga=1, Sr=2, Ca=3, Cu=4, O=11)),
    ("La2Sr0Cu1Zn0O4", of(La=2, Cu=1, O=4)),
    ("YBa2Cu3O6.93(2)", of(Y=1, Ba=2, Cu=3, O=6.93)),
    ("Fe1.23456789012345678901234567890", of(Fe=1.23456789)),
    # brackets
    ("(Fe0.9,Co0.1)", of(Fe=0.9, Co=0.1)),
    ("La(O0.9,F0.1)FeAs", of(La=1, O=0.9, F=0.1, Fe=1, As=1)),
    ("Ba(Fe0.92, Co0.08)2As2", of(Ba=1, Fe=1.84, Co=0.16, As=2)),
    ("{La0.5Sr0.5}2[CuO4]", of(La=1, Sr=1, Cu=1, O=4)),
    ("[(Fe2)3(Co)]2", of(Fe=12, Co=2)),
    # typeset
    *((text, YBCO) for text in ("YBa\u2082Cu\u2083O\u2086.\u2089", "YBa\u2082Cu\u2083O\u2086\u2024\u2089")),
    *((text, YBCO) for text in ("YBa$_2$Cu$_3$O$_{6.9}$", r"\mathrm{YBa_2Cu_3O_{6.9}}", r"$\rm YBa_2Cu_3O_{6.9}$")),
    *((text, YBCO) for text in ("YBa<sub>2</sub>Cu<sub>3</sub>O<sub>6.9</sub>", "YBa2 Cu3 O<SUB>6.9</SUB>")),
    *((text, YBCO) for text in ("YBa~2~Cu~3~O~6.9~", "Y Ba2\u00a0Cu3\u2009O6.9\n", "YBa_2Cu_3O_6.9", " YBa2Cu3O6.9 ")),
    *((text, GYPSUM) for text in ("CaSO\u2084.2H\u2082O", r"CaSO$_4$.2H$_2$O", r"CaSO$_4\cdot$2H$_2$O")),
    *((text, GYPSUM) for text in (r"\ce{CaSO4.2H2O}", "CaSO4&middot;2H2O", "CaSO<sub>4</sub>.2H<sub>2</sub>O")),
    (r"MgB$_\mathrm{2}$", of(Mg=1, B=2)),
    ("C10H20", of(C=10, H=20)),
    # isotopes, vacancies, capitals that are meant
    ("D2O", of(H=2, O=1)),
    ("La0.9\u25a10.1MnO3", of(La=0.9, Mn=1, O=3)),
    *((text, of(C=1, O=2)) for text in ("CO2", "C O2")),
    ("K2CO3", of(K=2, C=1, O=3)),
    ("YB6", of(Y=1, B=6)),
    ("(NH4)2SO4", of(N=2, H=8, S=1, O=4)),
    ("CH3NH3PbI2.5Cl0.5", of(C=1, H=6, N=1, Pb=1, I=2.5, Cl=0.5)),
    ("K3C60", of(K=3, C=60)),
]
REFUSED = [
    # amounts that are not said
    *((text, text.index("7") + 2, "unknown") for text in ("O7-d", "O7-\u03b4", "YBa2Cu3O7-x")),
    ("YBa2Cu3Oy", 9, "'y' of O is unknown"),
    ("NaxCoO2", 3, "'x' is unknown"),
    ("(Fe1-xCox)As", 5, "'x' is unknown"),
    ("YBa2Cu3O6+x", 10, "'x' is unknown"),
    ("YBa\u2082Cu\u2083O\u2087\u208b\u2093", 9, "unknown"),
    (r"YBa$_2$Cu$_3$O$_{7-\delta}$", 16, "unknown"),
    ("O<sub>7-&delta;</sub>", 2, "unknown"),
    ("CuSO4\u00b7nH2O", 7, "'n' is unknown"),
    ("YBa2Cu3O7-0.1", 10, "a sum, a range"),
    ("(Fe,Co)", 1, "shares are missing"),
    ("Ba(Fe,Co0.1)2As2", 3, "shares are missing"),
    ("(Fe/Co)As", 4, "'/'"),
    # two ways to read
    ("2ZnO.3B2O3.3.5H2O", 5, "decimal point"),
    ("Al2O3.2SiO2.2H2O", 5, "decimal point"),
    ("LiCl.2NaBr", 5, "decimal point"),
    ("Na0.35CoO2.1.3H2O", 10, "decimal point"),
    ("(CaSO4.2H2O)3", 6, "decimal point"),
    ("TiO1.5H2O", 4, "decimal point"),
    ("NaCl 2H2O", 6, "belongs to no element"),
    ("CuSO\u20845H\u2082O", 6, "belongs to no element"),
    ("2H NbSe2", 1, "polytype"),
    ("Fe(III)2O3", 3, "oxidation state"),
    ("Cu(OAc)2", 4, "acetate"),
    ("YBa2Cu3O6,9", 10, "decimal comma"),
    ("Fe0.5,Co0.5", 6, "a list"),
    # wrong case and abbreviations
    *((text, 1, "did you mean MgB2?") for text in ("MGB2", "mgb2", "mGB2")),
    ("Mgb2", 3, "did you mean MgB2?"),
    ("NB3SN", 1, "did you mean Nb3Sn?"),
    ("CUO", 1, "did you mean CuO?"),
    ("SIC", 1, "did you mean SiC?"),
    ("YNI2B2C", 2, "did you mean YNi2B2C?"),
    ("CO3O4", 2, "did you mean Co3O4?"),
    ("(TMTSF)2PF6", 2, "abbreviation"),
    ("YBCO", 1, "abbreviation"),
    ("LnFeAsO", 1, "'Ln' is no symbol"),
    ("UPT3", 3, "'T' may be"),
    ("UPT3", 3, "did you mean UPt3?"),
    ("LIFEPO4", 1, "did you mean LiFePO4?"),
    ("magnesium diboride", 1, "no symbol"),
    # charges, isotopes, several phases
    ("Fe3+", 4, "charge"),
    ("[Cu]2+", 6, "charge"),
    ("SO4^2-", 4, "charge"),
    ("Fe\u00b3\u207a", 3, "charge"),
    ("Mg$^{10}$B$_2$", 4, "isotope"),
    ("Mg(10B)2", 4, "isotope"),
    ("CuO + BaO", 5, "several phases"),
    ("0.7PbTiO3-0.3BiFeO3", 10, "several phases"),
    ("ZnS:Mn", 4, "':'"),
    # numbers
    ("Fe0", 1, "no atom"),
    ("Fe999999999", 3, "above"),
    ("(Fe1000000)1000000", 1, "above"),
    ("Fe" + "9" * 60, 3, "digits"),
    *((text, text.index("H20") + 1, "is H2O meant?") for text in ("ZnSO4.7H20", "H20", "CaSO4\u00b72 H20")),
    ("CaC03", 4, "letter O"),
    ("Nd1.85Ce0.15Cu04", 15, "letter O"),
    ("O{6.9}", 3, "begins a bracket"),
    ("O7\u00b10.1", 3, "no part of a formula"),
    ("La2-xSrxCuO4 (x = 0.15)", 4, "unknown"),
    ("MgB2 (film)", 7, "'f'"),
    ("Fe1/0", 3, "zero"),
    ("Fe1e5", 4, "'e'"),
    ("Fe-2", 3, "'-'"),
    ("O_{6,9}", 2, "decimal comma"),
    ("Fe\u0663", 3, "no part of a formula"),
    # brackets and leftovers
    ("(La]", 4, "closes no bracket"),
    ("((Fe2)3", 1, "not closed"),
    ("Fe()2", 3, "empty bracket"),
    ("", 1, "empty"),
    (" \n", 1, "empty"),
    ("MgB2\nNbN", 5, "line break"),
    ("MgB2\tNbN", 5, "tab"),
    ("MgO.", 4, "without an element"),
    ("MgB2\x00", 5, "control"),
    (r"\input{/etc/passwd}", 1, "command"),
    ("Fe" * 2000, 2001, "4000 characters"),
]


@pytest.mark.parametrize(("text", "expected"), READ, ids=[text for text, _ in READ])
def test_a_formula_is_read_as_it_is_meant(text: str, expected: dict[str, float]) -> None:
    assert atoms(text) == pytest.approx(expected)


@pytest.mark.parametrize(("text", "position", "reason"), REFUSED, ids=[repr(text)[:40] for text, _, _ in REFUSED])
def test_a_text_that_is_no_formula_is_refused_in_one_line(text: str, position: int, reason: str) -> None:
    with pytest.raises(FormulaError, match=f"^position {position}: .*{re.escape(reason)}") as error:
        read(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("CaSO4.2H2O", "read as CaSO4\u00b72H2O"),
        ("LiD", "D is counted as H"),
        ("SNO2", "SN is read as S and N, not as Sn"),
        ("NaN", "NaN is read as Na and N, not as a missing value"),
        ("YBa2Cu3O6.9", None),
        ("CaSO4\u00b72H2O", None),
    ],
)
def test_what_the_text_does_not_say_outright_is_told(text: str, note: str | None) -> None:
    assert read(text).notes == (() if note is None else (note,))


def test_t_is_tritium_in_files_alone() -> None:
    assert read("Er T2", tritium=True).amounts[[1, 68]].tolist() == [2, 1]
    with pytest.raises(FormulaError, match="'T' may be"):
        read("ErT2")


def test_a_bad_formula_costs_no_other_one() -> None:
    found = read_many(["MgB2", "O7-d", "", "CaSO4.2H2O", "LaFeAsO"])
    assert isinstance(found, Formulas)
    assert sorted(found.refused) == [1, 2]
    assert found.amounts.shape == (5, 119)
    assert found.amounts.sum(axis=1).tolist() == [3, 0, 0, 12, 4]
    assert found.notes == {3: ("read as CaSO4\u00b72H2O",)}


SYMBOL = st.sampled_from(SYMBOLS[1:95])
AMOUNT = st.one_of(st.integers(1, 300).map(str), st.decimals("0.01", "99.9", places=3).map(str), st.just(""))


@given(st.lists(st.tuples(SYMBOL, AMOUNT), min_size=1, max_size=6, unique_by=lambda item: item[0]), st.data())
def test_every_way_to_typeset_a_formula_is_one_formula(parts: list[tuple[str, str]], draw: st.DataObject) -> None:
    wanted = np.zeros(119)
    for symbol, amount in parts:
        wanted[NUMBERS[symbol]] += float(amount or 1)
    below = str.maketrans("0123456789", "".join(chr(0x2080 + digit) for digit in range(10)))
    ways = {
        "": lambda text: text,
        "latex": lambda text: f"$_{{{text}}}$" if text else "",
        "html": lambda text: f"<sub>{text}</sub>" if text else "",
        "unicode": lambda text: text.translate(below),
        "bare": lambda text: f"_{text}" if text else "",
    }
    way = ways[draw.draw(st.sampled_from(sorted(ways)))]
    text = draw.draw(st.sampled_from(["", " "])).join(symbol + way(amount) for symbol, amount in parts)
    found = read_many([text])
    if found.refused:  # capitals and the like may be another formula
        assert "may be" in found.refused[0].reason or text.isupper(), text
        return
    np.testing.assert_allclose(found.amounts[0], wanted, rtol=1e-12)


@given(st.text(max_size=40) | st.text(alphabet="MgBOCaH()[]{},.\u00b70123456789/x-+$_\\ ", max_size=40))
def test_any_text_is_read_or_refused_at_a_place_within_it(text: str) -> None:
    found = read_many([text])
    for error in found.refused.values():
        assert 0 <= error.position <= len(text)
        assert "\n" not in str(error)
        return
    amounts = found.amounts
    assert np.isfinite(amounts).all()
    assert (amounts >= 0).all()
    assert amounts.sum() > 0


@given(st.lists(st.tuples(SYMBOL, st.integers(1, 30)), min_size=2, max_size=5, unique_by=lambda item: item[0]))
def test_what_assay_writes_it_reads(parts: list[tuple[str, int]]) -> None:
    amounts = np.zeros((1, 119))
    for symbol, amount in parts:
        amounts[0, NUMBERS[symbol]] = amount
    text = str(reduced_formulas(amounts)[0])
    if text.isupper():
        return
    assert str(reduced_formulas(read(text).amounts[None])[0]) == text


@pytest.mark.parametrize("text", ["(" * 1000 + "Fe" + ")" * 998, "F.1" * 666, "." * 2000, "x" * 2000, "$_{" * 600])
def test_a_hostile_text_costs_little(text: str) -> None:
    begun = time.process_time()
    with contextlib.suppress(FormulaError):
        read(text)
    assert time.process_time() - begun < 1.0


PACKS = {
    "3dsc_mp/supercon_clean.parquet": ("formula", "name", "norm_formula"),
    "3dsc_mp/3dsc_mp.parquet": ("formula", "norm_formula"),
    "mp/mp_labelled_le40.parquet": ("formula",),
    "mp/mp_unlabelled_le40.parquet": ("formula",),
    "jarvis_tc/jarvis_supercon_3d.parquet": ("formula",),
    "oqmd/oqmd_perovskites.parquet": ("formula",),
    "transfer/expt_gap_with_structures.parquet": ("formula",),
}


@pytest.mark.parametrize("name", PACKS)
def test_formulas_of_the_data_packs_are_what_pymatgen_reads(data: Path, name: str) -> None:
    composition = pytest.importorskip("pymatgen.core").Composition
    for column in PACKS[name]:
        texts = pq.read_table(data / name, columns=[column])[column].to_pylist()
        found = read_many(texts)
        assert found.refused == {}
        for row in range(0, len(texts), max(len(texts) // 500, 1)):
            amounts = {SYMBOLS[n]: float(found.amounts[row, n]) for n in np.flatnonzero(found.amounts[row])}
            stated = {symbol: amount for symbol, amount in composition(texts[row]).as_dict().items() if amount}
            assert amounts == pytest.approx(stated), texts[row]


def test_formulas_of_superconductors_agree_in_all_their_spellings(data: Path) -> None:
    table = pq.read_table(data / "3dsc_mp" / "supercon_clean.parquet")
    stated, printed, norm = (read_many(table[name].to_pylist()).amounts for name in ("formula", "name", "norm_formula"))
    np.testing.assert_allclose(stated, printed, atol=6e-4)  # one of them has three decimals
    shares = norm / norm.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, stated / stated.sum(axis=1, keepdims=True), atol=2e-4)
    sets = [{SYMBOLS[n] for n in np.flatnonzero(row)} for row in stated]
    assert sets == [set(text.split("-")) for text in table["chemical_composition"].to_pylist()]
