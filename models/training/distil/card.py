"""The card of a distilled potential: data, teacher, errors, how to make it again.

Enters: the facts that `assay.models.training.distil.fit` collected. Leaves: Markdown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from assay.sources.elements import SYMBOLS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from assay.models.potentials.potential import Scale

_ROW = "| {name} | {energy:.1f} | {force:.1f} | {stress:.2f} |"


def text(name: str, facts: Mapping[str, Any], scale: Scale, elements: frozenset[int]) -> str:
    """The card."""
    rows, test, recipe = facts["rows"], facts["test"], facts["recipe"]
    each = [_ROW.format(name=f"student {k}", **errors) for k, errors in enumerate(facts["alone"])]
    spec = recipe["students"][0]
    places = ", ".join(f"{one['count']:,} of {one['dataset']}" for one in recipe["crystals"])
    symbols = ", ".join(SYMBOLS[z] for z in sorted(elements))
    return "\n".join(
        [
            f"# {name}: {len(facts['alone'])} students of {facts['teacher']}",
            "",
            f"PaiNN of {spec['features']} features, {spec['layers']} layers, cutoff {spec['cutoff']:g} Å. The students",
            f"learned energies, forces and stresses of {rows['train']:,} displaced crystals (at most {places},",
            f"labelled in a random order); {rows['test']:,} crystals of other chemical systems test them.",
            f"Energies: {scale}. Made by `{facts['command']}`.",
            "",
            "| against the teacher, unseen chemical systems | energy (meV/atom) | force (meV/Å) | stress (GPa) |",
            "|---|---|---|---|",
            _ROW.format(name="mean of the students", **test),
            *each,
            "",
            "All errors are mean absolute ones, of a component for force and stress. The error of the mean is",
            f"{test['energy_spread']:.1f} times the disagreement of the students for energies, and",
            f"{test['force_spread']:.1f} times for forces (root mean squares).",
            "",
            f"It knows {len(elements)} elements: {symbols}.",
            "",
        ]
    )
