"""What the campaign tests share: an ensemble, real crystals, and the command as a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from assay.sources.crystals import Crystals
from tests.chaos.preloaded import Preloaded

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def model(zoo: Path) -> Path:
    """The folder of an ensemble that predicts one property."""
    return zoo / "formation-energy"


@pytest.fixture(scope="session")
def real(data: Path) -> Crystals:
    """1,000 real crystals of the Materials Project."""
    from tests.servers import materials_project

    return materials_project(data, 1000)


@pytest.fixture(scope="session")
def real_file(real: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 300 of them as a Parquet file."""
    from assay.sources import table

    path = tmp_path_factory.mktemp("crystals") / "real.parquet"
    table.write(table.to_table(real[:300]), path)
    return path


@pytest.fixture
def write_config(tmp_path: Path, model: Path) -> Callable[..., Path]:
    """Write a campaign config: defaults, with keys replaced."""

    def write(source: dict[str, Any] | list[dict[str, Any]], **keys: Any) -> Path:
        sources = source if isinstance(source, list) else [source]
        content = {"name": "test", "sources": sources, "models": [str(model)], "chunk_size": 50} | keys
        path = tmp_path / f"{content['name']}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


class Command:
    """`assay ...` in a child process, one thread, from an empty folder."""

    def __init__(self, folder: Path, preloaded: Preloaded) -> None:
        self.folder, self._preloaded = folder, preloaded
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        self.environment.pop("RAY_ADDRESS", None)

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start it and return at once."""
        command = [sys.executable, "-m", "assay", *map(str, arguments)]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, start_new_session=True, **options)  # fmt: skip

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it to its end, forked from a process that holds the imported libraries; with Ray in a new one."""
        if "ray" not in arguments:
            return self._preloaded.run(arguments, self.folder, self.environment)
        child = self.start(*arguments)
        try:
            output, errors = child.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(child.args, child.returncode, output, errors)


@pytest.fixture
def assay(tmp_path: Path, preloaded: Preloaded) -> Command:
    """The command."""
    return Command(tmp_path, preloaded)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """A small Ray for the tests of this session."""
    from assay.screening.runners import connection

    with connection.joined("local", 2) as ray:
        yield ray


def last_line(errors: str) -> str:
    """The line a failing command ends with."""
    lines: Sequence[str] = [line for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else ""
