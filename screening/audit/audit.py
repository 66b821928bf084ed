"""The audit of a campaign folder: everything in it is read again and compared.

Enters: a campaign folder. Leaves: every problem, one line each, the files that may be deleted, and
those that no campaign made. Nothing is repaired. `assay.screening.audit.contents` checks the files
that the log names, and `assay.screening.audit.outputs` the ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from assay.models.ensemble import zoo
from assay.screening.audit import outputs, shortlist
from assay.screening.audit.contents import Contents
from assay.screening.campaign import fingerprint, plan
from assay.screening.folder import balance, inventory, lock, snapshot, stamp
from assay.screening.folder.ledger import Ledger, damaged
from assay.screening.folder.lock import Verdict
from assay.screening.folder.results import Results
from assay.screening.settings import config
from assay.screening.settings.config import Campaign
from assay.screening.settings.exits import Exit, Failure, explain

if TYPE_CHECKING:
    from assay.models.ensemble.ensemble import Ensemble
    from assay.models.potentials.potential import Potential

KNOWN = {"config.resolved.yaml", "fingerprint.json", "attempts.log", "LOCK"}
"""Files of a campaign folder that no record names."""
SHOWN = 20
"""Foreign files that are listed."""
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
    foreign: list[str] = field(default_factory=list)
    """Files and folders that a campaign does not make; Assay leaves them alone."""
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
            _shortlist(findings, contents.results, contents.balance.scored, load)
        _stray(findings, contents.ledger)
    return findings


def quick(folder: Path) -> Findings:
    """Compare every file with the digest that the log has of it, and the counts with each other.

    No table is decoded and no model is loaded: this finds damage, and `check` also finds what was
    never written as it should be.

    Raises:
        Failure: CONFIG, when the folder is no campaign folder.
    """
    stamp.expect(folder)
    findings = Findings(folder)
    ledger = Ledger(folder, findings.problems.append)
    chained = not findings.problems
    for record, name in ledger.files():
        findings.files += 1
        if wrong := ledger.wrong(name, record.files[name]):
            findings.problems.append(damaged(folder / name, wrong))
    findings.records, findings.crystals = len(ledger), sum(chunk.rows for chunk in snapshot.chunks(ledger))
    if chained:
        findings.problems += outputs.damaged(Results(folder, ledger))
        ranked = ledger.find("ranked", "all")
        try:
            balance.take(ledger, **(ranked.counts if ranked else {}))
        except Failure as failure:
            findings.problems.append(failure)
    return findings


def lines(findings: Findings) -> Iterator[str]:
    """The findings as text."""
    yield from (str(problem) for problem in findings.problems)
    yield from (f"note: {note}" for note in findings.notes)
    for name in findings.litter:
        yield f"litter: {name} was left by a crash or by a walk that began again; it is not read and may be deleted"
    for name in findings.foreign[:SHOWN]:
        yield f"foreign: {name} is no file of this campaign; Assay neither reads nor deletes it"
    if len(findings.foreign) > SHOWN:
        yield f"foreign: {len(findings.foreign) - SHOWN:,} more files that are not of this campaign"
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
        ensembles = _present(campaign.models, before, load)
        tiers = [None if tier.model in absent else load([tier.model])[0] for tier in campaign.tiers()]
        potential = _potential(findings, campaign)
        now = fingerprint.take(campaign, ensembles, tiers, potential)
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
    tables = {"stability.sha256": f"the hull, {now.get('stability.hull')},", "stability.references": "the elements"}
    for key, what in tables.items():
        if "stability.hull" in now and key in before and key not in now:
            now[key] = before[key]
            findings.notes.append(f"the table of {what} is not here and was not compared")
    before = _comparable(before, now, absent=bool(absent), potential=potential is not None)
    findings.problems += [
        Failure(Exit.CONFIG, f"{path} does not fit what is here now: {change}; restore the old setting or weights")
        for change in stamp.changes(before, now)
    ]


def _shortlist(findings: Findings, results: Results, scored: int, load: Load) -> None:
    """Compare the shortlist, where there is one, with that of the ensemble that ranks."""
    if not results.ranked or results.summary.selection is None or findings.problems:
        return
    try:
        models = config.load(findings.folder / "config.resolved.yaml").models
        ensembles = _present(models, stamp.read_fingerprint(findings.folder), load)
        wrong = [*shortlist.wrong(results, ensembles, scored)]
    except Failure as failure:
        findings.notes.append(f"the shortlist was not made again: {failure}")
        return
    findings.problems += [
        Failure(Exit.BALANCE_BROKEN, f"{findings.folder / name} {what}; do not use it, and report this as a defect")
        for name, what in wrong
    ]


def _comparable(before: dict[str, str], now: dict[str, str], *, absent: bool, potential: bool) -> dict[str, str]:
    """What a fingerprint said, without models and a force field that are not on this machine."""
    if not potential:
        before = {key: value for key, value in before.items() if key != "relax.potential"}
    if absent:
        kept = {
            key: value for key, value in before.items() if key in now or not key.startswith(("models.", "cascade."))
        }
        before = kept | {"models": now["models"]}
    return before


def _potential(findings: Findings, campaign: Campaign) -> Potential | None:
    """The force field that relaxes; None, with a note, where it cannot be loaded."""
    try:
        return plan.load_potential(campaign)
    except Failure as failure:
        findings.notes.append(f"{failure}: its version was not compared")
        return None


def _present(models: Sequence[str], before: dict[str, str], load: Load) -> list[Ensemble]:
    """The ensembles that are here, with the names that they had beside those that are not."""
    here = [_is_here(model) for model in models]
    loaded, names = load([*compress(models, here)]), before.get("models", "").split(",")
    if all(here) or len(names) != len(models):
        return loaded
    return [replace(one, name=name) for one, name in zip(loaded, compress(names, here), strict=True)]


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


def _stray(findings: Findings, ledger: Ledger) -> None:
    """Sort the files that no record names: those of a crash, and those of others."""
    named = {name for _, name in ledger.files()} | KNOWN
    ranked = ledger.find("ranked", "all")
    named |= set(ranked.files) if ranked else set()
    for file in inventory.files(findings.folder):
        record = file.parent.name == "log" and file.stem.isdigit() and int(file.stem) < len(ledger)
        if str(file) in named or (record and inventory.is_ours(file)):
            continue
        ours = inventory.is_ours(file) or inventory.is_unfinished(file) or inventory.is_lock(file)
        (findings.litter if ours else findings.foreign).append(str(file))
    others = [entry for entry in findings.folder.iterdir() if entry.is_symlink() or not entry.is_file()]
    findings.foreign += sorted(
        f"{entry.name}{'/' * entry.is_dir()}" for entry in others if entry.name not in stamp.FOLDERS
    )
