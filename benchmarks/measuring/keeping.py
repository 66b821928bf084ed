"""What does a campaign cost when a store keeps the outputs of an earlier one?

Enters: two numbers of hypothetical crystals. Leaves: a table and numbers. A campaign over the first
source fills the store. Then a source is added, and after that a member. Each new campaign runs with
the store and from scratch, and their tables must be equal, byte for byte. The other contestant is
the work that is new, alone: a campaign over the new source, and the new member on every chunk.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring.stopwatch import show

if TYPE_CHECKING:
    from assay.models.ensemble.ensemble import Ensemble
    from assay.screening.runners.work import Work

ZOO = Path(__file__).resolve().parents[2] / "models/zoo"
ENSEMBLES = {"forests of tc": (("tc",), 8), "networks of tc-graphs and tc-fast": (("tc-graphs", "tc-fast"), 7)}
"""Name -> bundled ensembles whose members it holds, and how many of them before one is added."""
OUTPUTS = ("candidates.parquet", "unrankable.parquet", "quarantine.parquet", "report.html", "summary.json")


def kept(name: str, crystals: int, new: int, folder: Path) -> dict[str, Any]:
    """CPU seconds of the worker, and of each whole campaign without the start of the program."""
    from assay.models.ensemble.ensemble import Ensemble
    from assay.sources import prototypes

    models, k = ENSEMBLES[name]
    few, more = (Ensemble.load(some(models, folder / f"{models[0]}-{n}", n)) for n in (k, k + 1))
    more.predict(prototypes.generate(64))  # compiled loops are loaded
    both = {"first": (crystals, 0), "second": (new, 7)}
    found: dict[str, Any] = {"members": k, "crystals": crystals, "new": new}
    found["first campaign"] = _campaign(folder, few, {"first": both["first"]}, store=True)
    found["a source more, store"] = _campaign(folder, few, both, store=True)
    found["a source more, scratch"] = _campaign(folder, few, both, store=False)
    found["the new source alone"] = _campaign(folder, few, {"second": both["second"]}, store=False)
    found["a member more, store"] = _campaign(folder, more, both, store=True)
    found["a member more, scratch"] = _campaign(folder, more, both, store=False, beside=k)
    found["the new member alone"] = {"worker_s": found["a member more, scratch"].pop("alone_s")}
    outputs = {what: one.pop("bytes", None) for what, one in found.items() if isinstance(one, dict)}
    for what in ("source", "member"):
        assert outputs[f"a {what} more, store"] == outputs[f"a {what} more, scratch"], f"a {what} more: other bytes"
        with_store = found[f"a {what} more, store"]["worker_s"]
        found[f"{what}, ratio"] = with_store / found[f"the new {what} alone"]["worker_s"]
    size = sum(path.stat().st_size for path in (folder / "store").rglob("*.safetensors"))
    found["store_bytes_per_crystal_and_member"] = size / (crystals + new) / (k + 1)
    shutil.rmtree(folder / "store")
    lines = [
        [what, f"{one['worker_s']:.2f}", f"{one.get('campaign_s', 0):.2f}"]
        for what, one in found.items()
        if isinstance(one, dict)
    ]
    show(f"{name}: {k} members, {crystals:,} + {new:,} crystals", ["", "worker, CPU s", "campaign, CPU s"], lines)
    return found


def some(models: Sequence[str], folder: Path, k: int) -> Path:
    """The first `k` members of some bundled ensembles as one, calibrated as the first of these."""
    from assay.models.ensemble import novelty

    first, *others = (json.loads((ZOO / model / "ensemble.json").read_text()) for model in models)
    described = {key: first[key] for key in ("calibration", "decision", "novelty") if key in first}
    members = [ZOO / model / member for model, one in zip(models, [first, *others]) for member in one["members"]]
    folder.mkdir(parents=True)
    described["members"] = [os.path.relpath(member, folder) for member in members[:k]]
    described["name"] = models[0]
    shutil.copy(ZOO / models[0] / novelty.FILE, folder)
    (folder / "ensemble.json").write_text(json.dumps(described))
    return folder


def _campaign(
    folder: Path, ensemble: Ensemble, sources: dict[str, tuple[int, int]], *, store: bool, beside: int | None = None
) -> dict[str, Any]:
    """One campaign in this process, in a folder of its own that is removed again.

    With `beside`, that member also runs alone on every chunk.
    """
    from assay.screening.campaign import drive, fingerprint, plan
    from assay.screening.campaign.plan import Plan
    from assay.screening.runners.local import LocalRunner
    from assay.screening.settings.config import Campaign

    listed = [{"kind": "prototypes", "name": name, "n": n, "seed": seed} for name, (n, seed) in sources.items()]
    content = {"name": "kept", "sources": listed, "models": [str(ensemble.folder)], "identity": False}
    content |= {"output": str(folder / "runs"), "store": str(folder / "store") if store else "off"}
    campaign = Campaign.model_validate(content)
    target = plan.find_target([ensemble], campaign.rank, None)
    planned = Plan(campaign, campaign.folder(), [ensemble], target, fingerprint.take(campaign, [ensemble]))
    do, before = _Timed(planned, beside), time.process_time()
    drive.run(planned, LocalRunner(do), lambda: False)
    measured = {"worker_s": do.seconds, "campaign_s": time.process_time() - before - do.alone}
    outputs = {name: (planned.folder / name).read_bytes() for name in OUTPUTS}
    shutil.rmtree(planned.folder)
    return measured | {"bytes": outputs} | ({} if beside is None else {"alone_s": do.alone})


class _Timed:
    """The worker of a plan, and the CPU time of its thread, and that of one member alone."""

    def __init__(self, planned: Any, beside: int | None) -> None:
        (self._ensemble,), self._beside = planned.ensembles, beside
        self._do, self.seconds, self.alone = planned.worker(), 0.0, 0.0

    def __call__(self, work: Work[Any], table: Any) -> Any:
        before = time.thread_time()
        done = self._do(work, table)
        self.seconds += time.thread_time() - before
        if self._beside is not None:
            self._run_alone(table)
        return done

    def _run_alone(self, content: Any) -> None:
        from assay.models.ensemble import inference
        from assay.sources import table

        before = time.thread_time()
        crystals, _ = table.from_table(content, "chunk")
        inference.run(self._ensemble, inference.HostPath(self._ensemble.members), crystals, {self._beside})
        self.alone += time.thread_time() - before
