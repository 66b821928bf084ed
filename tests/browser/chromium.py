"""Headless Chromium that reaches this machine and nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

FOLDER = Path(os.environ.get("ASSAY_BROWSER") or Path(sys.prefix) / "browser")
"""Where `make browser` puts it."""
PROGRAM = FOLDER / "chromium"
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--font-render-hinting=none"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def launch(playwright: Playwright) -> Browser:
    """Start it, with the libraries and fonts that came with it."""
    place = {"LD_LIBRARY_PATH": FOLDER / "al2023" / "lib", "FONTCONFIG_PATH": FOLDER / "fonts", "HOME": FOLDER}
    environment = os.environ | {name: str(path) for name, path in place.items()}
    return playwright.chromium.launch(executable_path=PROGRAM, args=ARGUMENTS, env=environment, chromium_sandbox=False)
