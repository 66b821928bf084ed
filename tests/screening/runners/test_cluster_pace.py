"""One host is asked at one pace, however many campaigns on a cluster ask it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from assay.screening.runners.cluster import NAMESPACE
from assay.sources.crystals import Crystals
from tests.servers import FaultServer, entries_from_crystals

ROOT = Path(__file__).resolve().parents[3]
DRIVER = """
import sys
from assay.screening.runners import cluster, connection
from assay.sources.databases.client import Client

address, url = sys.argv[1:]
pace = {{"local": True, "min_interval_s": {interval}}}
with connection.joined(address, None), Client(url, **pace, pace=cluster.SharedPace("127.0.0.1:loop/\u0141")) as client:
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range({requests}):
        client.get_json("/v1/structures", {{"page_limit": 1, "response_fields": "id"}})
"""


class Timed(FaultServer):
    """Notes when each request came."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.times: list[float] = []

    def note(self, path: str, headers: dict[str, str]) -> str:
        self.times.append(time.monotonic())
        return super().note(path, headers)


def test_two_campaigns_on_one_cluster_keep_one_interval_even_when_its_keeper_dies(
    ray_cluster: Any, real: Crystals
) -> None:
    interval, requests = 0.3, 12
    address = ray_cluster.get_runtime_context().gcs_address
    with Timed(entries_from_crystals(real[:1])) as server:
        command = [sys.executable, "-c", DRIVER.format(interval=interval, requests=requests), address, server.url]
        drivers = [
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        assert [driver.stdout.readline() for driver in drivers if driver.stdout] == ["ready\n"] * 2
        for driver in drivers:
            assert driver.stdin is not None
            driver.stdin.write("go\n")
            driver.stdin.flush()
        while len(server.times) < requests:
            time.sleep(0.01)
        keeper = "assay-pace-127.0.0.1%3Aloop%2F%C5%81"
        ray_cluster.kill(ray_cluster.get_actor(keeper, namespace=NAMESPACE))
        assert [driver.wait(60) for driver in drivers] == [0, 0]
    assert len(server.times) == 2 * requests
    # a request may take a while to arrive: one interval of grace in four
    assert min(b - a for a, b in zip(server.times, server.times[4:], strict=False)) > 3 * interval
