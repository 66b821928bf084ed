"""Finds the filters that the OPTIMADE reference implementation answers wrongly.

Enters: the parse tree of a filter, or the `meta` of a reply. Leaves: one line that says how the
answer would be wrong and what to write instead. Observed with optimade-python-tools 1.5.0 over its
in-memory database. This module does not know HTTP or crystals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

COUNTED = ("elements", "elements_ratios", "species_at_sites", "cartesian_site_positions")
"""Lists whose length it keeps as a number: nelements or nsites."""
_PATTERN = re.compile(r"[.^$*+?{}\[\]\\|()]")


def is_reference(document: Any) -> bool:
    """Whether a reply says that the reference implementation made it."""
    meta = document.get("meta") if isinstance(document, dict) else None
    found = meta.get("implementation") if isinstance(meta, dict) else None
    named = [found.get(key) for key in ("name", "source_url")] if isinstance(found, dict) else []
    return any("optimade python tools" in str(text).lower().replace("-", " ") for text in named)


def wrong_answer(tree: Any) -> str:
    """Say how the reference implementation misreads a filter; empty where it does not."""
    for node in _nodes(tree):
        rule, children = str(getattr(node, "data", "")), list(getattr(node, "children", []))
        if rule == "property_first_comparison" and (fault := _comparison(children[0], children[1])):
            return fault
        if rule == "value" and str(getattr(children[0], "data", "")) == "property":
            name = _text(children[0])
            return (
                f"this server takes {name} on the right-hand side for the text '{name}'; compare with a number or a "
                "text, and compare two properties after the pull"
            )
    return ""


def _comparison(left: Any, right: Any) -> str:
    rule, name = str(right.data), _text(left)
    if rule == "length_op_rhs" and len(right.children) == 3 and right.children[1] != "=" and name not in COUNTED:
        return (
            f"this server is off by one in {name} LENGTH {right.children[1]}; name the lengths one by one "
            f"({name} LENGTH 2 OR {name} LENGTH 3), or use nelements or nsites"
        )
    if rule == "fuzzy_string_op_rhs":
        part = re.sub(r"\\(.)", r"\1", _text(right.children[-1])[1:-1])
        if _PATTERN.search(part):
            return (
                f"this server reads the text {part!r:.80} after {right.children[0]} as a regular expression; leave out "
                r". ^ $ * + ? { } [ ] \ | ( ) and join the parts between them with AND"
            )
    return ""


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in getattr(node, "children", ()):
        yield from _nodes(child)


def _text(node: Any) -> str:
    """The words of a node, joined by dots."""
    children = getattr(node, "children", None)
    return str(node) if children is None else ".".join(_text(child) for child in children)
