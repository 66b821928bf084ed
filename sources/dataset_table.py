"""The named training sets: file, target, unit, level of theory, licence, citation.

Enters: nothing. Leaves: `DATASETS`, `FORMULAS`. This module reads no file;
`assay.sources.datasets` does.

Two sets with the same target may be different tasks: energies and gaps of two levels of theory
are never mixed. Some materials are in a set of the transfer study and in a larger set as well;
`assay.sources.datasets.same_formula` finds them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class DatasetSpec:
    """The description of a training set: its file, its columns and their meaning."""

    path: str
    """Parquet file, relative to the data folder; the user's own file as it was named."""
    target: str
    """Column with the known values; empty for learning without labels, where each value is 0."""
    unit: str
    """Unit of the target; `1` for a pure number, `unknown` where a file does not say."""
    functional: str
    """Level of theory, or `measured`."""
    weight: str
    """Column with row weights; empty for equal weights."""
    licence: str
    """SPDX identifier, or a description where there is none."""
    origin: str
    """Citation, and the source of the file."""
    rows: str = ""
    """Column of flags; the set has the rows where it is true. Empty: all rows."""
    noise: str = ""
    """Column with the standard deviation of the target; empty where there is none."""
    formula: str = ""
    """Column with the formula as the source wrote it; empty to take the formula of the crystal."""
    family: str = ""
    """Column with the class of the material; empty where there is none."""
    limits: tuple[float, float] | None = None
    """Lowest and highest plausible value; rows outside are refused."""


FAMILIES: dict[str, str] = {
    "Cuprate": "cuprates",
    "Ferrite": "iron-based",
    "Heavy_fermion": "heavy fermion",
    "Oxide": "oxides",
    "Chevrel": "chevrel",
    "Carbon": "carbon",
    "Other": "others",
}
"""Family by 3DSC's `sc_class`, a rough rule on the elements; a row of two classes is `mixed`.

Of the 493 formulas of `Ferrite` 446 hold iron and 47 nickel without iron (BaNi2As2 and the like).
All count as iron-based, so a split that holds the family out holds the nickel ones out as well.
`chevrel` contains compounds of other structures too (Nb3Se4).
"""

_3DSC = DatasetSpec(
    path="3dsc_mp/3dsc_mp.parquet",
    target="tc",
    unit="K",
    functional="measured",
    weight="weight",
    licence="CC-BY-4.0",
    origin="3DSC_MP, rebuilt (Sommer et al., Sci. Data 10, 816, 2023; Tc from SuperCon, Stanev et al. 2018), "
    "Assay data pack `3dsc_mp`",
    noise="tc_std",
    formula="formula",
    family="sc_class",
)
_MATERIALS_PROJECT = DatasetSpec(
    path="mp/mp_labelled_le40.parquet",
    target="e_form",
    unit="eV/atom",
    functional="PBE(+U), Materials Project corrections of 2018/19",
    weight="",
    licence="CC-BY-4.0",
    origin="Materials Project v2025.02.12 structures (Jain et al., APL Mater. 1, 011002, 2013) with MP-2018.6.1 and "
    "matbench-2019.04 labels (Chen et al. 2019; Dunn et al. 2020), Assay data pack `mp`",
)


def _transfer(file: str, target: str, unit: str, functional: str, source: str) -> DatasetSpec:
    """A set of the transfer-learning study of Devi, Butler and Sai Gautam."""
    return DatasetSpec(
        path=f"transfer/{file}.parquet",
        target=target,
        unit=unit,
        functional=functional,
        weight="",
        licence="CC-BY-4.0",
        origin=f"{source}; structures from the transfer tasks of Devi, Butler and Sai Gautam 2024 "
        "(sai-mat-group/transfer-learning-material-properties, MIT), Assay data pack `transfer`",
    )


_DIELECTRIC = _transfer(
    "dielectric_constant", "poly_total", "1", "DFPT, PBE(+U)", "Petousis et al. 2017, Materials Project, by matminer"
)
_ELASTIC = _transfer(
    "matbench_log_gvrh",
    "log10_g_vrh",
    "log10(GPa)",
    "PBE",
    "de Jong et al. 2015, Materials Project; Matbench v0.1 (Dunn et al. 2020)",
)
_2D_GAP = _transfer("jarvis_2d_gap", "gap_optb88", "eV", "OptB88vdW", "JARVIS-DFT 2D (NIST)")

DATASETS: dict[str, DatasetSpec] = {
    "3dsc-tc": _3DSC,
    "3dsc-tc-one-per-formula": replace(_3DSC, weight="", rows="one_per_sc"),
    "mp-formation-energy": _MATERIALS_PROJECT,
    "mp-band-gap": replace(_MATERIALS_PROJECT, target="gap_pbe", unit="eV", functional="PBE(+U)"),
    "mp-unlabelled": replace(
        _MATERIALS_PROJECT,
        path="mp/mp_unlabelled_le40.parquet",
        target="",
        unit="1",
        functional="none: structures alone",
    ),
    "jarvis-tc": DatasetSpec(
        path="jarvis_tc/jarvis_supercon_3d.parquet",
        target="tc_dft",
        unit="K",
        functional="DFT, electron-phonon coupling, McMillan-Allen-Dynes: computed, no extra rows for measured Tc",
        weight="",
        licence="NIST public domain",
        origin="JARVIS-SuperconDB (Choudhary and Garrity 2022, NIST); Tc by way of jamesconde/superconductor-vae, "
        "which says MIT in its README only; Assay data pack `jarvis_tc`",
    ),
    "oqmd-formation-energy": DatasetSpec(
        path="oqmd/oqmd_perovskites.parquet",
        target="e_form",
        unit="eV/atom",
        functional="PBE(+U), OQMD references: never to be merged with energies of the Materials Project",
        weight="",
        licence="CC-BY-4.0",
        origin="OQMD (Saal et al. 2013; Kirklin et al. 2015), ABX3 of Liu-Group-UF/Perovskite-ML, "
        "Assay data pack `oqmd`",
        limits=(-5.0, 5.0),
    ),
    "dielectric": _DIELECTRIC,
    "refractive-index": replace(_DIELECTRIC, target="n"),
    "piezoelectric": _transfer(
        "piezoelectric_tensor",
        "eij_max",
        "C/m^2",
        "DFPT, PBE(+U)",
        "de Jong et al. 2015, Materials Project, by matminer",
    ),
    "phonons": _transfer(
        "matbench_phonons", "last_phdos_peak", "1/cm", "DFPT, PBEsol", "Petretto et al. 2018; Matbench v0.1"
    ),
    "shear-modulus": _ELASTIC,
    "bulk-modulus": replace(_ELASTIC, target="log10_k_vrh"),
    "transfer-gap": _transfer(
        "matbench_mp_gap", "gap_pbe", "eV", "PBE(+U)", "Materials Project; Matbench v0.1 (Dunn et al. 2020)"
    ),
    "transfer-formation-energy": _transfer(
        "matbench_mp_e_form",
        "e_form",
        "eV/atom",
        "PBE(+U), Materials Project corrections of 2018/19",
        "Materials Project; Matbench v0.1 (Dunn et al. 2020)",
    ),
    "experimental-gap": _transfer(
        "expt_gap_with_structures",
        "gap_expt",
        "eV",
        "measured; structures matched by formula",
        "Zhuo et al. 2018; Matbench v0.1 (Dunn et al. 2020)",
    ),
    "2d-gap": replace(_2D_GAP, licence="NIST public domain"),
}
"""Training sets by name."""

FORMULAS: dict[str, DatasetSpec] = {
    "supercon-formulas": DatasetSpec(
        path="3dsc_mp/supercon_clean.parquet",
        target="tc",
        unit="K",
        functional="measured",
        weight="",
        licence="CC-BY-4.0",
        origin="SuperCon (NIMS; Stanev et al., npj Comput. Mater. 4, 29, 2018), cleaned as for 3DSC, Assay data pack "
        "`3dsc_mp`",
        noise="tc_std",
        formula="formula",
        family="sc_class",
    ),
}
"""Tables of formulas without structures, by name."""
