"""The summary of a ranked campaign: the content of `summary.json`.

Enters: the text of a `summary.json`, or the numbers that a ranking found. Leaves: a `Summary`, or
its text. It does not know how the numbers are found, nor where the file lies.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from assay.screening.folder.balance import Balance
from assay.screening.folder.delivery import Delivery
from assay.screening.settings import config, names
from assay.screening.settings.choice import Rank
from assay.sources import durable


@dataclass(frozen=True)
class Target:
    """The predicted property that ranks."""

    model: str
    """Name of the ensemble, or of the force field."""
    name: str
    unit: str
    level: float = 0.9
    """Nominal coverage of the interval `_lo` to `_hi`."""
    calibrated: bool = False
    """True when `_std` estimates the error, False when it is the spread of the members
    (`assay.models.ensemble.calibration`)."""
    distribution: bool = False
    """True when quantiles of its predictive distribution are predicted too
    (`assay.models.ensemble.distribution`)."""
    derived_from: str = ""
    """The predicted property that it follows from, and errs with; "" where it is predicted."""


@dataclass(frozen=True)
class Bound:
    """A filter on a prediction: the range in which a ranked crystal lies."""

    target: Target
    """The predicted property."""
    min: float | None
    """In the unit of the property; None: no lower end."""
    max: float | None
    confidence: float | None
    """Probability with which the value lies there; None: the predicted value does."""


@dataclass(frozen=True)
class Property:
    """One property that an ensemble predicts."""

    name: str
    unit: str


@dataclass(frozen=True)
class Model:
    """One ensemble that scored."""

    name: str
    members: list[str]
    sha256: list[str]
    """Digest of the weights, by member."""
    properties: list[Property]
    elements: int
    """Elements that its training crystals held."""
    reference: int
    """Training crystals that `ood_distance` is measured from; 0 when it is not predicted."""
    facts: dict[str, Any]
    """The ensemble's own description: data, split, errors on held-out crystals."""


@dataclass(frozen=True)
class Merged:
    """The search for the same crystal in several rows."""

    rows: int
    """Rows that were compared."""
    clusters: int
    """Different crystals among them."""
    related: int
    """Pairs of them that are related: alike, and not the same."""


@dataclass(frozen=True)
class Recall:
    """How much of the top k of an exhaustive screening a cascade found."""

    k: int
    survivors: int
    audited: int
    aside: int
    """Crystals set aside, the audited ones among them."""
    beating: int
    """Audited crystals that reach the k-th best survivor."""
    counted: float
    """Estimate of the recall from the count alone."""
    at_least: float
    """Lower bound of the recall from the count alone, at 95 % confidence."""
    at_best: float
    """The same bound if no audited crystal had beaten any survivor: an audit of this size cannot
    show more."""
    missed: float
    """Expected number of crystals, set aside and not audited, that beat the k-th best survivor;
    from the errors."""
    expected: float
    """Estimate of the recall from the errors."""
    rests_on: float
    """Effective number of audited crystals that `missed` comes from; below about 10 it may be far
    off."""


@dataclass(frozen=True)
class Tier:
    """A cheap tier of a cascade."""

    model: str
    keep: int | float
    """As in the config: a fraction of the crystals that entered, or a number of crystals."""
    level: float
    """Nominal coverage of its interval."""
    calibrated: bool
    distribution: bool
    entered: int
    scored: int
    survivors: int
    unjudged: int
    """Survivors whose score is not finite."""


@dataclass(frozen=True)
class Cascade:
    """A cascade: each cheap tier, and how much the audit says was missed."""

    tiers: list[Tier]
    """Cheapest first."""
    entered: int
    """Crystals in the last tier."""
    scored: int
    """Crystals that the last tier scored."""
    audit: int
    """Crystals drawn at random from those set aside, and scored in full."""
    aside: int
    """Crystals set aside, the drawn ones among them."""
    recall: Recall | None
    """None until an audit is scored."""
    models: list[Model]
    """The ensembles of the cheap tiers."""


@dataclass(frozen=True)
class Tie:
    """Ranked rows that share a score."""

    score: float
    first: int
    """Rank of the first of them."""
    rows: int
    of: int
    """Rows whose scores can be compared: all that the last tier scored."""
    rule: str
    """Ranking rule that would separate them; "" where none would."""


@dataclass(frozen=True)
class Swap:
    """A crystal among the best k rows and one behind them, which may take its place."""

    above: str
    """Id of the one that is among them."""
    below: str
    """Id of the one that is not."""
    ranks: tuple[int, int]
    formulas: tuple[str, str]
    share: float
    """Share of the trials in which the second is among the best k, and the first is not."""


@dataclass(frozen=True)
class Certainty:
    """How sure the order is, with true values drawn by the calibrated errors."""

    k: int
    trials: int
    """True values that were drawn of each crystal."""
    stay: float
    """Expected number of the first k rows that are among the best k."""
    swaps: list[Swap]
    """The pairs that change places most often, those first."""


@dataclass(frozen=True)
class Fronts:
    """The candidates of several objectives, by domination."""

    count: int
    """Fronts in all."""
    first: int
    """Crystals on the first of them."""
    expected: float
    """Crystals on the first front of the true values of a trial, on average."""
    trials: int
    reference: list[float]
    """Reference point of the hypervolume, by objective, in its unit."""


@dataclass(frozen=True)
class Relaxation:
    """The crystals that were relaxed before they were scored."""

    potential: str
    """Name of the force field."""
    version: str
    """What computes it."""
    scale: str
    """Of its energies: functional and reference."""
    relaxed: int
    refused: dict[str, int]
    """Reason -> crystals that did not relax."""


@dataclass(frozen=True)
class Stability:
    """The crystals beside the convex hull of known phases."""

    settings: config.Stability
    """The `stability` section of the config."""
    functional: str
    """Functional, corrections and element references of all energies."""
    model: str
    """Name of the ensemble or the force field that gives the formation energy."""
    phases: int
    """Reference phases that were given."""
    refused: int
    """Those among them that have no finite energy, or are no sound crystal."""
    judged: int
    """Crystals whose formation energy was compared with the hull."""
    unknown: int
    """Those among them that hold an element of which no phase is known: they have no hull."""
    near: int
    """Those among them that lie at most `threshold` above the hull, by the predicted value."""


@dataclass(frozen=True)
class Excluded:
    """The scored crystals that filters on predictions excluded from the ranking."""

    bounds: list[Bound]
    """The filters, in the order of the config."""
    reasons: dict[str, int]
    """Reason -> crystals; each counts once, for the first filter that it does not pass."""


@dataclass(frozen=True)
class Selection:
    """A shortlist with a bound on the share of false discoveries (`rank.select`)."""

    tests: int
    """Crystals that were tested: all that were scored."""
    rows: int
    """Calibration rows that they were compared with."""
    missed: int
    """Rows among them whose known value misses the threshold."""
    by: str
    """What makes a group of crystals that err together: `element-set`, `formula` or `row`."""
    out_of_fold: bool
    """Whether they were predicted by members that learned from other rows."""
    share: float | None
    """Expected share of false discoveries at most, by these rows; None where nothing is
    selected."""
    selected: int
    ood: int
    """Selected crystals with an element that no training crystal held."""
    far: int
    """These, and selected crystals with an `ood_distance` above 1."""
    known: int
    """Selected crystals of a composition that the ensembles learned from."""


@dataclass(frozen=True)
class Summary:
    """A ranked campaign in numbers."""

    campaign: str
    """Its name."""
    complete: bool
    """Whether every source sent everything it announced."""
    balance: Balance
    identity: Merged | None
    """None when rows were not compared."""
    quarantine: dict[str, int]
    """Reason -> quarantined rows."""
    sources: list[Delivery]
    models: list[Model]
    rank: Rank
    """The `rank` section of the config."""
    target: Target
    max_bad: float
    """Largest accepted fraction of quarantined crystals."""
    fingerprint: dict[str, str]
    """Everything that changes a number."""
    sha256: dict[str, str]
    """Table -> digest of its file."""
    cascade: Cascade | None = None
    ties: list[Tie] = field(default_factory=list)
    """The tie at the top, and the one at the last row that the report shows; mostly none."""
    relaxation: Relaxation | None = None
    """None where crystals were scored as they were delivered; `summary.json` then lacks it."""
    stability: Stability | None = None
    """None without a `stability` section."""
    filtered: dict[str, int] = field(default_factory=dict)
    """Key of the config -> crystals that it left out before they were scored; each counts once, for
    the first key that it does not pass. `summary.json` lacks it where nothing was filtered."""
    excluded: Excluded | None = None
    """None without filters on predictions; `summary.json` then lacks it."""
    objectives: list[Target] = field(default_factory=list)
    """What each of several objectives judges, in the order of the config; a column that is taken as
    exact has no model. `summary.json` lacks it where one property ranks."""
    certainty: Certainty | None = None
    """None before anything was ranked; `summary.json` then lacks it."""
    fronts: Fronts | None = None
    """None where no fronts rank; `summary.json` then lacks it."""
    selection: Selection | None = None
    """None without `rank.select`."""

    @property
    def predicted(self) -> str:
        """The predicted property that the ranking rests on."""
        derived = self.stability is not None and self.target.name == names.ABOVE_HULL
        return self.stability.settings.compared() if self.stability and derived else self.target.name

    @property
    def order(self) -> str:
        """Which values of `target` are wanted: descending, ascending, or inside (a range)."""
        of_target = (one.order for one in self.rank.objectives if one.property == self.target.name)
        return next(of_target, self.rank.order)

    @property
    def last_tier(self) -> int:
        """Number of the tier that scored in full; 0 without a cascade."""
        return 0 if self.cascade is None else len(self.cascade.tiers)

    def text(self) -> str:
        """The summary as JSON; equal summaries give equal bytes."""
        fields = asdict(self) | {"rank": self.rank.model_dump(mode="json"), "balance": self.balance.counts()}
        for name in (
            "relaxation",
            "stability",
            "filtered",
            "excluded",
            "objectives",
            "certainty",
            "fronts",
            "selection",
        ):
            if not fields[name]:
                del fields[name]
        if self.stability is not None:
            fields["stability"]["settings"] = self.stability.settings.model_dump(mode="json")
        return durable.canonical(fields)


def parse(content: bytes) -> Summary:
    """The summary of a JSON text.

    Raises:
        ValueError: when the text is no summary.
    """
    return _adapter().validate_json(b"[" + content + b"]")[0]


@cache
def _adapter() -> TypeAdapter[list[Summary]]:
    # in a list, because pydantic passes a config to dataclasses inside a type, not to a bare one
    return TypeAdapter(list[Summary], config=ConfigDict(extra="forbid"))
