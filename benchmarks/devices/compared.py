"""Does a device say what the CPU says, and the same bits twice?

Enters: a device, crystals, sizes of networks. Leaves: the largest differences by what was compared,
whether they are within their bounds, and a printed table. It measures no time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from measuring.stopwatch import ROOT, say, show

from devices import members

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from assay.models.ensemble.ensemble import Ensemble
    from assay.sources.crystals import Crystals

BUNDLED = ("tc-fast", "tc-graphs", "formation-energy", "band-gap")
SINGLE, COMPILED, PICTURED = 3e-5, 1e-4, 2e-3
"""Largest accepted difference of a member, in scales of the target: sums in another order; the same
with torch's compiler; two surfaces equally near. The tests of the device path have the same."""


def equality(place: torch.device, crystals: Crystals, sizes: members.Sizes, scratch: Path) -> dict[str, Any]:
    """Compare graphs, the bundled ensembles and fresh networks of every kind."""
    from assay.models.ensemble.ensemble import Ensemble

    def zoo(name: str) -> dict[str, Any]:
        return predictions(place, Ensemble.load(ROOT / "models/zoo" / name), crystals, SINGLE)

    def fresh(most: float, *, compiled: bool = False) -> dict[str, Any]:
        made = members.ensemble(scratch / f"compared-{compiled}", members.graph_members(crystals, sizes))
        return predictions(place, made, crystals, most, compiled=compiled)

    def pictured() -> dict[str, Any]:
        made = members.ensemble(scratch / "pictured", members.vision_members(sizes))
        return predictions(place, made, crystals[:8], PICTURED)

    asked: dict[str, Callable[[], dict[str, Any]]] = {"graphs": partial(graphs, place, crystals)}
    asked |= {name: partial(zoo, name) for name in BUNDLED}
    asked |= {"fresh networks": partial(fresh, SINGLE), "pictures": pictured}
    if place.type == "cuda":
        asked["fresh networks, compiled"] = partial(fresh, COMPILED, compiled=True)
    found = {name: answer for name, ask in asked.items() if (answer := judged(ask))}
    lines = [[name, "yes" if one["holds"] else "NO", *_cells(one)] for name, one in found.items()]
    show(f"{place} beside the CPU, {len(crystals)} crystals", ["", "within bounds", "largest", "twice"], lines)
    return found


def _cells(one: dict[str, Any]) -> list[str]:
    largest = "–" if one["largest"] is None else f"{one['largest']:.1e}"
    return [largest, "the same bits" if one["same_twice"] else "other bits"]


def judged(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The answer; where there is none, why, and that nothing holds; empty without timm."""
    try:
        return ask()
    except ImportError as error:
        say(f"left out: {error}")
        return {}
    except Exception as error:  # noqa: BLE001 -- the other questions are asked all the same
        say(reason := f"{type(error).__name__}: {error}".splitlines()[0])
        return {"holds": False, "largest": None, "same_twice": False, "reason": reason}


def graphs(place: torch.device, crystals: Crystals) -> dict[str, Any]:
    """Edges and angles: ends alike, and the largest difference of a distance (Å) or a cosine."""
    import numpy as np

    from assay.featurize import graphs as host, graphs_torch

    spec = host.GraphSpec(angles=True)
    mine, yours = graphs_torch.build(crystals, spec, place), host.build(crystals, spec)
    again = graphs_torch.build(crystals, spec, place)
    edge, other, cosine = (part.numpy(force=True) for part in mine.angles())
    ends = {"source": mine.source, "target": mine.target}
    alike = [np.array_equal(part.numpy(force=True), getattr(yours, name)) for name, part in ends.items()]
    alike += [np.array_equal(edge, yours.triplet_edge), np.array_equal(other, yours.triplet_other)]
    if not all(alike):
        return {"holds": False, "largest": None, "same_twice": False, "crystals": len(crystals)}
    apart = np.abs(mine.distance.numpy(force=True) - yours.distance).max(), np.abs(cosine - yours.cosine).max()
    same = bool((mine.vector == again.vector).all()) and bool((mine.distance == again.distance).all())
    largest = float(max(apart))
    return {"holds": same and largest <= 1e-6, "largest": largest, "same_twice": same, "crystals": len(crystals)}


def predictions(
    place: torch.device, ensemble: Ensemble, crystals: Crystals, most: float, *, compiled: bool = False
) -> dict[str, Any]:
    """Members on the device and on the CPU: the largest difference, in scales of the target."""
    import numpy as np

    from assay.models.ensemble.device import DevicePath

    there = replace(ensemble, device=DevicePath(ensemble.members, place, compiled=compiled))
    (mine, refused), (again, _), (yours, also) = (
        there.predict(crystals),
        there.predict(crystals),
        ensemble.predict(crystals),
    )
    largest, same = 0.0, True
    for prop in ensemble.properties:
        values = [one.values[prop.name].members for one in (mine, yours, again)]
        largest = max(largest, float(np.abs(prop.encode(values[0]) - prop.encode(values[1])).max()))
        same = same and values[0].tobytes() == values[2].tobytes()
    holds = refused == also and same and largest <= most
    return {"holds": holds, "largest": largest, "same_twice": same, "bound": most, "crystals": len(crystals)}
