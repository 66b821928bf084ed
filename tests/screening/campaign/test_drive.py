"""Whole campaigns over HTTP against the reference OPTIMADE server, in child processes, with real crystals."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.screening.folder import lock
from assay.sources import table
from assay.sources.crystals import Crystals
from tests.chaos.preloaded import Preloaded
from tests.screening.conftest import Command, last_line
from tests.servers import FaultServer, entries_from_crystals, reference_server

WriteConfig = Callable[..., Path]
N = 1000
CHUNKS = N // 50


@pytest.fixture(scope="module")
def server(real: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with reference_server(real, tmp_path_factory.mktemp("server"), page_limit=100) as url:
        yield url


@pytest.fixture(scope="module")
def reference(server: str, model: Path, tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded) -> Path:
    """The folder of an undisturbed local campaign over 1,000 crystals from the server."""
    command = Command(tmp_path_factory.mktemp("reference"), preloaded)
    return undisturbed(command, optimade(server), model, 50)


@pytest.fixture(scope="module")
def small(real_file: Path, model: Path, tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded) -> Path:
    """The folder of an undisturbed local campaign over 300 crystals from a file."""
    return undisturbed(Command(tmp_path_factory.mktemp("small"), preloaded), parquet(real_file), model, 15)


def undisturbed(assay: Command, source: dict[str, Any], model: Path, chunk_size: int) -> Path:
    config = assay.folder / "c.yaml"
    keys = {"name": "test", "sources": [source], "models": [str(model)], "chunk_size": chunk_size}
    config.write_text(json.dumps(keys))
    done = assay("run", config, "--output", "out")
    assert done.returncode == 0, done.stderr
    return assay.folder / "out"


def parquet(path: Path, **keys: Any) -> dict[str, Any]:
    return {"kind": "files", "paths": [str(path)], **keys}


def optimade(url: str, **keys: Any) -> dict[str, Any]:
    return {"kind": "optimade", "provider": url, "name": "ref", "page_limit": 100, **keys}


def digest(folder: Path) -> dict[str, str]:
    names = ("candidates.parquet", "quarantine.parquet", "unrankable.parquet", "report.html", "summary.json")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def committed(folder: Path, kind: str) -> int:
    """Log records of a kind."""
    texts = [path.read_text() for path in (folder / "log").glob("[0-9]*.json")]
    return sum(json.loads(text)["kind"] == kind for text in texts)


def kill_when(child: subprocess.Popen[str], ready: Callable[[], bool], how: signal.Signals = signal.SIGKILL) -> None:
    """Signal the whole process tree as soon as `ready` says so."""
    deadline = time.monotonic() + 120
    while not ready():
        assert child.poll() is None, f"ended before it could be killed: {child.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    if how is signal.SIGKILL:
        os.killpg(child.pid, how)
    else:
        child.send_signal(how)
    child.wait(120)


def test_a_thousand_crystals_are_all_accounted_for(reference: Path) -> None:
    summary = json.loads((reference / "summary.json").read_text())
    counted = summary["balance"]
    assert counted["received"] == counted["unique"] == N
    assert counted["scored"] + counted["quarantined"] == N
    assert counted["pending"] == counted["filtered"] == counted["duplicate"] == counted["unrankable"] == 0
    assert summary["complete"] is True
    ranked = table.read(reference / "candidates.parquet")
    assert ranked.num_rows == counted["ranked"] > 0.95 * N
    assert ranked["rank"].to_pylist() == list(range(1, ranked.num_rows + 1))
    assert ranked["id"][0].as_py().startswith("ref/")
    wanted = {
        "formula",
        "elements",
        "nsites",
        "source",
        "provider",
        "origin",
        "formation_energy_per_atom",
        "ood",
        "score",
    }
    assert wanted <= set(ranked.column_names)


def test_ray_gives_the_same_bytes(assay: Command, server: str, reference: Path, write_config: WriteConfig) -> None:
    done = assay("run", write_config(optimade(server)), "--output", "out", "--on", "ray", "--workers", "3")
    assert done.returncode == 0, done.stderr
    assert digest(assay.folder / "out") == digest(reference)


@pytest.mark.parametrize("ray", [[], ["--on", "ray", "--workers", "2"]], ids=["local", "ray"])
def test_killed_halfway_and_run_again(
    assay: Command, server: str, reference: Path, write_config: WriteConfig, ray: list[str]
) -> None:
    config, out = write_config(optimade(server)), assay.folder / "out"
    kill_when(assay.start("run", config, "--output", "out", *ray), lambda: committed(out, "part") >= 9)
    assert 0 < committed(out, "part") < CHUNKS
    assert assay("run", config, "--output", "out").returncode == 0
    assert digest(out) == digest(reference)


def test_killed_while_pulling_and_run_again(
    assay: Command, server: str, reference: Path, write_config: WriteConfig
) -> None:
    config, out = write_config(optimade(server)), assay.folder / "out"
    kill_when(assay.start("run", config, "--output", "out"), lambda: committed(out, "page") >= 3)
    assert 0 < committed(out, "page") < N // 100
    assert assay("run", config, "--output", "out").returncode == 0
    assert digest(out) == digest(reference)


@pytest.mark.parametrize("parts", [1, 18])
def test_committed_chunks_are_not_scored_again(
    assay: Command, small: Path, real_file: Path, write_config: WriteConfig, parts: int
) -> None:
    config, out = write_config(parquet(real_file), chunk_size=15), assay.folder / "out"
    kill_when(assay.start("run", config, "--output", "out"), lambda: committed(out, "part") >= parts)
    assert 0 < committed(out, "part") < CHUNKS
    before = {path: path.stat().st_mtime_ns for path in (out / "parts").glob("*.parquet")}
    assert assay("run", config, "--output", "out").returncode == 0
    assert digest(out) == digest(small)
    assert sum(path.stat().st_mtime_ns == stamp for path, stamp in before.items()) >= parts


@pytest.mark.parametrize("ray", [[], ["--on", "ray", "--workers", "1"]], ids=["local", "ray"])
def test_sigterm_finishes_the_chunk_and_exits_85(
    assay: Command, small: Path, real_file: Path, write_config: WriteConfig, ray: list[str]
) -> None:
    config, out = write_config(parquet(real_file), chunk_size=15), assay.folder / "out"
    child = assay.start("run", config, "--output", "out", *ray)
    kill_when(child, lambda: committed(out, "part") >= 2, signal.SIGTERM)
    assert child.returncode == 85
    assert 0 < committed(out, "part") < CHUNKS
    assert not (out / "LOCK").exists()
    assert "run again to go on" in last_line(child.communicate()[1])
    assert assay("run", config, "--output", "out").returncode == 0
    assert digest(out) == digest(small)


def test_finished_work_is_not_redone_and_another_config_is_refused(
    assay: Command, small: Path, real_file: Path, write_config: WriteConfig
) -> None:
    config = write_config(parquet(real_file), chunk_size=15)
    shutil.copytree(small, assay.folder / "out")
    stamps = {path: path.stat().st_mtime_ns for path in (assay.folder / "out").rglob("*/*.parquet")}
    assert assay("run", config, "--output", "out").returncode == 0
    done = assay("run", config, "--output", "out", "--set", "chunk_size=51")
    assert done.returncode == 78
    assert "chunk_size: was 15, now 51" in last_line(done.stderr)
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert digest(assay.folder / "out") == digest(small)


def test_ranking_again_by_another_rule(assay: Command, small: Path) -> None:
    shutil.copytree(small, assay.folder / "out")
    assert assay("rank", "out", "--set", "rank.by=upper", "--set", "rank.order=ascending").returncode == 0
    ranked = table.read(assay.folder / "out" / "candidates.parquet")
    scores = ranked["score"].to_pylist()
    assert scores == sorted(scores)
    assert len(scores) == table.read(small / "candidates.parquet").num_rows


def test_the_same_crystals_from_two_sources_are_scored_once(
    assay: Command, write_config: WriteConfig, real_file: Path
) -> None:
    twice = [parquet(real_file, name="a"), parquet(real_file, name="b")]
    done = assay("run", write_config(twice), "--output", "out")
    assert done.returncode == 0, done.stderr
    counted = json.loads((assay.folder / "out" / "summary.json").read_text())["balance"]
    assert (counted["received"], counted["duplicate"], counted["unique"]) == (600, 300, 300)
    assert set(table.read(assay.folder / "out" / "candidates.parquet")["source"].to_pylist()) == {"a"}


def test_a_server_that_announces_more_marks_the_campaign_incomplete(
    assay: Command, real: Crystals, write_config: WriteConfig
) -> None:
    with FaultServer(entries_from_crystals(real[:60]), page_limit=20, faults=["wrong-count:80", "nan:5"]) as short:
        done = assay("run", write_config(optimade(short.url, page_limit=20)), "--output", "out")
    assert done.returncode == 3, done.stderr
    summary = json.loads((assay.folder / "out" / "summary.json").read_text())
    assert summary["complete"] is False
    assert "20 of 80" in summary["sources"][0]["error"]
    assert summary["quarantine"] == {"non_finite": 1}
    assert "incomplete" in (assay.folder / "out" / "report.html").read_text()


def test_a_dead_server_is_one_line_and_69(
    assay: Command, real: Crystals, real_file: Path, write_config: WriteConfig
) -> None:
    with FaultServer(entries_from_crystals(real[:1])) as gone:
        url = gone.url
    sources = [optimade(url), parquet(real_file)]
    done = assay("run", write_config(sources), "--output", "out")
    assert done.returncode == 69
    assert "source ref" in last_line(done.stderr)
    assert "run again" in last_line(done.stderr)
    assert committed(assay.folder / "out", "source") == 1  # the other source is pulled and kept
    sources[0]["when_down"] = "skip"
    done = assay("run", write_config(sources), "--output", "out")
    assert done.returncode == 3
    assert json.loads((assay.folder / "out" / "summary.json").read_text())["balance"]["received"] == 300


def test_too_many_bad_rows_is_65_and_everything_is_written(
    assay: Command, real: Crystals, write_config: WriteConfig
) -> None:
    with FaultServer(entries_from_crystals(real[:4]), faults=["nan:1"]) as server:
        done = assay("run", write_config(optimade(server.url), max_bad=0.0002), "--output", "out")
    assert done.returncode == 65
    assert "1 of 4 crystals were quarantined, more than max_bad: 0.0002;" in last_line(done.stderr)
    bad = table.quarantine_rows(table.read(assay.folder / "out" / "quarantine.parquet"))
    assert [row.reason.value for row in bad] == ["non_finite"]


@pytest.mark.parametrize("share", [0.25, 0.6, 0.9])
def test_a_full_disk_is_74_and_nothing_is_lost(
    assay: Command, small: Path, real_file: Path, write_config: WriteConfig, share: float
) -> None:
    config = write_config(parquet(real_file), chunk_size=15)
    pages = sum(-(-path.stat().st_size // 4096) for path in small.rglob("*") if path.is_file())
    disk = assay.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(share * pages) * 4}k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("no right to mount a small disk")
    try:
        done = assay("run", config, "--output", disk / "out")
        assert done.returncode == 74, done.stderr
        assert "No space left on device" in last_line(done.stderr)
        assert str(disk / "out") in last_line(done.stderr)  # which file
        assert "run again" in last_line(done.stderr)
        assert "Traceback" not in done.stderr
        assert not list(disk.rglob("*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        done = assay("run", config, "--output", disk / "out")
        assert done.returncode == 0, done.stderr
        assert digest(disk / "out") == digest(small)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_in_use_is_73(assay: Command, small: Path, real_file: Path, write_config: WriteConfig) -> None:
    config = write_config(parquet(real_file))
    with lock.held(assay.folder / "out"):
        done = assay("run", config, "--output", "out")
    assert done.returncode == 73
    assert f"in use by pid {os.getpid()}" in last_line(done.stderr)


def test_a_device_that_is_not_there_is_78(assay: Command, real_file: Path, write_config: WriteConfig) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = assay("run", write_config(parquet(real_file)), "--output", "out", "--set", "device=cuda")
    assert done.returncode == 78
    assert "device cuda is not available" in last_line(done.stderr)


def test_symmetrised_cells_are_another_campaign(assay: Command, real_file: Path, write_config: WriteConfig) -> None:
    config = write_config(parquet(real_file))
    done = assay("run", config, "--output", "out", "--set", "symmetrise=0.01")
    assert done.returncode == 0, done.stderr
    here = digest(assay.folder / "out")
    done = assay("run", config, "--output", "ray", "--set", "symmetrise=0.01", "--on", "ray", "--workers", "1")
    assert (done.returncode, digest(assay.folder / "ray")) == (0, here)
    done = assay("run", config, "--output", "out")
    assert done.returncode == 78
    assert "symmetrise: was 0.01 Å, moyopy" in last_line(done.stderr)


def test_a_dry_run_asks_for_counts_only(assay: Command, server: str, write_config: WriteConfig) -> None:
    done = assay("run", write_config(optimade(server, max_entries=30)), "--output", "out", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "source ref: 1,000 rows announced, at most 30 taken" in done.stdout
    assert not (assay.folder / "out").exists()


def test_pull_then_run(assay: Command, server: str, write_config: WriteConfig) -> None:
    config = write_config(optimade(server, max_entries=60, filter="nelements<=3"))
    pulled = assay("pull", config, "--output", "out")
    assert pulled.returncode == 0, pulled.stderr
    assert "60 pending" in pulled.stderr
    assert assay("run", config, "--output", "out").returncode == 0
    ranked = table.read(assay.folder / "out" / "candidates.parquet")
    assert ranked.num_rows == 60
    assert all(len(text.split("-")) <= 3 for text in ranked["elements"].to_pylist())
