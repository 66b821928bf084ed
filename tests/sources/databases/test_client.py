"""The HTTP door against a server that misbehaves: bounded time, bounded memory, no credential lost."""

import gzip
import logging
import time
import tracemalloc
from typing import Any

import pytest

from assay.sources.databases.client import Client, ReplyTooLarge, SourceDown, SourceRefused, UnsafeReply, shown
from assay.sources.databases.trust import Passing, gunzip, is_public, retry_after
from tests.servers import FaultServer, bomb

SECRET = "s3cr3t-value"


def client_for(server: FaultServer, **limits: Any) -> Client:
    defaults: dict[str, Any] = {"local": True, "backoff_s": 0.01, "timeout_s": 20.0, "deadline_s": 60.0}
    return Client(server.url, **{**defaults, **limits})


def page(server: FaultServer) -> str:
    return f"{server.url}/v1/structures"


@pytest.mark.parametrize(
    "script",
    [
        ["503", "ok"],
        ["500", "502", "504", "ok"],
        ["429", "ok"],
        ["408", "425", "ok"],
        ["html", "ok"],
        ["truncated", "ok"],
        ["short-gzip", "ok"],
        ["close", "ok"],
    ],
    ids="-".join,
)
def test_a_passing_fault_is_retried(script: list[str]) -> None:
    with FaultServer(script=script) as server, client_for(server) as client:
        reply = client.get_json(page(server))
        assert reply.json["data"] == []
        assert len(server.requests) == len(script)
        assert len(reply.sha256) == 64
        assert reply.n_bytes > 10


@pytest.mark.parametrize("fault", ["429", "503", "html", "truncated"])
def test_a_lasting_fault_ends_after_five_requests(fault: str) -> None:
    with FaultServer(script=[fault]) as server, client_for(server) as client:
        with pytest.raises(SourceDown, match="failed 5 times"):
            client.get_json(page(server))
        assert len(server.requests) == 5


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "501", "553"])
def test_a_final_status_is_not_retried(status: str) -> None:
    with FaultServer(script=[status]) as server, client_for(server) as client:
        with pytest.raises(SourceRefused, match=f"status {status} .scripted {status}") as caught:
            client.get_json(page(server))
        assert caught.value.status == int(status)
        assert len(server.requests) == 1


@pytest.mark.parametrize("fault", ["429-after:1", "429-date:2"])
def test_retry_after_is_honoured(fault: str) -> None:
    with FaultServer(script=[fault, "ok"]) as server, client_for(server) as client:
        start = time.monotonic()
        client.get_json(page(server))
        assert time.monotonic() - start > 0.9


def test_a_pause_beyond_the_deadline_ends_at_once() -> None:
    with FaultServer(script=["429-after:500"]) as server, client_for(server, deadline_s=30.0) as client:
        start = time.monotonic()
        with pytest.raises(SourceDown, match="within 30 s"):
            client.get_json(page(server))
        assert time.monotonic() - start < 15


def test_retry_after_is_read_and_capped() -> None:
    assert retry_after("7") == 7
    assert retry_after("999999") == 600
    assert retry_after("Fri, 31 Dec 2100 23:59:59 GMT") == 600
    assert [retry_after(text) for text in ("", "soon", "-3", "Fri, 31 Dec 1999 23:59:59 GMT")] == [0, 0, 0, 0]


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_silent_or_dripping_server_costs_bounded_time(fault: str) -> None:
    with FaultServer(script=[fault]) as server, client_for(server, deadline_s=1.0, timeout_s=30.0) as client:
        start = time.monotonic()
        with pytest.raises(SourceDown, match="structures"):
            client.get_json(page(server))
        assert time.monotonic() - start < 10


def test_a_dead_server_is_down() -> None:
    with FaultServer() as server:
        client, url = client_for(server), page(server)
    with client, pytest.raises(SourceDown, match=r"failed 5 times; last: ConnectError"):
        client.get_json(url)


def test_a_message_names_the_host_and_the_filter_and_no_address_of_600_characters() -> None:
    with FaultServer(script=["403"]) as server, client_for(server) as client:
        port, url = server.url.rpartition(":")[2], page(server)
        params = {
            "filter": 'elements HAS "Mg" AND nsites<5',
            "response_fields": "x" * 600,
            "page_limit": 5,
            "api_key": "k3y",
        }
        with pytest.raises(SourceRefused) as refused:
            client.get_json(url, params)
        for search in ("catalog(ICSD),species(Mg)", "$paging(1)&api_key=k3y"):  # as AFLUX is asked
            with pytest.raises(SourceRefused, match=r"\(filter: [c$]") as searched:
                client.get_json(f"{server.url}/API/aflux/?{search}")
            assert "k3y" not in str(searched.value)
    assert f'127.0.0.1:{port}/v1/structures (filter: elements HAS "Mg" AND nsites<5) refused: ' in str(refused.value)
    assert len(str(refused.value)) < 200
    dead = client_for(server)
    with dead, pytest.raises(SourceDown, match=r"^127\.0\.0\.1:\d+/v1/structures .*; no network\?$"):
        dead.get_json(url)


def test_a_gzip_bomb_costs_bounded_memory() -> None:
    assert len(bomb()) < 2**20
    with FaultServer(script=["ok", "bomb"]) as server, client_for(server) as client:
        client.get_json(page(server))
        tracemalloc.start()
        try:
            with pytest.raises(ReplyTooLarge, match="unpacks to more than"):
                client.get_json(page(server))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(server.requests) == 2
        assert peak < 60 * 2**20


def test_the_size_limit_holds_without_compression() -> None:
    with FaultServer(script=["big:3000000"]) as server:
        with client_for(server, max_bytes=2**20) as client, pytest.raises(ReplyTooLarge, match="1048576"):
            client.get_json(page(server))
        with client_for(server) as client:
            assert client.get_json(page(server)).n_bytes > 3_000_000


def test_gunzip_stops_before_it_unpacks_everything() -> None:
    unpacked: list[int] = []
    with pytest.raises(ReplyTooLarge):
        unpacked.extend(len(piece) for piece in gunzip(iter([bomb()]), 64 * 2**20, 100))
    assert sum(unpacked) < 100 * len(bomb()) + 2**21


def test_a_gzip_body_cut_off_is_no_body() -> None:
    whole = gzip.compress(b"{}" + b" " * 1000)
    assert b"".join(gunzip(iter([whole[:9], whole[9:]]), 2**20, 100)).strip() == b"{}"
    with pytest.raises(Passing, match="cut off"):
        list(gunzip(iter([whole[:-1]]), 2**20, 100))


def test_deeply_nested_json_is_refused() -> None:
    with FaultServer(script=["deep"]) as server, client_for(server) as client:
        url = page(server)
        with pytest.raises(SourceDown, match="nested too deeply"):
            client.get_json(url)


def test_redirects_are_not_followed() -> None:
    with FaultServer() as elsewhere, FaultServer(script=[f"redirect:{elsewhere.url}/steal"]) as server:
        client = client_for(server, headers={"x-api-key": SECRET})
        with client, pytest.raises(UnsafeReply, match="redirects are not followed"):
            client.get_json(page(server))
        assert elsewhere.requests == []


def test_credentials_reach_their_origin_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FaultServer() as elsewhere, FaultServer(script=["503", "400"]) as server:
        with client_for(server, headers={"x-api-key": SECRET}) as client:
            with pytest.raises(SourceRefused) as caught:
                client.get_json(page(server))
            with pytest.raises(UnsafeReply):
                client.get_json(page(elsewhere))
            shown = repr(client) + repr(vars(client)) + repr(caught.value) + caplog.text
        assert [headers["x-api-key"] for _, headers in server.requests] == [SECRET, SECRET]
        assert elsewhere.requests == []
    assert SECRET not in shown


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/v1",
        "http://oqmd.org.evil.example/v1",
        "https://oqmd.org:8443/v1",
        "http://oqmd.org:8080/v1",
        "https://user@oqmd.org/v1",
        "https://oqmd.org@evil.example/v1",
        "//evil.example/v1",
        "ftp://oqmd.org/v1",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
        "https://oqmd.org\\@evil.example/",
    ],
)
def test_links_to_another_origin_are_refused(url: str) -> None:
    with Client("https://oqmd.org/optimade") as client, pytest.raises(UnsafeReply):
        client.same_origin(url)


@pytest.mark.parametrize(
    ("url", "contacted"),
    [
        ("http://oqmd.org/optimade/v1/structures?page=2", "https://oqmd.org/optimade/v1/structures?page=2"),
        ("http://OQMD.org:80/a", "https://oqmd.org/a"),
        ("https://oqmd.org:443/a#part", "https://oqmd.org/a"),
        ("v1/structures", "https://oqmd.org/optimade/v1/structures"),
        ("/other", "https://oqmd.org/other"),
    ],
)
def test_links_home_are_kept_and_upgraded(url: str, contacted: str) -> None:
    with Client("https://oqmd.org/optimade") as client:
        assert str(client.same_origin(url)) == contacted


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://localhost:9", "https://10.0.0.1", "http://[::1]:9"])
def test_private_addresses_need_the_word_local(url: str) -> None:
    with pytest.raises(ValueError, match="local"):
        Client(url)
    Client(url, local=True).close()


def test_a_name_that_leads_to_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with FaultServer() as server:
        port = int(server.url.rsplit(":", 1)[1])
        real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **kw: real("127.0.0.1", *rest, **kw))
        monkeypatch.delenv("http_proxy", raising=False)
        monkeypatch.delenv("HTTP_PROXY", raising=False)
        client = Client(f"http://rebound.example:{port}", backoff_s=0.01)
        with client, pytest.raises(UnsafeReply, match=r"private address 127\.0\.0\.1"):
            client.get_json("/v1/structures")
        assert server.requests == []


def test_public_and_private_addresses_are_told_apart() -> None:
    assert all(map(is_public, ["8.8.8.8", "2606:4700::1111"]))
    private = ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1"]
    assert not any(map(is_public, [*private, "::1", "fe80::1%eth0", "::ffff:127.0.0.1", "fd00::1"]))


@pytest.mark.parametrize(
    ("url", "headers", "expected"),
    [
        ("https://oqmd.org", {"x-api-key": SECRET + "\n"}, "printable"),
        (f"https://me:{SECRET}@oqmd.org", {}, "no password"),
        (f"https://oqmd.org?key={SECRET}", {}, "no query"),
        ("http://oqmd.org", {"x-api-key": SECRET}, "unencrypted"),
    ],
)
def test_bad_headers_and_urls_are_refused_without_quoting_secrets(
    url: str, headers: dict[str, str], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        Client(url, headers=headers)
    assert SECRET not in str(caught.value)


def test_secrets_in_a_query_are_not_shown() -> None:
    text = shown(f"https://oqmd.org/?api_key={SECRET}&filter=a")
    assert SECRET not in text
    assert "filter=a" in text


def test_requests_keep_their_interval() -> None:
    with FaultServer() as server, client_for(server, min_interval_s=0.2) as client:
        start = time.monotonic()
        for _ in range(3):
            client.get_json(page(server))
        assert time.monotonic() - start > 0.4
        assert "interval_s=0.2" in repr(client.pace)
