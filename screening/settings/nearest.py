"""The known name that a user may have meant.

Enters: a name that is not known, and the known ones. Leaves: the end of an error message.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def hint(name: str, known: Iterable[str], otherwise: str = "there is") -> str:
    """Ask whether the nearest known name was meant; where none is near, list all of them.

    >>> hint("fliter", ["filter", "kind"]), hint("zzz", ["filter", "kind"], "known keys")
    ("did you mean 'filter'?", 'known keys: filter, kind')
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"{otherwise}: {', '.join(names)}"
