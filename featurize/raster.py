"""The rasteriser: scenes become images, compiled, straight into the batch a network reads.

Enters: `Scenes`. Leaves: (V, C, size, size) float32. Spheres and half bonds are drawn as impostors (the exact surface
is evaluated per pixel, there is no mesh) through a depth buffer; the last half pixel of an outline is mixed with what
lies behind it by the share of the pixel it covers, of several outlines in one pixel the nearest. This module does not
know crystals or networks.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from featurize.colours import encoding
from featurize.scene import Scenes, ViewSpec

_NOTHING = -1e30
_TIE = np.float32(1e-3)
"""Pixels of depth; of two surfaces closer than this the first drawn is seen."""


def images(
    scenes: Scenes,
    spec: ViewSpec,
    *,
    mean: NDArray[np.float32] | None = None,
    std: NDArray[np.float32] | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Draw every view.

    Args:
        scenes: made with the same spec.
        spec: size, shading, background and encoding.
        mean: (C,) subtracted from every channel, for a network that wants normalised images.
        std: (C,) by which every channel is divided after that.
        out: (V, C, size, size) array to draw into.

    Returns:
        (V, C, size, size): the channels of the encoding, 0 to 1 before `mean` and `std`; row 0 is the top.

    Raises:
        ValueError: when `out`, `mean` or `std` do not fit.
    """
    channels = len(encoding(spec.encoding).names)
    shape = len(scenes), channels, spec.size, spec.size
    if out is None:
        out = np.empty(shape, np.float32)
    if out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(f"out is {out.dtype} {out.shape}, expected contiguous float32 {shape}")
    scale, shift = normalisation(channels, mean, std)
    _draw(
        scenes.sphere_ptr, scenes.centre, scenes.radius, scenes.colour,
        scenes.stick_ptr, scenes.start, scenes.end, scenes.owner, scenes.extent, scenes.depth,
        np.float32(spec.bond_radius), np.float32(spec.shading), np.float32(spec.background),
        encoding(spec.encoding).maps, scale, shift, out,
    )  # fmt: skip
    return out


def normalisation(
    channels: int, mean: NDArray[np.float32] | None, std: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(C,) factor and offset that put a channel on the scale of a network."""
    middle = np.zeros(channels, np.float32) if mean is None else np.asarray(mean, np.float32)
    width = np.ones(channels, np.float32) if std is None else np.asarray(std, np.float32)
    if middle.shape != (channels,) or width.shape != (channels,) or not (width > 0).all():
        raise ValueError(f"mean {middle.shape} and std {width.shape} must be ({channels},), std above 0")
    return np.asarray(1 / width, np.float32), np.asarray(-middle / width, np.float32)


@njit(cache=True, nogil=True)
def _draw(  # type: ignore[no-untyped-def]
    sphere_ptr, centre, radius, colour, stick_ptr, start, end, owner, extent, span,
    bond_radius, shading, background, maps, scale, shift, out,
):  # fmt: skip
    """Fill the images view by view.

    At every pixel `front` names what is seen: sphere k of the view, n for nothing, n + 1 + k for a stick of sphere k.
    """
    size = out.shape[2]
    depth, rim = np.empty((size, size), np.float32), np.empty((size, size), np.float32)
    front, edge = np.empty((size, size), np.int32), np.empty((size, size), np.int32)
    light, dim = np.empty((size, size), np.float32), np.empty((size, size), np.float32)
    share = np.empty((size, size), np.float32)
    for view in range(len(extent)):
        first, last = sphere_ptr[view], sphere_ptr[view + 1]
        unit = np.float32(0.5 * size / extent[view])
        depth[:], rim[:], front[:] = _NOTHING, _NOTHING, last - first
        for k in range(first, last):
            _sphere(
                np.int32(k - first), centre[k], radius[k] * unit, unit, shading, depth, front, rim, edge, dim, share
            )
        for k in range(stick_ptr[view], stick_ptr[view + 1]):
            ident = np.int32(last - first + 1 + owner[k] - first)
            _stick(
                ident, start[k], end[k], bond_radius * unit, unit, shading, depth, front, light, rim, edge, dim, share
            )
        height, fade, tint = _surfaces(
            centre[first:last], radius[first:last], unit, shading, colour[first:last], background, scale
        )
        _fill(height, fade, tint, shift, depth, front, out[view])
        _mix(height, fade, tint, shift, depth, front, light, rim, edge, dim, share, out[view])
        if maps:
            _map(span[view] * unit, scale, shift, last - first, depth, front, rim, edge, share, out[view])


@njit(cache=True, nogil=True, fastmath=True)
def _sphere(ident, centre, r, unit, shading, depth, front, rim, edge, dim, share):  # type: ignore[no-untyped-def]
    """One sphere of radius `r` pixels: what is well inside the outline, then the pixels that the outline crosses."""
    size = len(depth)
    half, none = np.float32(0.5), np.float32(0.0)
    cx, cy, cz = half * size + centre[0] * unit, half * size - centre[1] * unit, centre[2] * unit
    outer, inner, r2 = r + half, max(r - half, none), r * r
    most, bulge = min(np.float32(1.0), 2 * r), math.sqrt(r2 - inner * inner)
    near, seen = depth.ravel(), front.ravel()
    for i in range(max(0, math.ceil(cy - outer - half)), min(size, math.floor(cy + outer - half) + 1)):
        dy2 = (np.float32(i) + half - cy) ** 2
        chord, core = math.sqrt(max(outer * outer - dy2, none)), math.sqrt(max(inner * inner - dy2, none))
        left = max(0, math.ceil(cx - chord - half))
        right = max(left, min(size, math.floor(cx + chord - half) + 1))
        begin = min(right, max(left, math.ceil(cx - core - half)))
        end = max(begin, min(right, math.floor(cx + core - half) + 1))
        if core == 0:
            begin = end = right
        if begin < end:
            _row(ident, np.float32(begin) + half - cx, r2 - dy2, cz, near, seen, i * size + begin, end - begin)
        for side in range(2):
            for j in range(left if side == 0 else end, begin if side == 0 else right):
                if depth[i, j] > cz + bulge:
                    continue  # behind what is there already
                d2 = dy2 + (np.float32(j) + half - cx) ** 2
                height = math.sqrt(max(r2 - d2, none))
                if cz + height > rim[i, j] + _TIE:
                    rim[i, j], edge[i, j] = cz + height, ident
                    dim[i, j] = 1 - shading * (1 - height / r)
                    share[i, j] = min(max(outer - math.sqrt(d2), none), most)


@njit(cache=True, nogil=True, fastmath=True)
def _row(ident, x, h2, cz, near, seen, first, n):  # type: ignore[no-untyped-def]
    """The pixels of one row inside a sphere; without branches, so that it is done eight pixels at a time."""
    for j in range(np.uint32(n)):
        at = np.uint64(first) + np.uint64(j)  # unsigned: an index that may be negative is looked at one by one
        dx = x + np.float32(np.int32(j))
        z = cz + math.sqrt(max(h2 - dx * dx, np.float32(0.0)))
        nearer = z > near[at] + _TIE
        near[at] = z if nearer else near[at]
        seen[at] = ident if nearer else seen[at]


@njit(cache=True, nogil=True, fastmath=True)
def _stick(ident, start, end, r, unit, shading, depth, front, light, rim, edge, dim, share):  # type: ignore[no-untyped-def]
    """Half a bond: a cylinder of radius `r` pixels without caps."""
    size = len(depth)
    half, none = np.float32(0.5), np.float32(0.0)
    ax, ay, az = half * size + start[0] * unit, half * size - start[1] * unit, start[2] * unit
    bx, by, bz = half * size + end[0] * unit, half * size - end[1] * unit, end[2] * unit
    length = math.sqrt((bx - ax) ** 2 + (by - ay) ** 2 + (bz - az) ** 2)
    ux, uy, uz = (bx - ax) / length, (by - ay) / length, (bz - az) / length
    flat = 1 - uz * uz
    if flat < 1e-6:  # seen along its axis it is behind its atom
        return
    width = math.sqrt(flat)
    outer, inner, most = r + half, max(r - half, none), min(np.float32(1.0), 2 * r)
    top, bottom = min(ay, by) - outer - half, max(ay, by) + outer - half
    left, right = min(ax, bx) - outer - half, max(ax, bx) + outer - half
    for i in range(max(0, math.ceil(top)), min(size, math.floor(bottom) + 1)):
        py = np.float32(i) + half - ay
        for j in range(max(0, math.ceil(left)), min(size, math.floor(right) + 1)):
            px = np.float32(j) + half - ax
            apart = abs(px * uy - py * ux) / width
            along = px * ux + py * uy
            bulge = math.sqrt(max(r * r - apart * apart, none))
            z = (along * uz + width * bulge) / flat
            if apart >= outer or not 0 <= along + z * uz <= length:
                continue
            shade = 1 - shading * (1 - bulge / r)
            if apart < inner:
                if az + z > depth[i, j] + _TIE:
                    depth[i, j], front[i, j], light[i, j] = az + z, ident, shade
            elif az + z > rim[i, j] + _TIE:
                rim[i, j], edge[i, j], dim[i, j] = az + z, ident, shade
                share[i, j] = min(outer - apart, most)


@njit(cache=True, nogil=True)
def _surfaces(centre, radius, unit, shading, colour, background, scale):  # type: ignore[no-untyped-def]
    """Per sphere and, last, for nothing: light = height + fade * depth, and the normalised colour (C, n + 1)."""
    n, channels = colour.shape
    height, fade = np.ones(n + 1, np.float32), np.zeros(n + 1, np.float32)
    tint = np.empty((channels, n + 1), np.float32)
    for k in range(n):
        fade[k] = shading / (radius[k] * unit)
        height[k] = 1 - shading - fade[k] * centre[k, 2] * unit
    for c in range(channels):
        for k in range(n):
            tint[c, k] = colour[k, c] * scale[c]
        tint[c, n] = background * scale[c]
    return height, fade, tint


@njit(cache=True, nogil=True, fastmath=True)
def _fill(height, fade, tint, shift, depth, front, out):  # type: ignore[no-untyped-def]
    """The colour of the sphere in front, or of the background, at every pixel."""
    size, nothing = len(depth), np.int32(len(height) - 1)
    light, which = np.empty(size, np.float32), np.empty(size, np.int32)
    for i in range(size):
        for j in range(size):
            k = min(front[i, j], nothing)
            which[j] = k
            light[j] = height[k] + fade[k] * depth[i, j]
        for c in range(len(tint)):
            row, table, offset = out[c, i], tint[c], shift[c]
            for j in range(size):
                row[j] = table[which[j]] * light[j] + offset


@njit(cache=True, nogil=True, fastmath=True)
def _mix(height, fade, tint, shift, depth, front, light, rim, edge, dim, share, out):  # type: ignore[no-untyped-def]
    """Sticks, and outlines before what lies behind them."""
    size, nothing = len(depth), len(height) - 1
    found = np.empty(size + 1, np.int32)
    for i in range(size):
        n = 0
        for j in range(size):  # which pixels: without branches
            found[n] = j
            n += (rim[i, j] > depth[i, j]) | (front[i, j] > nothing)
        for t in range(n):
            j = found[t]
            k, m = front[i, j], edge[i, j]
            lit = light[i, j] if k > nothing else height[k] + fade[k] * depth[i, j]
            k = k - nothing - 1 if k > nothing else k
            outlined = rim[i, j] > depth[i, j]
            alpha, shine = (share[i, j], dim[i, j]) if outlined else (np.float32(0.0), np.float32(0.0))
            m = k if not outlined else (m - nothing - 1 if m > nothing else m)
            for c in range(len(tint)):
                value = tint[c, k] * lit
                out[c, i, j] = value + alpha * (tint[c, m] * shine - value) + shift[c]


@njit(cache=True, nogil=True, fastmath=True)
def _map(span, scale, shift, nothing, depth, front, rim, edge, share, out):  # type: ignore[no-untyped-def]
    """The last two channels: how far to the front the surface is, and whether it is a bond."""
    size, c = len(depth), len(out) - 2
    none, one = np.float32(0.0), np.float32(1.0)
    back, deep = span[0], span[1] - span[0]
    for i in range(size):
        for j in range(size):
            far = (depth[i, j] - back) / deep if front[i, j] != nothing else none
            bond = one if front[i, j] > nothing else none
            if rim[i, j] > depth[i, j]:
                far += share[i, j] * ((rim[i, j] - back) / deep - far)
                bond += share[i, j] * ((one if edge[i, j] > nothing else none) - bond)
            out[c, i, j] = min(max(far, none), one) * scale[c] + shift[c]
            out[c + 1, i, j] = bond * scale[c + 1] + shift[c + 1]
