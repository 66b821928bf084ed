"""The server whose model runs on Ray Serve: the same answers from two replicas, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for _module in ("ray", "grpc_reflection", "mmh3"):
    pytest.importorskip(_module, reason="needs the extra: pip install assay[serve-ray]")

from assay.screening.commands.arguments import On  # noqa: E402
from assay.screening.commands.serving import serve_campaigns  # noqa: E402
from assay.screening.prediction import inputs  # noqa: E402
from assay.screening.settings.exits import Exit, Failure  # noqa: E402
from assay.sources.crystals import Crystals  # noqa: E402
from assay.sources.formats.writing.structures import FORMATS  # noqa: E402
from tests.screening.serving.conftest import HOSTILE, Running  # noqa: E402

FILES = Path(__file__).resolve().parents[2] / "data"
MGB2 = (FILES / "MgB2.cif").read_bytes()
TOKEN = "sixteen-letters-or-more"
WAITING = 4


class Neighbour:
    """An application of somebody else on the same cluster."""


@pytest.fixture(scope="module")
def neighbour(ray_cluster: Any) -> Iterator[str]:
    """The name of that application."""
    from ray import serve

    serve.start(proxy_location="Disabled")
    serve.run(
        serve.deployment(Neighbour, ray_actor_options={"num_cpus": 0}).bind(), name="neighbour", route_prefix=None
    )
    yield "neighbour"
    serve.shutdown()


@pytest.fixture(scope="module")
def server(
    ray_cluster: Any, neighbour: str, campaign: Path, quick: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A server that other machines can reach, with two replicas on a cluster that is there."""
    options = [campaign, "--model", quick, "--max-upload", "0.25", "--host", "0.0.0.0", "--waiting", str(WAITING)]
    address = ray_cluster.get_runtime_context().gcs_address
    where = ["--on", "ray", "--address", address, "--replicas", "2"]
    running = Running(tmp_path_factory.mktemp("store"), *options, *where, ASSAY_SERVE_TOKEN=TOKEN)
    running.headers["Authorization"] = f"Bearer {TOKEN}"
    with running:
        yield running


def replicas() -> list[int]:
    """Processes of the replicas."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        found += [int(path.name)] if command.startswith(b"ray::ServeReplica:assay-") else []
    return found


def test_uploads_that_come_together_are_predicted_as_in_one_process(
    server: Running, disordered: Crystals, quick: Path
) -> None:
    assert len(replicas()) == 2
    some = disordered[60:72]
    expected = inputs.predict(some, quick).table["tc_mean"].to_pylist()
    found: dict[int, float] = {}

    def one(row: int) -> None:
        answer = server.upload(f"{row}.cif", FORMATS["cif"].write(some[row : row + 1], {}).encode())
        found[row] = answer.json["predictions"][0]["values"]["tc"]["mean"]

    for first in range(0, len(some), WAITING):
        threads = [threading.Thread(target=one, args=(row,)) for row in range(first, first + WAITING)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [found[row] for row in range(len(some))] == pytest.approx(expected, rel=1e-3)  # a CIF rounds coordinates


def test_the_pages_are_those_of_the_server(server: Running) -> None:
    assert server.ask("/health").json == {"status": "ok", "model": "tc-fast", "campaigns": ["doped"]}
    best = server.ask("/campaigns/doped/candidates?limit=3").json["candidates"]
    served = server.ask("/optimade/v1/structures?page_limit=3").json["data"]
    assert [row["tc_mean"] for row in best] == [entry["attributes"]["_assay_tc_mean"] for entry in served]
    page = server.ask("/campaigns/doped?limit=3", Accept="text/html").text
    assert all(row["id"] in page for row in best if row["id"] != HOSTILE)
    kept = server.upload("MgB2.cif", MGB2, "/upload")
    path = kept.url.removeprefix(server.url)
    assert server.ask(path).text == kept.text
    assert "What each atom adds" in server.ask(f"{path}/0/explain", b"").text


def test_bad_uploads_are_answered_with_the_reason(server: Running) -> None:
    for name, content, status, word in (
        ("a.cif", b"data_x\n_cell_length_a 4", 422, "unreadable"),
        ("a.cif", b"", 422, "empty"),
        ("a.zip", b"PK\x03\x04", 415, "archive"),
        ("a.cif", b"x" * 2**18, 413, "at most 262,144"),
    ):
        answer = server.upload(name, content)
        assert (answer.status, word in answer.text) == (status, True), answer.text


def test_a_long_body_is_cut_off_at_the_door(server: Running) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 60) as line:
        line.sendall(head.encode())
        for _ in range(8):
            try:
                line.sendall(b"10000\r\n" + b"x" * 2**16 + b"\r\n")
            except ConnectionError:
                break
        assert b" 413 " in line.recv(200)


def test_who_comes_while_all_places_are_taken_comes_again(server: Running) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9\r\n\r\n"
    slow = [socket.create_connection(("127.0.0.1", server.port), 60) for _ in range(WAITING)]
    for line in slow:
        line.sendall(head.encode())
    for _ in range(100):
        busy = server.upload("MgB2.cif", MGB2)
        if busy.status == 429:
            break
    for line in slow:
        line.close()
    assert (busy.status, busy.headers["retry-after"]) == (429, "1")


def test_no_replica_learns_the_token_that_a_client_needs(server: Running) -> None:
    assert server.ask("/health", Authorization="Bearer another-one-entirely").status == 401
    for pid in replicas():
        assert TOKEN.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_replica_that_is_killed_costs_no_answer(server: Running) -> None:
    statuses: list[int] = []

    def ask() -> None:
        statuses.extend(server.upload("MgB2.cif", MGB2).status for _ in range(6))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    killed = replicas()[0]
    os.kill(killed, signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert statuses == [200] * 18
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (len(replicas()) < 2 or killed in replicas()):
        time.sleep(0.2)
    assert len(set(replicas()) - {killed}) == 2


def test_the_end_of_the_server_leaves_other_applications_alone(server: Running, neighbour: str) -> None:
    from ray import serve

    server.child.send_signal(signal.SIGTERM)
    said = server.child.communicate(timeout=60)[0]
    assert (server.child.returncode, said.splitlines()[-1]) == (0, "stopped")
    assert list(serve.status().applications) == [neighbour]
    assert replicas() == []


def test_a_model_that_a_replica_does_not_find_is_named(
    neighbour: str, quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import serve

    from assay.screening.serving.predicting import replicas as on_ray

    folder, load = tmp_path / "elsewhere", on_ray.prediction.load
    shutil.copytree(quick, folder)

    def load_and_lose(model: str) -> Any:
        found = load(model)
        shutil.rmtree(model)
        return found

    monkeypatch.setattr(on_ray.prediction, "load", load_and_lose)
    monkeypatch.setattr(on_ray, "TRIES", 1)
    with pytest.raises(Failure, match="no replica starts: FileNotFoundError: model folder .*elsewhere not found"):
        on_ray.started(str(folder), 1, 1).__enter__()
    assert list(serve.status().applications) == [neighbour]


def test_ray_serve_ends_with_the_replicas_that_needed_it(ray_cluster: Any, quick: Path) -> None:
    from ray import serve

    from assay.screening.serving.predicting import replicas as on_ray

    def running() -> list[str]:
        return [actor["name"] for actor in ray_cluster.util.list_named_actors(all_namespaces=True)]

    serve.shutdown()  # that of the neighbour
    assert not any("SERVE" in name for name in running())
    with on_ray.started(str(quick), 1, 1) as predictor:
        told = asyncio.run(predictor.predict([("MgB2.cif", MGB2)]))
        assert any("SERVE" in name for name in running())
    expected = inputs.predict(FILES / "MgB2.cif", quick).table["tc_mean"].to_pylist()
    assert told.answer["predictions"][0]["values"]["tc"]["mean"] == pytest.approx(expected[0], rel=1e-5)
    assert not any("SERVE" in name for name in running())


def test_what_cannot_be_started_is_refused_with_the_reason(ray_cluster: Any, quick: Path, tmp_path: Path) -> None:
    asked = {"model": str(quick), "port": 0, "store": tmp_path}
    for on, replicas, code, reason in (
        (On.RAY, "3-1", Exit.USAGE, "a range such as 1-8"),
        (On.LOCAL, "2", Exit.USAGE, "add --on ray"),
        (On.RAY, "9", Exit.CONFIG, "9 replicas need 9 CPUs, and the cluster has 1 nodes, 2 CPUs"),
    ):
        with pytest.raises(Failure, match=reason) as failure:
            serve_campaigns.serve(on=on, replicas=replicas, **asked)
        assert failure.value.code is code
