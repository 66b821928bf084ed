"""What a server says about itself: a licence only where it commits itself to one."""

import json
from pathlib import Path
from typing import Any

import pytest

from sources.client import Client, SourceDown
from sources.optimade_info import Info, facts, licence
from tests.loopback import Answer, Loopback

CC = "https://creativecommons.org"


class InfoServer(Loopback):
    """Serves one document at /v1/info."""

    def __init__(self, document: Any, script: tuple[str, ...] = ("ok",)) -> None:
        super().__init__(script)
        self.document = document

    def answer(self, path: str, headers: Any) -> Answer:
        return (200, self.document) if path == "/v1/info" else (404, {"errors": [{"detail": "not here"}]})


def ask(server: InfoServer, path: str = "") -> Info:
    with Client(server.url + path, local=True, retries=1, backoff_s=0.01, max_bytes=2**20) as client:
        found = facts(client)
        assert licence(client) == found.licence
        return found


def info(**attributes: Any) -> dict[str, Any]:
    return {"data": {"type": "info", "id": "/", "attributes": attributes}, "meta": {}}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"available_licenses": ["CC-BY-4.0"]}, "CC-BY-4.0"),
        ({"available_licenses": ["MIT", "CC-BY-4.0", "CC0-1.0"]}, "CC0-1.0"),
        ({"available_licenses": ["ODbL-1.0", "CC-BY-NC-4.0"]}, "ODbL-1.0"),
        ({"available_licenses": ["CC-BY-4.0"], "license": f"{CC}/licenses/by-nc/4.0/"}, "CC-BY-4.0"),
        ({"available_licenses": [], "license": f"{CC}/licenses/by/4.0/"}, None),  # none applies: the list decides
        ({"available_licenses": [None, 3, "no licence at all", "x" * 100]}, None),
        ({"available_licenses": None, "license": f"{CC}/licenses/by/4.0/"}, "CC-BY-4.0"),
        ({"license": {"href": f"{CC}/licenses/by-nc-sa/4.0/legalcode.en"}}, "CC-BY-NC-SA-4.0"),
        ({"license": f"{CC}/publicdomain/zero/1.0/deed"}, "CC0-1.0"),
        ({"license": "http://www.creativecommons.org/licenses/by/4.0"}, "CC-BY-4.0"),
        ({"license": "https://spdx.org/licenses/CC-BY-4.0.html"}, "CC-BY-4.0"),
        ({"license": "https://spdx.org/licenses/CC-BY-4.0"}, "CC-BY-4.0"),
        ({"license": "CC-BY-4.0"}, "CC-BY-4.0"),
        ({"license": "free"}, None),
        ({"license": "https://example.org/terms"}, None),
        ({"license": "https://creativecommons.org.evil.example/licenses/by/4.0/"}, None),
        ({"license": f"{CC}/licenses/by/4.0/../../other"}, None),
        ({"license": {"href": 3}}, None),
        ({"license": ["CC-BY-4.0"]}, None),
        ({"available_licenses_for_entries": ["CC-BY-4.0"]}, None),  # not for substantial parts
        ({}, None),
    ],
)
def test_a_licence_is_what_the_server_commits_itself_to(attributes: dict[str, Any], expected: str | None) -> None:
    with InfoServer(info(**attributes)) as server:
        assert ask(server).licence == expected


@pytest.mark.parametrize("document", [None, [], "text", {}, {"data": []}, {"data": {"attributes": 3}, "meta": "x"}])
def test_a_page_without_sense_says_nothing(document: Any) -> None:
    with InfoServer(document) as server:
        assert ask(server) == Info(None)


def test_the_page_lies_behind_the_version_of_the_base_url() -> None:
    with InfoServer(info(license="CC0-1.0")) as server:
        assert ask(server, "/v1").licence == "CC0-1.0"
        assert ask(server, "/elsewhere").licence is None  # 404
    assert {path for path, _ in server.requests} == {"/v1/info", "/elsewhere/v1/info"}


def test_a_server_that_does_not_answer_is_not_one_without_a_licence() -> None:
    with InfoServer(info(license="CC0-1.0"), ("503",)) as server, pytest.raises(SourceDown):
        ask(server)
    with InfoServer(info(license="CC0-1.0"), (f"big:{1}",)) as server:
        assert ask(server).licence is None  # 1 MiB of blanks is no page worth reading


def test_a_recorded_page_is_read(data: Path) -> None:
    document = json.loads((data / "optimade/oqmd_qmpy/optimade_info.json").read_text())
    with InfoServer(document) as server:
        assert ask(server) == Info(None, name="OQMD", prefix="oqmd", api_version="1.0.0")


def test_long_and_unprintable_texts_are_cut() -> None:
    document = {
        "meta": {"provider": {"name": "a\n" + "b" * 1000, "prefix": 7}, "implementation": {"name": "x\x1b[31m"}}
    }
    with InfoServer(document) as server:
        found = ask(server)
    assert found.name == "a " + "b" * 98
    assert (found.prefix, found.implementation) == ("", "x [31m")
