"""The one door to alignn and dgl, and to the files of alignn; Assay itself needs neither.

Enters: `Graphs` and graphs of dgl or alignn; archives of published weights. Leaves: the same graphs
on the other side; configuration and tensors, never anything that could run. dgl 2.1.0 is the last
release on the public index: its graph part works beside a modern torch, its `graphbolt` part was
compiled for torch 2.0 to 2.2 and fails at import, so a stub takes the place of that part. This
module does not know networks or checkpoints of ours.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import zipfile
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.featurize.elements import HEAVIEST
from assay.models.networks.batch import Batch
from assay.sources.elements import SYMBOLS

if TYPE_CHECKING:
    from assay.featurize.graphs import Graphs

LARGEST = 1 << 30
"""Bytes a file of weights may have, unpacked; the largest published one has 60 million."""

_LARGEST_CONFIG = 16 << 20
_HOW = "install them with: pip install -e .[interop]"


class _Anything(ModuleType):
    """A package whose public attributes are empty classes, and whose submodules are like it."""

    __path__: list[str] = []  # noqa: RUF012 -- a package has a path

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def import_dgl() -> ModuleType:
    """The package dgl with its torch backend, without `dgl.graphbolt`.

    Raises:
        ImportError: when dgl is not installed or does not load on this machine.
    """
    if "dgl" not in sys.modules:
        os.environ.setdefault("DGLBACKEND", "pytorch")  # else dgl writes a config file into the home folder
        sys.modules.setdefault("dgl.graphbolt", _Anything("dgl.graphbolt"))
    return _import("dgl")


def import_alignn(module: str = "alignn") -> ModuleType:
    """A module of the package alignn, with dgl in place where dgl can be imported.

    Raises:
        ImportError: when alignn is not installed or does not load on this machine.
    """
    try:
        import_dgl()
    except ImportError:
        sys.modules.pop("dgl", None)  # alignn itself tries again, and goes on without it
    return _import(module)


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library of dgl is missing
        raise ImportError(f"{module} cannot be imported ({error}); {_HOW}") from error


# Graphs of one kind as graphs of the other.


@cache
def element_table(name: str = "cgcnn") -> NDArray[np.float32]:
    """(104, p), read-only: node features of jarvis-tools by atomic number, NaN where it has none.

    Raises:
        ImportError: when alignn is not installed.
        ValueError: for a name jarvis-tools does not know.
    """
    lookup = import_alignn("alignn.graphs").get_node_attributes
    lookup = getattr(lookup, "__wrapped__", lookup)  # its cache would keep quiet about rows it borrowed
    rows: dict[int, Any] = {}
    for number in range(1, HEAVIEST + 1):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            try:
                row = lookup(SYMBOLS[number], atom_features=name)
            except NotImplementedError as error:
                raise ValueError(f"atom_features is {name!r}, which jarvis-tools does not know: {error}") from error
        if "could not load" not in output.getvalue():  # else it took the row of another element
            rows[number] = row
    table = np.full((HEAVIEST + 1, np.size(rows[1])), np.nan, np.float32)
    for number, row in rows.items():
        table[number] = row
    table.setflags(write=False)
    return table


def to_dgl(graphs: Graphs, table: NDArray[np.float32] | None = None) -> tuple[Any, Any]:
    """A dgl graph and its line graph of all crystals, batched; `dgl.unbatch` takes them apart.

    Args:
        graphs: full graphs, with angles; their triplets become the edges of the line graph as they
            are.
        table: (104, p) node features by atomic number; None: those the graphs name.

    Raises:
        ImportError: when dgl is not installed.
        ValueError: for quotient graphs, which dgl's models do not understand.
    """
    if graphs.weights is not None:
        raise ValueError("these graphs are quotients: dgl has no multiplicities; give the full graphs")
    dgl = import_dgl()
    g = dgl.graph((_index(graphs.source), _index(graphs.target)), num_nodes=int(graphs.node_ptr[-1]))
    line = dgl.graph((_index(graphs.triplet_other), _index(graphs.triplet_edge)), num_nodes=len(graphs.source))
    g.set_batch_num_nodes(torch.from_numpy(np.diff(graphs.node_ptr)))
    g.set_batch_num_edges(torch.from_numpy(np.diff(graphs.edge_ptr)))
    line.set_batch_num_nodes(torch.from_numpy(np.diff(graphs.edge_ptr)))
    line.set_batch_num_edges(torch.from_numpy(np.diff(graphs.triplet_ptr)))
    g.ndata["atom_features"] = torch.from_numpy(graphs.features() if table is None else _mean_rows(graphs, table))
    g.edata["r"] = line.ndata["r"] = torch.from_numpy(-graphs.vector)  # theirs lead from source to target
    line.edata["h"] = torch.from_numpy(graphs.cosine)
    return g, line


def from_dgl(g: Any, line: Any = None) -> Batch:
    """Our tensors of a graph and its line graph, of dgl or `alignn.torch_graph_builder`.

    Node features are taken as they are; edges and triplets are sorted as a `Batch` wants them. An
    edge of the line graph is a triplet: its head is the edge that is updated, its tail the other
    one. Their cosine is ours.
    """
    source, target = _ends(g)
    order = torch.argsort(target, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    edge = other = torch.empty(0, dtype=torch.int64)
    cosine = torch.empty(0)
    if line is not None:
        tail, head = _ends(line)
        edge, by_edge = torch.sort(place[head], stable=True)
        other, cosine = place[tail][by_edge], line.edata["h"].detach()[by_edge].float()
    nodes = _nodes(g)
    return Batch(
        x=g.ndata["atom_features"].float(),
        crystal=torch.repeat_interleave(torch.arange(len(nodes)), nodes),
        size=nodes.float(),
        source=source[order],
        target=target[order],
        distance=g.edata["r"].detach().norm(dim=1).float()[order],
        triplet_edge=edge,
        triplet_other=other,
        cosine=cosine,
    )


def _index(rows: NDArray[np.int32]) -> Tensor:
    return torch.from_numpy(rows.astype(np.int64))


def _mean_rows(graphs: Graphs, table: NDArray[np.float32]) -> NDArray[np.float32]:
    share = graphs.occupancy[:, None]
    total = np.add.reduceat(share, graphs.species_ptr[:-1])
    return np.asarray(np.add.reduceat(table[graphs.numbers] * share, graphs.species_ptr[:-1]) / total, np.float32)


def _ends(g: Any) -> tuple[Tensor, Tensor]:
    source, target = (g.src, g.dst) if hasattr(g, "src") else g.edges()
    return source.long(), target.long()


def _nodes(g: Any) -> Tensor:
    """(n,) nodes of each graph of a batch."""
    found: Tensor | None = g.batch_num_nodes() if callable(g.batch_num_nodes) else g.batch_num_nodes
    return torch.tensor([g.num_nodes]) if found is None else found.long()


# Published weights.


@dataclass(frozen=True)
class Published:
    """What a published checkpoint of alignn says and holds."""

    path: Path
    """The archive or folder."""
    config: dict[str, Any]
    """Its `config.json`, as it stands."""
    state: dict[str, Tensor]
    """Parameters and buffers of the network by alignn's own names, float32 where they are
    fractions."""


def published(path: Path | str) -> Published:
    """Read a published checkpoint without running anything in it.

    A zip archive or a folder with `config.json` beside `best_model.pt` (ALIGNN 2) or
    `checkpoint_300.pt` (before it); of several checkpoints `best_model.pt` is taken, else the one
    of the last epoch. Nothing is unpacked on the disk.

    Raises:
        FileNotFoundError: when `path`, or one of the two files in it, is missing.
        ValueError: when a file is damaged, too large, or holds more than tensors.
    """
    path = Path(path)
    files = _folder(path) if path.is_dir() else _archive(path)
    names = {PurePosixPath(name): name for name in files}
    configs = [name for name in names if name.name == "config.json"]
    if len(configs) != 1:
        found = f"{len(configs)} of them" if configs else "none"
        raise FileNotFoundError(f"{path} should hold one config.json, it has {found}; is it a published ALIGNN model?")
    weights = [name for name in names if name.parent == configs[0].parent and _epoch(name.name) is not None]
    if not weights:
        raise FileNotFoundError(f"{path} has neither best_model.pt nor checkpoint_*.pt beside its config.json")
    chosen = max(weights, key=lambda name: _epoch(name.name) or 0)
    text = files[names[configs[0]]].read(_LARGEST_CONFIG)
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ValueError(f"config.json of {path} is not valid JSON: {error}") from error
    if not (isinstance(config, dict) and isinstance(config.get("model"), dict)):
        raise ValueError(f"config.json of {path} does not describe a network: it has no object 'model'")  # noqa: TRY004
    return Published(path, config, _tensors(files[names[chosen]].read(LARGEST), f"{chosen} of {path}"))


@dataclass(frozen=True)
class _File:
    """A file in a folder, or in an archive that is read in place."""

    path: Path
    inside: zipfile.ZipInfo | None = None

    def read(self, most: int) -> bytes:
        """All of it, unless that is more than `most` bytes."""
        if self.inside is None:
            content = self._within(self.path.open("rb"), most)
        else:
            try:
                with zipfile.ZipFile(self.path) as archive:
                    content = self._within(archive.open(self.inside), most)
            except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
                raise ValueError(f"{self.inside.filename} of {self.path} cannot be unpacked: {error}") from error
        return content

    def _within(self, file: IO[bytes], most: int) -> bytes:
        with file:
            content = file.read(most + 1)
        if len(content) > most:
            name = self.inside.filename if self.inside else self.path.name
            raise ValueError(f"{name} of {self.path} is larger than {most} bytes, the most Assay unpacks")
        return content


def _folder(path: Path) -> dict[str, _File]:
    return {file.name: _File(file) for file in sorted(path.iterdir()) if file.is_file()}


def _archive(path: Path) -> dict[str, _File]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; download the published model first")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not a zip archive: {error}") from error
    strange = [entry.filename for entry in entries if _leaves(entry.filename)]
    if strange:
        raise ValueError(f"{path} holds {strange[0]!r}, a path that leads out of it: no published model does")
    return {entry.filename: _File(path, entry) for entry in entries if not entry.is_dir()}


def _leaves(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in name.partition("/")[0]


def _epoch(name: str) -> float | None:
    """How late a checkpoint is, the best one last of all; None for another file."""
    if name == "best_model.pt":
        return float("inf")
    epoch = name.removeprefix("checkpoint_").removesuffix(".pt")
    return float(epoch) if name == f"checkpoint_{epoch}.pt" and epoch.isascii() and epoch.isdigit() else None


def _tensors(content: bytes, name: str) -> dict[str, Tensor]:
    """The state dict in a file of torch, which may lie beside an optimizer's."""
    buffer = io.BytesIO(content)
    if zipfile.is_zipfile(buffer):
        with zipfile.ZipFile(buffer) as inner:
            unpacked = sum(entry.file_size for entry in inner.infolist())
        if unpacked > LARGEST:
            raise ValueError(f"{name} unpacks to {unpacked} bytes, the most Assay unpacks is {LARGEST}")
    buffer.seek(0)
    try:
        loaded = torch.load(buffer, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(f"{name} is damaged, or holds more than tensors ({type(error).__name__}: {reason})") from error
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not state or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError(f"{name} holds no state dict, expected tensors by name")
    return {
        key.removeprefix("module."): tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in state.items()
    }
