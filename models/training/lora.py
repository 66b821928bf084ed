"""Low-rank adapters on a trained network: the only module that imports peft.

Enters: a network and what to adapt. Leaves: the same network, first with adapters in place of some
linear layers, then with the adapters folded into plain weights. This module does not know data,
optimizers or checkpoints.

    adapt(network, lora)                     # before the optimizer is made
    network.train(); rest(network)           # whenever training mode is switched on
    loss.backward(); check_gradients(network)  # once, on the first batch
    merge(network)                           # before the checkpoint is written
"""

from __future__ import annotations

import logging
import re
from types import ModuleType

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from assay.models.networks import torchvision_ops
from assay.models.training.recipe import Lora

_log = logging.getLogger(__name__)


def adapt(network: nn.Module, lora: Lora) -> None:
    """Put an adapter on every linear layer of the trunk that `lora.layers` names.

    Adapters and heads are all that learns.

    A fresh adapter changes nothing, to the bit. A state dict of the adapted network loads into one
    adapted alike.

    Raises:
        ImportError: when peft is not installed.
        ValueError: when the network has none of these layers.
    """
    peft = _peft()
    linear = [name for name, module in network.named_modules() if _is_trunk(name) and isinstance(module, nn.Linear)]
    chosen = [name for name in linear if any(f".{name}".endswith(f".{ending}") for ending in lora.layers)]
    if not chosen:
        there = ", ".join(sorted({_last(name) for name in linear})) or "none"
        raise ValueError(f"lora.layers names {', '.join(lora.layers)}; the linear layers of this network are: {there}")
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="|".join(re.escape(name) for name in chosen),  # a pattern for the whole name
    )
    peft.inject_adapter_in_model(config, network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("lora_" in name or not _is_trunk(name))
    rest(network)
    learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
    _log.info("%d adapters of rank %d; %d numbers learn, heads included", len(chosen), lora.rank, learning)


def rest(network: nn.Module) -> None:
    """Put every batch normalisation whose weights are frozen into eval mode, whoever froze them.

    Frozen weights alone do not stop the running statistics, and `network.train()` starts them
    again.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
            module.eval()


def check_gradients(network: nn.Module) -> None:
    """Make sure, after a backward pass, that every adapter took part in it.

    A network that reads `layer.weight` instead of calling the layer goes round its adapter, which
    then learns nothing.

    Raises:
        ValueError: naming the adapters without a gradient.
    """
    adapters = {name: p for name, p in network.named_parameters() if "lora_B" in name}
    idle = [name.partition(".lora_B")[0] for name, parameter in adapters.items() if parameter.grad is None]
    if idle or not adapters:
        raise ValueError(
            f"{len(idle)} of {len(adapters)} adapters got no gradient: {', '.join(idle) or 'there are none'}"
        )


def merge(network: nn.Module) -> None:
    """Fold every adapter into its layer: the plain network is back, its outputs stay."""
    tuner = _peft().tuners.tuners_utils.BaseTunerLayer
    for name, module in list(network.named_modules()):
        if isinstance(module, tuner):
            module.merge(safe_merge=True)
            network.set_submodule(name, module.get_base_layer())
    vars(network).pop("peft_config", None)


def _is_trunk(name: str) -> bool:
    return not name.startswith("heads.")


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _peft() -> ModuleType:
    torchvision_ops.register()
    try:
        import peft
    except ImportError as error:
        raise ImportError(
            f"start.lora needs peft, which cannot be imported ({error}); pip install 'assay[lora]'"
        ) from error
    return peft
