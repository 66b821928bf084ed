"""Learning pictures of crystals without labels: a masked autoencoder (He et al., CVPR 2022).

Enters: `Images`. Leaves: the error of reconstruction of each crystal, which is its own loss: the
training loop learns it as a property whose value is 0 for every crystal. The trunk is that of
`assay.models.networks.vision.ViT`, under the same names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from assay.models.networks import vision
from assay.models.networks.batch import Images
from assay.models.networks.layers import Network


class MaskedAutoencoder(Network):
    """Sees a quarter of the patches of every view, and paints the others."""

    vit: Any
    HEAD_SIZES = Network.HEAD_SIZES | {"masked", "decoder_width", "decoder_layers"}

    def __init__(
        self,
        features: tuple[int, int],
        properties: Sequence[str],
        *,
        backbone: str = vision.DEFAULTS["backbone"],
        options: dict[str, Any] | None = None,
        waves: int = 0,
        masked: float = 0.75,
        decoder_width: int = 96,
        decoder_layers: int = 2,
    ) -> None:
        """Make a network with random weights.

        Args:
            features: channels and pixels of a picture.
            properties: one name, under which the error is reported.
            backbone: a timm transformer with learned positions, as for `ViT`.
            options: its keyword arguments.
            waves: as for `ViT`.
            masked: share of the patches that is hidden.
            decoder_width: of a patch while it is painted.
            decoder_layers: blocks that paint.
        """
        super().__init__()
        if len(properties) != 1:
            raise ValueError(f"a masked autoencoder tells one number, its error, not {list(properties)}")
        if not 0 < masked < 1:
            raise ValueError(f"masked is {masked}, expected between 0 and 1")
        template = vision.ViT(features, (), backbone=backbone, options=options, waves=waves)
        self.vit = vit = template.vit
        for name in ("mean", "std"):
            self.register_buffer(name, template.get_buffer(name))
        if vit.pos_embed is None or vit.num_prefix_tokens != 1 or getattr(vit, "rope", None) is not None:
            raise ValueError(f"{backbone} has no learned positions with one class token, which masking needs")
        if vit.no_embed_class or not isinstance(vit.norm_pre, nn.Identity):
            raise ValueError(
                f"{backbone} normalises before its blocks, or gives its class token no position; expected "
                "a plain vision transformer"
            )
        (self.name,), self.masked, self.waves, (channels, _) = properties, masked, waves, features
        self.patch = int(vit.patch_embed.patch_size[0])
        self.narrow = nn.Linear(vit.embed_dim, decoder_width)
        self.hidden = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.place = nn.Parameter(0.02 * torch.randn(1, vit.patch_embed.num_patches, decoder_width))
        self.painter = nn.ModuleList(_block(decoder_width) for _ in range(decoder_layers))
        self.paint = nn.Linear(decoder_width, channels * self.patch**2)

    def encode(self, batch: Images) -> Tensor:
        """(n, width) mean state of the views of each crystal, nothing hidden."""
        seen = self.vit.forward_features(vision.ripple(batch.pixels, self.waves))
        return batch.mean(self.vit.forward_head(seen, pre_logits=True))

    def look(self, batch: Images) -> tuple[Tensor, dict[str, Tensor]]:
        """The state of each crystal, and its error of reconstruction."""
        return self.encode(batch), self.forward(batch)

    def forward(self, batch: Images) -> dict[str, Tensor]:
        """Mean squared error (n,) over the hidden patches, each on the scale of its own picture."""
        wanted = self._patches(batch.pixels)
        order = self._order(wanted)
        seen = order[:, : max(1, round(wanted.shape[1] * (1 - self.masked)))]
        tokens = self.vit.patch_embed(vision.ripple(batch.pixels, self.waves)) + self.vit.pos_embed[:, 1:]
        first = (self.vit.cls_token + self.vit.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        states = self.vit.norm(self.vit.blocks(torch.cat([first, _take(tokens, seen)], dim=1)))
        narrow = self.narrow(states)[:, 1:]
        painted = self.hidden.expand(*wanted.shape[:2], -1).to(narrow.dtype)
        painted = painted.scatter(1, seen[:, :, None].expand(-1, -1, narrow.shape[2]), narrow) + self.place
        for block in self.painter:
            painted = block(painted)
        error = ((self.paint(painted) - wanted) ** 2).mean(dim=2)
        share = torch.ones_like(error).scatter(1, seen, 0.0)
        return {self.name: batch.mean(((error * share).sum(dim=1) / share.sum(dim=1))[:, None])[:, 0]}

    @classmethod
    def published(cls, source: str, shape: tuple[int, int], sizes: dict[str, Any]) -> tuple[dict[str, Tensor], str]:
        """Weights of the backbone, as for `ViT`."""
        return vision.published_trunk(source, shape, sizes)

    def stages(self) -> list[nn.Module]:
        """Patches and positions, then the blocks of the encoder."""
        return vision.stages(self.vit)

    def _patches(self, pixels: Tensor) -> Tensor:
        """(V, patches, C * patch * patch) pixels, standardised within their picture."""
        around = pixels - pixels.mean(dim=(1, 2, 3), keepdim=True)
        scaled = around / pixels.std(dim=(1, 2, 3), keepdim=True).clamp(min=1e-3)
        return nn.functional.unfold(scaled, self.patch, stride=self.patch).transpose(1, 2)

    def _order(self, patches: Tensor) -> Tensor:
        """(V, patches) a random order of the patches of each view; the same in every validation."""
        generator = None if self.training else torch.Generator(patches.device).manual_seed(0)
        return torch.rand(patches.shape[:2], device=patches.device, generator=generator).argsort(dim=1)


def _block(width: int) -> nn.Module:
    return nn.TransformerEncoderLayer(
        width, max(1, width // 32), 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
    )


def _take(tokens: Tensor, chosen: Tensor) -> Tensor:
    return tokens.gather(1, chosen[:, :, None].expand(-1, -1, tokens.shape[2]))
