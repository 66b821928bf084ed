"""Compiled loops, and slices of a batch on several threads: compiled loops release the GIL.

Enters: a function to compile; or how many rows there are, or what each holds, and a function of a
slice. Leaves: the compiled function; or the results in the order of the slices. The results of a
slice must not depend on where it begins and ends. This module does not know what is computed.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import llvmlite.binding
import numba
import numpy as np
from numba.core import caching
from numba.core.runtime.nrt import rtsys
from numpy.typing import NDArray

PACKAGE = __name__.partition(".")[0] + "."
log = logging.getLogger(__name__)
Result = TypeVar("Result")


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Numba's `njit`, with a cache that copies of Assay share (`_ByContent`).

    Without one where no folder can be written for it: one warning tells.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        made = numba.njit(**{**options, "cache": False})(function)
        try:
            if options.get("cache"):
                made._cache = _Kept(function)  # type: ignore[no-untyped-call]  # noqa: SLF001 (where numba keeps its own)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            _tell()
        return made

    return decorate


class _ByContent(caching.UserWideCacheLocator):
    """Compiled code in a folder named by all that it is made of.

    Numba names a folder by the place of the source, so that each copy of Assay, such as the upload
    of a Ray job, is compiled anew; and it looks at the one file, so that a loop goes on with what
    it had compiled in from another file that has changed since. Here the name stands for both
    files, for numba and for the processor.
    """

    def __init__(self, py_func: Any, py_file: str) -> None:
        super().__init__(py_func, py_file)  # type: ignore[no-untyped-call]
        base = numba.config.CACHE_DIR or Path(self._cache_path).parent  # type: ignore[attr-defined]
        self._cache_path = str(Path(base) / "assay" / f"{Path(py_file).stem}-{_digest(py_func, py_file)}")


class _Places(caching.CompileResultCacheImpl):
    """Where compiled code is looked for: where its content says, else where numba itself would."""

    _locator_classes = [_ByContent, *caching.CompileResultCacheImpl._locator_classes]  # noqa: RUF012, SLF001 (as numba has them)


class _Kept(caching.FunctionCache):
    """Compiled code on disk, loaded without what only a compiler needs.

    Numba imports every function that it can compile, scipy among them, before it loads the first
    one that is compiled: 0.3 s of each start. It does so again where it compiles one.
    """

    _impl_class = _Places

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled code of a signature; None where there is none."""
        rtsys.initialize(target_context)  # memory for arrays that compiled code makes
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]


_DIGESTS: dict[str, str] = {}
"""Of each module with compiled loops: a digest of all that they are made of."""


def _digest(function: Callable[..., Any], file: str) -> str:
    """Digest of the file of a function, of what it takes from Assay, of numba and the processor.

    Another file counts with its text, one with compiled loops with all that they are made of; a
    number that comes from elsewhere counts by itself. All are there when the first function of a
    file is made.
    """
    name = function.__module__
    if name not in _DIGESTS:
        seen = {key: value for key, value in function.__globals__.items() if not key.startswith("__")}
        places = {v.__name__ if isinstance(v, ModuleType) else str(getattr(v, "__module__", "")) for v in seen.values()}
        texts = [_text(place) for place in sorted(places - {name}) if place.startswith(PACKAGE)]
        numbers = [
            f"{key} {value!r}" for key, value in sorted(seen.items()) if isinstance(value, int | float | np.number)
        ]
        made = [_machine(), *texts, *numbers, Path(file).read_text(encoding="utf-8")]
        _DIGESTS[name] = hashlib.sha256("\0".join(made).encode()).hexdigest()[:24]
    return _DIGESTS[name]


def _text(module: str) -> str:
    if module in _DIGESTS:
        return _DIGESTS[module]
    return Path(inspect.getfile(sys.modules[module])).read_text(encoding="utf-8")


@cache
def _machine() -> str:
    """What compiled code runs on: two processors of one cluster may share a home."""
    features = llvmlite.binding.get_host_cpu_features().flatten()
    return f"{numba.__version__} {llvmlite.binding.get_host_cpu_name()} {features}"


@cache
def _tell() -> None:
    """Say once in a process that compiled code is not kept."""
    home = Path("~").expanduser()
    what = f"numba can keep compiled code neither beside Assay nor below {home}: every start takes a minute longer"
    log.warning("%s; set NUMBA_CACHE_DIR to a folder that can be written", what)


def slices(pointer: NDArray[Any], threads: int) -> list[tuple[int, int]]:
    """At most `threads` ranges (first, last) that cover all rows, with about as many items in each.

    Args:
        pointer: (n + 1,) items of row i are `pointer[i]:pointer[i + 1]`.
        threads: at least 1.

    Raises:
        ValueError: for fewer threads than one.
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}, expected at least 1")
    if threads == 1 or len(pointer) <= 2:
        return [(0, len(pointer) - 1)]
    wanted = np.linspace(pointer[0], pointer[-1], threads + 1)[1:-1]
    cuts = np.unique([0, *np.searchsorted(pointer, wanted), len(pointer) - 1])
    return [(int(first), int(last)) for first, last in pairwise(cuts)]


def each(work: Callable[[int, int], Result], ranges: list[tuple[int, int]]) -> list[Result]:
    """`work(first, last)` of every range, each in a thread of its own; one range needs no thread.

    The threads end with the call: one that is kept would be missing in a process forked later.
    """
    if len(ranges) == 1:
        return [work(*ranges[0])]
    with ThreadPoolExecutor(len(ranges) - 1) as pool:
        others = [pool.submit(work, *part) for part in ranges[1:]]
        return [work(*ranges[0]), *(other.result() for other in others)]
