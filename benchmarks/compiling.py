"""When does torch.compile pay?

Enters: real crystals of the data packs, an ALIGNN of the published size. Leaves: a table on the
terminal and one JSON file. The same network on the same full graphs, as it was trained (which is
what a GPU runs), compiled by torch for batches of any size, and as the twin that a CPU runs. One
thread, process CPU time, the best of several rounds; what compiling takes is counted by itself, and
says after how many crystals it is worth it.

    python benchmarks/compiling.py --help
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring.crystals import NEIGHBOURS, real_crystals
from measuring.stopwatch import Contestant, Rates, arguments, machine, race, row, say, settle, show, versions, write

if TYPE_CHECKING:
    from assay.models.networks.batch import Batch
    from assay.models.networks.layers import Network

FEATURES = "properties-identity-v1"
AT_ONCE = 8
"""Crystals per batch: about as many triplets as in a micro-batch."""


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = arguments(__doc__, "compiling.json")
    parser.add_argument("--crystals", type=int, default=512, help="real crystals (default: 512)")
    parser.add_argument("--trained", type=Path, help="checkpoint folder of an ALIGNN (default: fresh weights)")
    options = parser.read(words, crystals=64, repeat=1)
    settle()
    import torch

    from assay.models import memory

    torch.set_num_threads(1)
    memory.keep()
    found = measure(_batches(options), _network(options.trained), options)
    show(
        f"ALIGNN 4 + 4, hidden 256, full graphs of {options.crystals} crystals, network alone",
        ["", "µs CPU/crystal", "crystals/s/core"],
        [row(*item) for item in found["rates"].items()],
    )
    pays = found["pays_after_crystals"]
    after = "never pays" if pays is None else f"pays after {pays:,.0f} crystals"
    say(f"compiling takes {found['compile_s']:.0f} s and {after}; largest difference {found['difference']:.1e}")
    write({"machine": machine(), "versions": versions(), "crystals": options.crystals, **found}, options.output)


def measure(batches: list[Batch], network: Network, options: argparse.Namespace) -> dict[str, Any]:
    """The race, what compiling takes, and after how many crystals that is worth it."""
    import torch

    from assay.models.ensemble.frozen import freeze

    quick: Any = copy.deepcopy(network)
    quick.encode = torch.compile(quick.encode, dynamic=True)

    def contestant(one: Network) -> Contestant:
        return lambda: torch.cat([next(iter(one(batch).values())) for batch in batches])

    work = {"as trained": network, "compiled by torch": quick, "frozen": freeze(network)}
    with torch.inference_mode():
        began = time.perf_counter()
        contestant(quick)()
        first_s = time.perf_counter() - began
        rates: Rates = race({name: contestant(one) for name, one in work.items()}, options.crystals, options.repeat)
        gap = float((contestant(quick)() - contestant(network)()).abs().max())
    trained, compiled = (1e-6 * rates[name]["us_per_crystal"] for name in ("as trained", "compiled by torch"))
    compile_s = first_s - options.crystals * compiled
    pays = compile_s / (trained - compiled) if compiled < trained else None
    return {"rates": rates, "compile_s": compile_s, "pays_after_crystals": pays, "difference": gap}


def _batches(options: argparse.Namespace) -> list[Batch]:
    from assay.featurize import graphs
    from assay.models.networks.batch import Batch

    crystals = real_crystals(options.data, options.crystals)
    spec = graphs.GraphSpec(k=NEIGHBOURS, angles=True, atom_features=FEATURES)
    starts = range(0, len(crystals), AT_ONCE)
    return [Batch.of(graphs.build(crystals[start : start + AT_ONCE], spec)) for start in starts]


def _network(trained: Path | None) -> Network:
    import torch

    from assay.featurize import atoms
    from assay.models.ensemble import checkpoint
    from assay.models.networks.alignn import ALIGNN

    if trained is not None:
        return checkpoint.read(trained).network
    torch.manual_seed(0)
    return ALIGNN(atoms.width(FEATURES), ["y"]).eval()


if __name__ == "__main__":
    main()
