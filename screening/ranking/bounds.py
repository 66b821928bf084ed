"""Filters on predictions: which scored crystals are not ranked, and why.

Enters: scored rows, and bounds on properties that were predicted of them. Leaves: the rows that
keep every bound, and the others, each with a `reason`. A bound with a `confidence` is held with
that probability by the distribution of `Probability`, the rule that also ranks by it and gives
`p_stable`. This module does not know models or folders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from assay.screening.folder.summary import Bound, Excluded
from assay.screening.ranking.rules import Probability
from assay.screening.settings.choice import Rank
from assay.screening.settings.names import COLUMNS

REASON = pa.field("reason", pa.string(), metadata={"unit": "", "meaning": COLUMNS["reason"]})
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def columns(bounds: Sequence[Bound]) -> list[str]:
    """Columns of scored rows that the bounds read, each once."""
    return list(dict.fromkeys(column for bound in bounds for column in _reads(bound)))


def split(rows: pa.Table, bounds: Sequence[Bound], last_tier: int = 0) -> tuple[pa.Table, pa.Table]:
    """The rows that keep every bound, and the others with `reason` as their first column."""
    found = reasons(rows, bounds, last_tier)
    kept = rows if found.null_count == len(found) else rows.filter(pc.is_null(found))
    return kept, rows.add_column(0, REASON, found).filter(pc.is_valid(found))


def reasons(rows: pa.Table, bounds: Sequence[Bound], last_tier: int = 0) -> pa.Array:
    """(n,) texts: the first bound that a row does not keep; null for a row that keeps all.

    A value that is not finite keeps no bound. Of a cascade, which has a column `tier`, only the
    rows of its last tier are judged: `models` did not predict the others.
    """
    judged = np.ones(rows.num_rows, bool)
    if "tier" in rows.column_names:
        judged = rows["tier"].to_numpy() == last_tier
    found, texts = np.full(rows.num_rows, -1, np.int32), list[str]()
    for text, fails in (failure for bound in bounds for failure in _failures(rows, bound)):
        found[judged & fails & (found < 0)] = len(texts)
        texts.append(text)
    return pa.DictionaryArray.from_arrays(pa.array(found, mask=found < 0), pa.array(texts, pa.string())).cast(
        pa.string()
    )


def count(found: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    """Reason -> rows of a column of reasons."""
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(found.drop_null()).to_pylist()}


def by_number(found: Mapping[str, int]) -> list[tuple[str, int]]:
    """(reason, rows), the most frequent first."""
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def sentence(bound: Bound) -> str:
    """A bound for people.

    >>> from assay.screening.folder.summary import Target
    >>> sentence(Bound(Target("m", "formation_energy", "eV/atom"), None, 0.0, 0.9))
    'formation_energy at most 0 eV/atom with a probability of at least 0.9'
    """
    sure = "" if bound.confidence is None else f" with a probability of at least {bound.confidence:g}"
    return f"{_range(bound)}{sure}"


def lines(found: Excluded) -> list[str]:
    """The filters in a sentence, and the crystals that they exclude, by reason."""
    total, wanted = sum(found.reasons.values()), f"filters.predicted asks for {'; '.join(map(sentence, found.bounds))}"
    if not total:
        return [f"{wanted}; every crystal passes."]
    counted = "; ".join(f"{reason} ({n:,})" for reason, n in by_number(found.reasons))
    excluded = f"{total:,} scored crystals do not pass: they are not ranked, and stand in excluded.parquet"
    return [f"{wanted}. {excluded}. By the first filter that each of them fails: {counted}."]


def _failures(rows: pa.Table, bound: Bound) -> Iterator[tuple[str, Mask]]:
    """Each way not to keep a bound, with the rows to which it applies."""
    name, unit = bound.target.name, bound.target.unit
    value = _numbers(rows, f"{name}_mean")
    if bound.confidence is not None:
        chance = _probability(rows, bound)
        yield f"has no {name}", ~(np.isfinite(value) & np.isfinite(chance))
        yield f"{_range(bound)} with a probability below {bound.confidence:g}", chance < bound.confidence
        return
    yield f"has no {name}", ~np.isfinite(value)
    if bound.min is not None:
        yield f"{name} below {bound.min:g} {unit}".rstrip(), value < bound.min
    if bound.max is not None:
        yield f"{name} above {bound.max:g} {unit}".rstrip(), value > bound.max


def _probability(rows: pa.Table, bound: Bound) -> Floats:
    """(n,) probabilities of keeping both ends together: that of each less the certainty of one."""
    rules = _rules(bound)
    each = [rule.score({part: _numbers(rows, column) for part, column in rule.columns().items()}) for rule in rules]
    return each[0] if len(each) == 1 else np.maximum(each[0] + each[1] - 1.0, 0.0)


def _rules(bound: Bound) -> list[Probability]:
    """The probability of lying on the right side of each end that is set."""
    ends = {"descending": bound.min, "ascending": bound.max}
    return [
        Probability(Rank.model_validate({"by": "probability", "threshold": end, "order": order}), bound.target)
        for order, end in ends.items()
        if end is not None
    ]


def _reads(bound: Bound) -> list[str]:
    return [f"{bound.target.name}_mean"] if bound.confidence is None else [*_rules(bound)[0].columns().values()]


def _range(bound: Bound) -> str:
    if bound.min is None:
        text = f"at most {bound.max:g}"
    else:
        text = f"at least {bound.min:g}" if bound.max is None else f"from {bound.min:g} to {bound.max:g}"
    return f"{bound.target.name} {text} {bound.target.unit}".rstrip()


def _numbers(rows: pa.Table, column: str) -> Floats:
    return np.asarray(rows[column].to_numpy(), np.float64)
