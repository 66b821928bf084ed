"""The scripts of the pages, and what a page says of them so that it runs no other.

Enters: names of scripts that lie beside this module. Leaves: their text, and its digest as a
content security policy names it. This module does not know pages.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

CRYSTAL, TABLE = "crystal.js", "table.js"
"""Crystals that turn; tables that sort, filter and download."""


def text(*names: str) -> str:
    """Some scripts as one."""
    return "\n".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in names)


def digest(script: str) -> str:
    """The source of a content security policy under which an inline script runs, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
