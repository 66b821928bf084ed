"""The plot of docs/performance.md, from the JSON files of featurizer.py and predict.py.

python benchmarks/results/plots.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results"
PACKS = {"materials_project": "Materials Project", "superconductors": "superconductors (3DSC)"}
RACES = {"materials_project": "Materials Project", "prototypes": "ideal prototypes"}
BARS = {
    "alignn's loop as shipped": "alignn, as shipped",
    "alignn's loop, no_grad": "alignn, no_grad",
    "assay, full graphs, plain network": "full graphs, torch",
    "assay, full graphs": "full graphs, frozen",
    "assay": "quotients, frozen",
}


def main() -> None:
    """Draw both panels."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    removed(left, json.loads((RESULTS / "featurize.json").read_text())["removed"])
    speed(right, json.loads((RESULTS / "predict.json").read_text()))
    figure.savefig(ROOT / "docs/pictures/performance.png", dpi=110)


def removed(axes: Any, found: dict[str, Any]) -> None:
    """How many crystals lose how much, on a logarithmic axis."""
    for pack, name in PACKS.items():
        one = found[pack]["prediction"]
        edges, count = one["histogram"]["from"], one["histogram"]["crystals"]
        edges = [*edges, edges[-1] * 2**0.5]
        label = f"{name}: {one['triplets']:.1f}× in total, median {one['percentiles']['50']:.1f}×"
        drawn = axes.stairs([k / sum(count) for k in count], edges, fill=True, alpha=0.5, label=label)
        even = found[pack]["prediction, symmetrised"]
        count = even["histogram"]["crystals"]
        shares = [k / sum(count) for k in count]
        told = f"symmetrised at 0.01 Å: {even['triplets']:.1f}×"
        axes.stairs(shares, edges, color=drawn.get_facecolor()[:3], linewidth=1.5, label=told)
    axes.set(xscale="log", xlabel="triplets of the full graph / of its quotient", ylabel="share of 2,000 crystals")
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64, 128], ["1", "2", "4", "8", "16", "32", "64", "128"])
    axes.minorticks_off()
    axes.legend(frameon=False)
    axes.set_ylim(top=1.5 * axes.get_ylim()[1])
    axes.set_title("What the symmetry quotient merges")


def speed(axes: Any, found: dict[str, Any]) -> None:
    """Crystals per second through one full-size ALIGNN."""
    for shift, (pack, name) in enumerate(
        {"materials_project": "Materials Project", "prototypes": "ideal prototypes"}.items()
    ):
        rates = [found[pack]["rates"][key]["crystals_per_s"] for key in BARS]
        places = [k + 0.4 * shift for k in range(len(BARS))]
        axes.bar(places, rates, 0.4, label=name)
        for place, rate in zip(places, rates, strict=True):
            axes.text(place, rate * 1.05, f"{rate:,.0f}", ha="center", fontsize=8)
    axes.set(yscale="log", ylabel="crystals per second and core")
    axes.set_xticks([k + 0.2 for k in range(len(BARS))], BARS.values(), rotation=15)
    axes.legend(frameon=False, loc="upper left")
    axes.set_title("ALIGNN 4 + 4, hidden 256, featurization included")


if __name__ == "__main__":
    main()
