"""Training steps and pictures on a device, timed beside alignn, PyTorch Geometric and timm.

Enters: a clock, crystals with a target, sizes of networks. Leaves: rates by contestant. It does not
know cards or files of results.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import training
import vision
from measuring.stopwatch import Rates, say

from devices import members

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals
    from devices.timing import Clock, Contestants

BATCH = 64
"""Crystals of a step."""
FEW = 512
"""Crystals of an epoch: each contestant keeps the graphs of all of them."""


def epochs(clock: Clock, crystals: Crystals, target: Any, sizes: members.Sizes) -> dict[str, Rates]:
    """One epoch of training per run; graphs are built before."""
    crystals, target, where = crystals[:FEW], target[:FEW], str(clock.place)
    found = {}
    for name, shape in sizes.graph_networks.items():
        runs = training.ours(name, shape, crystals, target, BATCH, where)
        if name == "alignn":
            runs |= training.alignn_peers(crystals, target, sizes.alignn, BATCH, where)
        else:
            runs |= training.geometric_peer(crystals, target, BATCH, where)
        timed: Contestants = {which: (run, len(crystals)) for which, run in runs.items()}
        found[name] = clock.race(f"training of {name} {shape}, batches of {BATCH}", timed)
    return found


def pictures(clock: Clock, data: Path, n: int, sizes: members.Sizes) -> Rates:
    """Crystals through a vision transformer, drawn on the device; timm is given its pictures."""
    import copy

    import torch

    from assay.models.ensemble.device import DevicePath, DevicePictureInputs
    from assay.models.training import prepare

    try:
        member = members.vision_members(sizes)[0]
    except (ImportError, ValueError) as error:
        say(f"pictures are left out: {error}")
        return {}
    shown: Any = vision.pictured(data, sizes.view, n)
    paths = {how: DevicePath([member], clock.place, how) for how in ("float32", "bfloat16")}

    def through(how: str, seen: Any) -> None:
        network = paths[how].networks[0]
        drawn = DevicePictureInputs(seen.crystals, seen.scenes, seen.spec, device=clock.place)
        with torch.inference_mode():
            for rows in drawn.micro_batches():
                network(drawn.batch(rows, network))

    def draw(*, keep: bool) -> list[Any]:
        drawn = DevicePictureInputs(shown.crystals, shown.scenes, shown.spec, device=clock.place)
        made = (drawn.batch(rows, member.network) for rows in drawn.micro_batches())
        return list(made) if keep else [len(one) for one in made]

    ready, plain = draw(keep=True), vision.peer(copy.deepcopy(member.network).to(clock.place))

    def timm(mode: bool) -> None:
        with torch.inference_mode(), torch.autocast(clock.place.type, torch.bfloat16, enabled=mode):
            for images in ready:
                plain(images.pixels)

    runs: Contestants = {f"assay, {how}, scenes ready": (partial(through, how, shown), n) for how in paths}
    runs["assay, pictures alone, scenes ready"] = partial(draw, keep=False), n
    runs["assay, scenes on one core of the host"] = lambda: prepare.inputs(shown.crystals, sizes.view, 0.0).scenes, n
    runs |= {f"timm, eager {how}, pictures ready": (partial(timm, how == "bfloat16"), n) for how in paths}
    views = len(shown.scenes) / n
    return clock.race(f"{n} crystals of {views:.1f} pictures, {sizes.pixels} pixels wide -> transformer", runs)
