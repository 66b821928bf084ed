"""The card of a distilled potential: data, teacher, errors, how to make it again.

Enters: the facts that `assay.models.training.distil.fit` collected. Leaves: Markdown.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from assay.sources.elements import SYMBOLS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from assay.models.potentials.potential import Scale

_ROW = "| {name} | {energy:.1f} | {force:.1f} | {stress:.2f} |"


def text(name: str, facts: Mapping[str, Any], scale: Scale, elements: frozenset[int]) -> str:
    """The card."""
    rows, test, recipe = facts["rows"], facts["test"], facts["recipe"]
    each = [_ROW.format(name=f"student {k}", **errors) for k, errors in enumerate(facts["alone"])]
    spec = recipe["students"][0]
    places = ", ".join(f"{one['count']:,} of {one['dataset']}" for one in recipe["crystals"])
    symbols = ", ".join(SYMBOLS[z] for z in sorted(elements))
    moved = [recipe["displacement"], *filter(None, (one["displacement"] for one in recipe["rounds"]))]
    framed = ", some of them moved on along a relaxation or hot" if any(one["frames"] for one in moved) else ""
    told = (
        f"PaiNN of {spec['features']} features, {spec['layers']} layers, cutoff {spec['cutoff']:g} Å. The students "
        f"learned energies, forces and stresses of {rows['train']:,} displaced crystals{framed} (at most {places}, "
        f"labelled in a random order); {rows['test']:,} crystals of other chemical systems test them. "
        f"Energies: {scale}. Made by `{facts['command']}`."
    )
    spread = (
        "All errors are mean absolute ones, of a component for force and stress. The error of the mean is "
        f"{test['energy_spread']:.1f} times the disagreement of the students for energies, and "
        f"{test['force_spread']:.1f} times for forces (root mean squares)."
    )
    blocks = [
        f"# {name}: {len(facts['alone'])} students of {facts['teacher']}",
        _wrapped(told),
        "\n".join(
            [
                "| against the teacher, unseen chemical systems | energy (meV/atom) | force (meV/Å) | stress (GPa) |",
                "|---|---|---|---|",
                _ROW.format(name="mean of the students", **test),
                *each,
            ]
        ),
        _wrapped(spread),
        *_rounds(facts["rounds"]),
        _wrapped(_left_out(facts)),
        *_dft(facts["dft"], recipe),
        *_error(facts.get("calibration")),
        _checks(facts["checks"]),
        _wrapped(f"It knows {len(elements)} elements: {symbols}."),
    ]
    return "\n\n".join(blocks) + "\n"


def _rounds(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of the rounds, where there are several."""
    if len(rounds) == 1:
        return []
    head = "round | labels learned | in quarantine | energy (meV/atom) | force (meV/Å) | stress (GPa)"
    row = "| {k} | {learned:,} | {left_out:,} | {energy:.1f} | {force:.1f} | {stress:.2f} |"
    lines = [f"| {head} |", "|---" * 6 + "|", *(row.format(k=k, **one) for k, one in enumerate(rounds, 1))]
    told = "The labels of a later round are those on which the students of the round before disagreed most. "
    return ["\n".join(lines), _wrapped(f"{told}The errors are those of the mean on the same test crystals.")]


def _left_out(facts: Mapping[str, Any]) -> str:
    """How many crystals are in no number, and why."""
    said = f"Crystals without a label to learn from, in `quarantine.parquet`: {facts['left_out']:,}."
    if not facts["unlearned"]:
        return said
    why = "because they hold elements that too few crystals taught"
    return f"{said} Test crystals that are in no number here, {why}: {facts['unlearned']:,}."


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _dft(errors: Mapping[str, Mapping[str, float]], recipe: Mapping[str, Any]) -> list[str]:
    """A table of errors against DFT, of which neither students nor this card chose anything."""
    columns = {"energy": "energy (meV/atom)", "force": "force (meV/Å)", "stress": "stress (GPa)"}
    columns |= {"modulus": "bulk modulus (GPa)", "modulus_median": "its median"}
    shown = [key for key in columns if all(key in one for one in errors.values())]
    if not shown:
        files = " and ".join(f"`{recipe[key]}`" for key in ("energies", "moduli") if recipe[key])
        said = f"Nothing is compared with DFT: students and teacher know no crystal of {files}."
        return [_wrapped(said)] if files else []
    lines = [f"| against DFT | {' | '.join(columns[key] for key in shown)} |", "|---" * (len(shown) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{one[key]:.1f}' for key in shown)} |" for name, one in errors.items()]
    blocks, first = ["\n".join(lines)], next(iter(errors.values()))
    if "energy" in shown:
        said = f"The energies are those of {first['rows']:.0f} crystals that DFT relaxed"
        blocks.append(_wrapped(f"{said}, where its forces and stresses are zero."))
    if "modulus" in shown:
        told = ", ".join(f"{one['moduli_rows']:.0f} with {name}" for name, one in errors.items())
        said = f"Bulk moduli are those of equations of state in fixed forms ({told}; the others have no minimum"
        blocks.append(_wrapped(f"{said} between 0.94 and 1.06 of DFT's volume)."))
    return blocks


def _error(found: Mapping[str, float] | None) -> list[str]:
    """How far energies of crystals err that the students relaxed."""
    if found is None:
        return []
    floor = f"disagreement of the students + {found['floor'] * 1e3:.1f} meV/atom"
    said = (
        f"Where the students relax these crystals themselves, the error of the energy has a standard deviation of "
        f"{found['scale']:.2f} x ({floor}), and for {found['level']:.0%} of them it is below "
        f"{found['quantile']:.2f} x the same sum ({found['n']} crystals)."
    )
    return [_wrapped(said)]


def _checks(checks: Sequence[Mapping[str, Any]]) -> str:
    """A table of what `assay check-potential` looks at."""
    lines = ["| check (`assay check-potential`), test crystals | failed | median | largest |", "|---|---|---|---|"]
    for one in checks:
        size = [
            f"{one[key]:.3g} {one['unit']}".strip() if one[key] is not None else "-" for key in ("median", "largest")
        ]
        lines.append(f"| {one['name']}: {one['meaning']} | {one['failed']} of {one['asked']} | {' | '.join(size)} |")
    return "\n".join(lines)
