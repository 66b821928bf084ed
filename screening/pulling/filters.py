"""Which crystals of a snapshot are scored.

Enters: crystals and the `filters` section of the config. Leaves: a mask; what it rejects is counted
as filtered.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from assay.screening.pulling.source import Source
from assay.screening.settings import nearest
from assay.screening.settings.choice import Elements, Filters, Range
from assay.sources.crystals import WARNINGS, Crystals, is_text
from assay.sources.elements import NUMBERS
from assay.sources.formats.records import quoted
from assay.sources.formulas import read as formulas

SHARE_TOLERANCE = 5e-4
"""Relative difference of a share that is the same composition still: that of four digits."""

log = logging.getLogger(__name__)


def keep(crystals: Crystals, filters: Filters) -> NDArray[np.bool_]:
    """(n,) True for crystals that pass every filter."""
    mask = np.ones(len(crystals), dtype=bool)
    for _, passes in verdicts(crystals, filters):
        mask &= passes
    return mask


def verdicts(crystals: Crystals, filters: Filters) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Key of each filter of the config, and (n,) True for crystals that pass it."""
    if filters.formula:
        yield "filters.formula", _composed(crystals, [composition(text) for text in filters.formula])
    rule = filters.elements
    if rule.include or rule.exclude or rule.only:
        yield "filters.elements", _elements(crystals, rule)
    if filters.nsites:
        yield "filters.nsites", _inside(crystals.nsites.astype(np.float64), filters.nsites)
    if filters.ordered is not None:
        yield "filters.ordered", crystals.is_ordered == filters.ordered
    for name, limits in filters.reported.items():
        yield f"filters.reported.{name}", _inside(_reported(crystals, name), limits)


def by_report(crystals: Crystals, filters: Filters) -> NDArray[np.bool_]:
    """(n,) True for crystals that pass every filter on what their source reports of them."""
    mask = np.ones(len(crystals), dtype=bool)
    for name, limits in filters.reported.items():
        mask &= _inside(_reported(crystals, name), limits)
    return mask


def warn_of_absent(crystals: Crystals, filters: Filters, source: str) -> None:
    """Warn that a source lacks a column that is filtered on: the filter lets none of it through."""
    for name in filters.reported:
        if len(crystals) and name != WARNINGS and name not in crystals.columns:
            near = nearest.hint(name, sorted(crystals.columns), "it reports")
            log.warning("filters.reported: %s does not report %r, so nothing of it is scored; %s", source, name, near)


def licensed(crystals: Crystals, source: Source, licences: Sequence[str]) -> NDArray[np.bool_]:
    """(n,) True where the licence of a row is accepted, or the source needs none."""
    if not source.needs_licence or "licence" not in crystals.columns:
        return np.ones(len(crystals), dtype=bool)
    return np.isin(crystals.columns["licence"], list(licences))


def composition(text: str) -> NDArray[np.float64]:
    """(119,) share of each element among the atoms of a formula, by atomic number.

    >>> composition("MgB2")[[5, 12]].round(3).tolist()
    [0.667, 0.333]

    Raises:
        ValueError: when it is no formula.
    """
    amounts = _read(text).amounts
    return np.asarray(amounts / amounts.sum())


def check_formulas(filters: Filters) -> None:
    """Check that the formulas can be read, and warn of what they do not say outright.

    Raises:
        ValueError: when one cannot.
    """
    for text in filters.formula:
        for note in _read(text).notes:
            log.warning("filters.formula: %s: %s", quoted(text), note)


def _read(text: str) -> formulas.Formula:
    try:
        return formulas.read(text)
    except formulas.FormulaError as error:
        raise ValueError(f"filters.formula: {quoted(text)} is not a formula: {error}") from error


def _composed(crystals: Crystals, wanted: Sequence[NDArray[np.float64]]) -> NDArray[np.bool_]:
    """(n,) True for crystals of one of the compositions, whatever their cells."""
    found = crystals.composition()
    found = found / found.sum(axis=1, keepdims=True)
    fits = [(np.abs(found - shares) <= SHARE_TOLERANCE * shares).all(axis=1) for shares in wanted]
    return np.asarray(np.any(fits, axis=0))


def _elements(crystals: Crystals, rule: Elements) -> NDArray[np.bool_]:
    mask = np.ones(len(crystals), dtype=bool)
    present = crystals.composition() > 0
    if rule.include:
        mask &= present[:, [NUMBERS[symbol] for symbol in rule.include]].all(axis=1)
    if rule.exclude:
        mask &= ~present[:, [NUMBERS[symbol] for symbol in rule.exclude]].any(axis=1)
    if rule.only:
        others = np.ones(present.shape[1], dtype=bool)
        others[[NUMBERS[symbol] for symbol in rule.only]] = False
        mask &= ~present[:, others].any(axis=1)
    return mask


def _reported(crystals: Crystals, name: str) -> NDArray[np.float64]:
    column = crystals.columns.get(name)
    if column is None and name != WARNINGS:
        return np.full(len(crystals), np.nan)
    if column is None or is_text(column) or column.dtype.kind not in "fiubO":  # objects are flags, some of them unknown
        raise ValueError(f"filters.reported.{name}: this column holds text, a range needs numbers")
    return column.astype(np.float64)


def _inside(values: NDArray[np.float64], limits: Range) -> NDArray[np.bool_]:
    low = -np.inf if limits.min is None else limits.min
    high = np.inf if limits.max is None else limits.max
    return (values >= low) & (values <= high)  # False for NaN
