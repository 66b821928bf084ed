"""Compiled loops, and slices of a batch on several threads: compiled loops release the GIL.

Enters: a function to compile; or how many rows there are, or what each holds, and a function of a
slice. Leaves: the compiled function; or the results in the order of the slices. The results of a
slice must not depend on where it begins and ends. This module does not know what is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core.caching import FunctionCache
from numba.core.runtime.nrt import rtsys
from numpy.typing import NDArray

log = logging.getLogger(__name__)
Result = TypeVar("Result")


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Numba's `njit`, without a cache where no folder can be written for it: one warning tells."""

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


class _Kept(FunctionCache):
    """Compiled code on disk, loaded without what only a compiler needs.

    Numba imports every function that it can compile, scipy among them, before it loads the first
    one that is compiled: 0.3 s of each start. It does so again where it compiles one.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled code of a signature; None where there is none."""
        rtsys.initialize(target_context)  # memory for arrays that compiled code makes
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]


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
