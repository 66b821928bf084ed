"""Two threads that import heavy libraries at the same time: pymatgen's circle of imports bears one."""

from __future__ import annotations

import ast
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk

from assay.sources.checks import importing

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"pymatgen", "ase", "spglib", "moyopy", "mp_api", "optimade", "httpx2", "jarvis", "lark"}
CROWD = """
import sys, threading
from pathlib import Path
from assay.sources import files, prototypes, symmetry
from assay.sources.databases.filters import grammar
from assay.sources.formats import convert
folder = Path(sys.argv[1])
crystals = prototypes.generate(3)
sites = __import__("numpy").arange(2)
doors = [
    *(lambda path=path: files.read(path) for path in sorted(folder.iterdir())),
    lambda: convert.to_pymatgen(crystals),
    lambda: convert.near_neighbours(crystals, crystals.lattice[0], crystals.frac[:2], sites),
    lambda: convert.to_ase(crystals),
    lambda: symmetry.niggli(crystals.lattice[0].tolist()),
]
doors = doors + doors[::-1]
start, failed = threading.Barrier(len(doors)), []
def enter(door):
    start.wait()
    try:
        door()
    except BaseException as error:
        failed.append(f"{type(error).__name__}: {error}")
threads = [threading.Thread(target=enter, args=(door,)) for door in doors]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(failed or "fine")
"""

ALONE = """
import sys
import pyarrow
from assay.sources.checks.importing import spare_pandas
spare_pandas()
spare_pandas()
content = pyarrow.table({"a": pyarrow.array([1, None]), "b": ["x", "y"]})
before = "pandas" in sys.modules
print(before, content.to_pandas()["b"].tolist(), "pandas" in sys.modules)
"""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file of each format."""
    folder = tmp_path_factory.mktemp("mixed")
    for name in ("a.extxyz", "b.cif", "c.json", "d.traj", "e.vasp"):
        ase.io.write(folder / name, bulk("NaCl", "rocksalt", a=5.64))
    return folder


@pytest.mark.parametrize("attempt", range(3))
def test_all_doors_at_once_in_a_fresh_process(mixed: Path, attempt: int) -> None:
    assert attempt < 3  # the race was lost in 7 of 7 processes
    done = subprocess.run(
        [sys.executable, "-c", CROWD, mixed],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("fine", 0), done.stderr


def test_pyarrow_makes_arrays_without_pandas_and_tables_of_pandas_when_asked() -> None:
    words = [sys.executable, "-c", ALONE]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.stdout.strip(), done.stderr) == ("False ['x', 'y'] True", "")


def _unguarded(tree: ast.AST, guarded: bool = False) -> list[int]:
    """Lines of imports of heavy libraries inside functions that no lock guards."""
    found: list[int] = []
    for node in ast.iter_child_nodes(tree):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if not guarded and any(name.split(".")[0] in HEAVY for name in names):
            found.append(node.lineno)  # type: ignore[attr-defined]  # an import has a line
        lock = isinstance(node, ast.With) and "one_at_a_time" in ast.dump(node.items[0])
        found += _unguarded(node, guarded or lock)
    return found


def test_every_import_of_a_heavy_library_inside_a_function_holds_the_lock() -> None:
    for path in (ROOT / "sources").rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                assert not _unguarded(function), f"{path}: {_unguarded(function)}"


def test_a_module_that_is_imported_later_waits_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_later.py").write_text("value = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module, found = importing.later("imported_later"), []
    thread = threading.Thread(target=lambda: found.append(module.value))
    with importing.one_at_a_time():
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert "imported_later" not in sys.modules
    thread.join(10)
    assert found == [3]
    assert gc.isenabled()
