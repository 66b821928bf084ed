"""The rasteriser: scenes become images, compiled, straight into the batch a network reads.

Enters: `Scenes`. Leaves: (V, C, size, size) float32. Spheres and half bonds are drawn as impostors
(the exact surface is evaluated per pixel, there is no mesh) through a depth buffer; the last half
pixel of an outline is mixed with what lies behind it by the share of the pixel it covers, of
several outlines in one pixel the nearest. This module does not know crystals or networks.

What is known of a square of 4 x 4 pixels lies together, a tile, and is computed together, without
branches: the loops over a tile have a fixed length and only distances known beforehand
between what they read and write, and so become a few instructions of a processor with wide
registers. Three channels are painted along with the depth, so that no pixel needs to look up which
atom it shows; for more channels the scene is gone through again. Which tiles a surface may touch is
reckoned generously: whether it covers a pixel is decided at the pixel.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from assay.featurize.pictures.colours import encoding
from assay.featurize.pictures.scene import Scenes, ViewSpec
from assay.featurize.threads import njit

_NOTHING = np.float32(-1e30)
_TIE = np.float32(1e-3)
"""Pixels of depth; of two surfaces closer than this the first drawn is seen."""
_SIDE = 4
"""Pixels of an edge of a tile."""
_TILE = _SIDE * _SIDE
_BAND = 256
"""Rows drawn at once, so that a large picture needs little memory; a multiple of `_SIDE`."""
_AT_ONCE = 3
"""Channels painted at once."""
_RIM, _SHARE, _SOLID, _EDGE, _ALL = (np.uint64(k * _TILE) for k in (1, 2, 3, 6, 9))
"""Where in a tile each is, behind the depth of what is seen: depth of the nearest outline, the
share of the pixel that it covers, the colours of what is seen, the colours of the outline; and the
length of a tile."""


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
        (V, C, size, size): the channels of the encoding, 0 to 1 before `mean` and `std`; row 0 is
            the top.

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
    gain, base, target = _paint(scenes, spec, scale, shift)
    _draw(
        scenes.sphere_ptr,
        scenes.centre,
        scenes.radius,
        scenes.stick_ptr,
        scenes.start,
        scenes.end,
        scenes.owner,
        scenes.extent,
        np.float32(spec.bond_radius),
        np.float32(spec.shading),
        gain,
        base,
        target,
        encoding(spec.encoding).maps,
        scenes.depth,
        scale,
        shift,
        out,
    )
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


def _paint(
    scenes: Scenes, spec: ViewSpec, scale: NDArray[np.float32], shift: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]]:
    """Colours of surfaces: channel = gain * light + base; padded to a multiple of `_AT_ONCE`.

    Returns:
        (B, P) gain of every sphere and of its sticks; (3, P) base of spheres, of sticks, and of
            nothing; and the
        channels of the image that these are, fewer than P. Depth is not among them.
    """
    colours, channels = scenes.colour.shape[1], len(scale)
    target = np.delete(np.arange(channels), slice(colours, channels - 1))  # the last of two maps shows the bonds
    painted = -(-len(target) // _AT_ONCE) * _AT_ONCE
    gain, base = np.zeros((len(scenes.colour), painted), np.float32), np.zeros((3, painted), np.float32)
    gain[:, :colours] = scenes.colour * scale[:colours]
    base[:, : len(target)] = shift[target]
    base[1, colours : len(target)] += scale[-1]
    base[2, :colours] += np.float32(spec.background) * scale[:colours]
    return gain, base, target


@njit(cache=True, nogil=True)
def _draw(  # type: ignore[no-untyped-def]
    sphere_ptr,
    centre,
    radius,
    stick_ptr,
    start,
    end,
    owner,
    extent,
    bond_radius,
    shading,
    gain,
    base,
    target,
    maps,
    span,
    scale,
    shift,
    out,
):
    """Fill the images: view by view, three channels by three, band of rows by band."""
    size = out.shape[2]
    across, half = (size + _SIDE - 1) // _SIDE, np.float32(0.5) * np.float32(size)
    tiles = np.zeros((min(_BAND, size) + _SIDE - 1) // _SIDE * across * _ALL, np.float32)
    for first in range(0, base.shape[1], _AT_ONCE):
        tint, ground = gain[:, first : first + _AT_ONCE], base[:, first : first + _AT_ONCE]
        goal = target[first : first + _AT_ONCE]
        _clear(tiles, ground[2])
        for view in range(len(extent)):
            unit = half / extent[view]
            for top in range(0, size, _BAND):
                bottom = min(top + _BAND, size)
                for k in range(sphere_ptr[view], sphere_ptr[view + 1]):
                    x, y, z = half + centre[k, 0] * unit, half - centre[k, 1] * unit, centre[k, 2] * unit
                    _sphere(x, y, z, radius[k] * unit, shading, tint[k], ground[0], top, bottom, size, tiles)
                for k in range(stick_ptr[view], stick_ptr[view + 1]):
                    m = owner[k]
                    at_atom = (
                        start[k, 0] == centre[m, 0] and start[k, 1] == centre[m, 1] and start[k, 2] == centre[m, 2]
                    )
                    ax, ay, az = half + start[k, 0] * unit, half - start[k, 1] * unit, start[k, 2] * unit
                    bx, by, bz = half + end[k, 0] * unit, half - end[k, 1] * unit, end[k, 2] * unit
                    width, cut = bond_radius * unit, radius[m] * unit if at_atom else np.float32(0.0)
                    _stick(ax, ay, az, bx, by, bz, width, cut, shading, tint[m], ground[1], top, bottom, size, tiles)
                if maps and first == 0:
                    _depths(tiles, span[view] * unit, scale[-2], shift[-2], top, bottom, out[view, -2])
                _finish(tiles, ground[2], goal, top, bottom, out[view])


@njit(cache=True, nogil=True, fastmath=True)
def _sphere(x, y, z, r, shading, tint, ground, top, bottom, size, tiles):  # type: ignore[no-untyped-def]
    """One sphere of radius `r` pixels about column `x` and row `y`."""
    half, none, one = np.float32(0.5), np.float32(0.0), np.float32(1.0)
    outer, inner, most = r + half, max(r - half, none), min(one, r + r)
    across = (size + _SIDE - 1) // _SIDE
    first, last = _range(y - outer, y + outer, top, bottom)
    left, right = _range(x - outer, x + outer, 0, size)
    begin, end = left // _SIDE, (right + _SIDE - 1) // _SIDE
    red, green, blue = tint[0], tint[1], tint[2]
    red0, green0, blue0 = ground[0], ground[1], ground[2]
    dull, bright = one - shading, shading / r
    for i in range(first // _SIDE, (last + _SIDE - 1) // _SIDE):
        dy = np.float32(i * _SIDE) + half - y
        for tile in range(begin, end):
            at = np.uint64((i - top // _SIDE) * across + tile) * _ALL
            dx = np.float32(tile * _SIDE) + half - x
            for t in range(np.uint32(_TILE)):
                d2 = (dy + np.float32(np.int32(t) // _SIDE)) ** 2 + (dx + np.float32(np.int32(t) % _SIDE)) ** 2
                height = math.sqrt(max(r * r - d2, none))
                lit = dull + bright * height
                solid, outline = d2 < inner * inner, (d2 >= inner * inner) & (d2 < outer * outer)
                cover = min(outer - math.sqrt(d2), most)
                tint0, tint1, tint2 = red * lit + red0, green * lit + green0, blue * lit + blue0
                _put(tiles, at + np.uint64(t), z + height, cover, solid, outline, tint0, tint1, tint2)


@njit(cache=True, nogil=True, fastmath=True)
def _stick(ax, ay, az, bx, by, bz, r, atom, shading, tint, ground, top, bottom, size, tiles):  # type: ignore[no-untyped-def]
    """Half a bond: a cylinder of radius `r` pixels without caps, from a to b.

    `atom` is the radius of the sphere about a; the part of the stick that lies within it is left
    out.
    """
    half, none, one = np.float32(0.5), np.float32(0.0), np.float32(1.0)
    outer, inner, most = r + half, max(r - half, none), min(one, r + r)
    length = math.sqrt((bx - ax) ** 2 + (by - ay) ** 2 + (bz - az) ** 2)
    ux, uy, uz = (bx - ax) / length, (by - ay) / length, (bz - az) / length
    begin = math.sqrt(max(max(atom - half, none) ** 2 - outer * outer, none))
    sx, sy = ax + begin * ux, ay + begin * uy
    first, last = _range(min(sy, by) - outer, max(sy, by) + outer, top, bottom)
    flat = one - uz * uz
    if not flat >= np.float32(1e-6):  # seen along its axis it is behind its atom
        return
    width = math.sqrt(flat)
    least, furthest = min(sx, bx) - outer, max(sx, bx) + outer
    steep = abs(uy) > np.float32(0.01)  # then it covers few columns of a row
    slope, reach = (ux / uy, outer * width / abs(uy)) if steep else (none, np.float32(2 * size))
    across = (size + _SIDE - 1) // _SIDE
    red, green, blue = tint[0], tint[1], tint[2]
    red0, green0, blue0 = ground[0], ground[1], ground[2]
    dull, bright = one - shading, shading / r
    for i in range(first // _SIDE, (last + _SIDE - 1) // _SIDE):
        dy = np.float32(i * _SIDE) + half - ay
        upper = ax + max(dy, np.float32(first) + half - ay) * slope
        lower = ax + min(dy + np.float32(_SIDE - 1), np.float32(last) - half - ay) * slope
        west, east = max(least, min(upper, lower) - reach), min(furthest, max(upper, lower) + reach)
        left, right = _range(west, east, 0, size)
        for tile in range(left // _SIDE, (right + _SIDE - 1) // _SIDE):
            at = np.uint64((i - top // _SIDE) * across + tile) * _ALL
            dx = np.float32(tile * _SIDE) + half - ax
            for t in range(np.uint32(_TILE)):
                px, py = dx + np.float32(np.int32(t) % _SIDE), dy + np.float32(np.int32(t) // _SIDE)
                apart = abs(px * uy - py * ux) / width
                along = px * ux + py * uy
                bulge = math.sqrt(max(r * r - apart * apart, none))
                z = (along * uz + width * bulge) / flat
                far = along + z * uz
                lit = dull + bright * bulge
                inside = (far >= begin) & (far <= length)
                solid, outline = inside & (apart < inner), inside & (apart >= inner) & (apart < outer)
                tint0, tint1, tint2 = red * lit + red0, green * lit + green0, blue * lit + blue0
                cover = min(outer - apart, most)
                _put(tiles, at + np.uint64(t), az + z, cover, solid, outline, tint0, tint1, tint2)


@njit(cache=True, nogil=True)
def _range(least, most, begin, end):  # type: ignore[no-untyped-def]
    """The pixels of `begin` to `end` that reach into an interval, as a range, perhaps one more.

    What is no number is kept within the bounds too. `math.ceil` would be a call, which costs more
    than a tile.
    """
    low, high = np.float32(begin), np.float32(end)
    first, last = min(max(low, least), high), min(max(low, most), high)
    return np.int64(first), min(np.int64(last) + 1, end)


@njit(cache=True, nogil=True, fastmath=True)
def _put(tiles, at, z, cover, solid, outline, red, green, blue):  # type: ignore[no-untyped-def]
    """One pixel of a surface, inside it or on its outline, unless something is nearer."""
    nearer, outlined = solid & (z > tiles[at] + _TIE), outline & (z > tiles[at + _RIM] + _TIE)
    tiles[at] = z if nearer else tiles[at]
    tiles[at + _RIM] = z if outlined else tiles[at + _RIM]
    tiles[at + _SHARE] = cover if outlined else tiles[at + _SHARE]
    tiles[at + _SOLID] = red if nearer else tiles[at + _SOLID]
    tiles[at + _EDGE] = red if outlined else tiles[at + _EDGE]
    tiles[at + _SOLID + np.uint64(_TILE)] = green if nearer else tiles[at + _SOLID + np.uint64(_TILE)]
    tiles[at + _EDGE + np.uint64(_TILE)] = green if outlined else tiles[at + _EDGE + np.uint64(_TILE)]
    tiles[at + _SOLID + np.uint64(2 * _TILE)] = blue if nearer else tiles[at + _SOLID + np.uint64(2 * _TILE)]
    tiles[at + _EDGE + np.uint64(2 * _TILE)] = blue if outlined else tiles[at + _EDGE + np.uint64(2 * _TILE)]


@njit(cache=True, nogil=True)
def _clear(tiles, empty):  # type: ignore[no-untyped-def]
    """Nothing in any tile."""
    rows = tiles.reshape(-1, 9, _TILE)
    rows[:, :2] = _NOTHING
    for c in range(_AT_ONCE):
        rows[:, 3 + c] = empty[c]


@njit(cache=True, nogil=True, fastmath=True)
def _finish(tiles, empty, goal, top, bottom, out):  # type: ignore[no-untyped-def]
    """Mix outlines with the surfaces behind them into the image, and clear the tiles."""
    size = out.shape[2]
    across = (size + _SIDE - 1) // _SIDE
    red, green, blue = empty[0], empty[1], empty[2]
    for i in range(top // _SIDE, (bottom + _SIDE - 1) // _SIDE):
        for tile in range(across):
            base = np.uint64((i - top // _SIDE) * across + tile) * _ALL
            for t in range(np.uint32(_TILE)):
                at = base + np.uint64(t)
                alpha = tiles[at + _SHARE] if tiles[at + _RIM] > tiles[at] else np.float32(0.0)
                tiles[at], tiles[at + _RIM] = _NOTHING, _NOTHING
                for c in range(_AT_ONCE):
                    solid, edge = at + _SOLID + np.uint64(c * _TILE), at + _EDGE + np.uint64(c * _TILE)
                    tiles[edge] = tiles[solid] + alpha * (tiles[edge] - tiles[solid])
                    tiles[solid] = red if c == 0 else (green if c == 1 else blue)
        for c in range(len(goal)):
            for r in range(min(_SIDE, bottom - i * _SIDE)):
                edge = np.uint64((i - top // _SIDE) * across) * _ALL + _EDGE + np.uint64(c * _TILE + r * _SIDE)
                _copy(tiles[edge:], out[goal[c], i * _SIDE + r])


@njit(cache=True, nogil=True)
def _copy(tiles, row):  # type: ignore[no-untyped-def]
    """One row of pixels from a row of tiles; four are read before one is written, for speed."""
    at, to = np.uint64(0), np.uint64(0)
    for _ in range(len(row) // _SIDE):
        one, two, three, four = tiles[at], tiles[at + np.uint64(1)], tiles[at + np.uint64(2)], tiles[at + np.uint64(3)]
        row[to], row[to + np.uint64(1)], row[to + np.uint64(2)], row[to + np.uint64(3)] = one, two, three, four
        at, to = at + _ALL, to + np.uint64(_SIDE)
    for t in range(np.uint64(len(row)) - to):
        row[to + t] = tiles[at + t]


@njit(cache=True, nogil=True, fastmath=True)
def _depths(tiles, span, scale, shift, top, bottom, out):  # type: ignore[no-untyped-def]
    """How far to the front the surface is, 0 where there is none."""
    size = len(out)
    across, none, one = (size + _SIDE - 1) // _SIDE, np.float32(0.0), np.float32(1.0)
    back, deep = span[0], span[1] - span[0]
    for i in range(top, bottom):
        for tile in range(across):
            first = tile * _SIDE
            base = np.uint64(((i - top) // _SIDE) * across + tile) * _ALL + np.uint64((i % _SIDE) * _SIDE)
            for t in range(min(_SIDE, size - first)):
                at = base + np.uint64(t)
                far = (tiles[at] - back) / deep if tiles[at] > _NOTHING else none
                alpha = tiles[at + _SHARE] if tiles[at + _RIM] > tiles[at] else none
                far += alpha * ((tiles[at + _RIM] - back) / deep - far)
                out[i, first + t] = min(max(far, none), one) * scale + shift
