"""Pictures of crystals, as the vision networks see them.

Enters: paths of crystals and a `ViewSpec`. Leaves: PNG files. Nothing is predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from assay.featurize.pictures import colours, raster, scene
from assay.featurize.pictures.scene import ViewSpec
from assay.screening.settings import yamlfile
from assay.sources import files
from assay.sources.quarantine import Quarantined, Reason, Stage


@dataclass(frozen=True)
class Drawn:
    """The pictures of some files."""

    paths: list[Path]
    """One PNG per view; one grey PNG per view and channel where there are not three channels."""
    refused: list[Quarantined]
    """One record per crystal that could not be read or drawn."""


@dataclass(frozen=True)
class _Settings:
    view: ViewSpec


def spec(overrides: Sequence[str]) -> ViewSpec:
    """The default views with `key=value` settings applied.

    Raises:
        Failure: for an unknown key or a value out of range.
    """
    content = yamlfile.override({"view": {}}, [f"view.{text}" for text in overrides])
    return yamlfile.validate(_Settings, content, "--set").view


def write(paths: Sequence[Path], output: Path, spec: ViewSpec) -> Drawn:
    """Draw every crystal in some files; a picture is named after crystal, block and number."""
    crystals, refused = files.read_many(paths)
    output.mkdir(parents=True, exist_ok=True)
    drawn: list[Path] = []
    for row in range(len(crystals)):
        one = crystals[row : row + 1]
        try:
            scenes = scene.build(one, spec)
        except ValueError as error:
            refused.append(Quarantined(str(one.ids[0]), "", Stage.FEATURIZE, Reason.UNSUPPORTED, str(error)))
            continue
        stem = quote(str(one.ids[0]), safe="+")  # one file name per id
        for number, picture in enumerate(raster.images(scenes, spec)):
            block = "x".join(map(str, spec.supercells[scenes.block[number]]))
            drawn += _saved((picture * 255).round().astype(np.uint8), output, f"{stem}-{block}-{number:02d}", spec)
    return Drawn(drawn, refused)


def _saved(picture: NDArray[np.uint8], output: Path, name: str, spec: ViewSpec) -> Iterator[Path]:
    from PIL import Image

    channels = colours.encoding(spec.encoding).names
    parts = {
        f"{name}-{channel.replace(' ', '_')}.png": pixels for channel, pixels in zip(channels, picture, strict=True)
    }
    if len(channels) == 3:  # red, green and blue
        parts = {f"{name}.png": picture.transpose(1, 2, 0)}
    for file, pixels in parts.items():
        Image.fromarray(pixels).save(output / file)
        yield output / file
