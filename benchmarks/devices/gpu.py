"""How fast is a GPU, and does it say what the CPU says, beside alignn and PyTorch Geometric?

Enters: real crystals of the data packs, a device. Leaves: tables, and one JSON file with the name
of the card in it. The first part compares: graphs, bundled ensembles and pictures of the device
with those of the CPU, and two runs of the device with each other; where they differ by more than
they may, the exit code is 1. The other parts time: wall time, the device awake and finished, the
contestants in turns, the best of several rounds. A contestant that fails (memory, a compiler, a
peer that is not installed) is left out with a note. Without CUDA the exit code is 78.

With `--device cpu` everything runs the same way with tiny networks, at most 24 crystals and one
round. This shows that the script works, and measures nothing.

    python benchmarks/devices/gpu.py --help
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from measuring.stopwatch import arguments, machine, say, settle, versions, write  # noqa: E402
from training import labelled  # noqa: E402

from devices import compared, learning, members, predicting  # noqa: E402
from devices.timing import Clock  # noqa: E402

if TYPE_CHECKING:
    import argparse

    import torch

NO_DEVICE, DIFFERS = 78, 1
"""Exit codes."""
UNNAMED = "NAME-OF-THE-CARD.json"
PEERS = ("alignn", "jarvis-tools", "torch_geometric", "timm", "triton")


def main(words: list[str] | None = None) -> int:
    """Compare, measure, print and write; returns the exit code."""
    options = _options(words)
    settle()
    from assay.models.ensemble import device as devices

    try:
        place = devices.chosen(options.device)
    except ValueError as error:
        say(f"{error}. Nothing was measured; --device cpu tries the script out with tiny networks")
        return NO_DEVICE
    clock = Clock(place, options.repeat, options.seconds)
    report: dict[str, Any] = {"card": card(place), "machine": machine(), "versions": versions(*PEERS)}
    sizes = members.TINY if place.type == "cpu" else members.FULL
    crystals, target = labelled(options.data, options.crystals)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        report["equality"] = compared.equality(place, crystals[: options.compared], sizes, scratch)
        report["products"] = predicting.products(clock)
        report["graphs"] = predicting.graphs(clock, crystals)
        for name, shape in sizes.graph_networks.items():
            report[name] = predicting.prediction(clock, crystals, name, shape, scratch)
    report["training"] = learning.epochs(clock, crystals, target, sizes)
    report["pictures"] = learning.pictures(clock, options.data, options.pictures, sizes)
    report["seconds"] = clock.since_start()
    if options.output.name == UNNAMED:
        name = re.sub(r"\W+", "-", report["card"]["name"]).strip("-")
        options.output = options.output.with_name(f"{name}.json")
    write(report, options.output)
    apart = [name for name, found in report["equality"].items() if not found["holds"]]
    if apart:
        say(f"{report['card']['name']} and the CPU differ by more than they may: {', '.join(apart)}")
    return DIFFERS if apart else 0


def card(place: torch.device) -> dict[str, Any]:
    """The device by its own name, its memory (GB), and what drives it."""
    import torch

    if place.type == "cpu":
        return {"name": "cpu"}
    seen = torch.cuda.get_device_properties(place)
    level = f"{seen.major}.{seen.minor}"
    return {"name": seen.name, "memory_gb": seen.total_memory / 1e9, "capability": level, "cuda": torch.version.cuda}


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__, f"devices/{UNNAMED}")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 and so on, or cpu (default: cuda)")
    parser.add_argument("--crystals", type=int, default=2048, help="crystals that are timed (default: 2048)")
    parser.add_argument("--compared", type=int, default=256, help="of them, compared with the CPU (default: 256)")
    parser.add_argument("--pictures", type=int, default=32, help="crystals that are pictured (default: 32)")
    parser.add_argument("--seconds", type=float, default=6, help="for one contestant, about (default: 6)")
    options = parser.read(words, crystals=512, compared=64, pictures=8, seconds=2)
    if options.repeat < 1 or min(options.crystals, options.compared, options.pictures) < 4:
        parser.error(f"needs --repeat >= 1 and at least 4 crystals for each question, got {vars(options)}")
    if options.device == "cpu":
        for name, most in {"crystals": 24, "compared": 8, "pictures": 4, "seconds": 0.1, "repeat": 1}.items():
            setattr(options, name, min(getattr(options, name), most))
    return options


if __name__ == "__main__":
    raise SystemExit(main())
