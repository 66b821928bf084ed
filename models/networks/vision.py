"""A vision transformer on pictures of crystals: the only module that imports timm.

Enters: `Images`. Leaves: one scaled value per crystal and property, and what each view alone would
have said. Any vision transformer of timm serves as the trunk (Dosovitskiy et al., ICLR 2021;
DINOv2: Oquab et al., TMLR 2024). Weights come from an Assay checkpoint, from a local file, or from
timm's hub; where they were asked for and cannot be had this is an error. This module does not know
crystals, cameras or adapters.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from assay.models.networks import torchvision_ops
from assay.models.networks.batch import Images
from assay.models.networks.layers import Network, PropertyHeads
from assay.models.networks.linear import Half, check_bfloat16
from assay.models.target import VIEWS

HUB = "timm"
"""As the folder of a start: the published weights of the backbone, from the cache or the hub."""

DEFAULTS: dict[str, Any] = {"backbone": "vit_tiny_patch16_224", "options": None, "waves": 0}
"""Sizes of the trunk where a recipe does not say them."""

_BEFORE = ("patch_embed", "pos_drop", "patch_drop", "norm_pre", "rope")
"""Parts of timm's transformers before the blocks."""

_log = logging.getLogger(__name__)


class ViT(Network):
    """A timm transformer and heads over every view, then the mean over the views of a crystal."""

    vit: Any
    mean: Tensor
    """(C,) of the channels, subtracted from pictures before they come here."""
    std: Tensor
    """(C,) by which they are divided then."""

    def __init__(
        self,
        features: tuple[int, int],
        properties: Sequence[str],
        *,
        backbone: str = DEFAULTS["backbone"],
        options: dict[str, Any] | None = None,
        waves: int = 0,
        head: Sequence[int] = (512, 256),
        dropout: float = 0.0,
        variance: bool = False,
    ) -> None:
        """Make a network with random weights.

        Args:
            features: channels and pixels of a picture.
            properties: names of the predicted properties.
            backbone: any vision transformer of timm, with the tag of its weights if it has several.
            options: keyword arguments of the backbone, for example {depth: 6, embed_dim: 192,
                patch_size: 8}.
            waves: octaves of sines and cosines of every channel that the backbone is given beside
                it (`ripple`).
            head: widths of the hidden layers of the heads.
            dropout: in the heads.
            variance: whether the heads also predict the variance of their error.
        """
        super().__init__()
        self.waves = waves
        vit = transformer(backbone, (features[0] * (1 + 2 * waves), features[1]), options or {})
        if waves:
            _even(vit.patch_embed.proj)
        self.vit = vit
        for name, values in _normalisation(vit, features[0]).items():
            self.register_buffer(name, values)  # kept with the weights, as what they learned from
        self.level = Level(vit.num_features)
        self.heads = PropertyHeads(vit.num_features, tuple(head), properties, dropout, variance=variance)

    def encode(self, batch: Images) -> Tensor:
        """(n, width) mean state of the views of each crystal."""
        return batch.mean(self.states(batch))

    def states(self, batch: Images) -> Tensor:
        """(V, width) state of each view, levelled."""
        seen = self.vit.forward_features(ripple(batch.pixels, self.waves))
        states: Tensor = self.level(self.vit.forward_head(seen, pre_logits=True))
        return states

    def conclude(self, states: Tensor, batch: Images) -> tuple[Tensor, dict[str, Tensor]]:
        """State and predictions of each crystal; those of each view (V,) under name + `VIEWS`."""
        each = self.heads(states)
        out = {name: batch.mean(values[:, None])[:, 0] for name, values in each.items()}
        return batch.mean(states), out | {name + VIEWS: values for name, values in each.items()}

    def stages(self) -> list[nn.Module]:
        """Patches and positions, then the blocks."""
        return stages(self.vit)

    @classmethod
    def published(cls, source: str, shape: tuple[int, int], sizes: dict[str, Any]) -> tuple[dict[str, Tensor], str]:
        """Weights of the backbone from the hub or a file, see `published`."""
        return published_trunk(source, shape, sizes)

    def lower(self) -> None:
        """Let the blocks predict in bfloat16; what runs from block to block stays in float32.

        About three to four times as fast on a CPU that has the instructions, see
        docs/benchmarks.md. The network can learn no more.

        Raises:
            ValueError: when the CPU has none.
        """
        check_bfloat16()
        for block in self.vit.blocks:
            for name, module in list(block.named_modules()):
                if isinstance(module, nn.Linear):
                    block.set_submodule(name, Half(module))
                elif hasattr(module, "fused_attn"):
                    module.fused_attn = False  # products one by one are twice as fast as torch's kernel in bfloat16
        blank = torch.zeros(1, len(self.mean), *self.vit.patch_embed.img_size)
        try:
            with torch.inference_mode():
                self.states(Images(blank, torch.zeros(1, dtype=torch.int64), torch.ones(1), 1))
        except RuntimeError as error:
            message = f"precision is bfloat16, which this backbone cannot do ({_first_line(error)}); expected float32"
            raise ValueError(message) from error

    def lower_on(self, device: torch.device) -> None:
        """Let torch choose bfloat16 in the transformer where it is safe; the rest is float32."""
        inner = self.vit.forward_features
        self.vit.forward_features = torch.autocast(device.type, torch.bfloat16)(inner)


def ripple(pixels: Tensor, waves: int) -> Tensor:
    """Pixels (V, C, h, w) with sines and cosines of each channel: (1 + 2 waves) C channels.

    The angles are 1, 2, 4, ... times pi times the channel.

    Two elements differ by a tenth of a channel. Networks learn such steep functions slowly, and of
    these sines quickly (Tancik et al., NeurIPS 2020).
    """
    if not waves:
        return pixels
    sine, cosine = torch.sin(math.pi * pixels), torch.cos(math.pi * pixels)
    parts = [pixels, sine, cosine]
    for _ in range(waves - 1):  # twice the angle
        sine, cosine = 2 * sine * cosine, 1 - 2 * sine * sine
        parts += [sine, cosine]
    return torch.cat(parts, dim=1)


class Level(nn.Module):
    """Features (V, width), standardised by running statistics; there is nothing to learn.

    To an untrained transformer pictures look alike: what differs is a small part of its state.
    Heads that are given this part alone learn sooner (docs/log.md; He et al., CVPR 2022, do it to
    probe a masked autoencoder).
    """

    mean: Tensor
    """(width,) of the batches so far, the last count most."""
    variance: Tensor
    """(width,) likewise."""

    def __init__(self, width: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Level x; in training by its own statistics, which are remembered."""
        x = x.float()
        mean, variance = self.mean, self.variance
        if self.training and len(x) > 1:
            mean, variance = x.mean(0), x.var(0)
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.variance.lerp_(variance, self.momentum)
        return (x - mean) * torch.rsqrt(variance + 1e-6)


def transformer(backbone: str, features: tuple[int, int], options: dict[str, Any], **weights: Any) -> Any:
    """A vision transformer of timm without its classifier; `features` are channels and pixels.

    Raises:
        ImportError: when timm is not installed.
        ValueError: for an unknown name, something that is no transformer, or a size that is no
            multiple of a patch.
    """
    timm = _timm()
    name = backbone.partition(".")[0]
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        raise ValueError(f"timm has no model {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    if "pretrained" in options:
        raise ValueError("options: pretrained weights are asked for with start: {folder: timm}")
    channels, size = features
    made = timm.create_model(
        backbone, num_classes=0, in_chans=channels, img_size=size, **{"pretrained": False, **options, **weights}
    )
    if not (hasattr(made, "blocks") and hasattr(made, "patch_embed") and hasattr(made, "forward_head")):
        raise ValueError(f"{backbone} is no vision transformer with patches and blocks")
    patch = max(made.patch_embed.patch_size)
    if size % patch:
        raise ValueError(f"pictures of {size} pixels do not divide into patches of {patch}; make view.size a multiple")
    return made


def _even(projection: Any) -> None:
    """Start with weights that mainly read the mean of the pixels of a patch."""
    with torch.no_grad():
        out, channels, rows, columns = projection.weight.shape
        deviation = channels**-0.5 / (rows * columns)
        same, apart = torch.randn(out, channels, 1, 1), torch.randn_like(projection.weight)
        projection.weight.copy_(deviation * (same + 0.1 * apart))


def stages(vit: Any) -> list[nn.Module]:
    """Parts of a transformer: patches with positions and prefix tokens, then the blocks.

    The last block has everything after it.
    """
    tokens = nn.ParameterList([p for name, p in vit.named_parameters() if "." not in name])
    first = [module for name, module in vit.named_children() if name in _BEFORE]
    after = [module for name, module in vit.named_children() if name not in (*_BEFORE, "blocks")]
    *blocks, last = vit.blocks
    return [nn.ModuleList([*first, tokens]), *blocks, nn.ModuleList([last, *after])]


def published_trunk(source: str, shape: tuple[int, int], sizes: dict[str, Any]) -> tuple[dict[str, Tensor], str]:
    """Published weights for the trunk that `sizes` describe, and their hash, see `published`."""
    backbone, options, waves = (sizes.get(name, default) for name, default in DEFAULTS.items())
    if waves:
        raise ValueError(f"sizes.waves is {waves}; published weights have seen none, expected 0")
    weights = published(source, backbone, shape, options or {})
    return weights, digest(weights)


def published(source: str, backbone: str, features: tuple[int, int], options: dict[str, Any]) -> dict[str, Tensor]:
    """Trained weights of a trunk under the names of `ViT`.

    They come from the hub or its cache (`HUB`), or from a .safetensors file.

    Positions are interpolated to the size of the pictures; for other than three channels the
    weights of the three are repeated and scaled, as timm does it.

    Raises:
        FileNotFoundError: when they can neither be found nor fetched.
        ValueError: when the file does not fit, or leaves a weight of the network random.
    """
    weights: dict[str, Any] = {"pretrained": True}
    if source != HUB:
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; start.folder is a checkpoint, a .safetensors file or {HUB!r}")
        weights["pretrained_cfg_overlay"] = {"file": str(path), "source": "file"}
    if "dinov3" in backbone:
        _log.warning("the weights of %s come under Meta's DINOv3 License, not under a free one", backbone)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = transformer(backbone, features, options).state_dict()
        torch.manual_seed(0)
        try:
            loaded = transformer(backbone, features, options, **weights).state_dict()
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"the weights of {source} do not fit {backbone}: {_first_line(error)}") from error
        except Exception as error:
            raise FileNotFoundError(
                f"the weights of {backbone} are not in the cache and cannot be fetched ({_first_line(error)}); fetch "
                "them where there is a network and give start.folder the path of the .safetensors file"
            ) from error
    idle = [name for name, value in loaded.items() if torch.equal(value, fresh[name])]
    if idle:  # also what starts as zeros or ones: nothing trained stays exactly there
        raise ValueError(f"the weights of {source} leave {len(idle)} tensors of {backbone} untrained, one is {idle[0]}")
    return {f"vit.{name}": value for name, value in loaded.items()}


def digest(weights: dict[str, Tensor]) -> str:
    """Hash of names and values."""
    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()


def _normalisation(vit: Any, channels: int) -> dict[str, Tensor]:
    """Mean and deviation (C,) that a backbone expects; averages where channels are no colours."""
    expected = {name: torch.tensor(vit.pretrained_cfg[name], dtype=torch.float32) for name in ("mean", "std")}
    return {name: values if channels == 3 else values.mean().repeat(channels) for name, values in expected.items()}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]


def _timm() -> ModuleType:
    torchvision_ops.register()
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            f"vision networks need timm, which cannot be imported ({error}); pip install 'assay[vision]'"
        ) from error
    return timm
