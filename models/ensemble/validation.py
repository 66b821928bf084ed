"""The entries of `model.json` and `ensemble.json`, checked before anything is made of them.

Enters: the content of the two files. Leaves: nothing, or a `ValueError` that names the entry, its
value and the accepted range. This module opens no file and makes no network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from assay.featurize.composition import CompositionSpec
from assay.featurize.graphs import GraphSpec
from assay.featurize.pictures.scene import ViewSpec
from assay.models.ensemble.distribution.decision import Decision
from assay.models.ensemble.distribution.quantiles import KIND, QuantileCalibration
from assay.sources.elements import NUMBERS

LARGEST = 1e15
"""Magnitude of a number above which it is refused; no unit in use comes near."""
LARGEST_BENT = 100.0
"""The same for the scaler of a property that is learned on a bent scale: decoding may take the
exponential of it."""
MOST = 4096
"""Largest whole number in a spec or among the sizes of a network that the weights need not show."""
PRECISIONS = ("float32", "bfloat16")
GROUPS = ("element-set", "formula", "row")
"""What a split keeps together."""
_HEX = re.compile(r"[0-9a-f]{64}")


def number(value: object, where: str, low: float = -LARGEST, high: float = LARGEST) -> None:
    """Refuse anything but a finite number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{where} is {_short(value)}, expected a number from {low:g} to {high:g}")


def count(value: object, where: str, low: int = 0, high: int = 10**12) -> None:
    """Refuse anything but a whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{where} is {_short(value)}, expected a whole number from {low} to {high}")


def text(value: object, where: str, *, empty: bool = False) -> None:
    """Refuse anything but one line of printable text."""
    if not isinstance(value, str) or not value.isprintable() or not (value or empty):
        raise ValueError(f"{where} is {_short(value)}, expected text")


def digest(value: object, where: str) -> None:
    """Refuse anything but a sha256 in hexadecimal digits."""
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise ValueError(f"{where} is {_short(value)}, expected 64 hexadecimal digits")


def mapping(value: object, where: str) -> dict[str, Any]:
    """The value, if it is a mapping."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {_short(value)}, expected a mapping")  # noqa: TRY004 -- a damaged file
    return value


def sequence(value: object, where: str, least: int = 1) -> list[Any]:
    """The value, if it is a list of at least so many entries."""
    if not isinstance(value, list) or len(value) < least:
        raise ValueError(f"{where} is {_short(value)}, expected a list of at least {least}")
    return value


def keys(found: dict[str, Any], where: str, needed: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Refuse a mapping that lacks a key, or has another one."""
    missing, unknown = [k for k in needed if k not in found], sorted(set(found) - {*needed, *optional})
    if missing:
        raise ValueError(f"{where} has no {missing[0]!r}")
    if unknown:
        raise ValueError(f"{where} has an unknown key {_short(unknown[0])}, expected {', '.join([*needed, *optional])}")


def model(described: dict[str, Any]) -> None:
    """Check the entries of `model.json` that a prediction depends on, but for sizes and spec."""
    for name in ("network", "sizes", "properties", "elements", "weights_sha256"):
        if name not in described:
            raise ValueError(f"there is no {name!r}")
    text(described["network"], "network")
    mapping(described["sizes"], "sizes")
    digest(described["weights_sha256"], "weights_sha256")
    for place, entry in enumerate(sequence(described["properties"], "properties")):
        _property(mapping(entry, f"properties.{place}"), f"properties.{place}")
    _distinct([entry["name"] for entry in described["properties"]], "properties")
    for place, symbol in enumerate(sequence(described["elements"], "elements")):
        if not isinstance(symbol, str) or symbol not in NUMBERS:
            raise ValueError(f"elements.{place} is {_short(symbol)}, expected the symbol of an element")
    _distinct(described["elements"], "elements")


def sizes(found: object, largest: int, where: str = "sizes") -> None:
    """Check the numbers among the sizes of a network, lists and options included.

    `largest` is the largest length that the weights show; no size that allocates can exceed it.
    """
    if isinstance(found, dict | list):
        for name, inner in found.items() if isinstance(found, dict) else enumerate(found):
            sizes(inner, largest, f"{where}.{name}")
    elif isinstance(found, int) and not isinstance(found, bool):
        count(found, where, high=max(largest, MOST))
    elif isinstance(found, float):
        number(found, where, low=0.0)


def spec(described: dict[str, Any]) -> None:
    """Check that the fields of a spec have the types of their defaults, and none is vast."""
    for made in (GraphSpec, ViewSpec, CompositionSpec):
        given = mapping(described.get(made.KEY, {}), made.KEY)
        defaults = {field.name: field.default for field in fields(made)}
        keys(given, made.KEY, (), tuple(defaults))
        for name, value in given.items():
            _field(value, defaults[name], f"{made.KEY}.{name}")


def _field(value: object, default: object, where: str) -> None:
    if isinstance(default, float):
        number(value, where)
    elif isinstance(default, int) and not isinstance(default, bool):
        count(value, where, high=2**63 - 1 if where.endswith(".seed") else MOST)
    elif isinstance(default, tuple) and default and isinstance(default[0], str):
        for place, name in enumerate(sequence(value, where)):
            text(name, f"{where}.{place}")
    elif isinstance(default, tuple):
        for place, block in enumerate(sequence(value, where)):
            for length in sequence(block, f"{where}.{place}"):
                count(length, f"{where}.{place}", low=1, high=64)
    elif type(value) is not type(default):
        raise ValueError(f"{where} is {_short(value)}, expected {type(default).__name__}")


def ensemble(described: dict[str, Any]) -> None:
    """Check the entries of `ensemble.json` that a prediction depends on."""
    for name in ("name", "members", "calibration"):
        if name not in described:
            raise ValueError(f"there is no {name!r}")
    text(described["name"], "name")
    for place, folder in enumerate(sequence(described["members"], "members", least=0)):
        text(folder, f"members.{place}")
    _distinct(described["members"], "members")
    for key, check in (("calibration", _calibration), ("decision", _decision), ("weights", _weights)):
        for name, entry in mapping(described.get(key, {}), key).items():
            check(entry, f"{key}.{name}")
    novelty = partial(_novelty, members=len(described["members"]))
    sections: dict[str, Callable[[dict[str, Any]], None]]
    sections = {"novelty": novelty, "learned": _learned, "calibration_rows": _rows}
    for key, examine in sections.items():
        if key in described:
            examine(mapping(described[key], key))
    if described.get("precision", "float32") not in PRECISIONS:
        raise ValueError(f"precision is {_short(described['precision'])}, expected {' or '.join(PRECISIONS)}")
    if "sha256" in described:
        digest(described["sha256"], "sha256")


def _learned(entry: dict[str, Any]) -> None:
    keys(entry, "learned", ("compositions", "sha256"))
    count(entry["compositions"], "learned.compositions", low=1)
    digest(entry["sha256"], "learned.sha256")


def _rows(entry: dict[str, Any]) -> None:
    keys(entry, "calibration_rows", ("by", "out_of_fold", "rows", "sha256"))
    if entry["by"] not in GROUPS:
        raise ValueError(f"calibration_rows.by is {_short(entry['by'])}, expected one of {', '.join(GROUPS)}")
    if not isinstance(entry["out_of_fold"], bool):
        raise ValueError(f"calibration_rows.out_of_fold is {_short(entry['out_of_fold'])}, expected true or false")  # noqa: TRY004 -- a damaged file
    for name, rows in mapping(entry["rows"], "calibration_rows.rows").items():
        count(rows, f"calibration_rows.rows.{name}", low=1)
    digest(entry["sha256"], "calibration_rows.sha256")


def _property(entry: dict[str, Any], where: str) -> None:
    keys(entry, where, ("name", "unit"), ("transform", "minimum", "center", "scale"))
    text(entry["name"], f"{where}.name")
    text(entry["unit"], f"{where}.unit", empty=True)
    most = LARGEST if entry.get("transform", "identity") == "identity" else LARGEST_BENT
    number(entry.get("center", 0.0), f"{where}.center", -most, most)
    number(entry.get("scale", 1.0), f"{where}.scale", math.ulp(0.0), most)
    if entry.get("minimum") is not None:
        number(entry["minimum"], f"{where}.minimum")


def _weights(shares: object, where: str) -> None:
    for place, share in enumerate(sequence(shares, where)):
        number(share, f"{where}.{place}", -1.0, 2.0)  # the sum is checked with the members


def _decision(found: object, where: str) -> None:
    entry = mapping(found, where)
    keys(entry, where, ("kind",), ("low", "high", "trim"))
    for name in ("low", "high", "trim"):
        if entry.get(name) is not None:
            number(entry[name], f"{where}.{name}")
    try:
        Decision(**entry)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _calibration(found: object, where: str) -> None:
    entry = mapping(found, where)
    if "kind" in entry:
        _quantiles(entry, where)
        return
    keys(entry, where, ("level", "quantile", "floor", "n"), ("scale",))
    number(entry["level"], f"{where}.level", 1e-6, 1 - 1e-9)
    if entry["quantile"] == math.inf:
        raise ValueError(
            f"{where}.quantile is infinite: {_short(entry['n'])} calibration crystals are too few for intervals "
            f"at level {entry['level']:g}; train it again with more of them, or a lower level"
        )
    number(entry["quantile"], f"{where}.quantile", 0.0)
    number(entry["floor"], f"{where}.floor", 0.0)
    count(entry["n"], f"{where}.n")
    if entry.get("scale") is not None:
        number(entry["scale"], f"{where}.scale", 0.0)


def _quantiles(entry: dict[str, Any], where: str) -> None:
    """A calibration of quantiles: one number per range of predicted values."""
    needed = tuple(field.name for field in fields(QuantileCalibration))
    keys(entry, where, needed)
    if entry["kind"] != KIND:
        raise ValueError(f"{where}.kind is {_short(entry['kind'])}, expected {KIND!r}")
    number(entry["level"], f"{where}.level", 1e-6, 1 - 1e-9)
    number(entry["base"], f"{where}.base", 0.0, 1.0)
    number(entry["floor"], f"{where}.floor", 0.0)
    edges = sequence(entry["edges"], f"{where}.edges", least=0)
    for place, edge in enumerate(edges):
        number(edge, f"{where}.edges.{place}", low=edges[place - 1] if place else -LARGEST)
    for name, low in {"widening": -LARGEST, "scale": 0.0}.items():
        for place, value in enumerate(sequence(entry[name], f"{where}.{name}")):
            number(value, f"{where}.{name}.{place}", low)
    for place, rows in enumerate(sequence(entry["n"], f"{where}.n")):
        count(rows, f"{where}.n.{place}")
    for name in ("widening", "scale", "n"):
        if len(entry[name]) != len(edges) + 1:
            raise ValueError(f"{where}.{name} has {len(entry[name])} numbers for {len(edges)} edges, expected one more")


def _novelty(entry: dict[str, Any], members: int) -> None:
    keys(entry, "novelty", ("k", "member", "quantiles", "sha256", "weights_sha256"))
    count(entry["k"], "novelty.k", low=1, high=MOST)
    count(entry["member"], "novelty.member", high=members - 1)
    for share, distance in mapping(entry["quantiles"], "novelty.quantiles").items():
        number(distance, f"novelty.quantiles.{share}", 0.0)
    digest(entry["sha256"], "novelty.sha256")
    digest(entry["weights_sha256"], "novelty.weights_sha256")


def _distinct(values: Sequence[str], where: str) -> None:
    twice = [value for place, value in enumerate(values) if value in values[:place]]
    if twice:
        raise ValueError(f"{where} names {_short(twice[0])} twice")


def _short(value: object) -> str:
    """A value in one line of at most 60 characters."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
        return f"{'-' if value < 0 else ''}2^{value.bit_length() - 1} or more"
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
