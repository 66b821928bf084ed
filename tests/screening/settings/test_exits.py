"""How a process ends: with the code that was promised, whatever its threads are doing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from assay.screening.settings.exits import Exit, Stopped, explain

ROOT = Path(__file__).resolve().parents[3]

BUSY = """
import sys, threading, time
import numpy, pyarrow, pyarrow.compute
from assay.screening.settings.exits import Exit, leave

table = pyarrow.array(numpy.random.default_rng(0).random(1 << 20))

def pull():
    while True:
        pyarrow.compute.sort_indices(table)

for _ in range(2):
    threading.Thread(target=pull, daemon=True).start()
time.sleep(0.3)
import atexit
atexit.register(print, "cleaned up", flush=True)
print("the last word", end="")
leave(Exit.STOPPED)
"""


@pytest.mark.parametrize("attempt", range(3))
def test_threads_inside_a_library_do_not_change_the_exit_code(attempt: int) -> None:
    """An interpreter that winds down under them ends with -6: std::terminate."""
    done = subprocess.run([sys.executable, "-c", BUSY], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == Exit.STOPPED
    assert done.stderr == ""
    assert done.stdout == "the last wordcleaned up\n"


def test_a_signal_that_comes_in_a_finalizer_is_not_lost() -> None:
    program = (
        "import os, signal, time\n"
        "from assay.screening.settings import exits\n"
        "class Kept:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(0.2)\n"
        "exits.listen()\n"
        "kept = Kept()\n"
        "try:\n"
        "    del kept\n"
        "    time.sleep(60)\n"
        "except exits.Stopped:\n"
        "    print('stopped')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, timeout=50)
    assert (done.stdout, done.stderr) == ("stopped\n", "")


def test_a_failure_of_the_cleaning_up_after_a_signal_is_no_defect() -> None:
    try:
        try:
            raise Stopped
        finally:
            raise RuntimeError("cannot join thread before it is started")
    except RuntimeError as error:
        failure = explain(error)
    assert failure is not None
    assert failure.code is Exit.STOPPED
    assert explain(RuntimeError("a defect")) is None
