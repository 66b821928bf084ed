"""The stamp of a campaign folder: the fingerprint that it was made with.

Enters: a folder, and the fingerprint of a campaign. Leaves: `fingerprint.json`, or one line that
says why the folder is refused. It does not know the parts of a fingerprint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from assay.screening.folder.ledger import damaged, listed
from assay.screening.settings.exits import Exit, Failure
from assay.sources import durable

FORMAT = "2"
"""Layout of the campaign folder."""
FOLDERS = ("log", "snapshot", "identity", "relaxed", "parts", "quarantine")
"""Folders that a campaign makes in its own."""
CONTENT = "content."
"""Start of the names of the parts that are digests of source files."""
SOURCES = "sources."
"""Start of the names of the parts that describe a source."""
ORDER = "order of sources"
"""Name of the part that lists the sources in the order of the config; campaigns of one source, and
folders of earlier builds, have none."""
MOST_CHANGES = 12
"""Differences that a message lists."""


def expect(folder: Path) -> None:
    """Refuse a folder that holds no campaign, or one of another layout.

    Raises:
        Failure: CONFIG, with the way out.
    """
    path = folder / "fingerprint.json"
    if not path.exists() and not listed(folder / "log"):
        what = "is no campaign folder: it holds no fingerprint.json" if folder.exists() else "does not exist"
        raise Failure(Exit.CONFIG, f"{folder} {what}; start a campaign with: assay run")
    try:
        found = read_fingerprint(folder).get("format")
    except Failure:
        return  # a damaged fingerprint says nothing about the layout
    if found != FORMAT:
        what = f"has the folder layout {found}, this Assay reads {FORMAT}"
        raise Failure(Exit.CONFIG, f"{folder} {what}; use the version that made it")


def check_fingerprint(folder: Path, current: Mapping[str, str], content: Mapping[str, str] | None = None) -> None:
    """Stamp a new campaign folder, or compare the stamp of an old one.

    `content` are the digests of the source files; None where no source is read.

    Raises:
        Failure: CONFIG, when the folder was made with something else; old and new side by side.
    """
    path = folder / "fingerprint.json"
    if not path.exists() and not listed(folder / "log"):
        durable.write(path, durable.canonical({**current, **(content or {})}))
        return
    before = read_fingerprint(folder)
    if ORDER not in before or _named(before) != _named(current):  # the sources themselves tell more
        current = {name: value for name, value in current.items() if name != ORDER}
        before.pop(ORDER, None)
    changed = changes(settings(before) if content is None else before, {**current, **(content or {})})
    if changed:
        files = all(line.startswith(CONTENT) for line in changed)
        advice = f"{'put the old files back' if files else 'restore the old setting'} or choose a new --output folder"
        more = f"; and {len(changed) - MOST_CHANGES} more" if len(changed) > MOST_CHANGES else ""
        what = "; ".join(changed[:MOST_CHANGES]) + more
        raise Failure(Exit.CONFIG, f"{folder} holds another campaign ({what}); {advice}")


def settings(fingerprint: Mapping[str, str]) -> dict[str, str]:
    """The parts of a fingerprint that are no digests of source files."""
    return {name: value for name, value in fingerprint.items() if not name.startswith(CONTENT)}


def read_fingerprint(folder: Path) -> dict[str, str]:
    """The fingerprint that a campaign folder was made with.

    Raises:
        Failure: DISK, when the file is gone or damaged; it is written before the first record.
    """
    path = folder / "fingerprint.json"
    try:
        content = path.read_bytes()
        found: dict[str, str] = json.loads(content)
    except FileNotFoundError:
        raise damaged(path, "is gone") from None
    except ValueError as error:
        raise damaged(path, f"is not JSON ({error})") from None
    if not isinstance(found, dict) or durable.canonical(found).encode("utf-8") != content:
        raise damaged(path, "is not as it was written")
    return found


def begun(folder: Path) -> dict[str, str]:
    """The fingerprint of a campaign folder; nothing where no campaign was begun."""
    return read_fingerprint(folder) if (folder / "fingerprint.json").exists() else {}


def sources(folder: Path) -> list[str]:
    """The names of the sources of a campaign, sorted."""
    return sorted(_named(read_fingerprint(folder)))


def _named(fingerprint: Mapping[str, str]) -> set[str]:
    return {name.removeprefix(SOURCES) for name in fingerprint if name.startswith(SOURCES)}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences between two fingerprints, old and new side by side, key by key.

    >>> changes({"a": "1", "b": '{"c": "x", "n": 5}'}, {"a": "1", "b": '{"c": "x"}'})
    ['b.n: was 5, now absent']
    """
    found = []
    for name in sorted({*before, *now}):
        was, new = before.get(name), now.get(name)
        if json.dumps(was) == json.dumps(new):  # 1, 1.0 and true are three values
            continue
        inside = changes(*sections) if all(sections := (_section(was), _section(new))) else []
        found += [f"{name}.{change}" for change in inside]
        if not inside:
            same = zip(_text(was), _text(new), strict=False)
            start = max(0, sum(takewhile(bool, (a == b for a, b in same))) - 20)
            found.append(f"{name}: was {_short(_text(was), start)}, now {_short(_text(new), start)}")
    return found


def _section(value: Any) -> dict[str, Any]:
    """The keys of a part that is a section of the config; empty for any other part."""
    try:
        content = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _text(value: Any) -> str:
    if value is None:
        return "absent"
    return value if isinstance(value, str) else json.dumps(value)


def _short(text: str, start: int) -> str:
    """A text, or of a long one the part where it differs from the other side."""
    if len(text) <= 80:
        return text
    part = f"{'...' if start else ''}{text[start : start + 60]}"
    return f"{part}...({len(text)} characters)" if start + 60 < len(text) else part
