"""The preview of a campaign, for --dry-run.

Enters: a `Plan`. Leaves: lines of text about its sources, its ensembles and its ranking. Nothing is
pulled, scored or written.
"""

from __future__ import annotations

from assay.screening.campaign.plan import Plan
from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger
from assay.screening.pulling.source import Source, named
from assay.screening.ranking import bounds
from assay.screening.settings.exits import one_line


def lines(plan: Plan) -> list[str]:
    """Steps that a run would take; the servers are asked for their counts, nothing is pulled."""
    ledger = Ledger(plan.folder)
    shown = [f"campaign {plan.campaign.name} in {plan.folder}"]
    for name, source in named(plan.campaign).items():
        done = ledger.find("source", name)
        if done is not None and not done.detail["down"]:
            shown.append(
                f"source {name}: pulled already, {done.counts['received']:,} rows in {done.counts['pages']} pages"
            )
        else:
            before = [] if done is None else [f"was down after {done.counts['received']:,} rows, and is asked again"]
            shown += [f"source {name}: {line}" for line in [*before, *_described(source)]]
    return shown + _scoring(plan, ledger)


def _described(source: Source) -> list[str]:
    """What is known of a source; one that may be skipped may be down."""
    try:
        return source.describe()
    except ConnectionError as error:
        if not source.skippable:
            raise
        return [f"down, and skipped as when_down says: {one_line(error)}"]


def _relaxing(plan: Plan, ledger: Ledger) -> list[str]:
    """How crystals are relaxed before they are scored; nothing where they are not."""
    how, field = plan.campaign.relax, plan.potential
    if how is None or field is None:
        return []
    ends = f"at most {how.fmax:g} eV/Å" + (f" and {how.smax:g} GPa" if how.cell else ", the cell stays") + " left"
    done = len(ledger.all("relaxed"))
    known = f"{done:,} chunks relaxed already" if done else "before anything is scored"
    return [f"relax with {field.name} ({field.scale}): {ends}, {how.steps:,} steps at most; {known}"]


def _scoring(plan: Plan, ledger: Ledger) -> list[str]:
    size, cascade = plan.campaign.chunk_size, plan.campaign.cascade
    chunks = snapshot.chunks(ledger)
    scored = sum(1 for chunk in chunks if ledger.find("part", chunk.name))
    known = f"{len(chunks)} chunks, {scored} scored already" if chunks else "chunks are known after the pull"
    lines = _relaxing(plan, ledger)
    if cascade is not None:
        for number, tier in enumerate(cascade.tiers):
            keep = f"{100 * tier.keep:g} %" if isinstance(tier.keep, float) else f"{tier.keep:,} crystals"
            lines.append(f"tier {number}: score with {plan.tiers[number].name}, the best {keep} go on")
        lines.append(f"audit: {cascade.audit:,} of the others, drawn at random, go on too")
    names = ", ".join(ensemble.name for ensemble in plan.ensembles)
    lines.append(f"score with {names}: {known} (chunk_size {size})")
    if plan.stability is not None:
        lines.append(f"stability: {plan.stability.energy.name} beside the hull of {plan.stability.settings.hull}")
    lines += [f"keep {bounds.sentence(bound)}, others are excluded from the ranking" for bound in plan.bounds]
    lines.append(f"rank by {plan.rule.sentence()}")
    return lines
