"""One thread at a time imports a heavy library.

Enters: nothing. Leaves: a lock for the imports inside functions. pymatgen's modules import each
other in a circle: two threads that import two of them at once both fail (`KeyError:
'pymatgen.core'`, or a "partially initialized module"), and mp-api imports pymatgen as well. A
source is pulled in a thread while another thread looks for equal crystals, so every heavy library
is imported under this lock. This module does not know which libraries these are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.RLock()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the lock while the imports in the body run.

    Python's own locks are per module, which is too fine for modules in a circle.
    """
    with _LOCK:
        yield
