"""Starting from trained weights: what is taken over, what stays frozen, what learns at which rate.

Enters: a fresh network and a `Start`. Leaves: the same network with a trained trunk. This module
does not know data, schedules or the training loop.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assay.models.ensemble import checkpoint, zoo
from assay.models.networks import kinds, registry
from assay.models.networks.kinds import Spec
from assay.models.networks.layers import Network
from assay.models.training import lora, optimise
from assay.models.training.recipe import MemberSpec, Schedule, Start


@dataclass(frozen=True)
class Source:
    """Trained weights to start from."""

    weights: dict[str, Tensor]
    """By the name in the network; what a network has beyond its trunk is not read."""
    sha256: str
    """Of the file, or of the tensors where they come from a hub."""


def find(start: Start, spec: MemberSpec, reads: Spec, member: int) -> Source:
    """The weights that member number `member` starts from.

    Of an ensemble they are those of the member with this number, which has stopped early on the
    same fold, or of another one with the same trunk, see `Start.folder`.

    Raises:
        FileNotFoundError: when the folder is neither a checkpoint nor an ensemble.
        ValueError: when it holds no such network, or one that learned from other graphs.
    """
    if not Path(start.folder).is_dir() and start.folder not in zoo.names():
        published = registry.MODELS[spec.network].load().published(start.folder, kinds.shape(reads), spec.sizes)
        if published:
            return Source(*published)
    found = [checkpoint.read(path) for path in _folders(zoo.find(start.folder))]
    fits = [_trunk(one.name, one.sizes) == _trunk(spec.network, spec.sizes) for one in found]
    fitting = [one for one, fit in zip(found, fits, strict=True) if fit]
    if not fitting:
        learned = [one for one in found if registry.MODELS[one.name].gradients]
        if not learned:
            raise ValueError(f"{start.folder} holds {found[0].name}, from which no network can start")
        theirs = "; ".join(dict.fromkeys(f"{one.name} {_trunk(one.name, one.sizes)[1]}" for one in learned))
        raise ValueError(
            f"this member is {spec.network} {_trunk(spec.network, spec.sizes)[1]}, the weights in {start.folder} are "
            f"{theirs}; give it the network and sizes of its start"
        )
    chosen = found[member] if member < len(found) and fits[member] else fitting[member % len(fitting)]
    if not kinds.agree(chosen.spec, reads):
        there, here = (asdict(kinds.of(spec).agreed(spec)) for spec in (chosen.spec, reads))
        wanted = ", ".join(f"{key}: {there[key]} (not {here.get(key)})" for key in there if there[key] != here.get(key))
        raise ValueError(f"the weights in {start.folder} learned otherwise; write under {chosen.spec.KEY}: {wanted}")
    return Source(chosen.network.state_dict(), chosen.sha256)


def _folders(folder: Path) -> list[Path]:
    """The checkpoints of an ensemble, or the one that the folder is."""
    if (folder / "ensemble.json").is_file():
        return [folder / name for name in checkpoint.read_json(folder / "ensemble.json", "a model ensemble")["members"]]
    if (folder / "member-0").is_dir():  # trained, not made an ensemble of
        return sorted(folder.glob("member-*"), key=lambda path: int(path.name.partition("-")[2]))
    return [folder]


def begin(network: Network, start: Start, source: Source) -> None:
    """Give the network the trunk of `source`, and freeze or adapt it as `start` says.

    Raises:
        ValueError: when more layers are to be frozen than there are.
    """
    wanted = {name for name in network.state_dict() if not name.startswith("heads.")}
    given = {name: tensor for name, tensor in source.weights.items() if name in wanted}
    network.load_state_dict({**network.state_dict(), **given}, strict=True)
    if start.lora:
        lora.adapt(network, start.lora)
        return
    for part in _frozen(network.stages(), start):
        part.requires_grad_(False)  # noqa: FBT003 -- torch's signature


def optimizers(network: nn.Module, start: Start | None, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """What moves the weights, in groups with their peak rates: AdamW, and Muon where it is wanted.

    Trunk and heads are apart where the trunk has learned before.

    Raises:
        ValueError: for Muon with such a trunk.
    """
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    matrices = [p for _, p in named if p.ndim == 2 and min(p.shape) > 1] if schedule.matrix_rate else []
    if start is None:
        moved = {id(matrix) for matrix in matrices}
        parts = [([p for _, p in named if id(p) not in moved], schedule.learning_rate)]
    elif matrices:
        raise ValueError("schedule.matrix_rate is for weights that start fresh; leave it out, or leave out start")
    else:
        heads = [parameter for name, parameter in named if name.startswith("heads.")]
        trunk = [parameter for name, parameter in named if not name.startswith("heads.")]
        parts = [(trunk, start.backbone_rate), (heads, start.head_rate)]
    decay = schedule.weight_decay
    groups = [{"params": part, "peak": peak, "weight_decay": decay} for part, peak in parts if part]
    made: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, fused=True)]
    if matrices:
        made.append(optimise.Muon([{"params": matrices, "peak": schedule.matrix_rate, "weight_decay": decay}]))
    return made


def _trunk(name: str, sizes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The network whose trunk it is, with the sizes that make it."""
    entry = registry.MODELS[name]
    free = entry.load().HEAD_SIZES
    return entry.trunk or name, {size: value for size, value in sizes.items() if size not in free}


def _frozen(stages: list[nn.Module], start: Start) -> list[nn.Module]:
    embeddings, *layers = stages
    if start.freeze in ("first", "all-but-last") and start.layers > len(layers):
        raise ValueError(f"start.layers is {start.layers}, this network has {len(layers)} layers")
    kept: dict[str, list[nn.Module]] = {
        "none": [],
        "embeddings": [embeddings],
        "first": [embeddings, *layers[: start.layers]],
        "all-but-last": [embeddings, *layers[: -start.layers]],
        "head-only": stages,
    }
    return kept[start.freeze]
