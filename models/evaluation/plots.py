"""Figures of an evaluation as PNG files: parity, residuals, calibration, ranges, enrichment.

Enters: arrays (n,) and names with units. Leaves: files. Matplotlib is needed only here, and only
its objects are used: no global figure, no display. This module does not know how any number was
made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.sources.durable import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(m,) positions and (m,) heights."""

_INK, _SOFT = "#1f4e79", "#8a8a8a"
_COLOURS = (_INK, "#c0504d", "#4f8a4f", "#8064a2", "#b8860b")
_MANY_COLOURS = (_SOFT, *_COLOURS, "#2f8f9d")
_SIZE, _DPI = (5.0, 4.4), 150
_MANY = 3_000


def parity(path: Path, truth: NDArray[Any], mean: NDArray[Any], std: NDArray[Any], quantity: str) -> None:
    """Predicted against known values, with bars of one standard deviation for few crystals."""
    with _axes(path, f"known {quantity}", f"predicted {quantity}") as axes:
        bars = std if len(truth) <= _MANY else None
        axes.errorbar(truth, mean, yerr=bars, fmt="o", color=_INK, ecolor=_SOFT, **_dots(len(truth)), zorder=2)
        ends = [min(truth.min(), mean.min()), max(truth.max(), mean.max())]
        axes.plot(ends, ends, color="black", linewidth=0.8, zorder=3)
        axes.set_aspect("equal", adjustable="box")


def residuals(path: Path, truth: NDArray[Any], mean: NDArray[Any], half: NDArray[Any], quantity: str) -> None:
    """Residuals against the prediction, within the median half width of the interval there."""
    with _axes(path, f"predicted {quantity}", f"predicted - known {quantity}") as axes:
        axes.plot(mean, mean - truth, "o", color=_INK, **_dots(len(truth)), label="crystal")
        parts = [part for part in np.array_split(np.argsort(mean, kind="stable"), 20) if len(part)]
        width = np.array([np.median(half[part]) for part in parts])
        middle = np.array([np.median(mean[part]) for part in parts])
        middle[[0, -1]] = mean.min(), mean.max()  # the band reaches as far as the dots
        if np.isfinite(width).all():
            style: dict[str, Any] = {"color": _COLOURS[1], "linewidth": 1.2}
            axes.plot(middle, width, label="interval, median of each 5 % of the crystals", **style)
            axes.plot(middle, -width, **style)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.legend(frameon=False, fontsize=8)


def calibration(path: Path, curves: Mapping[str, Curve]) -> None:
    """Observed against nominal coverage of central intervals; below the diagonal: too narrow."""
    with _axes(path, "nominal share inside the interval", "observed share inside the interval") as axes:
        for (name, (expected, observed)), colour in zip(curves.items(), _COLOURS):
            axes.plot(expected, observed, color=colour, label=name)
        axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, label="perfect")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.legend(frameon=False, fontsize=8)


def error_by_range(
    path: Path, ranges: Sequence[str], errors: Mapping[str, Sequence[float]], quantity: str, unit: str
) -> None:
    """MAE of several models side by side, in each range of the known value."""
    with _axes(path, f"known {quantity}", f"MAE ({unit})" if unit else "MAE") as axes:
        width = 0.8 / len(errors)
        for k, ((name, values), colour) in enumerate(zip(errors.items(), _COLOURS)):
            axes.bar(np.arange(len(ranges)) - 0.4 + (k + 0.5) * width, values, width, color=colour, label=name)
        axes.set_xticks(np.arange(len(ranges)), [name.replace(" to ", " to\n") for name in ranges], fontsize=7)
        axes.legend(frameon=False, fontsize=8)


def enrichment(path: Path, curves: Mapping[str, Curve], prevalence: float, hit: str) -> None:
    """Share of all hits found against the share of crystals tested, best prediction first."""
    with _axes(path, "share of crystals tested, best prediction first", f"share of crystals with {hit} found") as axes:
        for (name, (looked, found)), colour in zip(curves.items(), _COLOURS):
            axes.plot(looked, found, color=colour, label=name)
        axes.plot([0, prevalence, 1], [0, 1, 1], color=_SOFT, linestyle="--", label="perfect order")
        axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, label="blind order")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(frameon=False, fontsize=8)


def discovery(path: Path, curves: Mapping[str, tuple[NDArray[Any], ...]], hit: str) -> None:
    """Hits found against measurements made, by strategy: mean (m,), and a band from low to high.

    Each curve is positions, means, lower and upper ends, (m,) each.
    """
    with _axes(path, "measured since the start", f"hits found: {hit}") as axes:
        for (name, (measured, mean, low, high)), colour in zip(curves.items(), _MANY_COLOURS):
            axes.fill_between(measured, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(measured, mean, color=colour, label=name)
        axes.set(xlim=(0, None), ylim=(0, None))
        axes.legend(frameon=False, fontsize=8)


def _dots(n: int) -> dict[str, Any]:
    few = n <= _MANY
    return {"markersize": 3 if few else 1.5, "alpha": 0.5 if few else 0.25, "markeredgewidth": 0, "rasterized": True}


@contextmanager
def _axes(path: Path, across: str, up: str) -> Iterator[Axes]:
    """Axes to draw on; the PNG is written when the block ends."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlabel=across, ylabel=up)
    axes.spines[["top", "right"]].set_visible(False)
    yield axes
    save: Callable[..., None] = canvas.print_png
    with whole(path) as file:
        save(file, metadata={"Software": None})  # the same figure gives the same bytes
