"""How many pictures per second does one core draw, beside ASE's two writers and OpenCV?

Enters: real crystals of 40 atoms of the data packs, as supercells of 2 x 2 x 1. Leaves: a table and
one JSON file. CPU time, one thread, contestants in turns on the same atoms at the same places. What
a peer is asked for is the picture a person would take; what we draw is normalised into the batch of
a network.

    python benchmarks/rendering.py --help
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring.stopwatch import ROOT, Contestant, Rates, arguments, machine, race, say, settle, show, versions, write

if TYPE_CHECKING:
    from assay.featurize.pictures.scene import Scenes


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = arguments(__doc__, "rendering.json")
    parser.add_argument("--crystals", type=int, default=20, help="crystals of 40 atoms (default: 20)")
    parser.add_argument("--size", type=int, default=224, help="pixels of an edge (default: 224)")
    parser.add_argument("--figure", type=Path, help="only draw the figure of docs/rendering.md into this PNG file")
    options = parser.read(words, crystals=6, repeat=1)
    settle()
    if options.figure:
        figure(options.figure)
        return
    report: dict[str, Any] = {
        "machine": machine(),
        "versions": versions("ase", "matplotlib", "opencv-python-headless"),
        "crystals": options.crystals,
        "size": options.size,
    }
    report["images"] = images(options.data, options.crystals, options.size, options.repeat)
    report["crystals, 18 views"] = crystals(options.data, options.crystals, options.size, options.repeat)
    write(report, options.output)


def images(data: Path, n: int, size: int, repeat: int) -> Rates:
    """One picture of 160 atoms, seen along c."""
    from ase.data import covalent_radii
    from ase.data.colors import jmol_colors

    from assay.featurize.pictures import raster
    from assay.featurize.pictures.scene import ViewSpec

    supercells = [atoms.repeat((2, 2, 1)) for atoms in forty(data, n)]
    spec = ViewSpec(encoding="elements", size=size)
    scenes = seen_along_c(supercells, [covalent_radii[atoms.numbers] for atoms in supercells], jmol_colors)
    out = raster.images(scenes, spec)
    contestants: dict[str, Contestant] = {"assay": lambda: raster.images(scenes, spec, out=out)}
    contestants |= ase_writers(supercells, size) | opencv(scenes, size)
    return told(f"one picture of 160 atoms, {size} x {size}", race(contestants, len(supercells), repeat))


def crystals(data: Path, n: int, size: int, repeat: int) -> Rates:
    """All a vision network gets of one crystal: three blocks, six views each, bonds and all."""
    from assay.featurize.pictures import raster, scene
    from assay.sources.formats.convert import from_ase

    atoms = forty(data, n)
    batch = from_ase(atoms, [f"mp/{k}" for k in range(len(atoms))])
    spec = scene.ViewSpec(size=size)
    scenes = scene.build(batch, spec)
    out = raster.images(scenes, spec)
    each = scenes.sphere_ptr[-1] / len(scenes), scenes.stick_ptr[-1] / len(scenes)
    say(f"{len(scenes) / len(batch):.1f} of {spec.views} views per crystal are different")
    say(f"{each[0]:.0f} spheres and {each[1]:.0f} half bonds in each")
    return told(
        "one crystal, all views",
        race(
            {
                "scenes": lambda: scene.build(batch, spec),
                "pictures": lambda: raster.images(scenes, spec, out=out),
            },
            len(batch),
            repeat,
        ),
    )


def told(title: str, rates: Rates) -> Rates:
    """Print the rates and the ratios to the first."""
    first = next(iter(rates.values()))["us_per_crystal"]
    for rate in rates.values():
        rate["ratio"] = rate["us_per_crystal"] / first
    rows = [
        [name, f"{r['us_per_crystal'] / 1e3:,.3f}", f"{r['crystals_per_s']:,.1f}", f"{r['ratio']:,.1f}"]
        for name, r in rates.items()
    ]
    show(title, ["", "ms", "per s", "times the first"], rows)
    return rates


def forty(data: Path, n: int) -> list[Any]:
    """Materials Project cells of 40 atoms, as ASE has them."""
    from assay.sources import table
    from assay.sources.formats.convert import to_ase

    stored = table.read(data / "mp" / "mp_labelled_le40.parquet")
    batch, _ = table.from_table(stored, "mp")
    return to_ase(batch.select((batch.nsites == 40).nonzero()[0][:n]))


def seen_along_c(supercells: list[Any], radii: list[Any], colour: Any) -> Scenes:
    """What ASE draws: positions as they are, x to the right, y up; the same margin around all."""
    import numpy as np

    from assay.featurize.pictures.scene import Scenes

    centre = [atoms.positions - (atoms.positions.min(0) + atoms.positions.max(0)) / 2 for atoms in supercells]
    extent = [float((abs(r[:, :2]).max(1) + s).max()) for r, s in zip(centre, radii, strict=True)]
    ptr = np.concatenate([[0], np.cumsum([len(r) for r in centre])]).astype(np.int64)
    none = np.zeros((0, 3), np.float32)
    n = len(supercells)
    return Scenes(
        view_ptr=np.arange(n + 1),
        weight=np.ones(n, np.float32),
        block=np.zeros(n, np.int32),
        extent=np.array(extent, np.float32),
        depth=np.zeros((n, 2), np.float32),
        sphere_ptr=ptr,
        centre=np.concatenate(centre).astype(np.float32),
        radius=np.concatenate(radii).astype(np.float32),
        colour=np.concatenate([colour[atoms.numbers] for atoms in supercells]).astype(np.float32),
        site=np.zeros(ptr[-1], np.int32),
        stick_ptr=np.zeros(n + 1, np.int64),
        start=none,
        end=none,
        owner=np.zeros(0, np.int32),
    )


def figure(path: Path) -> None:
    """One crystal from the same side: by ASE, by us in Jmol colours, and in the other encodings."""
    import matplotlib as mpl

    mpl.use("Agg")
    from ase import Atoms
    from ase.visualize.plot import plot_atoms
    from matplotlib import pyplot as plt

    from assay.featurize.pictures import raster, scene
    from assay.sources import files

    one, _ = files.read(ROOT / "tests/data/La1.85Sr0.15CuO4.cif")
    made = {
        name: scene.ViewSpec(encoding=name, supercells=((2, 2, 1),), random=1, bonds=0.0 if name == "elements" else 1.2)
        for name in ("elements", "physics", "electronic", "deep")
    }
    scenes = scene.build(one, made["elements"])
    view = len(scenes) - 1
    held = slice(scenes.sphere_ptr[view], scenes.sphere_ptr[view + 1])
    sheet, axes = plt.subplots(1, 5, figsize=(10, 2.2), dpi=80)
    atoms = Atoms(numbers=[1] * len(scenes.radius[held]), positions=scenes.centre[held])
    plot_atoms(atoms, axes[0], radii=scenes.radius[held], colors=scenes.colour[held])
    for axis, (name, spec) in zip(axes[1:], made.items(), strict=True):
        picture = raster.images(scene.build(one, spec), spec)[view]
        axis.imshow(picture[:3].transpose(1, 2, 0))
        axis.set_title(f"assay, {name}" if name != "deep" else "assay, deep (3 of 13)", fontsize=8)
    axes[0].set_title("ASE, plot_atoms", fontsize=8)
    for axis in axes:
        axis.set_axis_off()
    sheet.tight_layout()
    sheet.savefig(path)
    say(f"written to {path}")


def ase_writers(supercells: list[Any], size: int) -> dict[str, Contestant]:
    """`ase.io.write` to PNG, and `plot_atoms` drawn by matplotlib's Agg."""
    import tempfile

    import matplotlib as mpl

    mpl.use("Agg")
    from ase.io import write
    from ase.visualize.plot import plot_atoms
    from matplotlib import pyplot as plt

    path = Path(tempfile.mkdtemp()) / "one.png"

    def writer() -> None:
        for atoms in supercells:
            write(path, atoms, maxwidth=size)

    def plotter() -> None:
        for atoms in supercells:
            figure, axes = plt.subplots(figsize=(size / 100, size / 100), dpi=100)
            plot_atoms(atoms, axes)
            figure.savefig(io.BytesIO(), format="rgba")
            plt.close(figure)

    return {"ase.io.write, PNG": writer, "ase plot_atoms, matplotlib": plotter}


def opencv(scenes: Scenes, size: int) -> dict[str, Contestant]:
    """Discs with smooth outlines, the far ones first."""
    try:
        import cv2
    except ImportError as error:
        say(f"OpenCV skipped: {error}; pip install -e .[bench]")
        return {}
    import numpy as np

    cv2.setNumThreads(1)
    circles = []
    for view in range(len(scenes)):
        held = slice(scenes.sphere_ptr[view], scenes.sphere_ptr[view + 1])
        unit = 16 * size / 2 / scenes.extent[view]  # OpenCV counts sixteenths of a pixel here
        column, row = size * 8 + scenes.centre[held, 0] * unit, size * 8 - scenes.centre[held, 1] * unit
        numbers = np.column_stack([column, row, scenes.radius[held] * unit]).round().astype(int).tolist()
        colour = (scenes.colour[held] * 255).tolist()
        circles.append([(numbers[k], colour[k]) for k in np.argsort(scenes.centre[held, 2])])

    def draw() -> None:
        for discs in circles:
            picture = np.zeros((size, size, 3), np.uint8)
            for (column, row, radius), colour in discs:
                cv2.circle(picture, (column, row), radius, colour, -1, cv2.LINE_AA, 4)

    return {"OpenCV circles": draw}


if __name__ == "__main__":
    main()
