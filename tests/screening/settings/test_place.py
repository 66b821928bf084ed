"""What a killed run began to write in the folder of its command is gone when the command comes again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from assay.screening.settings import place
from assay.screening.settings.exits import Failure
from assay.sources import durable

KILLED = """
import os, signal, sys
from pathlib import Path
from assay.sources import durable
with durable.whole(Path(sys.argv[1])) as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_began_to_write_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    place.claim(folder, "train")
    (folder / "member-0").mkdir()
    for name in ("README.md", "member-0/state.pt"):
        subprocess.run([sys.executable, "-c", KILLED, folder / name], check=False)
    left = sorted(path.name.split(".")[1] for path in folder.rglob(".*.tmp"))
    assert left == ["README", "state"]
    kept = [folder / f".card.md.{os.getpid()}.0a1b2c3d.tmp", folder / ".notes.tmp", folder / "member-0" / "weights"]
    for path in kept:
        path.write_text("mine")
    (folder / ".x.99999999999999999999.0a1b2c3d.tmp").touch()
    assert place.claim(folder, "train")
    assert sorted(path for path in folder.rglob("*") if path.is_file() and path.name != place.MARK) == sorted(kept)


def test_the_folder_of_another_command_is_left_alone(tmp_path: Path) -> None:
    begun = tmp_path / ".README.md.4711.0a1b2c3d.tmp"
    begun.touch()
    durable.write(tmp_path / place.MARK, "export\n")
    with pytest.raises(Failure, match="is not empty"):
        place.claim(tmp_path, "train")
    assert begun.exists()
