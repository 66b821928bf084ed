#!/usr/bin/env bash
# emmet-core 0.87.3: an identifier equals the text `mp-149`, and is not in a set that holds it.
#
# Guess: AlphaID("mp-149") == "mp-149" is true, so a set, a dictionary and an index of pandas find
#   one by the other, as Python asks of equal objects.
# Seen: it equals "mp-149", "mp-ft" (the same number in letters) and MPID("mp-149"). Its hash is
#   that of "mp-ft", so a dictionary with the keys of a download by number finds nothing, and a set
#   of three equal ids keeps two. `str` gives "mp-ft".
# Why it matters: `[one for one in found if one in known]` keeps the rows when `known` is a list,
#   and drops all of them when it is a set. A duplicate that == would find stays.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check emmet-core==0.87.3
cd "$work"
"$work/env/bin/python" - <<'PY'
from emmet.core.mpid import MPID, AlphaID

one = AlphaID("mp-149")
texts = ["mp-149", "mp-ft", MPID("mp-149")]
for other in texts:
    print(f"{other!r}: equal {one == other}, in the list {one in [other]}, in the set {one in {other}}")
energies = {"mp-149": -5.42}
kept = {one, "mp-149", MPID("mp-149")}
print("str:", str(one), "looked up:", energies.get(one), "of three equal ids a set keeps:", len(kept))
assert all(one == other and one in [other] for other in texts)
assert [one in {other} for other in texts] == [False, True, False], "equal ids have one hash now"
assert str(one) == "mp-ft" and energies.get(one) is None
assert len(kept) == 2
PY
