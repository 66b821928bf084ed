"""A checkpoint is a folder that names its features: weights, `model.json`, a card. No pickle.

Enters: a network and what it was made of. Leaves: the same network, with the same numbers.
This module does not know ensembles or training.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.models.ensemble import validation
from assay.models.ensemble.lean import convolutions
from assay.models.ensemble.lean.convolutions import Convolutions
from assay.models.networks import kinds, registry, tensors
from assay.models.networks.kinds import Kind, Spec
from assay.models.target import Property
from assay.sources.checks import importing
from assay.sources.durable import whole

if TYPE_CHECKING:
    import torch
    from safetensors import torch as stored

    from assay.models.ensemble import frozen as quick
    from assay.models.networks.layers import Network
else:
    quick = importing.later("assay.models.ensemble.frozen")
    torch, stored = importing.later("torch"), importing.later("safetensors.torch")

FORMAT = 3
"""Newest version of the folder layout that is read; each kind of input has its own, see
`Kind.format`."""
MAX_BYTES = 64 * 2**20
"""Of a JSON file."""


@dataclass(frozen=True)
class Checkpoint:
    """One trained network and everything needed to feed it and read it."""

    network: Network
    """In eval mode."""
    name: str
    """A key of `assay.models.networks.registry.MODELS`."""
    sizes: dict[str, Any]
    """Keyword arguments of the network."""
    spec: Spec
    """The graphs, the pictures or the table of features it reads."""
    properties: tuple[Property, ...]
    """What it predicts, with unit and scaler."""
    elements: tuple[str, ...]
    """Symbols seen in training."""
    facts: dict[str, Any]
    """Data fingerprint, split, seed and metrics, for people."""
    sha256: str = ""
    """Of the weights file."""

    lean: Convolutions | None = field(default=None, init=False, repr=False, compare=False)
    """The network without torch, where the folder that was read holds one that can do so."""
    make: Callable[[], Network] | None = field(default=None, init=False, repr=False, compare=False)
    """Makes `network` when somebody asks for it; None where it is there."""

    def __getattr__(self, name: str) -> Any:
        """The network, once it is asked for."""
        if name != "network" or self.make is None:
            raise AttributeError(name)
        object.__setattr__(self, "network", self.make())
        return self.network

    @property
    def kind(self) -> Kind[Any]:
        """What it reads: graphs, pictures or compositions."""
        return kinds.of(self.spec)

    @cached_property
    def frozen(self) -> Network | Convolutions:
        """The network as prediction takes it (`assay.models.ensemble.frozen`)."""
        return self.lean or quick.freeze(self.network)

    @property
    def embedder(self) -> Network | Convolutions:
        """What says where a crystal lies."""
        return self.lean or self.network

    @property
    def draws(self) -> int:
        """Values per crystal in its predictive distribution; 0: it has none."""
        return self.network.draws if registry.MODELS[self.name].draws else 0

    @cached_property
    def outputs(self) -> str:
        """What its outputs depend on, as text: weights with their types, sizes, inputs, scalers."""
        kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in self._state().values()})
        lowered = ("bfloat16",) if self.lean is None and self.network.lowered else ()
        return repr((self.sha256, self.name, sorted(self.sizes.items()), self.spec, self.properties, kinds, *lowered))

    @cached_property
    def trunk(self) -> str:
        """Digest of everything before the heads; members that share it embed a crystal alike."""
        digest = hashlib.sha256(repr((self.name, sorted(self.sizes.items()))).encode())
        for name, tensor in sorted(self._state().items()):
            if not name.startswith("heads."):
                digest.update(name.encode() + _bytes(tensor))
        return digest.hexdigest()

    def _state(self) -> Mapping[str, Any]:
        return self.network.state_dict() if self.lean is None else self.lean.weights


def _bytes(tensor: Any) -> bytes:
    if isinstance(tensor, np.ndarray):
        return tensor.tobytes()
    return bytes(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def write(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write the folder; `model.json` comes last, so its presence means the checkpoint is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = stored.save({name: tensor.contiguous() for name, tensor in checkpoint.network.state_dict().items()})
    described = {
        "format": checkpoint.kind.format,
        "network": checkpoint.name,
        "sizes": checkpoint.sizes,
        checkpoint.spec.KEY: asdict(checkpoint.spec),
        "properties": [asdict(p) for p in checkpoint.properties],
        "elements": list(checkpoint.elements),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        **checkpoint.facts,
    }
    write_whole(folder / "weights.safetensors", weights)
    write_whole(folder / "README.md", _card(described).encode())
    write_whole(folder / "model.json", to_json(described))
    return folder


def read(folder: Path, precision: str = "float32") -> Checkpoint:
    """Read a checkpoint folder, checking every number in it and the recorded hash of its weights.

    `precision` is that of predictions, see `Recipe.precision`.

    Raises:
        FileNotFoundError: when the folder or a file of it is missing.
        ValueError: when the weights are not the ones `model.json` describes, a number is out of its
            range, or the layout is newer than this code.
    """
    described = read_json(folder / "model.json", "a checkpoint")
    newest = described.get("format")
    if not isinstance(newest, int) or newest < 1:
        raise ValueError(f"{folder / 'model.json'}: format is {newest!r}, expected a whole number from 1 to {FORMAT}")
    if newest > FORMAT:
        raise ValueError(f"{folder} has checkpoint format {newest}; this Assay reads up to {FORMAT}")
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: copy the whole checkpoint folder again")
    with naming(folder / "model.json"):
        validation.model(described)
        validation.spec(described)
        spec = kinds.from_json(described)
        properties = tuple(Property(**p) for p in described["properties"])
    weights = path.read_bytes()
    digest = hashlib.sha256(weights).hexdigest()
    if digest != described["weights_sha256"]:
        recorded = described["weights_sha256"]
        raise ValueError(f"{path} is damaged or replaced: sha256 {digest[:12]}, model.json says {recorded[:12]}")
    rest: dict[str, Any] = {
        "name": described["network"],
        "sizes": described["sizes"],
        "spec": spec,
        "properties": properties,
        "elements": tuple(described["elements"]),
        "facts": {k: finite(v) for k, v in described.items() if k not in _OWN_KEYS},
        "sha256": digest,
    }
    names = [p.name for p in properties]
    make = partial(_network, described, spec, names, weights, path, precision)
    if not _is_plain(described, spec, names, tensors.header(weights, path), path):
        return Checkpoint(network=make(), **rest)
    later: Any = None
    made = Checkpoint(network=later, **rest)
    object.__delattr__(made, "network")
    lean = Convolutions(tensors.arrays(weights, path), names, convolutions.Sizes(**described["sizes"]))
    for name, value in {"lean": lean, "make": make}.items():
        object.__setattr__(made, name, value)
    return made


def _is_plain(described: dict[str, Any], spec: Spec, names: list[str], shown: tensors.Header, path: Path) -> bool:
    """Whether these are the tensors of a CGCNN in float32; then it can do without torch."""
    if described["network"] != "cgcnn" or not set(described["sizes"]) <= set(convolutions.Sizes.__dataclass_fields__):
        return False
    with naming(path.parent / "model.json"):
        validation.sizes(described["sizes"], shown.largest)
    sizes = convolutions.Sizes(**described["sizes"])
    if not sizes.sound:
        return False
    kinds_of = {name: "I64" if name.endswith("num_batches_tracked") else "F32" for name in shown.kinds}
    return shown.shapes == sizes.shapes(kinds.shape(spec), names) and shown.kinds == kinds_of


def _network(
    described: dict[str, Any], spec: Spec, names: list[str], weights: bytes, path: Path, precision: str
) -> Network:
    """The network in `model.json`, made no larger than the header of its weights allows."""
    sizes, largest = described["sizes"], tensors.header(weights, path).largest
    with naming(path.parent / "model.json"):
        validation.sizes(sizes, largest)
    make = partial(registry.create, described["network"], kinds.shape(spec), names, **sizes)
    network = tensors.fill(make, weights, path, large=kinds.of(spec).views)
    if precision == "bfloat16":
        network.lower()
    return network.eval()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path of a file before the complaints about its content."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in `path`, which makes its folder `what` it is.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no JSON object, or has a key twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is not {what}: it has no {path.name}; check the path, or train one")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
    try:
        parsed = json.loads(path.read_bytes(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"{path} holds a {type(parsed).__name__}, expected a JSON object")  # noqa: TRY004 -- a damaged file
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(n for n in names if names.count(n) > 1)!r} twice in one object")
    return made


def finite(value: Any) -> Any:
    """The same with null for what is not finite: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(described: dict[str, Any]) -> bytes:
    """Readable JSON, keys in the given order; null where a number is not finite."""
    return (json.dumps(finite(described), indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def arrays_of(path: Path, recorded: str) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file of an ensemble, which has this digest.

    Raises:
        FileNotFoundError: when it is missing.
        ValueError: when it is another one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: copy the whole ensemble folder again")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != recorded:
        raise ValueError(f"{path} is damaged or replaced: sha256 {digest[:12]}, ensemble.json says {recorded[:12]}")
    return tensors.arrays(content, path)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or none."""
    with whole(path) as file:
        file.write(content)


_OWN_KEYS = frozenset(
    {"format", "network", "sizes", "graph", "view", "composition", "properties", "elements", "weights_sha256"}
)


def _card(described: dict[str, Any]) -> str:
    units = ", ".join(f"{p['name']} ({p['unit']})" for p in described["properties"])
    facts = "\n".join(f"- {key}: {value}" for key, value in described.items() if key in ("data", "seed", "metrics"))
    note = described.get("published", {}).get("note", "")
    facts += f"\n{note}" if note else ""
    return f"# {described['network']}: {units}\n\nOne member of the ensemble described in `../README.md`.\n\n{facts}\n"
