"""Text from files and servers, made fit to be shown: nothing in it moves the cursor or the reader.

Enters: any text. Leaves: the same text, with escapes in place of characters that are not seen.
This module does not know where the text is shown.
"""

from __future__ import annotations

import json
import unicodedata

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories: control characters, invisible ones such as the marks that reverse the writing
direction, halves of characters, and separators of lines."""


def escaped(text: str) -> str:
    r"""The text on one line, unseen characters as in JSON: `\r`, `\u001b`, `\u202e`.

    Text in JSON stays valid JSON and keeps its meaning.

    >>> escaped("one\rtwo \x1b[31m"), escaped("MgB\u2082 \u202e3\u202c")
    ('one\\rtwo \\u001b[31m', 'MgB₂ \\u202e3\\u202c')
    """
    if text.isprintable():
        return text
    return "".join(json.dumps(c)[1:-1] if unicodedata.category(c) in UNSEEN else c for c in text)


def shortened(text: str, most: int) -> str:
    """The text, or its beginning with its length where it has more than `most` characters.

    >>> shortened("a" * 50, 20)
    'aaaaaaaaaaaaaaaaaaaa... (50 characters)'
    """
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"
