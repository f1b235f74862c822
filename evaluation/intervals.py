"""Differences between methods, paired by sample, with their confidence intervals.

The 95 % interval is the percentile bootstrap over samples, or over groups (patients) if these are
known, because slices of one patient are not independent. It covers the variation over samples of
the same kind, not over training seeds; with few samples it is too narrow.

Reference: B. Efron, R. Tibshirani, "An introduction to the bootstrap", Chapman & Hall 1993,
chapters 8 (clusters) and 13 (percentiles).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from methods.baselines import BASELINES

RESAMPLES = 10_000
INTERVAL = (0.025, 0.975)
COMPARED = ("psnr", "ssim", "moving_psnr")  # scores whose differences are reported


@dataclass
class Difference:
    """The mean difference of a score between two methods: `first` minus `second`."""

    first: str
    second: str
    acc: float
    score: str
    mean: float
    low: float  # the 95 % interval of the mean; NaN for a single sample or group
    high: float


def paired_differences(
    rows: Sequence[Mapping[str, Any]],
    first: str,
    second: str,
    groups: Sequence | np.ndarray | None = None,
    scores: Sequence[str] = COMPARED,
) -> list[Difference]:
    """Two methods compared sample by sample, for every acceleration and score.

    Args:
        rows: scores, as returned by `evaluation.scoring.score`.
        groups: patient of each sample of the data; None: unknown.

    Raises:
        ValueError: the two methods were not scored on the same samples.
    """
    result = []
    for acc in dict.fromkeys(row["acc"] for row in rows):
        by_method = {
            method: {
                int(row["sample"]): row
                for row in rows
                if row["acc"] == acc and row["method"] == method
            }
            for method in (first, second)
        }
        samples = list(by_method[first])
        if not samples or by_method[first].keys() != by_method[second].keys():
            raise ValueError(
                f"{first} and {second} must be scored on the same samples, found"
                f" {len(by_method[first])} and {len(by_method[second])} at acceleration {acc}"
            )
        units = None if groups is None else [groups[sample] for sample in samples]
        for score in scores:
            values = [np.array([by_method[m][i][score] for i in samples]) for m in (first, second)]
            differences = values[0] - values[1]
            low, high = bootstrap_interval(differences, units)
            mean = float(differences.mean())
            result.append(Difference(first, second, float(acc), score, mean, low, high))
    return result


def advantages(
    rows: Sequence[Mapping[str, Any]], groups: Sequence | np.ndarray | None = None
) -> list[Difference]:
    """Each method that is not training-free minus the best training-free method, for every
    acceleration and every score of `COMPARED`; none if there are no training-free methods.

    The best one has the highest mean of that score at that acceleration.
    """
    result = []
    for acc in dict.fromkeys(row["acc"] for row in rows):
        rows_at_acc = [row for row in rows if row["acc"] == acc]
        methods = list(dict.fromkeys(row["method"] for row in rows_at_acc))
        free = [name for name in methods if name in BASELINES]
        for network in (name for name in methods if free and name not in BASELINES):
            for score in COMPARED:
                means = [
                    np.mean([row[score] for row in rows_at_acc if row["method"] == name])
                    for name in free
                ]
                best = free[int(np.argmax(means))]
                result += paired_differences(rows_at_acc, network, best, groups, (score,))
    return result


def bootstrap_interval(
    values: np.ndarray, groups: Sequence | np.ndarray | None = None
) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` (n,), by resampling values or whole groups;
    NaN for a single value or group. Seeded: the same values give the same interval."""
    members = np.arange(len(values))
    if groups is not None:
        members = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums, counts = np.bincount(members, weights=values), np.bincount(members)
    if len(sums) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, INTERVAL)
    return float(low), float(high)


def spread(values: np.ndarray) -> float:
    """Standard deviation (n - 1); NaN for a single value."""
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")
