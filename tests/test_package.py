"""The package as users install it: built, unpacked, and run from folders that know nothing of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("build", reason="needs build: pip install assay[dev]")
pytest.importorskip("hatchling", reason="needs hatchling: pip install assay[dev]")
ROOT = Path(__file__).resolve().parents[1]
MGB2 = ROOT / "tests" / "data" / "MgB2.cif"
SMALL = ["--set", "sources.0.n=40"]
OTHERS = ("models", "sources", "featurize", "screening", "configs")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and with the wheel that was built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def python(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the installed package and the libraries of this one, without its editable install (-S)."""
    paths = [str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    environment = {name: value for name, value in os.environ.items() if name not in ("ASSAY_DATA", "RAY_ADDRESS")}
    environment |= {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)


def test_the_archives_hold_plain_files_under_one_name(built: Path) -> None:
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"assay"}
    for wanted in (
        *("assay/__init__.py", "assay/py.typed", "assay/featurize/elements.csv", "assay/sources/crystals.py"),
        *("assay/configs/quickstart.yaml", "assay/configs/studies/study-tc.yaml"),
        *("assay/models/zoo/tc-graphs/README.md", "assay/models/zoo/tc-graphs/member-5/weights.safetensors"),
        *("assay/screening/campaign/reporting/report.html.j2", "assay/screening/campaign/reporting/report.css"),
        *("assay/screening/display/crystal.js", "assay/screening/display/table.js"),
    ):
        assert wanted in names
    assert not [name for name in names if "tests" in name or "__pycache__" in name]
    with tarfile.open(source) as archive:
        members = archive.getmembers()
    assert all(member.isfile() for member in members)
    assert not {member.name.split("/")[1] for member in members} & set(OTHERS)


def test_an_empty_folder_is_enough(installed: Path, tmp_path: Path) -> None:
    ran = python(installed, tmp_path, "-m", "assay", "run", "quickstart", *SMALL)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "runs" / "quickstart" / "report.html").is_file()
    where = python(installed, tmp_path, "-c", "import assay; print(assay.__file__)")
    assert where.stdout.strip() == str(installed / "assay" / "__init__.py")
    for room in OTHERS:
        assert "ModuleNotFoundError" in python(installed, tmp_path, "-c", f"import {room}").stderr


def test_a_file_is_predicted(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("pymatgen")
    shutil.copy(MGB2, tmp_path / "x.cif")
    done = python(installed, tmp_path, "-m", "assay", "predict", "x.cif")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("file/x.cif  MgB2  tc ")


def test_packages_of_the_user_with_the_same_names_are_left_alone(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    for room in OTHERS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("raise RuntimeError('imported by mistake')\n")
    ray = ["--set", "models=[tc-fast]", "--on", "ray", "--workers", "1", "--output", "ray"]
    done = python(installed, tmp_path, "-m", "assay", "run", "quickstart", *SMALL, *ray)
    assert done.returncode == 0, done.stderr
    code = "import assay; assay.screen('quickstart', output='here', models=['tc-fast'], **{'sources.0.n': 40})"
    local = python(installed, tmp_path, "-c", code)
    assert local.returncode == 0, local.stderr
    outputs = [(tmp_path / folder / "candidates.parquet").read_bytes() for folder in ("ray", "here")]
    assert outputs[0] == outputs[1]
