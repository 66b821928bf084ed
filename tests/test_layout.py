"""The house: what lies at the top, how long a file may be, which door leads where, and what is never used."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("sources", "featurize", "models", "screening")
TOP = {
    *(*ROOMS, "assay", "configs", "benchmarks", "tests", "docs", "findings", "containers", ".ci"),
    *("pyproject.toml", "Makefile", ".gitignore", ".pre-commit-config.yaml"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "CITATION.cff"),
}
BANNED = {"utils", "util", "helpers", "common", "base", "misc", "manager"}
CODE = sorted(path for room in (*ROOMS, "benchmarks") for path in (ROOT / room).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in CODE]
EVERY_FILE = pytest.mark.parametrize("path", CODE, ids=NAMES)

MOST_FILES = 16
"""Files in one folder, `__init__.py` among them."""
MOST_INNER_IMPORTS = 60
"""Imports inside functions, in the four rooms."""
TABLES = {
    "featurize/pictures/colours.py",
    "screening/commands/command_table.py",
    "sources/databases/provider_table.py",
    "sources/dataset_table.py",
    "sources/prototype_table.py",
}
"""Files that hold a table of data, which no formatter should reflow."""

BARE = """
import importlib, pkgutil, sys
BLOCKED = {blocked!r}
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(name + " is not on this machine")
sys.meta_path.insert(0, Wall())
import assay.featurize, assay.models
for room in (assay.featurize, assay.models):
    for module in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
        importlib.import_module(module.name)
from assay.models.networks import registry
for name in [name for name, entry in registry.MODELS.items() if not entry.reads.views]:
    registry.create(name, 4, ["y"])
print(sorted(set(sys.modules) & BLOCKED))
"""
BLOCKED = {
    *("pyarrow", "polars", "pydantic", "pydantic_core", "sklearn", "ray", "pymatgen", "ase", "httpx2", "optimade"),
    *("typer", "rich", "yaml", "jinja2", "alignn", "dgl", "jarvis", "pandas", "matplotlib", "torchvision"),
}


def tracked() -> list[str]:
    """Paths git knows or would add."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("this is no git checkout")
    return [name for name in found.stdout.splitlines() if (ROOT / name).exists()]


def test_the_top_level_is_exactly_as_planned() -> None:
    assert {name.partition("/")[0] for name in tracked()} == TOP


def test_no_file_is_named_for_nothing() -> None:
    assert [name for name in tracked() if Path(name).stem.lower() in BANNED] == []


def test_documents_are_there() -> None:
    for name in (
        "architecture.md",
        "data.md",
        "rendering.md",
        "benchmarks.md",
        "log.md",
        "training.md",
        "evaluation.md",
        "results.md",
    ):
        assert (ROOT / "docs" / name).stat().st_size > 500, name


def test_no_folder_holds_more_than_sixteen_files() -> None:
    counts = Counter(Path(name).parent for name in tracked() if not name.startswith(("tests/", "models/zoo/")))
    assert {str(folder): n for folder, n in counts.items() if n > MOST_FILES} == {}


def inner_imports(text: str) -> int:
    """Import statements inside functions, nested ones counted once."""
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {node for function in functions for node in ast.walk(function)}
    return sum(isinstance(node, ast.Import | ast.ImportFrom) for node in inside)


def test_imports_stand_at_the_top_but_for_heavy_libraries() -> None:
    counts = {path: inner_imports(path.read_text()) for path in CODE if path.relative_to(ROOT).parts[0] in ROOMS}
    assert sum(counts.values()) < MOST_INNER_IMPORTS, {str(path): n for path, n in counts.items() if n > 3}


def test_inner_imports_are_counted() -> None:
    text = "import a\ndef f():\n import b\n def g():\n  from c import d\nclass K:\n def m(self):\n  import e\n"
    assert inner_imports(text) == 3


def test_only_tables_are_formatted_by_hand() -> None:
    found = {str(path.relative_to(ROOT)) for path in CODE if "# fmt: skip" in path.read_text()}
    assert found <= TABLES


@EVERY_FILE
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            start = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0].lineno
            assert node.end_lineno is not None
            assert node.end_lineno - start < 40, f"{node.name} has {node.end_lineno - start + 1} lines"


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_is_the_one_in_this_repository(room: str) -> None:
    found = importlib.import_module(f"assay.{room}").__file__
    assert found is not None
    assert Path(found).resolve() == ROOT / room / "__init__.py"


def test_featurize_and_models_need_only_numpy_numba_torch_safetensors() -> None:
    child = subprocess.run(
        [sys.executable, "-c", BARE.format(blocked=BLOCKED)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert child.returncode == 0, child.stderr[-2000:]
    assert child.stdout.strip() == "[]"


# Never a pickle: a file of weights or data must not be able to run code.


def dangers(text: str) -> list[str]:
    """Calls and imports that can execute what they load."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names]
            loaders = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
            found += [f"import {name}" for name in names if name.partition(".")[0] in loaders]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {item.arg: ast.unparse(item.value) for item in node.keywords}
            if called.endswith("torch.load") and keywords.get("weights_only") != "True":
                found.append(f"{called} without weights_only=True")
            if called.endswith("read_pickle") or keywords.get("allow_pickle") not in (None, "False"):
                found.append(ast.unparse(node))
            if called in ("eval", "exec"):
                found.append(ast.unparse(node))
    return found


@EVERY_FILE
def test_nothing_is_unpickled(path: Path) -> None:
    assert dangers(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "import torch; torch.load('w.pt')",
        "torch.load('w.pt', weights_only=False)",
        "np.load('x.npy', allow_pickle=True)",
        "pd.read_pickle('x')",
        "eval(text)",
    ],
)
def test_the_search_for_pickles_finds_them(text: str) -> None:
    assert dangers(text)


def test_safe_loading_is_let_through() -> None:
    assert dangers("torch.load(path, weights_only=True); np.load(path, allow_pickle=False); model.eval()") == []


# The firm rules: import-linter holds them; here each is broken on purpose.


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        (
            "sources/crystals.py",
            "from assay.screening.settings import exits",
            "Four rooms in a row, doors open one way BROKEN",
        ),
        (
            "featurize/graphs.py",
            "from assay.models.networks import batch",
            "Four rooms in a row, doors open one way BROKEN",
        ),
        (
            "models/ensemble/ensemble.py",
            "from assay.sources.databases import client",
            "What the other rooms may import of sources BROKEN",
        ),
        (
            "featurize/neighbours.py",
            "from assay.featurize import graphs",
            "No circle of imports, in any folder BROKEN",
        ),
        ("screening/runners/worker.py", "import ray", "One door per dependency BROKEN"),
        ("models/ensemble/ensemble.py", "from sklearn import ensemble", "One door per dependency BROKEN"),
    ],
)
def test_a_planted_violation_is_caught(tmp_path: Path, file: str, line: str, broken: str) -> None:
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("zoo", "__pycache__"))
    shutil.copytree(ROOT / "assay", tmp_path / "assay", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = tmp_path / file
    planted.write_text(planted.read_text() + f"\n{line}\n")
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": "."})
    assert found.returncode == 1, found.stdout
    assert broken in found.stdout
