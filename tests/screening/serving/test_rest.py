"""Predictions and candidates over REST: the same numbers as from files, and a door that is closed to others."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

from assay.screening.folder.results import Results
from assay.screening.prediction import inputs
from assay.sources.crystals import Crystals
from assay.sources.formats.writing.structures import FORMATS
from tests.screening.serving.conftest import HOSTILE, Running

FILES = Path(__file__).resolve().parents[2] / "data"
MGB2 = (FILES / "MgB2.cif").read_bytes()


def test_an_upload_gets_the_prediction_of_its_file(server: Running, quick: Path) -> None:
    for name in ("MgB2.cif", "La1.85Sr0.15CuO4.cif", "Nb3Sn.vasp", "two_frames.extxyz"):
        expected = inputs.predict(FILES / name, quick)
        answer = server.upload(name, (FILES / name).read_bytes())
        assert answer.status == 200
        found = answer.json["predictions"]
        assert [row["id"] for row in found] == expected.table["id"].to_pylist()
        for part, key in (("mean", "mean"), ("lo", "low"), ("hi", "high"), ("std", "std")):
            assert [row["values"]["tc"][key] for row in found] == pytest.approx(
                expected.table[f"tc_{part}"].to_pylist(), rel=1e-5
            )
        assert {row["values"]["tc"]["unit"] for row in found} == {"K"}
    doped = server.ask("/predict", (FILES / "La1.85Sr0.15CuO4.cif").read_bytes(), Content_Type="text/plain").json
    assert "disordered: La/Sr" in " ".join(doped["predictions"][0]["notes"])


def test_requests_that_come_together_get_their_own_answers(server: Running, disordered: Crystals, quick: Path) -> None:
    some = disordered[60:72]
    expected = inputs.predict(some, quick).table["tc_mean"].to_pylist()
    found: dict[int, float] = {}

    def one(row: int) -> None:
        text = FORMATS["cif"].write(some[row : row + 1], {})
        found[row] = server.upload(f"{row}.cif", text.encode()).json["predictions"][0]["values"]["tc"]["mean"]

    threads = [threading.Thread(target=one, args=(row,)) for row in range(len(some))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[row] for row in range(len(some))] == pytest.approx(expected, rel=1e-3)  # a CIF rounds coordinates


def test_bad_uploads_are_answered_with_the_reason_and_the_server_stays(server: Running) -> None:
    deep = b"[" * 100_000
    for name, content, status, word in (
        ("a.cif", b"data_x\n_cell_length_a 4", 422, "unreadable"),
        ("a.cif", b"", 422, "empty"),
        ("a.json", deep, 422, "nested too deeply"),
        ("a.zip", b"PK\x03\x04", 415, "archive"),
        ("a.cif.gz", b"\x1f\x8b", 415, "not packed"),
        ("", b"hello", 415, "no known kind"),
        ("a.cif", b"x" * 2**18, 413, "at most 262,144"),
    ):
        answer = server.upload(name, content)
        assert (answer.status, word in answer.text) == (status, True), answer.text
    page = server.upload("a.cif", b"data_x\n<b>no crystal</b>", "/upload")
    assert (page.status, "is refused" in page.text, "<b>" in page.text) == (422, True, False)
    assert server.ask("/predict", b"{}", Content_Type="application/json").status == 422
    assert server.upload("MgB2.cif", MGB2).status == 200


def test_an_upload_that_ends_its_reader_costs_itself(server: Running) -> None:
    children = Path(f"/proc/{server.child.pid}/task")

    def readers() -> list[int]:
        found = []
        for thread in children.iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread may end meanwhile
                found += thread.joinpath("children").read_text().split()
        return [int(pid) for pid in found if alive(pid)]

    def alive(pid: str) -> bool:
        """Whether a process runs; an idle reader that was killed is a zombie until it is asked."""
        with suppress(FileNotFoundError, ProcessLookupError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False

    assert server.upload("MgB2.cif", MGB2).status == 200
    for pid in (before := readers()):
        os.kill(pid, signal.SIGKILL)
    assert server.upload("MgB2.cif", MGB2).status == 200
    assert before
    assert set(readers()).isdisjoint(before)


def test_a_body_without_a_stated_length_is_cut_off(server: Running) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 60) as line:
        line.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        line.sendall(b"10000\r\n" + b"x" * 2**16 + b"\r\n")
        answer = b""
        for _ in range(8):
            try:
                line.sendall(b"10000\r\n" + b"x" * 2**16 + b"\r\n")
            except ConnectionError:
                break
        answer = line.recv(200)
    assert b" 413 " in answer


def test_structures_of_optimade_are_predicted(server: Running, campaign: Path) -> None:
    reply = server.ask("/optimade/v1/structures?page_limit=7").json
    found = server.ask("/predict", json.dumps(reply).encode(), Content_Type="application/json").json["predictions"]
    expected = [entry["attributes"]["_assay_tc_mean"] for entry in reply["data"]]
    assert [row["values"]["tc"]["mean"] for row in found] == pytest.approx(expected, rel=1e-4)


def test_pages_of_candidates_are_filtered_and_sorted_as_by_hand(server: Running, campaign: Path) -> None:
    every = pl.from_arrow(Results(campaign).candidates())
    assert isinstance(every, pl.DataFrame)
    path = "/campaigns/doped/candidates"
    assert [row["id"] for row in server.ask(f"{path}?limit=5&offset=3").json["candidates"]] == every["id"][
        3:8
    ].to_list()
    wanted = every.filter(pl.col("formula").str.contains("Cu") & (pl.col("tc_mean") >= 10)).sort(
        "tc_std", descending=True
    )
    answer = server.ask(f"{path}?elements=Cu&tc_mean_min=10&sort=-tc_std&limit=1000").json
    assert (answer["count"], [row["rank"] for row in answer["candidates"]]) == (len(wanted), wanted["rank"].to_list())
    assert answer["units"]["tc_mean"] == "K"
    assert server.ask(f"{path}?sort=tc_men").status == 422
    assert "did you mean 'tc_mean'?" in server.ask(f"{path}?sort=tc_men").text
    assert server.ask(f"{path}?limit=5000").status == 422
    assert server.ask("/campaigns/..%2Fdoped/candidates").status == 404


def test_markup_stays_text_on_every_page(server: Running) -> None:
    for path in ("/campaigns/doped?limit=60", "/campaigns/doped?text=%3Cscript%3E&sort=rank"):
        page = server.ask(path, Accept="text/html")
        assert page.status == 200
        assert "<img" not in page.text
        assert "<script>" not in page.text
    assert "&lt;img src=x" in server.ask("/campaigns/doped?limit=60", Accept="text/html").text
    hostile = server.ask("/campaigns/doped/candidates?text=onerror").json["candidates"]
    assert [row["id"] for row in hostile] == [HOSTILE]
    assert "<img" not in server.ask(f"/campaigns/doped/candidates/{hostile[0]['rank']}", Accept="text/html").text


def test_every_answer_says_that_nothing_is_loaded_from_elsewhere(server: Running) -> None:
    for path in ("/", "/upload", "/docs", "/nowhere", "/optimade/v1/info", "/health"):
        headers = server.ask(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_other_names_and_other_sites_are_refused(server: Running) -> None:
    assert server.ask("/", Host="rebound.example").status == 421
    assert server.ask("/predict", MGB2, Origin="http://evil.example").status == 403
    assert server.ask("/optimade/v1/structures", Origin="http://evil.example").status == 403


def test_metrics_count_what_happened(server: Running) -> None:
    def count() -> float:
        lines = server.ask("/metrics").text.splitlines()
        named = [line for line in lines if line.startswith('assay_requests_total{route="/predict",status="200"}')]
        return float(named[0].split()[-1]) if named else 0.0

    before = count()
    assert server.upload("MgB2.cif", MGB2).status == 200
    assert count() == before + 1


def test_beyond_this_machine_a_token_is_needed(campaign: Path, quick: Path, tmp_path: Path) -> None:
    secret = "sixteen-letters-or-more"
    options = [campaign, "--model", quick, "--host", "0.0.0.0", "--waiting", "1"]
    with Running(tmp_path / "store", *options, ASSAY_SERVE_TOKEN=secret) as running:
        assert f"?token={secret}" in running.said
        for path in ("/", "/health", "/optimade/v1/structures", "/predictions/x", "/static/style.css"):
            assert running.ask(path).status == 401
        assert running.ask("/predict", MGB2, Authorization="Bearer wrong-wrong-wrong-wrong").status == 401
        assert (
            running.ask("/predict", MGB2, Authorization=f"Bearer {secret}").json["predictions"][0]["formula"] == "MgB2"
        )
        cookie = running.ask("/", Cookie=f"assay_token={secret}")
        assert cookie.status == 200
        # one place: who comes while it is taken is told to come again
        slow = socket.create_connection(("127.0.0.1", running.port), 60)
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\nContent-Length: 9\r\n\r\n"
        slow.sendall(head.encode())
        busy = running.ask("/health", Authorization=f"Bearer {secret}")
        for _ in range(100):
            busy = running.ask("/predict", MGB2, Authorization=f"Bearer {secret}")
            if busy.status == 429:
                break
        slow.close()
        assert (busy.status, busy.headers["retry-after"]) == (429, "1")


def test_a_killed_server_forgets_no_prediction(quick: Path, tmp_path: Path) -> None:
    with Running(tmp_path / "store", "--model", quick) as running:
        answer = running.upload("MgB2.cif", MGB2, "/upload")
        assert answer.status == 200
        path = answer.url.removeprefix(running.url)
        os.kill(running.child.pid, signal.SIGKILL)
        running.child.wait()
    with Running(tmp_path / "store", "--model", quick) as running:
        again = running.ask(path)
        assert (again.status, again.text) == (200, answer.text)
        assert running.ask(f"{path}/json").json["predictions"][0]["formula"] == "MgB2"
        explained = running.ask(f"{path}/0/explain", b"")
        assert "What each atom adds" in explained.text
        assert running.ask(f"{path}/0/cif").text.startswith("#")
        running.child.send_signal(signal.SIGTERM)
        said, _ = running.child.communicate(timeout=60)
    assert (running.child.returncode, said) == (0, "stopped\n")
