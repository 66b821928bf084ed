"""YAML files as the user meets them: read, overridden, validated, and refused in one line.

Enters: the path of a YAML file, `a.b=c` overrides, and a schema (pydantic model or dataclass).
Leaves: an instance of the schema, or a `Failure` naming the wrong key, its full path and the
nearest known key. It knows no campaign.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from assay.screening.settings import nearest
from assay.screening.settings.exits import Exit, Failure

T = TypeVar("T")
MAX_BYTES = 1 << 20
MAX_DEPTH = 50
"""Levels of lists and mappings inside one another; configs have fewer than ten."""


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file: safe types, no aliases, no key twice."""
    if not path.is_file():
        found = "is no regular file" if os.path.lexists(path) else "not found"
        raise Failure(Exit.CONFIG, f"config {path} {found}; give the path of a YAML file")
    if path.stat().st_size > MAX_BYTES:
        raise Failure(Exit.CONFIG, f"config {path} has {path.stat().st_size} bytes; at most {MAX_BYTES}")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, OSError) as error:
        text = " ".join(str(error).split())
        raise Failure(Exit.CONFIG, f"config {path} is not readable YAML: {text}") from None
    if not isinstance(content, dict):
        raise Failure(Exit.CONFIG, f"config {path} must be a mapping of keys, not {type(content).__name__}")
    return content


def override(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply `a.b=c` in order; c is YAML, a number addresses a list item (`sources.0.n=9`)."""
    for text in overrides:
        path, equals, value = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise Failure(Exit.USAGE, f"--set {text!r} is not of the form a.b=c")
        try:
            _assign(content, keys, yaml.load(value, Loader=_Loader))  # noqa: S506 (a SafeLoader)
        except (yaml.YAMLError, IndexError, ValueError, TypeError) as error:
            raise Failure(Exit.CONFIG, f"--set {text!r} does not fit the config: {error}") from None
    return content


def _assign(content: Any, keys: list[str], value: Any) -> None:
    for here, key in enumerate(keys):
        index: Any = int(key) if isinstance(content, list) else key
        if here == len(keys) - 1:
            content[index] = value
        else:
            if isinstance(content, dict) and content.get(index) is None:
                content[index] = {}
            content = content[index]


LARGEST_SEED = 2**32 - 1
"""What every library that draws numbers accepts."""


def validate(schema: type[T], content: dict[str, Any], where: str) -> T:
    """Make a pydantic model or dataclass from a mapping, or refuse it in one line."""
    # in a list, because pydantic takes a config for the dataclasses inside a type but not for a
    # bare dataclass
    adapter: TypeAdapter[list[T]] = TypeAdapter(list[schema], config=ConfigDict(extra="forbid", allow_inf_nan=False))  # type: ignore[valid-type]
    try:
        made = adapter.validate_python([content])[0]
    except ValidationError as error:
        if all(e["type"] == "value_error" for e in error.errors()):  # of a dataclass, to which a seed of true is 1
            _check_seeds(content, where)
        unknown = [e for e in error.errors() if e["type"] in _UNKNOWN]
        lines = [_describe(e, adapter.json_schema(), content) for e in (unknown or error.errors())]
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise Failure(Exit.CONFIG, f"{where}: {lines[0]}{more}") from None
    _check_seeds(content, where)
    return made


def _check_seeds(content: Any, where: str) -> None:
    for path, seed in _seeds(content):
        if type(seed) is not int or not 0 <= seed <= LARGEST_SEED:
            shown = repr(seed)[:40]
            raise Failure(
                Exit.CONFIG, f"{where}: {path}: expected a whole number from 0 to {LARGEST_SEED}, got {shown}"
            )


def _seeds(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every seed in a config that is valid otherwise, with its path."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            own = f"{path}{key}"
            if str(key).rpartition(".")[2] == "seed" and isinstance(value, int | float | str):
                yield own, value
            elif key == "seeds" and isinstance(value, list):
                yield from ((f"{own}.{place}", seed) for place, seed in enumerate(value))
            else:
                yield from _seeds(value, f"{own}.")
    elif isinstance(content, list):
        for place, value in enumerate(content):
            yield from _seeds(value, f"{path}{place}.")


_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}


def _describe(error: Any, schema: dict[str, Any], content: Any) -> str:
    path, candidates = _walk(error["loc"][1:], schema, content)
    if error["type"] not in _UNKNOWN:
        reason = error["msg"].removeprefix("Value error, ")
        got = f", got {error['input']!r}" if isinstance(error["input"], str | int | float | None) else ""
        return f"{path}: {reason}{got}" if path else reason
    return f"unknown key {path!r}; {nearest.hint(str(error['loc'][-1]), candidates, 'known keys')}"


def _walk(loc: Sequence[Any], schema: dict[str, Any], content: Any) -> tuple[str, list[str]]:
    """The path of an error in words, and the keys that are known in the mapping it points into."""
    nodes, path, known = list(_variants(schema["items"], schema)), [], []
    for part in loc:
        nodes = [node for node in nodes if _of_this_kind(node, content)]
        known = sorted({name for node in nodes for name in node.get("properties", {})})
        path.append(str(part))
        below = [n["items"] for n in nodes if "items" in n and isinstance(part, int)]
        below += [n["properties"][part] for n in nodes if part in n.get("properties", {})]
        below += [n["additionalProperties"] for n in nodes if isinstance(n.get("additionalProperties"), dict)]
        nodes = [variant for node in below for variant in _variants(node, schema)]
        content = _inside(content, part)
    return ".".join(path), known


def _of_this_kind(node: dict[str, Any], content: Any) -> bool:
    """Whether a mapping of this schema may have the `kind` that the content has."""
    kind = node.get("properties", {}).get("kind", {}).get("const")
    return kind is None or not isinstance(content, dict) or content.get("kind") == kind


def _inside(content: Any, part: Any) -> Any:
    """What a mapping or a list holds under a key; None where it holds nothing."""
    if isinstance(content, dict):
        return content.get(part)
    return content[part] if isinstance(content, list) and isinstance(part, int) and part < len(content) else None


def _variants(node: dict[str, Any], schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    yield node
    for option in [*node.get("anyOf", []), *node.get("oneOf", []), *node.get("allOf", [])]:
        yield from _variants(option, schema)


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases (no alias bombs), deep nesting or a key twice in one mapping."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"aliases are not accepted (line {line})")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"nested more than {MAX_DEPTH} deep (line {line})")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.YAMLError(f"key {twice[0]!r} twice in one mapping (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-3 as text; people who write it mean a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
