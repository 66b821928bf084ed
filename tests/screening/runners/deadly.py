"""Work that kills the process that does it; apart, so that a child imports nothing but this."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import pyarrow as pa


def rows_of(marks: Sequence[str]) -> pa.Table:
    """One row per mark."""
    ids = [f"t/{k}" for k in range(len(marks))]
    return pa.table({"id": pa.array(ids, pa.string()), "mark": pa.array(marks, pa.string())})


def deadly(table: pa.Table) -> pa.Table:
    """Dies as the marks say; two rows marked `pair` are too much memory for one process."""
    marks = table["mark"].to_pylist()
    if "exit" in marks:
        os._exit(1)
    if "segv" in marks:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "kill" in marks or marks.count("pair") > 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if "defect" in marks:
        raise ValueError(f"defect among {len(marks)} rows")
    return table.append_column("rows_in_batch", pa.array([len(marks)] * len(marks), pa.int64()))
