"""Tensors of a safetensors file, held against its header and against the network they are for.

Enters: the bytes of a file, a network to be made. Leaves: tensors that are finite and of the right
kind, or a `ValueError` of one line. Nothing is allocated that the file does not show. Format:
https://huggingface.co/docs/safetensors, "Format". This module does not know `model.json`.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from safetensors import SafetensorError, numpy as plain

from assay.sources.checks import importing

if TYPE_CHECKING:
    import torch
    from safetensors import torch as stored
    from torch import Tensor, nn

    from assay.models.networks.layers import Network
else:
    torch, stored = importing.later("torch"), importing.later("safetensors.torch")

LARGEST = 1e8
"""Magnitude of a weight above which sums over a few layers overflow float32."""
_HEADER = 100 * 2**20
"""Bytes of a header that safetensors reads."""
_FLOATS = {"F64", "F32", "F16", "BF16"}
_KINDS = {"int64": {"I64"}, "int32": {"I32"}, "uint16": {"U16"}, "bool": {"BOOL"}, "uint8": {"U8"}}
_SPARE_TENSORS, _SPARE_NUMBERS = 64, 2**22
"""What a network may make and drop again while it is made, beside four times its weights."""


@dataclass(frozen=True)
class Header:
    """Names, kinds and shapes of the tensors in a file."""

    kinds: dict[str, str]
    """For example "F32"."""
    shapes: dict[str, tuple[int, ...]]

    @property
    def numbers(self) -> int:
        """In all tensors together."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def largest(self) -> int:
        """The longest side of a tensor, or the number of tensors where that is more."""
        return max([len(self.shapes), *(side for shape in self.shapes.values() for side in shape)])


def header(content: bytes, path: Path) -> Header:
    """The header of a safetensors file.

    Raises:
        ValueError: when the file is none, or is cut.
    """
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or not 2 <= size <= min(len(content) - 8, _HEADER):
        stated = f"a header of {size} bytes" if len(content) >= 8 else "no header"
        raise ValueError(f"{path} is no whole safetensors file: it has {len(content)} bytes and {stated}")
    try:
        found = {name: entry for name, entry in json.loads(content[8 : 8 + size]).items() if name != "__metadata__"}
        kinds = {name: str(entry["dtype"]) for name, entry in found.items()}
        shapes = {name: tuple(int(side) for side in entry["shape"]) for name, entry in found.items()}
        ends = max((int(entry["data_offsets"][1]) for entry in found.values()), default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no safetensors file: its header cannot be read ({type(error).__name__})") from None
    if ends != len(content) - 8 - size or any(side < 0 for shape in shapes.values() for side in shape):
        raise ValueError(
            f"{path} is cut or damaged: its header speaks of {ends} bytes, {len(content) - 8 - size} follow"
        )
    return Header(kinds, shapes)


def read(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in the content of a safetensors file; every number is finite and below 1e8.

    Raises:
        ValueError: when the file is none, is cut, or holds another number.
    """
    tensors: dict[str, Tensor] = _loaded(stored.load, content, path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            _check_ends(name, path, *(float(end) for end in torch.aminmax(tensor)))
    return tensors


def arrays(content: bytes, path: Path) -> dict[str, NDArray[Any]]:
    """The same without torch, for files without bfloat16.

    Raises:
        ValueError: as `read`, and when a tensor is in bfloat16.
    """
    found: dict[str, NDArray[Any]] = _loaded(plain.load, content, path)
    for name, array in found.items():
        if array.dtype.kind == "f" and array.size:
            _check_ends(name, path, float(array.min()), float(array.max()))
    return found


def _loaded(load: Callable[[bytes], Any], content: bytes, path: Path) -> Any:
    header(content, path)
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path} is no whole safetensors file: {' '.join(str(error).split())}") from None


def _check_ends(name: str, path: Path, low: float, high: float) -> None:
    """Refuse numbers that are not finite, or too large; a deviation below 0, too."""
    least = 0.0 if name.endswith(("running_var", "deviation")) else -LARGEST
    if not (least <= low and high <= LARGEST):
        raise ValueError(f"{path}: {name} has numbers from {low:g} to {high:g}, expected {least:g} to {LARGEST:g}")


def fill(make: Callable[[], Network], content: bytes, path: Path, *, large: bool) -> Network:
    """A network with the weights in the content of a safetensors file.

    Args:
        make: makes the network; it is stopped when it becomes larger than the weights.
        content: of the file.
        path: of the file, for messages.
        large: whether single parts of the network may be large: it is made without memory first.

    Raises:
        ValueError: when the weights are not those of such a network.
    """
    shown = header(content, path)
    network = _made(make, shown, path, torch.device("meta") if large else nullcontext())
    _compare(network.state_dict(), shown, path)
    if large:
        network = _made(make, shown, path, nullcontext())
    network.load_state_dict(read(content, path), strict=True)
    try:
        network.check()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return network


def _made(make: Callable[[], Network], shown: Header, path: Path, place: Any) -> Network:
    try:
        with _no_larger(shown), place:
            return make()
    except (
        TypeError,
        RuntimeError,
        ArithmeticError,
        LookupError,
        AttributeError,
        AssertionError,
        MemoryError,
    ) as error:
        cause = " ".join(str(error).split())[:200]
        raise ValueError(f"no network can be made for {path}: {type(error).__name__}: {cause}") from None


@contextmanager
def _no_larger(shown: Header) -> Iterator[None]:
    """Stop this thread when the parameters it makes outgrow those in a file."""
    thread, tensors, numbers = threading.get_ident(), 0, 0

    def grow(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        nonlocal tensors, numbers
        if parameter is None or threading.get_ident() != thread:
            return
        tensors, numbers = tensors + 1, numbers + parameter.numel()
        if tensors > 4 * len(shown.shapes) + _SPARE_TENSORS or numbers > 4 * shown.numbers + _SPARE_NUMBERS:
            raise ValueError(
                f"the sizes in model.json give a larger network than the weights beside it, which are "
                f"{len(shown.shapes)} tensors with {shown.numbers} numbers ({name} of {type(module).__name__} is over)"
            )

    handle = torch.nn.modules.module.register_module_parameter_registration_hook(grow)
    try:
        yield
    finally:
        handle.remove()


def _compare(wanted: dict[str, Tensor], shown: Header, path: Path) -> None:
    """Refuse other names, shapes or kinds than those of the network."""
    for name, tensor in wanted.items():
        if name not in shown.shapes:
            raise ValueError(f"{path} has no tensor {name}, which the network in model.json needs")
        if shown.shapes[name] != tuple(tensor.shape):
            raise ValueError(
                f"{path}: {name} has shape {shown.shapes[name]}, the sizes in model.json ask for {tuple(tensor.shape)}"
            )
        accepted = (
            _FLOATS if tensor.is_floating_point() else _KINDS.get(str(tensor.dtype).removeprefix("torch."), set())
        )
        if shown.kinds[name] not in accepted:
            raise ValueError(f"{path}: {name} is {shown.kinds[name]}, expected {' or '.join(sorted(accepted))}")
    unknown = sorted(set(shown.shapes) - set(wanted))
    if unknown:
        raise ValueError(f"{path} has a tensor {unknown[0]!r}, which the network in model.json does not have")
