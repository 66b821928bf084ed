"""Secrets by reference: where a key is to be found, never the key.

Enters: `{env: NAME}` or `{file: PATH}` from a config. Leaves: the value, at the moment of use and
in the process that uses it; a `Secret` itself may be printed, stored and sent to other processes.
It does not know what the value opens.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_serializer, model_validator

from assay.screening.settings.exits import Exit, Failure

MAX_BYTES = 64 << 10
HIDDEN = "***"
_LOOKS = {"env": re.compile(r"[A-Z_][A-Z0-9_]{0,99}\Z"), "file": re.compile(r"(~?/)[^\0]+\Z")}
_HOW = "a key does not belong into a config: write {env: NAME}, or {file: PATH} for a file with mode 0600"
_ENV = "env is the name of an environment variable: capital letters, digits and _, not its value"
_FILE = "file must be absolute or begin with ~/, because a relative one would be uploaded with a Ray job"


class _Unseen:
    """Stands in an error for what a user typed where a reference belongs: it may be the secret."""

    def __repr__(self) -> str:
        return HIDDEN


class Secret(BaseModel):
    """Where a secret is kept: an environment variable, or a file that only its owner can read."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    env: str | None = None
    """Name of an environment variable of the process that uses the secret."""
    file: str | None = None
    """Path of a file, absolute or from ~/, owned by the user, mode 0600 or 0400; one line."""

    def read(self) -> str:
        """The value, looked up now.

        Raises:
            Failure: exit 78, when there is none, others can read it, or it is not one line of
                printable text.
        """
        value = os.environ.get(self.env, "") if self.env else _content(Path(str(self.file)).expanduser())
        value = value.strip()
        if not value:
            advice = f"export {self.env}=... before Assay (and Ray) is started" if self.env else "write the key into it"
            raise Failure(Exit.CONFIG, f"secret {self} is empty or not set; {advice}")
        if not value.isprintable() or not value.isascii():
            raise Failure(Exit.CONFIG, f"secret {self} is not one line of printable ASCII; store the bare key")
        return value

    def __str__(self) -> str:
        return f"{{env: {self.env}}}" if self.env else f"{{file: {self.file}}}"

    @model_serializer
    def _reference(self) -> dict[str, str]:
        return {"env": self.env} if self.env else {"file": str(self.file)}

    @model_validator(mode="after")
    def _one(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError("needs either env or file")
        return self

    # Two steps, because pydantic's errors repeat their input: what looks wrong is replaced first,
    # then refused.

    @field_validator("env", "file", mode="before")
    @classmethod
    def _usable(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, _Unseen):
            raise ValueError(_ENV if info.field_name == "env" else _FILE)  # noqa: TRY004 (what pydantic expects)
        return value

    @model_validator(mode="before")
    @classmethod
    def _mapping(cls, content: Any) -> Any:
        if isinstance(content, _Unseen):
            raise ValueError(_HOW)  # noqa: TRY004
        return content

    @model_validator(mode="before")  # the last one runs first
    @classmethod
    def _hide(cls, content: Any) -> Any:
        if isinstance(content, Secret):
            return content
        if not isinstance(content, dict) or content.keys() - _LOOKS:
            return _Unseen()
        return {
            key: value if value is None or (isinstance(value, str) and _LOOKS[key].match(value)) else _Unseen()
            for key, value in content.items()
        }


def _content(path: Path) -> str:
    """The text of a file that nobody else can read."""
    try:
        # without O_NONBLOCK a named pipe would wait for ever; what is opened is what is judged
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            mode = stat.S_IMODE(found.st_mode)
            if not stat.S_ISREG(found.st_mode):
                raise Failure(Exit.CONFIG, f"secret file {path} is not a regular file")
            if found.st_uid != os.geteuid():
                raise Failure(
                    Exit.CONFIG,
                    f"secret file {path} belongs to uid {found.st_uid}, not to uid "
                    f"{os.geteuid()} who reads it; make your own copy",
                )
            if mode not in {0o600, 0o400}:
                raise Failure(Exit.CONFIG, f"secret file {path} has mode {mode:04o}; run: chmod 600 {path}")
            return file.read(MAX_BYTES).decode("ascii", errors="replace")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise Failure(Exit.CONFIG, f"secret file {path} cannot be read: {reason}") from None


def redact(text: str, values: Collection[str]) -> str:
    """Replace every secret in a text, also where a web address or Python literal has escaped it."""
    forms = {form for value in values if value for form in (value, quote(value, safe=""), repr(value)[1:-1])}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return text
