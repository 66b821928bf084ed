"""How much does a cascade save, how much does it miss, and does its audit say so?

Enters: a cheap and a full ensemble of one property, and Materials Project crystals whose formulas
neither ensemble has seen. Leaves: tables and one JSON file. The crystals form two sets that share
no formula: the first serves to choose how much to keep, the second to measure that choice. Both
ensembles score each set once, in one process. Then each cut is played through with the functions of
campaigns. The tables show the CPU time beside scoring everything, the true recall of the best k,
and the estimates of the audit over many draws. The cost of a cascade is timed: the full ensemble
scores the survivors and one audit again, in chunks of their own.

    python benchmarks/cascade.py --cheap models/zoo/tc-fast --full models/zoo/tc-graphs

With `--trees` the cost of a tier that reads the composition alone is measured instead: a forest of
so many trees on 3DSC, beside scikit-learn's own prediction by the same trees.

    python benchmarks/cascade.py --trees 100 --crystals 4096

With `--shortlist` the promise of `rank.select` is measured instead: whether the share of false
discoveries stays below the level.

    python benchmarks/cascade.py --shortlist models/zoo/tc --thresholds 10 20 40
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring.shortlist import promises
from measuring.stopwatch import arguments, machine, race, row, say, settle, show, versions, write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from assay.models.ensemble.ensemble import Ensemble
    from assay.sources.crystals import Crystals

ROOT = Path(__file__).resolve().parents[1]
PACK = "mp/mp_labelled_le40.parquet"
LEARNED = ("3dsc_mp/3dsc_mp.parquet", "mp/mp_unlabelled_le40.parquet")
"""Crystals that the bundled ensembles of Tc learned from, in part by predictions of each other."""
FORMULAS = "3dsc_mp/supercon_clean.parquet"
"""Formulas that `tc` learned from."""


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    options = _options(words)
    settle()
    from assay.models.ensemble.ensemble import Ensemble
    from assay.screening.runners import worker

    worker.set_up_process()
    if options.shortlist:
        kept = promises(options.shortlist, options.thresholds, options.order, options.halvings)
        write({"machine": machine(), "versions": versions(), **kept}, options.output)
        return
    if options.trees:
        write(
            {"machine": machine(), "versions": versions("scikit-learn"), **composition_member(options)}, options.output
        )
        return
    ensembles = Ensemble.load(options.cheap), Ensemble.load(options.full)
    about = {name: getattr(options, name) for name in ("k", "audit", "draws", "chunk_size", "order")}
    report = {"machine": machine(), "versions": versions(), **about}
    for name, crystals in zip(
        ("chosen on", "measured on"), held_back(options.data, options.crystals, ensembles), strict=True
    ):
        bench = Bench(crystals, *ensembles, options)
        rows = [bench.play(keep) for keep in options.keep]
        cells = [[key, *(f"{row[key]:.4g}" for row in rows)] for key in rows[0]]
        show(f"{name}: {len(crystals):,} crystals, best {options.k}, audit {options.audit}", cells[0], cells[1:])
        report[name] = {"crystals": len(crystals), **bench.facts, "cuts": rows}
    write(report, options.output)


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__, "cascade.json")
    parser.set_defaults(repeat=1)
    parser.add_argument("--shortlist", type=Path, help="measure the shortlists of this ensemble instead")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[20.0], help="of the shortlists")
    parser.add_argument("--halvings", type=int, default=300, help="of the calibration rows (default: 300)")
    parser.add_argument("--cheap", type=Path, default=ROOT / "models/zoo/tc-fast", help="ensemble of the cheap tier")
    parser.add_argument("--full", type=Path, default=ROOT / "models/zoo/tc-graphs", help="ensemble of the last tier")
    parser.add_argument("--crystals", type=int, default=20_000, help="crystals of each set (default: 20000)")
    parser.add_argument("--trees", type=int, default=0, help="measure a forest of so many trees instead (default: 0)")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.01, 0.015, 0.02, 0.05, 0.1], help="what survives")
    parser.add_argument("--audit", type=int, default=200, help="crystals audited (default: 200)")
    parser.add_argument("--draws", type=int, default=100, help="audits that are drawn and compared (default: 100)")
    parser.add_argument("--k", type=int, default=100, help="how many of the best (default: 100)")
    parser.add_argument("--order", choices=["descending", "ascending"], default="descending", help="which end is best")
    parser.add_argument("--chunk-size", type=int, default=512, help="crystals per chunk (default: 512, Assay's own)")
    return parser.read(words, crystals=4000, draws=20)


def composition_member(options: argparse.Namespace) -> dict[str, Any]:
    """Microseconds per crystal of a forest, of what it reads, and of scikit-learn on the same."""
    import numpy as np
    from sklearn.ensemble import ExtraTreesRegressor

    from assay.featurize import composition
    from assay.models.training import forests
    from assay.sources import datasets, table

    spec = composition.CompositionSpec(("properties", "shares", "families", "charges", "ratios"))
    data = datasets.load(f"{options.data / LEARNED[0]}#tc")
    learned = composition.features(data.crystals.composition(), spec)
    learned[np.isnan(learned)] = 0.0  # scikit-learn shall read no gaps
    shape = {"trees": options.trees, "max_features": 0.3}
    ours = forests.fit(learned, {"tc": data.target.astype("float32")}, data.weight, shape, 0).heads.heads["tc"]
    theirs = ExtraTreesRegressor(options.trees, max_features=0.3, random_state=0, n_jobs=1)
    theirs.fit(learned, data.target, sample_weight=data.weight)
    crystals, _ = table.from_table(table.read(options.data / PACK).slice(0, options.crystals), "mp")
    size = options.chunk_size
    atoms = [crystals[at : at + size].composition() for at in range(0, len(crystals), size)]
    rows = [composition.features(part, spec) for part in atoms]
    for part in rows:
        part[np.isnan(part)] = 0.0
    forest = ours.grown()
    contestants = {
        "features": lambda: [composition.features(part, spec) for part in atoms],
        **{
            f"forest, {how}": lambda how=how: [forest.predict(part, how) for part in rows]
            for how in ("median", "interquartile-mean", "mean")
        },
        "scikit-learn, mean": lambda: [theirs.predict(part) for part in rows],
    }
    rates = race(contestants, len(crystals), options.repeat)
    title = f"a forest of {options.trees} trees on {len(learned):,} crystals, {len(crystals):,} crystals read"
    show(title, ["", "µs per crystal", "crystals per s"], [row(name, rate) for name, rate in rates.items()])
    packed = ("kind", "feature", "large", "threshold", "exact", "entry")
    stored = sum(tensor.numel() * tensor.element_size() for name, tensor in ours.named_buffers() if name in packed)
    say(f"{stored / options.trees / 1000:.1f} kB per tree")
    return {"rates": rates, "bytes_per_tree": stored / options.trees}


def held_back(data: Path, n: int, ensembles: Sequence[Ensemble]) -> tuple[Crystals, Crystals]:
    """Two sets of at most `n` crystals that share no formula.

    Neither their formulas nor their ids are in the data that an ensemble learned from.
    """
    import numpy as np

    from assay.sources import datasets, table

    named = {task["data"]["path"] for ensemble in ensembles for task in ensemble.facts.get("tasks", {}).values()}
    if PACK in named:
        raise SystemExit(f"one of the ensembles learned from {PACK}: nothing is held back there")
    learned = [table.read(data / path) for path in sorted({*LEARNED, *named}) if (data / path).exists()]
    formulas = {text for pack in learned for text in table.from_table(pack, "learned")[0].formulas().tolist()}
    formulas |= {*datasets.load_formulas(f"{data / FORMULAS}#tc").keys["formula"].tolist()}
    parents = {name for pack in learned if "mp_id" in pack.column_names for name in pack["mp_id"].to_pylist()}
    crystals, _ = table.from_table(table.read(data / PACK), "mp")
    pairs = zip(crystals.ids.tolist(), crystals.formulas().tolist(), strict=True)
    new = crystals.select(np.array([name not in parents and formula not in formulas for name, formula in pairs]))
    say(f"{len(new):,} of {len(crystals):,} crystals are of a formula that was not learned from")
    side = np.unique(new.formulas(), return_inverse=True)[1] % 2
    first, second = (np.flatnonzero(side == k) for k in (0, 1))
    return _spread(new.select(first), n), _spread(new.select(second), n)


def _spread(crystals: Crystals, n: int) -> Crystals:
    import numpy as np

    return crystals.select(np.linspace(0, len(crystals) - 1, min(n, len(crystals))).astype(np.int64))


class Bench:
    """Crystals that both ensembles have scored."""

    def __init__(self, crystals: Crystals, cheap: Ensemble, full: Ensemble, options: argparse.Namespace) -> None:
        import numpy as np

        from assay.screening.campaign import plan
        from assay.screening.ranking import rules
        from assay.screening.settings.choice import Rank

        self._crystals, self._full, self._options = crystals, full, options
        self._settings = Rank(order=options.order)
        target = plan.find_target([full], self._settings)
        cheap_s, low = self._scored(cheap, plan.as_target(cheap, target.name))
        self._full_s, high = self._scored(full, target)
        self._rule = rules.make(self._settings, target)  # by the mean
        self._cheap_s = cheap_s
        self._place = {str(name): row for row, name in enumerate(crystals.ids)}
        self._ids = np.array(sorted(low.keys() & high.keys()), dtype=np.str_)  # those that neither refused
        self._std, self._low = np.array([low[name] for name in self._ids.tolist()]).T
        self._high = np.array([high[name][1] for name in self._ids.tolist()])
        self.facts = {
            "property": target.name,
            "unit": target.unit,
            "cheap": _about(cheap, cheap_s, len(crystals)),
            "full": _about(full, self._full_s, len(crystals)),
            "scored by both": len(self._ids),
        }

    def _scored(self, ensemble: Ensemble, target: Any) -> tuple[float, dict[str, tuple[float, float]]]:
        """CPU seconds for all crystals, and (std, score) by id."""
        import pyarrow as pa

        from assay.screening.ranking import rank, rules

        spent, part = self._timed(ensemble, self._crystals)
        say(f"{ensemble.name}: {spent:.0f} CPU seconds for {len(self._crystals):,} crystals")
        found = rank.measure(pa.concat_tables(part), rules.make(self._settings, target))
        pairs = zip(found.std.tolist(), found.scores.tolist(), strict=True)
        return spent, dict(zip(found.ids.tolist(), pairs, strict=True))

    def _timed(self, ensemble: Ensemble, crystals: Crystals) -> tuple[float, list[Any]]:
        """The least CPU seconds of some rounds, and the parts."""
        from assay.screening.runners import worker

        size, best, parts = self._options.chunk_size, float("inf"), []
        worker.score(crystals[:32], [ensemble])  # compiled, and its memory in place
        for _ in range(self._options.repeat):
            start = time.process_time()
            parts = [worker.score(crystals[at : at + size], [ensemble]).table for at in range(0, len(crystals), size)]
            best = min(best, time.process_time() - start)
        return best, parts

    def play(self, keep: float) -> dict[str, float]:
        """One cut: its cost, its recall, and the estimates of its audits, averaged over draws."""
        import numpy as np
        import pyarrow as pa

        from assay.screening.ranking import cascade, rank

        n = len(self._ids)
        ids, nothing = pa.array(self._ids), ({}, {})
        cheap = rank.Measured(ids, self._low, self._std, self._low, *nothing)
        full = rank.Measured(ids, self._high, np.zeros(n), self._high, *nothing)
        kept = cascade.survivors(cheap, self._rule, cascade.quota(keep, n))
        best = rank.best_first(full, self._rule)[: self._options.k]
        draws = [self._draw(kept, best, seed) for seed in range(self._options.draws)]
        mean = {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]}
        spread = float(np.std([draw["estimated"] - draw["recall"] for draw in draws]))
        audit = cascade.drawn(self._ids[~kept], self._options.audit, 0)
        rows = sorted(self._place[name] for name in [*self._ids[kept].tolist(), *audit.tolist()])
        again, _ = self._timed(self._full, self._crystals.select(rows))
        spent = self._cheap_s + again
        cost = {
            "full_s": again,
            "cascade_s": spent,
            "exhaustive_s": self._full_s,
            "times cheaper": self._full_s / spent,
        }
        return {"keep": keep, "survivors": float(kept.sum()), **cost, **mean, "error of estimate": spread}

    def _draw(self, kept: NDArray[np.bool_], best: NDArray[np.int64], seed: int) -> dict[str, float]:
        """True recall and estimates with one audit."""
        import numpy as np

        from assay.screening.ranking import cascade, recall

        sign = -1.0 if self._rule.lowest_first else 1.0
        audit = np.isin(self._ids, cascade.drawn(self._ids[~kept], self._options.audit, seed))
        aside, low, high = ~(kept | audit), sign * self._low, sign * self._high
        found = recall.estimate(recall.Sample(high[kept], low[audit], high[audit], low[aside]), self._options.k)
        assert found is not None
        true = float((kept | audit)[best].mean())
        estimates = {"estimated": found.expected, "missed": found.missed, "counted": found.counted}
        bound = {"at least": found.at_least, "at best": found.at_best, "bound holds": float(found.at_least <= true)}
        return {"recall by survivors": float(kept[best].mean()), "recall": true, **estimates, **bound}


def _about(ensemble: Ensemble, seconds: float, n: int) -> dict[str, Any]:
    names = [member.name for member in ensemble.members]
    return {"name": ensemble.name, "members": names, "cpu_s": seconds, "us_per_crystal": 1e6 * seconds / n}


if __name__ == "__main__":
    main()
