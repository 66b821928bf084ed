"""The members of an ensemble at work on a batch of which some members' outputs are kept.

Enters: what `assay.models.ensemble.inference.run` takes, and a store. Leaves: the same outputs, bit
for bit. Members whose outputs the store has are not run. Weights, calibration and everything after
them are not kept.

An output is kept only from a pass in which no network failed and merging held: then it depends on
the crystals, the member and what all members share, and not on the other members.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.models.ensemble import inference
from assay.models.ensemble.kept.store import Kept, Store
from assay.models.ensemble.summary import Outputs
from assay.sources.quarantine import Quarantined, Reason

if TYPE_CHECKING:
    from assay.models.ensemble.stored import Trained
    from assay.sources.crystals import Crystals

LIBRARIES = ("numpy", "numba", "torch", "timm", "torchvision", "moyopy")
"""Whose versions may change last bits; those that are not installed are left out."""
ROOMS = ("sources", "featurize", "models")
"""Whose code and tables decide the outputs of a member."""
CONTENT = ("lattice", "site_ptr", "frac", "species_ptr", "numbers", "occupancy")
"""Arrays of `Crystals` that a member reads; ids choose the crystals that are checked."""
FILLED = ("values", "variance", "views")
"""Arrays (n, k, p) of `Outputs`, one slice per member."""
FAMILIES = ("graphs", "pictures", "composition")
"""The order in which members read."""


def run(trained: Trained, path: inference.Path, crystals: Crystals, store: Store) -> tuple[Outputs, list[Quarantined]]:
    """The outputs of every member, computed where the store has none."""
    keys = _Keys(trained, path, crystals)
    every = range(len(trained.members))
    found = {k: kept for k in every if (kept := store.get(keys.member(k))) is not None}
    distance = None if trained.reference is None else store.get(keys.distance())
    missing = {k for k in every if k not in found}
    if trained.reference is not None and distance is None:
        missing.add(trained.reference.member)
    if missing:
        made, refused = inference.run(trained, path, crystals, missing)
        if not made.plain:
            return (made, refused) if len(missing) == len(every) else inference.run(trained, path, crystals)
        readable = frozenset(crystals.ids[made.rows].tolist())
        unreadable = [row for row in refused if row.id not in readable]
        for k in missing:
            found[k] = _taken(trained, made, unreadable, k)
            store.put(keys.member(k), found[k])
        if trained.reference is not None and distance is None and made.distance is not None:
            distance = Kept({"distance": made.distance}, {"network": "distance"})
            store.put(keys.distance(), distance)
        if len(missing) == len(every):
            return made, refused
    return _joined(trained, crystals, found, distance)


class _Keys:
    """The keys of what an ensemble says of some crystals."""

    def __init__(self, trained: Trained, path: inference.Path, crystals: Crystals) -> None:
        self._trained = trained
        shared = (
            code(),
            path.device_kind,
            _content(crystals),
            trained.structural,
            trained.spec,
            trained.angles,
            bool(trained.decisions),
        )
        self._shared = repr(shared)

    def member(self, k: int) -> str:
        """Of the outputs of member `k`."""
        return _sha256(self._shared, self._trained.members[k].outputs)

    def distance(self) -> str:
        """Of the distances to training crystals."""
        reference = self._trained.reference
        assert reference is not None
        digest = hashlib.sha256(repr((reference.k, reference.limit)).encode())
        for tensor in (reference.points, reference.mean, reference.deviation):
            digest.update(np.ascontiguousarray(tensor).tobytes())
        return _sha256(self.member(reference.member), digest.hexdigest())


@cache
def code(rooms: tuple[str, ...] = ROOMS) -> str:
    """Digest of all code and tables of some rooms, and of the versions of libraries."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[3]
    for room in rooms:
        for file in sorted(path for ending in ("py", "csv") for path in (root / room).rglob(f"*.{ending}")):
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    for name in LIBRARIES:
        try:
            digest.update(f"{name} {metadata.version(name)}\0".encode())
        except metadata.PackageNotFoundError:
            continue
    return digest.hexdigest()


def _content(crystals: Crystals) -> str:
    digest = hashlib.sha256("\0".join(crystals.ids.tolist()).encode())
    for name in CONTENT:
        digest.update(np.ascontiguousarray(getattr(crystals, name)).tobytes())
    return digest.hexdigest()


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _taken(trained: Trained, made: Outputs, unreadable: list[Quarantined], k: int) -> Kept:
    """What member `k` said; arrays that are NaN throughout are left out."""
    arrays: dict[str, Any] = {"rows": made.rows}
    for name in FILLED:
        part = getattr(made, name)[:, k]
        if name == "values" or np.isfinite(part).any():
            arrays[name] = np.ascontiguousarray(part)
    if made.draws is not None:
        first = sum(trained.draws[:k])
        arrays["draws"] = np.ascontiguousarray(made.draws[:, first : first + trained.draws[k]])
    member = trained.members[k]
    notes = {
        "network": member.name,
        "weights": member.sha256,
        "unreadable": json.dumps([[row.id, row.reason.value, row.message] for row in unreadable]),
        "unread": json.dumps([[row, why] for members, row, why in made.unread if k in members]),
    }
    return Kept(arrays, notes)


def _joined(
    trained: Trained, crystals: Crystals, found: dict[int, Kept], distance: Kept | None
) -> tuple[Outputs, list[Quarantined]]:
    """The outputs of all members together, and the records of a pass of them all."""
    out = inference.blank(trained, found[0].arrays["rows"])
    if distance is not None:
        out.distance = distance.arrays["distance"]
    unread: dict[int, str] = {}
    for k in sorted(found, key=lambda k: (FAMILIES.index(trained.members[k].kind.family), k)):
        kept = found[k]
        for name in FILLED:
            if name in kept.arrays:
                getattr(out, name)[:, k] = kept.arrays[name]
        if out.draws is not None:
            first = sum(trained.draws[:k])
            out.draws[:, first : first + trained.draws[k]] = kept.arrays["draws"]
        for row, why in json.loads(kept.notes["unread"]):
            unread.setdefault(row, why)
    out.failed[list(unread)] = True
    place = {name: row for row, name in enumerate(crystals.ids.tolist())}
    refused = [
        inference.refusal(crystals, place[name], Reason(reason), message)
        for name, reason, message in json.loads(found[0].notes["unreadable"])
    ]
    rows = out.rows.tolist()
    return out, refused + [
        inference.refusal(crystals, rows[row], Reason.UNSUPPORTED, why) for row, why in unread.items()
    ]
