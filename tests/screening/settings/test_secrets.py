"""Secrets by reference: what is stored and shown is where a key is, and nobody else can read it there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from pydantic import Field

from assay.screening.settings import yamlfile
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.secrets import Secret, redact
from assay.screening.settings.section import Section

CANARY = "cAnArY-7f3a/91+x"


class Server(Section):
    """A config section that needs keys."""

    key: Secret | None = None
    headers: dict[str, Secret] = Field(default_factory=dict)


def load(content: Any) -> Server:
    return yamlfile.validate(Server, content, "x.yaml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{CANARY}\n")
    path.chmod(0o600)
    return path


def test_a_variable_is_read_at_the_moment_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = load({"key": {"env": "ASSAY_TEST_KEY"}}).key
    assert secret is not None
    monkeypatch.setenv("ASSAY_TEST_KEY", CANARY)
    assert secret.read() == CANARY
    monkeypatch.delenv("ASSAY_TEST_KEY")
    with pytest.raises(Failure, match=r"\{env: ASSAY_TEST_KEY\} is empty or not set; export ASSAY_TEST_KEY"):
        secret.read()


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_that_only_its_owner_can_read(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert Secret(file=str(file)).read() == CANARY


def test_a_file_in_the_home_folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    assert Secret(file="~/key").read() == CANARY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o700, 0o602])
def test_a_file_that_others_could_read_is_refused_with_the_remedy(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(Failure, match=f"has mode {mode:04o}; run: chmod 600 {file}") as refused:
        Secret(file=str(file)).read()
    assert refused.value.code is Exit.CONFIG


def test_a_file_of_another_user_is_refused(file: Path) -> None:
    if os.geteuid() == 0:
        os.chown(file, 12345, -1)
    else:
        file = Path("/etc/hostname")
    with pytest.raises(Failure, match="belongs to uid"):
        Secret(file=str(file)).read()


def test_what_is_no_readable_file_is_refused_at_once(file: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, reason in (("pipe", "not a regular file"), ("nowhere", "No such file"), ("", "Is a directory")):
        with pytest.raises(Failure, match=reason):
            Secret(file=str(tmp_path / path)).read()


@pytest.mark.parametrize("content", ["", " \n", "two\nlines", "bell\a", "naïve"])
def test_a_value_that_cannot_go_into_a_header_is_refused_unseen(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(Failure) as refused:
        Secret(file=str(file)).read()
    assert refused.value.code is Exit.CONFIG
    assert not content.strip() or content.strip() not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CANARY, r"x.yaml: key: a key does not belong into a config: write \{env: NAME\}"),
        ({"env": CANARY}, "x.yaml: key.env: env is the name of an environment variable"),
        ({"file": CANARY}, "x.yaml: key.file: file must be absolute"),
        ({"value": CANARY}, "x.yaml: key: a key does not belong"),
        ({CANARY: None}, "x.yaml: key: a key does not belong"),
        ([CANARY], "x.yaml: key: a key does not belong"),
        (123456789, "x.yaml: key: a key does not belong"),
        ({"env": 123456789}, "x.yaml: key.env: env is the name"),
        ({}, "x.yaml: key: needs either env or file"),
        ({"env": "A", "file": "/b"}, "x.yaml: key: needs either env or file"),
    ],
)
def test_a_key_in_the_config_is_refused_and_never_repeated(content: Any, message: str) -> None:
    with pytest.raises(Failure, match=message) as refused:
        load({"key": content})
    assert refused.value.code is Exit.CONFIG
    assert CANARY not in str(refused.value)
    assert "123456789" not in str(refused.value)


def test_a_key_among_headers_is_refused_with_its_path() -> None:
    with pytest.raises(Failure, match=r"headers\.X-API-Key: a key does not belong") as refused:
        load({"headers": {"X-API-Key": CANARY}})
    assert CANARY not in str(refused.value)


def test_only_the_reference_is_shown_and_stored(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_TEST_KEY", CANARY)
    server = load({"key": {"env": "ASSAY_TEST_KEY"}, "headers": {"X": {"file": str(file)}}})
    assert server.key is not None
    assert {server.key.read(), server.headers["X"].read()} == {CANARY}
    stored = yaml.safe_dump(server.model_dump(mode="json"))
    assert yaml.safe_load(stored) == {"key": {"env": "ASSAY_TEST_KEY"}, "headers": {"X": {"file": str(file)}}}
    assert load(yaml.safe_load(stored)) == server
    for text in (stored, repr(server), str(server.key), server.model_dump_json(), str(vars(server))):
        assert CANARY not in text


def test_a_secret_is_taken_out_of_a_text_in_every_form_it_may_have() -> None:
    text = f"401 for {CANARY} at https://x/?key={quote(CANARY, safe='')} ({CANARY[:6]})"
    assert redact(text, [CANARY]) == f"401 for *** at https://x/?key=*** ({CANARY[:6]})"
    assert redact("b'tab\\there'", ["tab\there"]) == "b'***'"
    assert redact("abcdef", ["abc", "abcdef", ""]) == "***"
