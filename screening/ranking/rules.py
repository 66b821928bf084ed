"""The ranking rules: how a prediction becomes the score that orders the crystals.

Enters: the `rank` section of a config, the property that ranks, and predictions as arrays. Leaves:
a score per crystal, its direction, and a sentence for people. A rule owns everything in which it
differs from the others: to add one, write a class and add one line to `RULES`. It does not know
tables, tiers or folders.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.models.ensemble.distribution import draws
from assay.screening.folder.summary import Target
from assay.screening.ranking.compared.draws import Floats, Law, deviation
from assay.screening.ranking.compared.together import Note
from assay.screening.settings.choice import Rank
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.names import ABOVE_HULL, QUANTILES

PARTS = ("mean", "std", "lo", "hi")
"""What is predicted of a property: mean, standard deviation, and the ends of the interval."""


@dataclass(frozen=True)
class Rule(ABC):
    """One way to order crystals, with the settings of a config."""

    settings: Rank
    target: Target
    """The property that ranks."""

    reads: ClassVar[tuple[str, ...]] = ("mean",)
    """Numbers that the score rests on. `mean`, `std`, `lo` and `hi` are those of the property that
    ranks; any other name is a column of the scored crystals."""
    whole: ClassVar[bool] = False
    """Whether the score of a row depends on the other rows, which are then given all at once."""
    then: ClassVar[tuple[tuple[str, str], ...] | None] = None
    """Columns, with their direction, that order rows of equal score; None: the mean. Smaller `std`
    and `id` follow."""

    def check(self) -> None:  # noqa: B027 (most rules accept every setting)
        """Refuse settings that the rule cannot work with.

        Raises:
            ValueError: with the key and what it needs.
        """

    @abstractmethod
    def score(self, values: Mapping[str, Floats]) -> Floats:
        """(n,) scores from (n,) arrays named as in `reads`; a score may be NaN or infinite."""

    def adds(self, values: Mapping[str, Floats]) -> dict[str, Floats]:  # noqa: ARG002 (for rules that add some)
        """Columns, (n,) each, that candidates.parquet gets besides `score`."""
        return {}

    def measured(
        self,
        ids: pa.Array,  # noqa: ARG002 (for rules that draw)
        values: Mapping[str, Floats],
        note: Note | None = None,  # noqa: ARG002 (for rules that draw)
    ) -> tuple[Floats, dict[str, NDArray[Any]]]:
        """The scores, and the columns that the rule adds; the ids (n,) seed draws.

        `note` takes the rows of the best of each draw.
        """
        return self.score(values), dict(self.adds(values))

    def lacks(self, values: Mapping[str, Floats]) -> list[str] | None:  # noqa: ARG002 (for rules that can tell)
        """What each row lacks to be ranked, "" where nothing; None from a rule that cannot tell."""
        return None

    @property
    def law(self) -> Law:
        """How the true values of the property are distributed, by its predictions."""
        return Law(self.target, lowest_first=self.settings.order == "ascending")

    @property
    def lowest_first(self) -> bool:
        """Whether the lowest score is the best."""
        return self.settings.order == "ascending"

    @property
    @abstractmethod
    def subject(self) -> str:
        """The score in words, for example `mean tc of the ensemble`."""

    def sentence(self) -> str:
        """The rule for people, for example `mean tc of the ensemble, highest first`."""
        return f"{self.subject}, {'lowest' if self.lowest_first else 'highest'} first"

    def columns(self) -> dict[str, str]:
        """Name in `reads` -> column of the scored crystals; mean and std are always among them."""
        names = dict.fromkeys(("mean", "std", *self.reads))
        return {name: f"{self.target.name}_{name}" if name in PARTS else name for name in names}


class Mean(Rule):
    """The mean of the ensemble, in the unit of the property."""

    def score(self, values: Mapping[str, Floats]) -> Floats:
        """(n,) means."""
        return values["mean"]

    @property
    def subject(self) -> str:
        """The score in words."""
        return f"mean {self.target.name}" + ("" if self.target.name == ABOVE_HULL else " of the ensemble")


class Lower(Rule):
    """The lower end of the calibrated interval, in the unit of the property.

    >>> Lower(Rank(), Target("m", "tc", "K")).score({"lo": np.array([30.0])})
    array([30.])
    """

    reads = ("lo",)

    def score(self, values: Mapping[str, Floats]) -> Floats:
        """(n,) lower ends."""
        return values["lo"]

    @property
    def subject(self) -> str:
        """The score in words."""
        return f"lower end of the {_interval(self.target)}"


class Upper(Rule):
    """The upper end of the calibrated interval, in the unit of the property."""

    reads = ("hi",)

    def score(self, values: Mapping[str, Floats]) -> Floats:
        """(n,) upper ends."""
        return values["hi"]

    @property
    def subject(self) -> str:
        """The score in words."""
        return f"upper end of the {_interval(self.target)}"


class Probability(Rule):
    """The probability that the property lies beyond a threshold: above or, when ascending, below.

    Where quantiles of a predictive distribution are predicted it is that of this distribution,
    taken as uniform between two of them. Elsewhere the error is taken as normal. Its standard
    deviation is that of `draws.deviation`.

    >>> rule = Probability(Rank(threshold=40.0), Target("m", "tc", "K"))
    >>> rule.score({"mean": np.array([40.0]), "std": np.array([9.0]), "hi": np.array([50.0])})
    array([0.5])
    """

    reads = ("mean", "std", "hi")

    def check(self) -> None:
        """Refuse settings without a threshold."""
        if self.settings.threshold is None:
            raise ValueError("needs a threshold, in the unit of the property")

    @property
    def _threshold(self) -> float:
        return math.nan if self.settings.threshold is None else self.settings.threshold

    def columns(self) -> dict[str, str]:
        """Those of every rule, and the quantiles."""
        parts = QUANTILES if self.target.distribution else ()
        return super().columns() | {part: f"{self.target.name}_{part}" for part in parts}

    def score(self, values: Mapping[str, Floats]) -> Floats:
        """(n,) probabilities."""
        if self.target.distribution:
            beyond = draws.below if self.settings.order == "ascending" else draws.above
            quantiles = np.stack([values[part] for part in QUANTILES], axis=1)
            return beyond(quantiles, list(QUANTILES.values()), self._threshold)
        return self._of_normal(values)

    def _of_normal(self, values: Mapping[str, Floats]) -> Floats:
        sigma = deviation(values, self.target)
        margin = values["mean"] - self._threshold
        margin = -margin if self.settings.order == "ascending" else margin
        with np.errstate(divide="ignore", invalid="ignore"):  # a certain prediction, sigma 0, is above, below or at it
            ratio = np.where(margin == 0, 0.0, margin / sigma)
        ratio[~np.isfinite(sigma)] = np.nan
        return np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in ratio])

    @property
    def lowest_first(self) -> bool:
        """A higher probability is better, whichever end of the property is wanted."""
        return False

    @property
    def subject(self) -> str:
        """The score in words."""
        side = "above" if self.settings.order == "descending" else "below"
        return f"probability that {self.target.name} lies {side} {self._threshold:.4g} {self.target.unit}"


RULES: dict[str, type[Rule]] = {
    "mean": Mean,
    "lower": Lower,
    "upper": Upper,
    "probability": Probability,
}
"""`rank.by` -> rule."""


def make(settings: Rank, target: Target) -> Rule:
    """The rule that a config names.

    Raises:
        Failure: CONFIG, when there is no such rule, with the nearest known name, or when it cannot
            work with the settings.
    """
    if settings.by not in RULES:
        near = difflib.get_close_matches(settings.by, RULES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(RULES)}"
        raise Failure(Exit.CONFIG, f"rank.by: {settings.by!r} is no ranking rule; {hint}")
    rule = RULES[settings.by](settings, target)
    try:
        rule.check()
    except ValueError as error:
        raise Failure(Exit.CONFIG, f"rank.by: {settings.by} {error}") from None
    return rule


def _interval(target: Target) -> str:
    return f"calibrated {target.level:.0%} interval of {target.name}"
