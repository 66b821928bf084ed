"""One thread at a time imports a heavy library, and nobody imports one that is not needed.

Enters: nothing. Leaves: a lock for the imports inside functions, and modules to be imported later.
pymatgen's modules import each other in a circle: two threads that import two of them at once both
fail (`KeyError: 'pymatgen.core'`, or a "partially initialized module"), and mp-api imports pymatgen
as well. A source is pulled in a thread while another thread looks for equal crystals, so every
heavy library is imported under this lock. This module does not know which libraries these are.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from typing import Any

_LOCK = threading.RLock()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the lock while the imports in the body run.

    Python's own locks are per module, which is too fine for modules in a circle.
    """
    with _LOCK:
        yield


def later(name: str) -> Any:
    """A module that is imported when something of it is first asked for.

    >>> later("json").dumps([1])
    '[1]'
    """
    return _Later(name)


class _Later:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        """Something of the module; an import makes what stays, so no cycles are looked for."""
        if self._name in sys.modules:
            return getattr(import_module(self._name), attribute)
        with _LOCK:
            collects = gc.isenabled()
            gc.disable()
            try:
                return getattr(import_module(self._name), attribute)
            finally:
                if collects:
                    gc.enable()


def spare_pandas() -> None:
    """Keep pyarrow, once imported, from importing pandas for its first array, which takes 0.2 s.

    `to_pandas` of a table still imports it. Only a process of Assay's own should do so: afterwards
    `pyarrow.array` takes a Series of pandas for any other sequence.
    """
    with _LOCK:
        arrow = sys.modules.get("pyarrow")
        if arrow is None or "pandas" in sys.modules:
            return
        sys.meta_path.insert(0, hidden := _NoPandas())
        try:
            arrow.array(())
        finally:
            sys.meta_path.remove(hidden)


class _NoPandas(MetaPathFinder):
    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        """Say that there is no pandas, and nothing of any other module."""
        if name == "pandas":
            raise ModuleNotFoundError(name)
