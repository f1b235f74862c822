"""Differences between methods, paired by sample, with their confidence intervals.

Slices of one patient are not independent. So the differences of a patient's slices are averaged
first, and the mean over patients has Student's t interval. Without known patients every sample
counts as one. The interval covers other patients of the same kind, not other training seeds. It
holds its level from 3 patients on, whatever their numbers of slices (see the tests): a percentile
bootstrap does not, and excludes zero in 11 % of draws without an effect at 9 patients.

Reference: Student, "The probable error of a mean", Biometrika 6:1-25, 1908.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from CS_mask import Condition
from evaluation.summary import Rows, best_baseline, by_condition, networks_of, scores_in
from metrics import SCORES, Score

LEVEL = 0.95
FEWEST = 3  # patients for an interval
FEWEST_CLEAR = 6  # patients for calling a difference clear


@dataclass(frozen=True)
class Interval:
    """A mean over patients (or samples, if patients are unknown) and its 95 % interval."""

    mean: float
    low: float  # NaN, as `high`, for fewer than FEWEST patients
    high: float
    n_units: int  # patients or samples

    def excludes_zero(self, digits: int) -> bool:
        """Whether the interval excludes zero at these digits, and there are enough patients."""
        if self.n_units < FEWEST_CLEAR:
            return False
        return round(self.low, digits) > 0 or round(self.high, digits) < 0


NOTHING = Interval(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class Difference:
    """The difference of a score between two methods: `first` minus `second`."""

    first: str
    second: str
    condition: Condition  # of the masks
    score: str
    interval: Interval


def paired_differences(
    rows: Rows,
    first: str,
    second: str,
    groups: Sequence | np.ndarray | None = None,
    scores: Sequence[str] | None = None,
) -> list[Difference]:
    """Two methods compared sample by sample, for every condition and score.

    Args:
        rows: scores, as returned by `evaluation.scoring.score`.
        groups: patient of each sample of the data; None: unknown.
        scores: their names; None: those that are compared.

    Raises:
        ValueError: the two methods were not scored on the same samples.
    """
    result = []
    for condition, own in by_condition(rows).items():
        by_method = {
            method: {int(row["sample"]): row for row in own if row["method"] == method}
            for method in (first, second)
        }
        samples = list(by_method[first])
        if not samples or set(samples) != by_method[second].keys():
            raise ValueError(
                f"{first} and {second} must be scored on the same samples, found"
                f" {samples} and {list(by_method[second])} ({condition.title(with_pattern=True)})"
            )
        units = None if groups is None else [groups[sample] for sample in samples]
        for score in compared_scores() if scores is None else scores:
            values = [
                np.array([by_method[m][i].get(score, math.nan) for i in samples])
                for m in (first, second)
            ]
            interval = mean_interval(values[0] - values[1], units)
            result.append(Difference(first, second, condition, score, interval))
    return result


def advantages(rows: Rows, groups: Sequence | np.ndarray | None = None) -> list[Difference]:
    """Each method that is not training-free minus the best training-free method, for every
    condition and every score that is compared, unless it is absent.

    The best one has the best mean of that score there.
    """
    return [
        difference
        for own in by_condition(rows).values()
        for network in networks_of(own)
        for score in compared_scores(scores_in(own))
        if (best := best_baseline(own, score)) is not None
        for difference in paired_differences(own, network, best, groups, (score,))
    ]


def compared_scores(scores: Mapping[str, Score] = SCORES) -> list[str]:
    """The scores in which networks are compared with training-free methods."""
    return [name for name, score in scores.items() if score.compared]


def mean_interval(values: np.ndarray, groups: Sequence | np.ndarray | None = None) -> Interval:
    """The mean over groups (patients) of the means of their `values` (n,), with its 95 % interval.

    Without `groups` each value is a group of its own.
    """
    if groups is not None:
        members = np.unique(np.asarray(groups), return_inverse=True)[1]
        values = np.bincount(members, weights=values) / np.bincount(members)
    mean, n = float(values.mean()), len(values)
    if n < FEWEST:
        return Interval(mean, math.nan, math.nan, n)
    half = t_quantile(n - 1) * spread(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


@lru_cache
def t_quantile(freedom: int) -> float:
    """The t with P(|T| < t) = `LEVEL`, for Student's T with `freedom` degrees of freedom.

    With t = sqrt(freedom) tan(angle), the density of the angle is proportional to
    cos(angle)^(freedom - 1).
    """
    angle = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(angle) ** (freedom - 1)
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(np.interp(LEVEL, below / below[-1], angle))


def spread(values: np.ndarray) -> float:
    """Standard deviation (n - 1); NaN for a single value."""
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")
