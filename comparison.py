"""Statistics of repeated runs: means, spreads, and paired differences to a control.

A row of an experiment is one setting, run with several seeds on the same samples and masks. The
scores of a sample are averaged over the seeds first, so that neither seeds nor accelerations pass
for samples; means and standard deviations are then over samples, and differences to the control
are taken sample by sample. Their 95 % interval is the percentile bootstrap over samples, or over
groups (patients) where these are known, as slices of one patient are not independent. It tells
how far other samples of the same kind could have led, not what other seeds could, whose spread
stands beside it; with few samples it is too narrow.

Reference: B. Efron, R. Tibshirani, "An introduction to the bootstrap", Chapman & Hall 1993,
chapters 8 (clusters) and 13 (percentiles).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import report
from baselines import BASELINES
from errors import InputError
from metrics import SCORES

RESAMPLES = 10_000
INTERVAL = (0.025, 0.975)
COMPARED = ("psnr", "ssim", "moving_psnr")  # the scores that differences are told of


@dataclass
class Result:
    """A finished run."""

    config: dict[str, Any]
    samples: list[int]
    scores: dict[str, np.ndarray]  # (n_samples,) of the network
    baselines: dict[str, float]  # mean PSNR by training-free method
    minutes: float  # of training, with validation
    peak_memory: float  # bytes; 0: not measured

    @property
    def groups(self) -> np.ndarray | None:
        """(n_samples,) group of each sample, if known."""
        groups = self.config["data"]["groups"]
        return None if groups is None else np.array(groups)[self.samples]

    @property
    def data(self) -> str:
        """What runs must share to be compared: the data and the test part."""
        return f"{self.config['data']['hash']} {self.samples}"

    @property
    def best_baseline(self) -> tuple[str, float]:
        """The training-free method of the highest mean PSNR, and that PSNR; "" if none was run."""
        return max(self.baselines.items(), key=lambda item: item[1], default=("", float("nan")))


@dataclass
class Comparison:
    """A score of a row, and its difference to the control."""

    mean: float
    std: float  # over samples, n - 1; NaN for a single one
    seed_spread: float  # standard deviation of the seeds' means, n - 1; NaN for a single seed
    difference: float
    low: float  # the 95 % interval of the difference
    high: float

    def tells(self, digits: int) -> bool:
        """Whether the interval, rounded to so many digits, excludes no difference."""
        return round(self.low, digits) > 0 or round(self.high, digits) < 0


@dataclass
class Advantage:
    """How far a network is above the best training-free method in one score."""

    network: str
    acc: float
    score: str
    best: str  # the training-free method with the highest mean of this score
    difference: float  # mean over samples
    low: float  # the 95 % interval of the difference
    high: float


def advantages(
    rows: Sequence[Mapping[str, Any]], groups: Sequence | np.ndarray | None = None
) -> Iterator[Advantage]:
    """Each network in the rows of `metrics.csv` against the best training-free method, for every
    acceleration and every score of `COMPARED`; none where there are no such methods.

    `groups`: of each sample of the data; None: unknown.
    """
    for acc in dict.fromkeys(row["acc"] for row in rows):
        by_method: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            if row["acc"] == acc:
                by_method.setdefault(row["method"], []).append(row)
        for network in (name for name in by_method if name not in BASELINES):
            samples = [int(row["sample"]) for row in by_method[network]]
            units = None if groups is None else [groups[sample] for sample in samples]
            for score in COMPARED:
                values = {
                    name: np.array([row[score] for row in own]) for name, own in by_method.items()
                }
                best = max(
                    (name for name in by_method if name in BASELINES),
                    key=lambda name: values[name].mean(),
                    default=None,
                )
                if best is not None:
                    differences = values[network] - values[best]
                    interval = bootstrap_interval(differences, units)
                    mean = float(differences.mean())
                    yield Advantage(network, float(acc), score, best, mean, *interval)


def read_result(folder: Path) -> Result:
    """What a finished run left; accelerations are averaged.

    Raises:
        InputError: a file of it is missing or damaged.
    """
    config = report.read_config(folder)
    rows = report.read_metrics(folder)
    own = [row for row in rows if row["method"] not in BASELINES]
    samples = sorted({int(row["sample"]) for row in own})
    try:
        scores = {
            score: np.array(
                [np.mean([row[score] for row in own if int(row["sample"]) == i]) for i in samples]
            )
            for score in SCORES
        }
        config["data"]["groups"], config["parameters"]  # of this version's runs
    except KeyError as error:
        raise InputError(f"{folder} was made by another version ({error}): remove it") from None
    history = report.read_history(folder)
    means = report.mean_scores(rows)
    return Result(
        config=config,
        samples=samples,
        scores=scores,
        baselines={name: means[name]["psnr"] for name in means if name in BASELINES},
        minutes=sum(entry["seconds"] for entry in history) / 60,
        peak_memory=report.peak_memory(history),
    )


def compare(row: Mapping[int, Result], control: Mapping[int, Result], score: str) -> Comparison:
    """A row, results by seed, against its control; the difference of the seeds that both have.

    NaN, where there is nothing to compare.
    """
    values = np.stack([result.scores[score] for result in row.values()])  # (seeds, samples)
    of_samples = values.mean(axis=0)
    difference, low, high = float("nan"), float("nan"), float("nan")
    shared = [seed for seed in row if seed in control]
    if shared:
        first = row[shared[0]]
        assert all(row[k].samples == control[k].samples == first.samples for k in shared)
        differences = np.mean(
            [row[seed].scores[score] - control[seed].scores[score] for seed in shared], axis=0
        )
        difference = float(differences.mean())
        low, high = bootstrap_interval(differences, first.groups)
    return Comparison(
        mean=float(of_samples.mean()),
        std=spread(of_samples),
        seed_spread=spread(values.mean(axis=1)),
        difference=difference,
        low=low,
        high=high,
    )


def bootstrap_interval(
    values: np.ndarray, groups: Sequence | np.ndarray | None = None
) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` (n,), by resampling them, or their groups
    with all members; NaN for a single one. Seeded: the same values give the same interval."""
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


def difference_text(found: Comparison | Advantage, digits: int) -> str:
    """ "+0.50 [0.10, 0.90]": a difference and its interval, if it has one."""
    text = f"{found.difference:+.{digits}f}"
    return (
        text if np.isnan(found.low) else f"{text} [{found.low:.{digits}f}, {found.high:.{digits}f}]"
    )
