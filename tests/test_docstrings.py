"""Every public module, class and function says what it is; every array says its shape."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("sources", "featurize", "models", "screening")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
EVERY_MODULE = pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def undocumented(tree: ast.Module) -> list[str]:
    """Public classes, functions and methods without a docstring; what a class inherits needs none."""
    found = [] if ast.get_docstring(tree) else ["the module"]
    definitions: list[tuple[str, Definition]] = [(n.name, n) for n in tree.body if isinstance(n, Definition)]
    for name, node in definitions:
        if isinstance(node, ast.ClassDef) and not name.startswith("_"):
            inner = [item for item in node.body if isinstance(item, Definition)]
            found += [f"{name}.{i.name}" for i in inner if not i.name.startswith("_") and not ast.get_docstring(i)]
        if not name.startswith("_") and not ast.get_docstring(node):
            found.append(name)
    return found


def shapeless(tree: ast.Module) -> list[str]:
    """Fields of public classes that hold an array, without a docstring underneath that gives the shape."""
    found = []
    for cls in (n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")):
        for field, below in zip(cls.body, [*cls.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and ast.unparse(field.annotation).startswith(("NDArray", "Tensor")):
                text = (
                    below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
                )
                if "(" not in str(text):
                    found.append(f"{cls.name}.{ast.unparse(field.target)}")
    return found


@EVERY_MODULE
def test_public_names_have_docstrings(path: Path) -> None:
    assert undocumented(ast.parse(path.read_text())) == []


@EVERY_MODULE
def test_array_fields_give_their_shape(path: Path) -> None:
    assert shapeless(ast.parse(path.read_text())) == []


def test_what_is_missing_is_found() -> None:
    bad = 'class A:\n x: NDArray[float]\n y: Tensor\n """Å."""\n def f(self): ...\ndef g(): ...\ndef _h(): ...\n'
    assert undocumented(ast.parse(bad)) == ["the module", "A.f", "A", "g"]
    assert shapeless(ast.parse(bad)) == ["A.x", "A.y"]
