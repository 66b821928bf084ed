"""How many pictures per second does a vision transformer read on one core, beside plain timm?

Enters: real crystals of the data packs. Leaves: a table and one JSON file. The same weights and
pictures for everybody: adapters that learned for a few steps, merged. Ours is timed from the scene
on, rendering included; the peer is given its pictures. CPU time, one thread, contestants in turns;
beside each its smallest cosine to the peer's state.

    python benchmarks/vision.py --help
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from measuring.stopwatch import Contestant, Rates, arguments, machine, race, say, settle, show, versions, write

BACKBONES = {"ViT-S/16": "vit_small_patch16_224", "ViT-B/16": "vit_base_patch16_224"}
BATCH = 8
"""Pictures at once."""


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = arguments(__doc__, "vision.json")
    parser.add_argument("--pictures", type=int, default=16, help="pictures per round (default: 16)")
    parser.add_argument("--trained", type=Path, help="checkpoint of a trained vision network, measured too")
    options = parser.read(words, pictures=8, repeat=1)
    settle()
    report: dict[str, Any] = {"machine": machine(), "versions": versions("timm"), "pictures": options.pictures}
    for title, backbone in BACKBONES.items():
        report[title] = told(title, *adapted(backbone, options.data), options.pictures, options.repeat)
    if options.trained:
        report["trained"] = told(f"{options.trained}", *trained(options.trained, options.data), 64, options.repeat)
    write(report, options.output)


def adapted(backbone: str, data: Path) -> tuple[Any, Any]:
    """A network of the size of a published one, with merged adapters, and pictures of 224 pixels.

    The published weights cannot be fetched offline: these are random, and the adapters learned for
    three steps.
    """
    import torch

    from assay.featurize.pictures.scene import ViewSpec
    from assay.models.networks import registry
    from assay.models.training import lora
    from assay.models.training.recipe import Lora

    view = ViewSpec(random=3, supercells=((1, 1, 1), (2, 2, 1)))
    torch.manual_seed(0)
    network = registry.create("vit", view.shape, ["y"], backbone=backbone)
    shown = pictured(data, view, 6)
    lora.adapt(network, Lora(rank=16, alpha=32.0, dropout=0.1, layers=("attn.qkv",)))
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    for step in range(3):
        batch = shown.batch(range_of(step, step + 1), network)
        network.train()(batch)["y"].sub(1.0).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    lora.merge(network)
    return network.eval(), shown


def trained(folder: Path, data: Path) -> tuple[Any, Any]:
    """A network of ours with the pictures it learned from."""
    from assay.models.ensemble import checkpoint

    read = checkpoint.read(folder)
    return read.network, pictured(data, read.spec, 40)


def told(title: str, network: Any, shown: Any, pictures: int, repeat: int) -> Rates:
    """Time the contestants on the first pictures of these crystals, and compare what they see."""
    import numpy as np
    import torch

    from assay.featurize.pictures import augment

    scenes = augment.select(shown.scenes, np.arange(min(pictures, len(shown.scenes))), np.array([0, pictures]))
    half = copy.deepcopy(network)
    half.lower()
    found: dict[str, Any] = {}
    contestants = readers(network, half, scenes, shown.spec, found)
    rates = race(contestants, len(scenes), repeat)
    first, wanted = rates["timm, eager float32"]["us_per_crystal"], found["timm, eager float32"]
    for name, rate in rates.items():
        rate["ratio"] = first / rate["us_per_crystal"]
        rate["cosine"] = float(torch.nn.functional.cosine_similarity(found[name].float(), wanted, dim=1).min())
    rows = [
        [
            name,
            f"{r['us_per_crystal'] / 1e3:.2f}",
            f"{r['crystals_per_s']:.1f}",
            f"{r['ratio']:.2f}",
            f"{r['cosine']:.6f}",
        ]
        for name, r in rates.items()
    ]
    show(f"one picture, {title}", ["", "ms", "per s", "times timm", "smallest cosine"], rows)
    return rates


def readers(network: Any, half: Any, scenes: Any, spec: Any, found: dict[str, Any]) -> dict[str, Contestant]:
    """The contestants; each leaves the states of all pictures in `found`."""
    import numpy as np
    import torch

    from assay.featurize.pictures import augment, raster
    from assay.models.networks.batch import Images

    mean, std = network.mean.numpy(), network.std.numpy()
    parts = [
        augment.select(scenes, np.arange(k, min(k + BATCH, len(scenes))), np.array([0, BATCH]))
        for k in range(0, len(scenes), BATCH)
    ]
    ready = [torch.from_numpy(raster.images(part, spec, mean=mean, std=std)) for part in parts]
    plain = peer(network)

    def ours(name: str, reader: Any) -> Contestant:
        def read() -> None:
            states = []
            with torch.inference_mode():
                for part in parts:
                    drawn = torch.from_numpy(raster.images(part, spec, mean=mean, std=std))
                    states.append(reader.states(Images(drawn, torch.zeros(len(drawn)), torch.ones(len(drawn)), 1)))
            found[name] = torch.cat(states)

        return read

    def eager() -> None:
        with torch.inference_mode():
            found["timm, eager float32"] = torch.cat([plain(pixels) for pixels in ready])

    return {
        "timm, eager float32": eager,
        "assay, float32": ours("assay, float32", network),
        "assay, bfloat16": ours("assay, bfloat16", half),
    }


def peer(network: Any) -> Any:
    """The same weights in the network of timm, between the same first and last layers."""
    import torch
    from torch import nn

    from assay.models.networks.vision import ripple

    plain = copy.deepcopy(network.vit)
    for module in plain.modules():
        if isinstance(module, nn.Linear):
            module.__class__ = nn.Linear

    def read(pixels: torch.Tensor) -> torch.Tensor:
        seen = plain.forward_features(ripple(pixels, network.waves))
        states: torch.Tensor = network.level(plain.forward_head(seen, pre_logits=True))
        return states

    return read


def pictured(data: Path, view: Any, n: int) -> Any:
    """Materials Project crystals spread over the data pack, as a vision network reads them."""
    import numpy as np

    from assay.models.training import prepare
    from assay.sources import table

    stored = table.read(data / "mp" / "mp_labelled_le40.parquet")
    rows = np.linspace(0, len(stored) - 1, n).astype(np.int64)
    crystals, _ = table.from_table(stored.take(rows), "mp")
    say(f"{len(crystals)} crystals")
    return prepare.inputs(crystals, view, 0.0)


def range_of(first: int, last: int) -> Any:
    """Rows as an array."""
    import numpy as np

    return np.arange(first, last)


if __name__ == "__main__":
    main()
