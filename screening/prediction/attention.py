"""Pictures of attention over the views that a vision network saw.

Enters: a member of an ensemble and the pictures of one crystal. Leaves: PNG files. It does not know
how attention is computed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from assay.featurize.pictures import raster
from assay.models.ensemble import explain
from assay.models.ensemble.checkpoint import Checkpoint
from assay.models.networks.inputs import PictureInputs

OPAQUE = 0.75
"""Share of the colour where there is the most attention."""
SMALLEST = 336
"""Pixels of an edge of a picture of attention, at least."""
RAMP = np.array([[20, 0, 60], [120, 20, 110], [220, 60, 60], [255, 160, 20], [255, 250, 160]], np.float64)
"""Red, green and blue from no attention to the most."""


def write(member: Checkpoint, inputs: PictureInputs, output: Path, stem: str) -> list[Path]:
    """Write two pictures of every view: attention in the last block and over all (rollout)."""
    looked = explain.attention(member.network, inputs.batch(np.zeros(1, np.int64), member.network).pixels)
    views = raster.images(inputs.scenes, inputs.spec)
    paths = []
    for number, picture in enumerate(views):
        block = "x".join(map(str, inputs.spec.supercells[inputs.scenes.block[number]]))
        for kind, heat in (("attention", looked.last[number]), ("rollout", looked.rollout[number])):
            paths.append(output / f"{stem}-{block}-{number:02d}-{kind}.png")
            Image.fromarray(overlay(picture, heat.numpy())).save(paths[-1])
    return paths


def overlay(picture: NDArray[np.float32], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(h, h, 3) a picture under its attention, enlarged to at least `SMALLEST` pixels.

    `picture` is (C, size, size) from 0 to 1; `heat` is (rows, columns). Three channels are red,
    green and blue; of any other number the mean is grey. The largest attention is opaque, none is
    clear.
    """
    colours = picture if len(picture) == 3 else np.repeat(picture.mean(axis=0, keepdims=True), 3, axis=0)
    times = -(-SMALLEST // picture.shape[1])
    ground = 255 * colours.repeat(times, axis=1).repeat(times, axis=2).transpose(1, 2, 0)
    edge = ground.shape[1], ground.shape[0]
    scaled = np.asarray(heat, np.float32) / max(float(heat.max()), 1e-12)
    smooth = np.asarray(Image.fromarray(scaled).resize(edge, Image.Resampling.BILINEAR), np.float64)
    steps = np.linspace(0, 1, len(RAMP))
    glow = np.stack([np.interp(smooth, steps, channel) for channel in RAMP.T], axis=2)
    share = OPAQUE * smooth[:, :, None]
    return np.asarray(((1 - share) * ground + share * glow).round(), np.uint8)
