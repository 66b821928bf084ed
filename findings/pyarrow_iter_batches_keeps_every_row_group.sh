#!/usr/bin/env bash
# pyarrow 26.0.1: ParquetFile.iter_batches keeps what it read of every row group until the end.
#
# Guess: iter_batches over a file of 40 row groups takes the memory of one of them, whatever the file's
#   size, the more so with buffer_size, which streams columns.
# Seen: Arrow's memory grows with each row group and ends near the size of the file. Since 25.0 the
#   default of `pre_buffer` is True in ParquetFile, as it was in read_table (up to 24.0 it was False).
#   With `pre_buffer=False` the same loop is flat. `buffer_size` does not help while it is True.
# Why it matters: tables of millions of crystals are read in portions so that memory stays flat; an
#   upgrade alone brings the whole file back into memory.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat > grow.py <<'PY'
import inspect
import random
import sys

import pyarrow as pa
import pyarrow.parquet as pq

rng = random.Random(0)
with pq.ParquetWriter("energies.parquet", pa.schema([("energy", pa.float64())])) as writer:
    for _ in range(40):  # 20 MB of numbers that do not compress
        writer.write_table(pa.table({"energy": [rng.random() for _ in range(65_536)]}))


def most(**options):
    """Highest MiB of Arrow memory over the loop."""
    before, found = pa.total_allocated_bytes(), 0
    with pq.ParquetFile("energies.parquet", buffer_size=2**18, **options) as file:
        for _ in file.iter_batches(8_192):
            found = max(found, pa.total_allocated_bytes() - before)
    return found / 2**20


default = inspect.signature(pq.ParquetFile.__init__).parameters["pre_buffer"].default
whole, flat = most(), most(pre_buffer=False)
print(f"pyarrow {pa.__version__}: pre_buffer={default} by default: {whole:.0f} MiB; pre_buffer=False: {flat:.0f} MiB")
assert flat < 5, flat
assert (whole > 18) == default == (sys.argv[1] == "grows"), whole
PY
for version in 26.0.1 24.0.0; do
  python3 -m venv "$work/$version"
  "$work/$version/bin/pip" install --quiet --disable-pip-version-check "pyarrow==$version"
done
"$work/26.0.1/bin/python" grow.py grows
"$work/24.0.0/bin/python" grow.py flat
