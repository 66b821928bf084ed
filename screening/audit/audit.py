"""The audit of a campaign folder: everything in it is read again and compared.

Enters: a campaign folder. Leaves: every problem, one line each, and the files that may be deleted.
Nothing is repaired. `assay.screening.audit.contents` checks the files that the log names, and
`assay.screening.audit.outputs` the ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from assay.models.ensemble import zoo
from assay.screening.audit import outputs
from assay.screening.audit.contents import Contents
from assay.screening.campaign import fingerprint, plan
from assay.screening.folder import lock, stamp
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.lock import Verdict
from assay.screening.settings import config
from assay.screening.settings.config import Campaign
from assay.screening.settings.exits import Exit, Failure, explain
from assay.sources import durable

if TYPE_CHECKING:
    from assay.models.ensemble.ensemble import Ensemble

KNOWN = {"config.resolved.yaml", "fingerprint.json", "attempts.log", "LOCK"}
"""Files of a campaign folder that no record names."""
Load = Callable[[Sequence[str]], "list[Ensemble]"]


@dataclass
class Findings:
    """Everything that an audit found."""

    folder: Path
    problems: list[Failure] = field(default_factory=list)
    """Each with its exit code; the message names the file and what to do."""
    notes: list[str] = field(default_factory=list)
    """Comparisons that were not possible, and why."""
    litter: list[str] = field(default_factory=list)
    """Files that the log does not name: harmless, left by a crash or a walk that began again."""
    records: int = 0
    files: int = 0
    crystals: int = 0
    """In chunks."""

    @property
    def code(self) -> Exit:
        """The gravest: 74 damaged, 70 rows lost or doubled, 78 something changed, 0 nothing."""
        found = {problem.code for problem in self.problems}
        return next((code for code in (Exit.DISK, Exit.BALANCE_BROKEN, Exit.CONFIG) if code in found), Exit.DONE)


def check(folder: Path, load: Load = plan.load_ensembles) -> Findings:
    """Read everything in a campaign folder again; `load` gives the ensembles of some folders.

    Raises:
        Failure: CONFIG, when the folder is no campaign folder.
    """
    stamp.expect(folder)
    findings = Findings(folder)
    holder = lock.diagnose(folder)
    busy = holder is not None and holder.verdict is Verdict.ALIVE
    _fingerprint(findings, load)
    contents = Contents(folder)
    contents.read()
    if contents.chained:
        contents.relate()
    else:
        findings.notes.append(
            "the log is damaged: its records were not compared with each other, nor with the outputs, and which files "
            "it does not name cannot be said"
        )
    findings.problems += contents.problems
    findings.records, findings.files, findings.crystals = len(contents.ledger), contents.files, contents.crystals
    if busy:
        findings.notes.append("a campaign is running here: its outputs and stray files were not looked at")
        return findings
    if contents.chained:
        stale = outputs.damaged(contents.results)
        findings.problems += stale
        if contents.balance is not None and not (stale or contents.problems):
            findings.problems += outputs.compare(contents.results, contents.balance, contents.scored)
        findings.litter = list(_litter(contents.ledger))
    return findings


def lines(findings: Findings) -> Iterator[str]:
    """The findings as text."""
    yield from (str(problem) for problem in findings.problems)
    yield from (f"note: {note}" for note in findings.notes)
    yield from (f"litter: {name} is named by no record; it is not read and may be deleted" for name in findings.litter)
    found = f"{findings.records:,} log records, {findings.files:,} files, {findings.crystals:,} crystals in chunks"
    yield f"{count(findings)} in {found}" if findings.problems else f"intact: {found}"


def count(findings: Findings) -> str:
    """The number of problems, in words."""
    return "1 problem" if len(findings.problems) == 1 else f"{len(findings.problems):,} problems"


def _fingerprint(findings: Findings, load: Load) -> None:
    """Compare config and weights as they are now with those that the campaign began with."""
    path = findings.folder / "fingerprint.json"
    campaign = _config(findings)
    try:
        before = stamp.read_fingerprint(findings.folder)
        if campaign is None:
            return
        folders = [*campaign.models, *(tier.model for tier in campaign.tiers())]
        absent = [model for model in folders if not _is_here(model)]
        ensembles = load([model for model in campaign.models if model not in absent])
        tiers = [None if tier.model in absent else load([tier.model])[0] for tier in campaign.tiers()]
        now = fingerprint.take(campaign, ensembles, tiers)
        content = fingerprint.content(campaign)
    except ModuleNotFoundError as error:
        findings.notes.append(f"the fingerprint was not compared: {error}")
        return
    except Exception as error:
        failure = explain(error)
        if failure is None:
            raise
        findings.problems.append(failure)
        return
    for model in absent:
        findings.notes.append(f"model folder {model} is not on this machine: its weights were not compared")
    gone = [name for name in before if name.startswith(stamp.CONTENT) and name not in content]
    if gone:
        findings.notes.append(f"{len(gone)} source files are not here and were not compared, such as {gone[0]}")
    before = {name: value for name, value in before.items() if name not in gone}
    now |= {name: value for name, value in content.items() if name in before or not gone}
    if absent:
        before = {
            key: value for key, value in before.items() if key in now or not key.startswith(("models.", "cascade."))
        }
        before["models"] = now["models"]
    findings.problems += [
        Failure(Exit.CONFIG, f"{path} does not fit what is here now: {change}; restore the old setting or weights")
        for change in stamp.changes(before, now)
    ]


def _is_here(model: str) -> bool:
    """Whether an ensemble is on this machine, by folder or by name."""
    try:
        zoo.find(model)
    except FileNotFoundError:
        return False
    return True


def _config(findings: Findings) -> Campaign | None:
    path = findings.folder / "config.resolved.yaml"
    try:
        return config.load(path)
    except Exception as error:
        failure = explain(error)
        if failure is None:
            raise
        again = "run the campaign again with its own config, which writes this file anew"
        findings.problems.append(Failure(Exit.DISK, f"{path} cannot be read ({failure}); {again}"))
        return None


def _litter(ledger: Ledger) -> Iterator[str]:
    """Files that no record names and that a campaign left there; files of others are not listed."""
    named = {name for _, name in ledger.files()} | KNOWN
    ranked = ledger.find("ranked", "all")
    named |= set(ranked.files) if ranked else set()
    for path in sorted(ledger.folder.rglob("*")):
        place = path.relative_to(ledger.folder)
        record = path.parent == ledger.folder / "log" and path.stem.isdigit() and int(path.stem) < len(ledger)
        if path.is_file() and str(place) not in named and not record and _is_ours(place):
            yield str(place)


def _is_ours(place: Path) -> bool:
    """Whether a campaign may have written a file at that place of its folder."""
    inside = len(place.parts) > 1 and place.parts[0] in stamp.FOLDERS
    content = ".json" if place.parts[0] == "log" else ".parquet"
    return (inside and place.suffix == content) or (
        durable.is_temporary(place.name) and (inside or len(place.parts) == 1)
    )
