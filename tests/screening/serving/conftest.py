"""A campaign of real superconductors, and a server over it in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import yaml

from assay.sources import table
from assay.sources.crystals import Crystals
from tests.screening import small_campaign

for _module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "mongomock"):
    pytest.importorskip(_module, reason="needs the extra: pip install assay[serve]")

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = '<img src=x onerror=alert(1)>"&'
"""The id of the first crystal."""


@pytest.fixture(scope="session")
def quick(zoo: Path) -> Path:
    """The cheapest ensemble."""
    return zoo / "tc-fast"


@pytest.fixture(scope="session")
def campaign(tmp_path_factory: pytest.TempPathFactory, disordered: Crystals, quick: Path) -> Path:
    """The folder of a campaign of 60 real superconductors; most of them are disordered."""
    place = tmp_path_factory.mktemp("served")
    names = [f"sc/{row:02d}" for row in range(60)]
    some = replace(disordered[:60], ids=np.array([HOSTILE, *names[1:]]))
    table.write(table.to_table(some), place / "some.parquet")
    sources = [{"kind": "files", "paths": [str(place / "some.parquet")], "name": "some"}]
    content = {"name": "doped", "sources": sources, "models": [str(quick)], "output": str(place / "out")}
    (place / "doped.yaml").write_text(yaml.safe_dump(content | {"chunk_size": 16}))
    small_campaign.run(small_campaign.make(place / "doped.yaml"))
    return place / "out"


@dataclass
class Answer:
    """What a server answered."""

    status: int
    text: str
    headers: dict[str, str]
    url: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Running:
    """`assay serve` in a child process."""

    def __init__(self, store: Path, *arguments: str | Path, **environment: str) -> None:
        command = [sys.executable, "-m", "assay", "serve", "--port", "0", "--store", store, *arguments]
        paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        self._environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths} | environment
        self._command = [*map(str, command)]
        self.headers: dict[str, str] = {}
        """Headers of every request."""

    def __enter__(self) -> Self:
        self.child = subprocess.Popen(self._command, text=True, stdout=subprocess.PIPE, env=self._environment)
        assert self.child.stdout is not None
        self.said = self.child.stdout.readline()
        found = re.search(r"http://\S+?:(\d+)/", self.said)
        assert found is not None, self.said
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"
        for _ in range(1_000):
            try:
                self.ask("/health")
                break
            except urllib.error.URLError:
                time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(60)

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request; a name of a header has underscores for dashes."""
        named = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, body, named)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return Answer(answer.status, answer.read().decode(), dict(answer.headers), answer.url)
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read().decode(), dict(error.headers), error.url)

    def upload(self, name: str, content: bytes, path: str = "/predict") -> Answer:
        """One file, as a browser sends it."""
        head = f'--cut\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        return self.ask(path, head + content + b"\r\n--cut--\r\n", Content_Type="multipart/form-data; boundary=cut")


@pytest.fixture(scope="session")
def server(campaign: Path, quick: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server over the campaign."""
    with Running(tmp_path_factory.mktemp("store"), campaign, "--model", quick, "--max-upload", "0.25") as running:
        yield running
