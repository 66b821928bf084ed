"""The status of a campaign, read from its folder alone.

Enters: a campaign folder; another process may be writing to it, and it may be half finished or
damaged. Leaves: one JSON object, or the same as text. Nothing is written and no lock is taken. The
tables that the log names are not opened (`assay.screening.audit.audit` does that).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assay.screening.folder import attempts, balance, lock, snapshot, stamp
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.folder.lock import Verdict
from assay.screening.folder.results import STALE, Results
from assay.screening.folder.snapshot import Chunk
from assay.screening.ranking import bounds
from assay.screening.settings import config
from assay.screening.settings.config import Campaign
from assay.screening.settings.exits import Failure, explain


def read(folder: Path) -> dict[str, Any]:
    """The status of the campaign in a folder.

    Keys: folder, campaign, state (planned, pulling, relaxing, scoring, ranked, incomplete, running
    or stopped), phase (the state without running and stopped), holder, records, sources, identity,
    relaxation (None where nothing is relaxed), chunks, tiers (chunks by tier of a cascade),
    balance, excluded (reason -> crystals that filters on predictions excluded; None
    without such filters), outputs, suspects, notes.

    Raises:
        Failure: CONFIG, when it is no campaign folder; DISK, when the log is damaged.
    """
    stamp.expect(folder)
    notes: list[str] = []
    campaign = _campaign(folder, notes)
    holder = lock.diagnose(folder)  # before the log: a holder that ends in between has committed everything
    ledger = Ledger(folder)
    sources = [_source(ledger, name) for name in _names(ledger, campaign)]
    outputs = current_outputs(Results(folder, ledger))
    relaxation = _relaxation(ledger, campaign)
    phase = _phase(ledger, sources, relaxation, outputs)
    running = holder is not None and holder.verdict in {Verdict.ALIVE, Verdict.UNREADABLE}
    waiting = phase in {"pulling", "relaxing", "scoring"}
    return {
        "folder": str(folder),
        "campaign": campaign.name if campaign else None,
        "state": "running" if running else "stopped" if waiting else phase,
        "phase": phase,
        "holder": None if holder is None else {**vars(holder), "verdict": holder.verdict.value},
        "records": len(ledger),
        "sources": sources,
        "identity": _identity(ledger) if campaign is None or campaign.merges() else None,
        "relaxation": relaxation,
        "chunks": _progress(ledger, snapshot.chunks(ledger)),
        "tiers": _tiers(ledger, campaign),
        "balance": _balance(ledger, notes),
        "filtered": snapshot.filtered(ledger),
        "excluded": _excluded(ledger),
        "outputs": outputs,
        "suspects": _suspects(folder),
        "notes": notes,
    }


def current_outputs(results: Results) -> str:
    """`none`, `current` when the outputs fit the ledger as it stands, or their defect."""
    if not results.ranked:
        return "none"
    if results.stale:
        return STALE
    wrong = results.wrong()
    return f"not what the log says: {', '.join(wrong)}" if wrong else "current"


def _campaign(folder: Path, notes: list[str]) -> Campaign | None:
    path = folder / "config.resolved.yaml"
    try:
        return config.load(path)
    except Exception as error:
        failure = explain(error)
        if failure is None:
            raise
        notes.append(f"the config cannot be read ({failure}); the sources are those that the log names")
        return None


def _names(ledger: Ledger, campaign: Campaign | None) -> list[str]:
    return list(campaign.named_sources()) if campaign else [record.key for record in ledger.all("plan")]


def _phase(ledger: Ledger, sources: list[dict[str, Any]], relaxation: dict[str, int] | None, outputs: str) -> str:
    if outputs == "current":
        return "ranked" if all(source["complete"] for source in sources) else "incomplete"
    if not ledger.all("plan"):
        return "planned"
    if any(source["complete"] is None for source in sources):
        return "pulling"
    return "relaxing" if relaxation and relaxation["done"] < relaxation["total"] else "scoring"


def _source(ledger: Ledger, name: str) -> dict[str, Any]:
    """The progress of one source; `complete` is None until its last row came."""
    plan, done = ledger.find("plan", name), ledger.find("source", name)
    finished = snapshot.finished(ledger, name)
    pages = [page for shard in range(finished + 1) for page in snapshot.pages(ledger, name, shard)]
    return {
        "name": name,
        "shards": finished,
        "shards_total": _total(plan, done),
        "pages": len(pages),
        "received": sum(page.counts["received"] for page in pages),
        "expected": _expected(plan, done),
        "complete": None if done is None else bool(done.detail["complete"]),
        "missing": "" if done is None else done.detail["error"],
    }


def _total(plan: Record | None, done: Record | None) -> int | None:
    if done is not None and not (done.detail.get("down") and plan):
        return done.counts["shards"]
    return (plan and len(plan.detail["shards"])) or None  # files and prototypes show their shards as they are read


def _expected(plan: Record | None, done: Record | None) -> int | None:
    if done is not None:
        return done.detail["expected"]  # type: ignore[no-any-return]
    announced = [shard["expected"] for shard in plan.detail["shards"]] if plan else []
    return sum(announced) if announced and None not in announced else None


def _identity(ledger: Ledger) -> dict[str, Any]:
    done, matches = ledger.find("identity", "all"), ledger.all("matches")
    related = sum(record.counts["related"] for record in matches)
    return {
        "fingerprints": snapshot.fingerprinted(ledger),
        "compared": len(matches),
        "pairs": sum(record.counts["rows"] for record in matches) - related,
        "related": related,
        "rows": done and done.counts["rows"],
        "clusters": done and done.counts["clusters"],
    }


def _relaxation(ledger: Ledger, campaign: Campaign | None) -> dict[str, int] | None:
    """Chunks that were relaxed, and what became of their crystals; None where nothing is."""
    done = ledger.all("relaxed")
    if not (done or (campaign and campaign.relax)):
        return None
    counts = {name: sum(record.counts[name] for record in done) for name in ("relaxed", "quarantined")}
    return {"done": len(done), "total": len(snapshot.chunks_of(ledger, 0)), **counts}


def _tiers(ledger: Ledger, campaign: Campaign | None) -> list[dict[str, int]] | None:
    """The progress of every tier of a cascade; None without a cascade."""
    tiers = max(snapshot.tiers(ledger), 1 + len(campaign.tiers() if campaign else []))
    return None if tiers == 1 else [_progress(ledger, snapshot.chunks_of(ledger, tier)) for tier in range(tiers)]


def _progress(ledger: Ledger, chunks: list[Chunk]) -> dict[str, int]:
    scored = [chunk for chunk in chunks if ledger.find("part", chunk.name)]
    return {
        "scored": len(scored),
        "total": len(chunks),
        "crystals_scored": sum(chunk.rows for chunk in scored),
        "crystals": sum(chunk.rows for chunk in chunks),
    }


def _balance(ledger: Ledger, notes: list[str]) -> dict[str, int] | None:
    ranked = ledger.find("ranked", "all")
    try:
        if ranked is None:
            return balance.take(ledger).counts()
        return balance.take(ledger, **ranked.counts).counts()
    except Failure as failure:
        notes.append(str(failure))
        return None


def _excluded(ledger: Ledger) -> dict[str, int] | None:
    ranked = ledger.find("ranked", "all")
    found = ranked.detail.get("excluded") if ranked else None
    return None if found is None else dict(bounds.by_number(found))


def _suspects(folder: Path) -> dict[str, int]:
    """Work that was begun several times and never finished: it may kill its process."""
    path = folder / "attempts.log"
    begun = attempts.replay(path.read_bytes()) if path.is_file() else {}
    return {key: times for key, times in sorted(begun.items()) if times >= attempts.SUSPECT}


def lines(status: dict[str, Any]) -> Iterator[str]:
    """The status as text, for people."""
    yield f"{status['state']:<11}{_state_line(status)}"
    yield f"{'campaign':<11}{status['campaign'] or 'unknown'} in {status['folder']}, {status['records']:,} log records"
    for source in status["sources"]:
        yield f"{'source':<11}{source['name']}: {_source_line(source)}"
    if status["identity"] is not None:
        yield f"{'identity':<11}{_identity_line(status['identity'])}"
    if status["relaxation"] is not None:
        chunks = status["relaxation"]
        became = f"{chunks['relaxed']:,} crystals relaxed, {chunks['quarantined']:,} quarantined"
        yield f"{'relaxation':<11}{chunks['done']:,} of {chunks['total']:,} chunks, {became}"
    for number, chunks in enumerate(status["tiers"] or [status["chunks"]]):
        name = f"tier {number}" if status["tiers"] else "chunks"
        done = f"{chunks['scored']:,} of {chunks['total']:,} {'chunks ' * (name != 'chunks')}scored"
        yield f"{name:<11}{done}, {chunks['crystals_scored']:,} of {chunks['crystals']:,} crystals"
    if status["balance"] is not None:
        yield from _balance_lines(status["balance"], ranked=status["outputs"] != "none")
    for key, rows in status["filtered"].items():
        yield f"{'filtered':<11}{rows:,}: {key}"
    for reason, rows in (status["excluded"] or {}).items():
        yield f"{'excluded':<11}{rows:,}: {reason}"
    yield f"{'outputs':<11}{status['outputs']}"
    for key, times in status["suspects"].items():
        yield f"{'suspect':<11}{key}: begun {times} times and never finished"
    for note in status["notes"]:
        yield f"{'note':<11}{note}"


def _state_line(status: dict[str, Any]) -> str:
    holder = status["holder"]
    who = "" if holder is None else lock.Holder(**{**holder, "verdict": Verdict(holder["verdict"])}).describe()
    if status["state"] == "running":
        return f"{status['phase']}, by {who}"
    left = f"; its LOCK is left over from {who}, the next run takes it over" if who else ""
    phases = {
        "planned": "nothing was pulled yet",
        "pulling": "while pulling; the same assay run goes on",
        "relaxing": "while relaxing; the same assay run goes on",
        "scoring": "while scoring; the same assay run goes on",
        "ranked": "everything is scored and ranked",
        "incomplete": "everything that was delivered is scored and ranked",
    }
    return phases[status["phase"]] + left


def _source_line(source: dict[str, Any]) -> str:
    total = "" if source["shards_total"] is None else f" of {source['shards_total']:,}"
    expected = "" if source["expected"] is None else f" of {source['expected']:,} expected"
    ends = {None: "not finished", True: "complete", False: f"incomplete: {source['missing']}"}
    pulled = f"{source['shards']:,}{total} shards, {source['pages']:,} pages, {source['received']:,}{expected} rows"
    return f"{pulled}, {ends[source['complete']]}"


def _identity_line(identity: dict[str, Any]) -> str:
    text = f"{identity['fingerprints']:,} fingerprints, {identity['compared']:,} comparisons"
    text += f", {identity['pairs']:,} equal pairs, {identity['related']:,} related"
    if identity["rows"] is None:
        return text
    return f"{text}, {identity['clusters']:,} different crystals among {identity['rows']:,}"


def _balance_lines(counted: dict[str, int], *, ranked: bool) -> Iterator[str]:
    """The balance as equations."""
    n = {name: f"{count:,} {name}" for name, count in counted.items()}
    yield f"{'rows':<11}{n['received']} = {n['unique']} + {n['duplicate']}"
    yield f"{'':<11}{n['unique']} = {n['scored']} + {n['quarantined']} + {n['filtered']} + {n['pending']}"
    if ranked:
        excluded = f" + {n['excluded']}" if "excluded" in n else ""
        yield f"{'':<11}{n['scored']} = {n['ranked']} + {n['unrankable']}{excluded}"
