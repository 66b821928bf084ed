"""The same rasteriser in torch, for devices: all views of a batch, primitive by primitive.

Enters: `Scenes`. Leaves: a (V, C, size, size) tensor on the device, or which site each pixel shows.
The pictures are those of `assay.featurize.pictures.raster`, up to rounding at the outlines; on a
CPU the compiled one is far quicker.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.featurize.pictures.colours import encoding
from assay.featurize.pictures.raster import normalisation
from assay.featurize.pictures.scene import Scenes, ViewSpec

_NOTHING = -1e30
_TIE = 1e-3

_Three = tuple[Tensor, Tensor, Tensor]
_Surface = tuple[Tensor, Tensor, Tensor]
"""Depth in pixels, height over the middle or axis in radii, share of the pixel covered; (v, size,
size) each."""


def images(
    scenes: Scenes,
    spec: ViewSpec,
    device: torch.device | str = "cpu",
    *,
    mean: NDArray[np.float32] | None = None,
    std: NDArray[np.float32] | None = None,
) -> Tensor:
    """(V, C, size, size) float32 on the device; arguments as for `raster.images`."""
    kind = encoding(spec.encoding)
    scale, shift = (torch.from_numpy(part).to(device) for part in normalisation(len(kind.names), mean, std))
    canvas = _drawn(scenes, spec, device)
    colour = torch.from_numpy(scenes.colour).to(device)
    picture = canvas.compose(colour, spec.background)
    if kind.maps:
        span = torch.from_numpy(scenes.depth).to(device) * _unit(scenes, spec, device)[:, None]
        picture = torch.cat([picture, canvas.maps(span)], dim=1)
    return picture * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def sites(scenes: Scenes, spec: ViewSpec, device: torch.device | str = "cpu") -> Tensor:
    """(V, size, size) int64 site that gives a pixel most of its colour, -1 where nothing is.

    A bond belongs to the atom whose colour it has. The site is that of `Scenes.site`: one of those
    with its species.
    """
    canvas = _drawn(scenes, spec, device)
    site = torch.from_numpy(scenes.site.astype(np.int64)).to(device)
    return torch.where(canvas.empty(), -1, site[_atom(canvas.foremost())]) if len(site) else canvas.front - 1


def _drawn(scenes: Scenes, spec: ViewSpec, device: torch.device | str) -> _Canvas:
    """Every sphere and every stick of every view."""
    canvas = _Canvas.blank(len(scenes), spec.size, device)
    unit = _unit(scenes, spec, device)
    half = torch.arange(spec.size, device=device, dtype=torch.float32) + 0.5
    grid = half.view(1, 1, -1), half.view(1, -1, 1)
    middle = spec.size / 2
    for k, alive in _rounds(scenes.sphere_ptr):
        centre = _pixels(scenes.centre[k], unit[alive], middle)
        radius = torch.from_numpy(scenes.radius[k]).to(device) * unit[alive]
        canvas.draw(alive, torch.from_numpy(k).to(device), _sphere(grid, centre, _wide(radius)), spec.shading)
    for k, alive in _rounds(scenes.stick_ptr):
        start, end = (_pixels(part[k], unit[alive], middle) for part in (scenes.start, scenes.end))
        owner = torch.from_numpy(-1 - scenes.owner[k].astype(np.int64)).to(device)
        canvas.draw(alive, owner, _stick(grid, start, end, _wide(spec.bond_radius * unit[alive])), spec.shading)
    return canvas


def _unit(scenes: Scenes, spec: ViewSpec, device: torch.device | str) -> Tensor:
    """(V,) pixels per Å."""
    return torch.from_numpy(0.5 * spec.size / scenes.extent).to(device)


def _rounds(ptr: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The k-th primitive of every view that has one, and those views."""
    counts = np.diff(ptr)
    alive = [np.flatnonzero(counts > k) for k in range(int(counts.max(initial=0)))]
    return [(ptr[views] + k, views) for k, views in enumerate(alive)]


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)


def _pixels(place: NDArray[np.float32], unit: Tensor, middle: float) -> _Three:
    """Column, row and depth in pixels, each (v, 1, 1)."""
    scaled = torch.from_numpy(place).to(unit.device) * unit[:, None]
    return _wide(middle + scaled[:, 0]), _wide(middle - scaled[:, 1]), _wide(scaled[:, 2])


def _sphere(grid: tuple[Tensor, Tensor], centre: _Three, r: Tensor) -> _Surface:
    """One sphere in each view."""
    d2 = (grid[0] - centre[0]) ** 2 + (grid[1] - centre[1]) ** 2
    height = (r * r - d2).clamp_min(0).sqrt()
    return centre[2] + height, height / r, _coverage(d2.sqrt(), r)


def _stick(
    grid: tuple[Tensor, Tensor],
    start: _Three,
    end: _Three,
    r: Tensor,
) -> _Surface:
    """One cylinder without caps in each view."""
    span = [b - a for a, b in zip(start, end, strict=True)]
    length = torch.sqrt(span[0] ** 2 + span[1] ** 2 + span[2] ** 2)
    ux, uy, uz = (part / length for part in span)
    flat = 1 - uz * uz
    seen = flat >= 1e-6
    flat = flat.clamp_min(1e-6)
    px, py = grid[0] - start[0], grid[1] - start[1]
    apart = (px * uy - py * ux).abs() / flat.sqrt()
    along = px * ux + py * uy
    bulge = (r * r - apart * apart).clamp_min(0).sqrt()
    z = (along * uz + flat.sqrt() * bulge) / flat
    far = along + z * uz
    inside = seen & (far >= 0) & (far <= length)
    return start[2] + z, bulge / r, torch.where(inside, _coverage(apart, r), 0.0)


def _coverage(distance: Tensor, r: Tensor) -> Tensor:
    """1 well inside the outline, 0 outside, linear over the pixel between."""
    full = distance < (r - 0.5).clamp_min(0)
    partial = torch.minimum(r + 0.5 - distance, (2 * r).clamp_max(1.0)).clamp_min(0)
    return torch.where(full, 2.0, partial)  # 2: solid, distinct from an outline that covers the whole pixel


@dataclass
class _Canvas:
    """What is in front at every pixel, and the nearest outline before it; (V, size, size) each."""

    depth: Tensor
    front: Tensor
    light: Tensor
    rim: Tensor
    edge: Tensor
    dim: Tensor
    share: Tensor

    @classmethod
    def blank(cls, views: int, size: int, device: torch.device | str) -> _Canvas:
        """Nothing at all."""
        shape = views, size, size
        far = torch.full(shape, _NOTHING, device=device)
        zero, none = torch.zeros(shape, device=device), torch.zeros(shape, dtype=torch.int64, device=device)
        return cls(far, none, zero, far.clone(), none.clone(), zero.clone(), zero.clone())

    def draw(self, views: NDArray[np.int64], ident: Tensor, surface: _Surface, shading: float) -> None:
        """Add one primitive to each of these views."""
        z, height, cover = surface
        rows = torch.from_numpy(views).to(z.device)
        shade = 1 - shading * (1 - height)
        solid = cover > 1.5
        named = ident.view(-1, 1, 1).expand_as(z)
        for nearer, targets in (
            (solid & (z > self.depth[rows] + _TIE), {"depth": z, "front": named, "light": shade}),
            (
                ~solid & (cover > 0) & (z > self.rim[rows] + _TIE),
                {"rim": z, "edge": named, "dim": shade, "share": cover},
            ),
        ):
            for name, value in targets.items():
                kept: Tensor = getattr(self, name)
                kept[rows] = torch.where(nearer, value, kept[rows])

    def _alpha(self) -> Tensor:
        return torch.where(self.rim > self.depth, self.share, 0.0)

    def empty(self) -> Tensor:
        """(V, size, size) whether there is nothing at all."""
        return (self.depth <= _NOTHING) & (self.share <= 0)

    def foremost(self) -> Tensor:
        """(V, size, size) the surface or outline that gives a pixel most of its colour."""
        outlined = (self._alpha() >= 0.5) | (self.depth <= _NOTHING)
        return torch.where(outlined, self.edge, self.front)

    def compose(self, colour: Tensor, background: float) -> Tensor:
        """(V, C, size, size) colours."""
        solid, alpha = (self.depth > _NOTHING).unsqueeze(-1), self._alpha().unsqueeze(-1)
        value = torch.where(solid, colour[_atom(self.front)] * self.light.unsqueeze(-1), background)
        value = value + alpha * (colour[_atom(self.edge)] * self.dim.unsqueeze(-1) - value)
        return value.permute(0, 3, 1, 2)

    def maps(self, span: Tensor) -> Tensor:
        """(V, 2, size, size): depth within `span` (V, 2), and whether it is a bond."""
        back, deep = _wide(span[:, 0]), _wide(span[:, 1] - span[:, 0])
        solid, alpha = self.depth > _NOTHING, self._alpha()
        far = torch.where(solid, (self.depth - back) / deep, 0.0)
        far = far + alpha * ((self.rim - back) / deep - far)
        bond = (solid & (self.front < 0)).float()
        bond = bond + alpha * ((self.edge < 0).float() - bond)
        return torch.stack([far.clamp(0, 1), bond], dim=1)


def _atom(ident: Tensor) -> Tensor:
    return torch.where(ident >= 0, ident, -1 - ident)
