"""The one door to alignn and dgl, for benchmarks and parity checks; nothing in Assay's own path needs either.

Enters: nothing. Leaves: the imported modules. dgl 2.1.0 is the last release on the public index: its graph part works
beside a modern torch, its `graphbolt` part was compiled for torch 2.0 to 2.2 and fails at import, so a stub takes the
place of that part. This module does not know crystals, graphs or weights.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

_HOW = "install them with: pip install -e .[bench]"


class _Anything(ModuleType):
    """A package whose every public attribute is an empty class and every submodule another such package."""

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
